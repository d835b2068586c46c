//! Checks of a request before `s3s`: refuses requests that `s3s` would accept or misread, and adds an id to every answer.
//! Called by hyper for each request of each connection.

use std::convert::Infallible;
use std::sync::Arc;

use futures::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Method, Request};
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;
use s3s::auth::{S3Auth, SecretKey};
use s3s::config::{S3Config, StaticConfigProvider};
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{Body, HttpResponse, S3Error, S3Result, s3_error};

use crate::attributes::now_ms;
use crate::bucket_name;
use crate::deletes::{Deletes, XML_BYTES_MAX};
use crate::files::fresh_id;
use crate::presigned_v2;
use crate::query::Query;
use crate::service::Service;
use crate::settings::Settings;
use crate::wellformed::readable;

const PRESIGNED_SECS_MAX: u64 = 7 * 24 * 3600;
/// Headers that may be unsigned in a presigned request, because they have no effect.
const HARMLESS: [&str; 4] = ["x-amz-content-sha256", "x-amz-date", "x-amz-user-agent", "x-amz-checksum-mode"];

/// The entry point of all connections; cheap to clone.
#[derive(Clone)]
pub(crate) struct Gateway {
    s3: S3Service,
    key: Arc<OneKey>,
}

impl Gateway {
    /// Puts authentication in front of the service.
    pub(crate) fn new(settings: &Settings, service: Service) -> Self {
        let mut config = S3Config::default();
        config.xml_max_body_size = XML_BYTES_MAX;
        let mut builder = S3ServiceBuilder::new(service.clone());
        builder.set_route(Deletes(service));
        builder.set_config(Arc::new(StaticConfigProvider::new(Arc::new(config))));
        let key = OneKey { access_key: settings.access_key.clone(), secret_key: settings.secret_key.clone().into() };
        builder.set_auth(key.clone());
        Self { s3: builder.build(), key: Arc::new(key) }
    }

    async fn answer(self, request: Request<Incoming>) -> HttpResponse {
        let mut answer = match check(&request, &self.key) {
            Ok(()) => self.s3.call(request.map(Body::from)).await.unwrap_or_else(|error| {
                tracing::error!(?error, "an S3 answer could not be encoded; the client gets an error 500");
                refusal(s3_error!(InternalError))
            }),
            Err(error) => refusal(error),
        };
        // Bodies in memory are XML written here; objects are streams.
        if let Some(whole) = answer.body().bytes() {
            *answer.body_mut() = Body::from(readable(whole));
        }
        let headers = answer.headers_mut();
        if let Ok(id) = HeaderValue::try_from(fresh_id()) {
            headers.insert("x-amz-request-id", id);
        }
        headers.insert(http::header::SERVER, HeaderValue::from_static("piecework-blobs"));
        answer
    }
}

impl hyper::service::Service<Request<Incoming>> for Gateway {
    type Response = HttpResponse;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<HttpResponse, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let gateway = self.clone();
        Box::pin(async move { Ok(gateway.answer(request).await) })
    }
}

#[derive(Clone)]
struct OneKey {
    access_key: String,
    secret_key: SecretKey,
}

#[async_trait::async_trait]
impl S3Auth for OneKey {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        if access_key != self.access_key {
            return Err(s3_error!(InvalidAccessKeyId, "The AWS Access Key Id you provided does not exist in our records."));
        }
        Ok(self.secret_key.clone())
    }
}

fn refusal(error: S3Error) -> HttpResponse {
    error.to_http_response().unwrap_or_else(|error| {
        tracing::error!(%error, "an S3 error could not be encoded; the client gets an error 500");
        let mut answer = HttpResponse::new(Body::empty());
        *answer.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
        answer
    })
}

