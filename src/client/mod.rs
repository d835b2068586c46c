//! The REST client: signs requests, limits their time, repeats those that are safe to repeat, reads Batch's errors.

pub(crate) mod error;
mod trust;

use std::{
    error::Error as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use broker_config::settings::Secret;
use bytes::Bytes;
use contract::time::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Method, StatusCode, Url, header::HeaderMap};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

pub(crate) use self::error::ClientError;
use self::{
    error::PAGES_MAX,
    trust::{CA_FILE, trusted},
};
use crate::{
    exit_codes,
    shared_key::{SharedKey, Signed},
};

/// The version every request names.
const API_VERSION: &str = "2024-02-01.19.0";
const CONTENT_TYPE: &str = "application/json; odata=minimalmetadata";
/// Timeout of a connection attempt.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Timeout of one request with its answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// A request that may be repeated is tried this often.
const TRIES_MAX: u32 = 5;
/// Pause before the first repetition; doubled each time.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// Characters that are percent-encoded in a path segment or query value.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

#[derive(Deserialize)]
struct ErrorBody {
    code: String,
    message: ErrorMessage,
    #[serde(default)]
    values: Vec<ErrorValue>,
}

#[derive(Deserialize)]
struct ErrorMessage {
    value: String,
}

#[derive(Deserialize)]
struct ErrorValue {
    key: String,
    value: String,
}

#[derive(Deserialize)]
struct Page<T> {
    value: Vec<T>,
    #[serde(rename = "odata.nextLink")]
    next: Option<String>,
}

/// A server with the credentials for it.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: String,
    key: SharedKey,
    /// Whether it was said that lists lack rows.
    has_warned: Arc<AtomicBool>,
}

/// A path below the server's root; segments are encoded as they are added.
pub(crate) fn path(segments: &[&str]) -> String {
    segments.iter().map(|segment| format!("/{}", utf8_percent_encode(segment, ENCODED))).collect()
}

impl Client {
    /// A client of a server; nothing is sent yet.
    pub(crate) fn new(url: &str, account: &str, key: &Secret) -> anyhow::Result<Client> {
        let key = SharedKey::parse(account, key).ok_or_else(|| {
            exit_codes::Failure::new(
                exit_codes::USAGE,
                "the account key is not base64",
                "it is `key` in secrets.json of the data folder, or in the ready file",
            )
        })?;
        let base = url.trim_end_matches('/').to_owned();
        Url::parse(&base).map_err(|error| exit_codes::Failure::usage(format!("{base:?} is not a URL: {error}")))?;
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(REQUEST_TIMEOUT)
            .no_proxy()
            .tls_certs_merge(trusted()?)
            .build()?;
        Ok(Client { http, base, key, has_warned: Arc::default() })
    }

    /// The server's root.
    pub(crate) fn url(&self) -> &str {
        &self.base
    }

    pub(crate) fn account(&self) -> &str {
        self.key.account()
    }

