//! DeleteObjects, parsed here rather than by `s3s`: its parser skips CDATA sections and refuses references to characters
//! that keys may contain, so it would delete the wrong keys, or none.

use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{Extensions, HeaderMap, HeaderValue, Method, Uri};
use percent_encoding::percent_decode_str;
use s3s::dto::{Delete, DeleteObjectsInput};
use s3s::route::S3Route;
use s3s::xml::{Deserialize, Deserializer, Serialize, Serializer};
use s3s::{Body, S3Error, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};

use crate::query::Query;
use crate::service::Service;
use crate::wellformed::resolved;

/// Largest body of a request, in bytes.
pub(crate) const XML_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The route of `POST /bucket?delete`, called after the signature was checked.
pub(crate) struct Deletes(pub(crate) Service);

/// The bucket of a path that contains nothing else.
fn bucket_of(uri: &Uri) -> Option<String> {
    let path = uri.path().strip_prefix('/')?;
    let name = path.strip_suffix('/').unwrap_or(path);
    let is_bucket = !name.is_empty() && !name.contains('/');
    is_bucket.then(|| percent_decode_str(name).decode_utf8_lossy().into_owned())
}

#[async_trait::async_trait]
impl S3Route for Deletes {
    fn is_match(&self, method: &Method, uri: &Uri, _headers: &HeaderMap, _extensions: &mut Extensions) -> bool {
        let query = Query(uri.query().unwrap_or_default());
        method == Method::POST && query.get("delete").is_some() && bucket_of(uri).is_some()
    }

    async fn call(&self, mut request: S3Request<Body>) -> S3Result<S3Response<Body>> {
        let bucket = bucket_of(&request.uri).ok_or(S3ErrorCode::InvalidURI)?;
        let announced = request.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
        if announced.is_some_and(|bytes| bytes > XML_BYTES_MAX) {
            return Err(S3ErrorCode::MaxMessageLengthExceeded.into());
        }
        let body = request.input.store_all_limited(XML_BYTES_MAX).await;
        let body = body.map_err(|error| S3Error::with_source(S3ErrorCode::IncompleteBody, error))?;
        let body = resolved(&body)?;
        let mut reader = Deserializer::new(&body);
        let delete = Delete::deserialize(&mut reader)
            .and_then(|delete| reader.expect_eof().map(|()| delete))
            .map_err(|error| s3_error!(error, MalformedXML, "The XML you provided was not well-formed."))?;
        let input = DeleteObjectsInput::builder().bucket(bucket).delete(delete).build().map_err(S3Error::internal_error)?;
        let answer = self.0.delete_many(request.map_input(|_| input)).await?;
        let mut written = Vec::new();
        let mut writer = Serializer::new(&mut written);
        writer.decl().and_then(|()| answer.output.serialize(&mut writer)).map_err(S3Error::internal_error)?;
        let mut answer = answer.map_output(|_| Body::from(written));
        answer.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
        Ok(answer)
    }
}