fn check<B>(request: &Request<B>, key: &OneKey) -> S3Result<()> {
    let query = Query(request.uri().query().unwrap_or_default());
    refuse_version_2(request.headers())?;
    check_bucket(request.uri().path())?;
    if request.method() == Method::POST && starts_with(request.headers(), "content-type", "multipart/form-data") {
        return Err(s3_error!(NotImplemented, "Browser-based uploads are not supported."));
    }
    if presigned_v2::is_claimed(&query) {
        return presigned_v2::check(request, &query, (&key.access_key, key.secret_key.expose()), now_ms() / 1000);
    }
    match query.get("X-Amz-Signature") {
        Some(signature) => check_presigned(&signature, request.headers(), &query),
        None => Ok(()),
    }
}

/// Refuses a bucket name with the rule that it breaks.
fn check_bucket(path: &str) -> S3Result<()> {
    let name = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    let name = percent_decode_str(name).decode_utf8_lossy();
    match bucket_name::fault(&name).filter(|_| !name.is_empty()) {
        Some(rule) => Err(s3_error!(InvalidBucketName, "The specified bucket is not valid: {rule}.")),
        None => Ok(()),
    }
}

// Version 2 in headers has no clock-skew check in s3s, and no current client needs it.
fn refuse_version_2(headers: &HeaderMap) -> S3Result<()> {
    if starts_with(headers, "authorization", "AWS ") {
        return Err(s3_error!(
            InvalidRequest,
            "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256."
        ));
    }
    Ok(())
}

fn check_presigned(signature: &str, headers: &HeaderMap, query: &Query<'_>) -> S3Result<()> {
    let is_well_formed = signature.len() == 64 && signature.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if !is_well_formed {
        return Err(s3_error!(SignatureDoesNotMatch));
    }
    let expires = query.get("X-Amz-Expires").and_then(|secs| secs.parse::<u64>().ok());
    if expires.is_none_or(|secs| secs > PRESIGNED_SECS_MAX) {
        return Err(s3_error!(AuthorizationQueryParametersError, "X-Amz-Expires must be a number of seconds, less than a week"));
    }
    // The holder of a URL must not add headers with an effect, for example a copy source.
    let signed = query.get("X-Amz-SignedHeaders").unwrap_or_default();
    let is_signed = |name: &str| signed.split(';').any(|one| one == name);
    let added = headers
        .keys()
        .map(http::HeaderName::as_str)
        .find(|name| name.starts_with("x-amz-") && !HARMLESS.contains(name) && !is_signed(name));
    match added {
        Some(name) => Err(s3_error!(AccessDenied, "There were headers present in the request which were not signed: {name}")),
        None => Ok(()),
    }
}

fn starts_with(headers: &HeaderMap, name: &str, start: &str) -> bool {
    headers.get(name).is_some_and(|value| value.as_bytes().starts_with(start.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code_of(uri: &str, header: Option<(&str, &str)>) -> Option<String> {
        let mut request = Request::builder().uri(uri);
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        let key = OneKey { access_key: "a".to_owned(), secret_key: "b".to_owned().into() };
        check(&request.body(()).unwrap(), &key).err().map(|error| error.code().as_str().to_owned())
    }

    #[test]
    fn presigned_requests_may_not_grow_headers() {
        let uri = format!("/bucket/k?X-Amz-Expires=60&X-Amz-SignedHeaders=host&X-Amz-Signature={}", "0".repeat(64));
        assert_eq!(code_of(&uri, None), None);
        assert_eq!(code_of(&uri, Some(("x-amz-copy-source", "/bucket/secret"))).as_deref(), Some("AccessDenied"));
        assert_eq!(code_of(&uri, Some(("x-amz-user-agent", "x"))), None);
    }

    #[test]
    fn old_signatures_are_refused_in_headers_and_checked_in_urls() {
        assert_eq!(code_of("/bucket/k?AWSAccessKeyId=a&Signature=b&Expires=1", None).as_deref(), Some("AccessDenied"));
        assert_eq!(code_of("/bucket/k", Some(("authorization", "AWS a:b"))).as_deref(), Some("InvalidRequest"));
    }
}