    /// The server's clock, by the `Date` of an answer that needs no signature.
    pub(crate) async fn server_time(&self) -> Result<Timestamp, ClientError> {
        let unreachable = |reason: String| ClientError::Unreachable { url: self.base.clone(), reason };
        let request = self.http.get(format!("{}/piecework/health", self.base));
        let response = request.send().await.map_err(|error| unreachable(reason(&error)))?;
        let date = response.headers().get("date").and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok());
        let date = date.ok_or_else(|| unreachable("the answer has no Date".to_owned()))?;
        let since = date.duration_since(std::time::UNIX_EPOCH).map_err(|error| unreachable(error.to_string()))?;
        Ok(Timestamp(since.as_millis() as i64))
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str, query: &[(&str, &str)]) -> Result<T, ClientError> {
        let url = self.target(path, query);
        let answer = self.send(Method::GET, &url, None, None).await?;
        serde_json::from_slice(&answer.body).map_err(|source| ClientError::Answer { url, source })
    }

    /// All pages of a list.
    pub(crate) async fn list<T: DeserializeOwned>(&self, path: &str, query: &[(&str, &str)]) -> Result<Vec<T>, ClientError> {
        let (mut found, mut url) = (vec![], self.target(path, query));
        for _ in 0..PAGES_MAX {
            let answer = self.send(Method::GET, &url, None, None).await?;
            let page: Page<T> = serde_json::from_slice(&answer.body).map_err(|source| ClientError::Answer { url, source })?;
            found.extend(page.value);
            match page.next {
                Some(next) => url = next,
                None => return Ok(found),
            }
        }
        Err(ClientError::Endless)
    }

    /// The pages of a list that arrive until `deadline`, and whether those are all.
    pub(crate) async fn list_until<T: DeserializeOwned>(&self, path: &str, deadline: Instant) -> Result<(Vec<T>, bool), ClientError> {
        let (mut found, mut url) = (vec![], self.target(path, &[]));
        while Instant::now() < deadline {
            let answer = self.send(Method::GET, &url, None, None).await?;
            let page: Page<T> = serde_json::from_slice(&answer.body).map_err(|source| ClientError::Answer { url, source })?;
            found.extend(page.value);
            match page.next {
                Some(next) => url = next,
                None => return Ok((found, true)),
            }
        }
        Ok((found, false))
    }

    pub(crate) async fn post(&self, path: &str, body: Option<&Value>) -> Result<Bytes, ClientError> {
        self.change(Method::POST, path, body).await
    }

    /// An order whose terms stand in the query.
    pub(crate) async fn post_with(&self, path: &str, query: &[(&str, &str)]) -> Result<Bytes, ClientError> {
        Ok(self.send(Method::POST, &self.target(path, query), None, None).await?.body)
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Result<Bytes, ClientError> {
        self.change(Method::PUT, path, Some(body)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Result<(), ClientError> {
        self.change(Method::DELETE, path, None).await.map(drop)
    }

    /// Deletes something whose end has an answer.
    pub(crate) async fn delete_for(&self, path: &str) -> Result<Bytes, ClientError> {
        self.change(Method::DELETE, path, None).await
    }

    async fn change(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Bytes, ClientError> {
        let body = body.map(|body| Bytes::from(body.to_string()));
        Ok(self.send(method, &self.target(path, &[]), body, None).await?.body)
    }

    /// Uploads a file to a presigned URL of the blob store.
    pub(crate) async fn upload(&self, url: &str, file: tokio::fs::File, length: u64, patience: Duration) -> Result<(), ClientError> {
        self.upload_body(url, reqwest::Body::from(file), length, patience).await
    }

    /// Uploads a body to a presigned URL of the blob store.
    pub(crate) async fn upload_body(&self, url: &str, body: reqwest::Body, length: u64, patience: Duration) -> Result<(), ClientError> {
        let request = self.http.put(url).timeout(patience).header("content-length", length).body(body);
        let host = Url::parse(url).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default();
        let unreachable =
            |error: reqwest::Error| ClientError::Unreachable { url: format!("the blob store at {host}"), reason: reason(&error) };
        let response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        Err(ClientError::Refused {
            status: status.as_u16(),
            code: "UploadFailed".to_owned(),
            message: format!("the blob store answered {status}"),
        })
    }

    /// Changes the given properties of something.
    pub(crate) async fn patch(&self, path: &str, body: &Value) -> Result<Bytes, ClientError> {
        self.change(Method::PATCH, path, Some(body)).await
    }

    /// Sends an event as it is, and returns the answer with the headers that describe it.
    pub(crate) async fn invoke(&self, path: &str, event: Bytes) -> Result<(Bytes, HeaderMap), ClientError> {
        let answer = self.send(Method::POST, &self.target(path, &[]), Some(event), None).await?;
        Ok((answer.body, answer.headers))
    }

    /// Gets what a presigned URL leads to.
    pub(crate) async fn download(&self, url: &str) -> Result<Bytes, ClientError> {
        let unreachable = |error: reqwest::Error| ClientError::Unreachable { url: "the blob store".to_owned(), reason: reason(&error) };
        let response = self.http.get(url).send().await.and_then(reqwest::Response::error_for_status).map_err(unreachable)?;
        response.bytes().await.map_err(unreachable)
    }

    /// Length of a file.
    pub(crate) async fn file_length(&self, path: &str) -> Result<u64, ClientError> {
        let answer = self.send(Method::HEAD, &self.target(path, &[]), None, None).await?;
        Ok(answer.length.unwrap_or(0))
    }

    /// Bytes of a file from `first` on, at most `length` of them.
    pub(crate) async fn file_range(&self, path: &str, first: u64, length: u64) -> Result<Bytes, ClientError> {
        let range = format!("bytes={first}-{}", first + length.max(1) - 1);
        Ok(self.send(Method::GET, &self.target(path, &[]), None, Some(&range)).await?.body)
    }

    fn target(&self, path: &str, query: &[(&str, &str)]) -> String {
        let mut url = format!("{}{path}?api-version={API_VERSION}", self.base);
        for (name, value) in query {
            url.push_str(&format!("&{name}={}", utf8_percent_encode(value, ENCODED)));
        }
        url
    }

    async fn send(&self, method: Method, url: &str, body: Option<Bytes>, range: Option<&str>) -> Result<Answer, ClientError> {
        let mut wait = RETRY_PAUSE;
        for again in (0..TRIES_MAX).rev() {
            let result = self.send_once(method.clone(), url, body.clone(), range).await;
            // 503 changes nothing, and neither does an unanswered GET; other requests are not repeated here.
            let may_repeat = match &result {
                Err(ClientError::Refused { status, .. }) => *status == 503 || *status == 429,
                Err(ClientError::Unreachable { .. }) => matches!(method, Method::GET | Method::HEAD),
                _ => false,
            };
            if again == 0 || !may_repeat {
                return result;
            }
            tokio::time::sleep(wait).await;
            wait *= 2;
        }
        Err(ClientError::Endless)
    }

    async fn send_once(&self, method: Method, url: &str, body: Option<Bytes>, range: Option<&str>) -> Result<Answer, ClientError> {
        let unreachable = |reason: String| ClientError::Unreachable { url: self.base.clone(), reason };
        let target = Url::parse(url).map_err(|error| unreachable(error.to_string()))?;
        let date = httpdate::fmt_http_date(std::time::SystemTime::now());
        let body = body.or_else(|| (method == Method::POST).then(Bytes::new));
        let length = body.as_ref().map(|body| body.len().to_string()).unwrap_or_default();
        let content_type = if body.as_ref().is_some_and(|body| !body.is_empty()) { CONTENT_TYPE } else { "" };
        let mut ocp = vec![("ocp-date", date.as_str())];
        ocp.extend(range.map(|range| ("ocp-range", range)));
        let signed = Signed {
            method: method.as_str(),
            content_length: &length,
            content_type,
            if_match: "",
            ocp: &ocp,
            path: target.path(),
            query: target.query().unwrap_or_default(),
        };
        let authorization = self.key.authorization(&signed);
        let mut request = self.http.request(method, target.clone()).header("authorization", authorization);
        for (name, value) in ocp {
            request = request.header(name, value);
        }
        if !content_type.is_empty() {
            request = request.header("content-type", content_type);
        }
        if let Some(body) = body {
            request = request.header("content-length", body.len()).body(body);
        }
        let response = request.send().await.map_err(|error| unreachable(reason(&error)))?;
        let status = response.status();
        let headers = response.headers().clone();
        let length = headers.get("content-length").and_then(|value| value.to_str().ok()?.parse().ok());
        if let Some(rows) = headers.get("piecework-unreadable")
            && !self.has_warned.swap(true, Ordering::Relaxed)
        {
            let rows = String::from_utf8_lossy(rows.as_bytes());
            tracing::warn!(%rows, "the server cannot read some rows and leaves them out; `piecework doctor` says what to do about them");
        }
        let body = response.bytes().await.map_err(|error| unreachable(reason(&error)))?;
        if status.is_success() { Ok(Answer { body, length, headers }) } else { Err(refusal(status, &body)) }
    }
}

struct Answer {
    body: Bytes,
    length: Option<u64>,
    headers: HeaderMap,
}

fn refusal(status: StatusCode, body: &[u8]) -> ClientError {
    let Ok(error) = serde_json::from_slice::<ErrorBody>(body) else {
        let code = if status == StatusCode::NOT_FOUND { "NotFound" } else { "HttpError" };
        return ClientError::Refused { status: status.as_u16(), code: code.to_owned(), message: format!("the server answered {status}") };
    };
    let mut message = error.message.value.lines().next().unwrap_or_default().to_owned();
    for ErrorValue { key, value } in error.values.iter().filter(|value| value.key != "AuthenticationErrorDetail") {
        message.push_str(&format!("\n  {key}: {value}"));
    }
    ClientError::Refused { status: status.as_u16(), code: error.code, message }
}

/// The innermost cause of a failed request, which is the most specific.
fn reason(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    match cause.to_string() {
        _ if error.is_timeout() && error.source().is_none() => "no answer in time".to_owned(),
        text if text.contains("certificate") => format!("{text}; {CA_FILE} names a file of authorities to trust, in PEM"),
        text => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_keep_slashes_inside_their_segment() {
        assert_eq!(path(&["jobs", "a:b", "files", "wd/a b.txt"]), "/jobs/a%3Ab/files/wd%2Fa%20b.txt");
    }

    #[test]
    fn refusals_become_exit_codes_and_keep_the_code() {
        let body = br#"{"code":"PoolNotFound","message":{"lang":"en-US","value":"No such pool.\nRequestId:1"},"values":[{"key":"Hint","value":"create it"}]}"#;
        let error = refusal(StatusCode::NOT_FOUND, body);
        assert_eq!((error.exit_code(), error.is("PoolNotFound")), (exit_codes::NOT_FOUND, true));
        assert_eq!(error.to_string(), "No such pool.\n  Hint: create it (PoolNotFound)");
        assert_eq!(refusal(StatusCode::FORBIDDEN, b"<html>").exit_code(), exit_codes::DENIED);
    }
}
