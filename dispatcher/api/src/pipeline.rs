//! The steps that every request passes.
//!
//! ```text
//! host ─► signature ─► operation ─► api-version ─► parameters ─► condition ─► body ─► handler ─► answer
//! ```
//! A refusal at any step becomes Azure Batch's error body. Every answer has a request id.

use std::{
    panic::AssertUnwindSafe,
    sync::{Arc, OnceLock},
    time::{Duration, Instant, SystemTime},
};

use axum::{Router, body::Body, response::Response};
use broker_config::metrics::{HTTP_REQUESTS, HTTP_SECONDS};
use bytes::{Bytes, BytesMut};
use contract::state::TaskState;
use engine::task_token::Bearer;
use futures::FutureExt;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header, request::Parts};
use http_body_util::BodyExt;
use model::refusal::{Code, Refusal};
use store::{left_out::LeftOut, rows::TaskRow};
use tokio::time::timeout;

use crate::{
    answer::Answer,
    auth,
    call::Call,
    conditional,
    dispatch::dispatch,
    document::unknown::Unknown,
    error::{self, RequestId},
    headers::{self, IGNORED, UNREADABLE},
    json::BODY_BYTES_MAX,
    left_out,
    query::Query,
    routes::{self, Refused, Route, Served},
    state::ApiState,
    version::Version,
};

/// Bytes that are still read of a refused body, so that its sender sees the answer.
const DRAIN_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Time limit for receiving a body.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// Time limit of a handler; a smaller `timeout` parameter of the request wins.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// All operations as one router.
pub fn router(api: ApiState) -> Router {
    let api = Arc::new(api);
    Router::new().fallback(move |request: Request<Body>| enter(api.clone(), request))
}

async fn enter(api: Arc<ApiState>, request: Request<Body>) -> Response {
    let (id, began, operation) = (RequestId::random(), Instant::now(), OnceLock::new());
    let (parts, body) = request.into_parts();
    let base = base_url(&parts, api.is_tls);
    let shown = base.clone().unwrap_or_default();
    let work = AssertUnwindSafe(api.handle(id, base, &parts, body, &operation)).catch_unwind();
    let answer = work.await.unwrap_or_else(|_| {
        tracing::error!(request = %id, method = %parts.method, path = parts.uri.path(), "the handler of a request panicked; the client gets an error 500");
        Err((Refusal::new(Code::InternalError, "Server encountered an internal error. Please try again after some time."), None))
    });
    let answer = answer.unwrap_or_else(|(refusal, allowed)| {
        tracing::debug!(request = %id, %refusal, "refused");
        let answer = error::answer(&refusal, &shown, id);
        match allowed {
            Some(allowed) => answer.with(header::ALLOW, &allowed),
            None => answer,
        }
    });
    tracing::debug!(request = %id, method = %parts.method, path = parts.uri.path(), status = answer.status.as_u16(), "answered");
    let operation = operation.get().copied().unwrap_or("none");
    HTTP_REQUESTS.of([operation, class(answer.status)]).increment(1);
    HTTP_SECONDS.of([operation]).record(began.elapsed());
    finish(answer, id, &parts)
}

fn class(status: StatusCode) -> &'static str {
    match status.as_u16() / 100 {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        _ => "5xx",
    }
}

/// Adds the headers that every answer has.
fn finish(answer: Answer, id: RequestId, parts: &Parts) -> Response {
    let mut answer = answer.with(HeaderName::from_static("request-id"), &id.to_string()).with(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    answer.headers.insert(HeaderName::from_static("dataserviceversion"), HeaderValue::from_static("3.0"));
    let wants_echo = parts.headers.get("return-client-request-id").is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"));
    let own_id = parts.headers.get("client-request-id").or_else(|| parts.headers.get("x-ms-client-request-id"));
    if let (true, Some(own_id)) = (wants_echo, own_id) {
        answer.headers.insert(HeaderName::from_static("client-request-id"), own_id.clone());
    }
    if parts.method == Method::HEAD || answer.status == StatusCode::NOT_MODIFIED {
        answer.body = Body::empty();
        if answer.status != StatusCode::OK {
            answer.headers.remove(header::CONTENT_TYPE);
        }
    }
    let mut response = Response::new(answer.body);
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers;
    response
}

/// The URL that the client used, from its Host header.
fn base_url(parts: &Parts, is_tls: bool) -> Result<String, Refusal> {
    let scheme = if is_tls { "https" } else { "http" };
    let host = parts.headers.get(header::HOST).map(HeaderValue::as_bytes);
    let host = host.or_else(|| parts.uri.authority().map(|authority| authority.as_str().as_bytes())).unwrap_or(b"localhost");
    let is_clean =
        !host.is_empty() && host.len() <= 255 && host.iter().all(|byte| byte.is_ascii_alphanumeric() || b".-_:[]".contains(byte));
    match std::str::from_utf8(host) {
        Ok(host) if is_clean => Ok(format!("{scheme}://{host}")),
        _ => Err(Refusal::new(Code::InvalidHeaderValue, "The value provided for one of the HTTP headers was not in the correct format.")
            .with("HeaderName", "Host")),
    }
}

fn plain(refusal: Refusal) -> Refused {
    (refusal, None)
}

impl ApiState {
    /// `operation` receives the name of the request's operation once it is known.
    async fn handle(
        &self,
        id: RequestId,
        base: Result<String, Refusal>,
        parts: &Parts,
        body: Body,
        operation: &OnceLock<&'static str>,
    ) -> Result<Answer, Refused> {
        let entered = match base {
            Ok(base) => self.let_in(id, base, parts, operation).await,
            Err(refusal) => Err(plain(refusal)),
        };
        let (route, mut call) = match entered {
            Ok(entered) => entered,
            Err(refused) => {
                // A client that waits for `100 Continue` is refused at once, without reading the body.
                if !parts.headers.contains_key(header::EXPECT) {
                    drain(body, 0).await;
                }
                return Err(refused);
            }
        };
        call.body = read_body(body, &parts.headers).await.map_err(plain)?;
        let acted = match route.served {
            Served::NotYet(hint) => return routes::not_yet(route, hint).map_err(plain),
            Served::Yes(operation) => timeout(call.patience, dispatch(operation, self, &call)).await,
        };
        let acted = acted
            .unwrap_or_else(|_| {
                tracing::warn!(request = %id, operation = route.name, "an operation took longer than {:?}; the client gets an error", call.patience);
                Err(Refusal::new(Code::OperationTimedOut, "The operation could not be completed within the permitted time."))
            })
            .map_err(plain);
        let acted = match left_out::header(&self.named, &call.left_out) {
            Some(rows) => acted.map(|answer| answer.with(UNREADABLE, &rows)),
            None => acted,
        };
        match call.unknown.get().and_then(Unknown::header) {
            Some(names) => acted
                .map(|answer| answer.with(IGNORED, &names))
                .map_err(|(refusal, allowed)| (refusal.with("IgnoredProperties", names), allowed)),
            None => acted,
        }
    }

    /// Refuses the token of an attempt that has ended.
    async fn check_task(&self, bearer: &Bearer) -> Result<(), Refusal> {
        let row = self.read.task(&bearer.job, &bearer.task).await.map_err(error::store_failed)?;
        let is_live = |row: &TaskRow| row.uid == bearer.uid && row.attempt == bearer.attempt && row.state != TaskState::Completed;
        match row {
            Some(row) if is_live(&row) => Ok(()),
            _ => Err(Refusal::new(Code::Unauthorized, "The attempt of a task that this token was made for has ended.")),
        }
    }

    /// All checks before the body is read.
    async fn let_in(
        &self,
        id: RequestId,
        base: String,
        parts: &Parts,
        operation: &OnceLock<&'static str>,
    ) -> Result<(&'static Route, Call), Refused> {
        let path = parts.uri.path();
        let query = Query::parse(parts.uri.query());
        headers::check(parts).map_err(plain)?;
        let found = routes::find(&parts.method, path);
        if let Ok((route, _)) = &found {
            operation.get_or_init(|| route.name);
        }
        let caller = if found.as_ref().is_ok_and(|(route, _)| route.is_open()) {
            auth::Caller::Anybody
        } else {
            let signed = auth::Signed { method: &parts.method, path, query: &query, headers: &parts.headers };
            self.gate.identify(&signed, SystemTime::now()).await.map_err(plain)?
        };
        let (route, values) = found?;
        caller.may(route, &values).map_err(plain)?;
        if let auth::Caller::Task(bearer) = &caller {
            self.check_task(bearer).await.map_err(plain)?;
        }
        let version = if route.is_ours() { Version::ALL } else { Version::read(&query).map_err(plain)? };
        version.check(route.name, path).map_err(plain)?;
        query.only(route.query).map_err(plain)?;
        let timeout = query.number("timeout", 1, i64::from(i32::MAX)).map_err(plain)?;
        let patience = timeout.map_or(CALL_TIMEOUT, |seconds| Duration::from_secs(seconds.unsigned_abs()).min(CALL_TIMEOUT));
        let condition = conditional::read(&parts.headers, route.honours).map_err(plain)?;
        let is_strict = headers::strict(&parts.headers).map_err(plain)?;
        let headers = parts.headers.clone();
        Ok((
            route,
            Call {
                id,
                base,
                version,
                path: path.to_owned(),
                values,
                query,
                condition,
                headers,
                body: Bytes::new(),
                patience,
                operation: route.name,
                is_strict,
                unknown: OnceLock::new(),
                left_out: LeftOut::default(),
                blobs: self.blobs.clone(),
            },
        ))
    }
}

async fn read_body(mut body: Body, headers: &HeaderMap) -> Result<Bytes, Refusal> {
    let claimed: Option<usize> = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let mut read = BytesMut::with_capacity(claimed.unwrap_or(0).min(BODY_BYTES_MAX));
    let reading = async {
        while let Some(frame) = body.frame().await {
            let frame = frame
                .map_err(|error| Refusal::new(Code::InvalidRequestBody, "The request body could not be read.").with("Reason", error))?;
            let Some(data) = frame.data_ref() else { continue };
            if claimed.is_some_and(|claimed| claimed > BODY_BYTES_MAX) || read.len() + data.len() > BODY_BYTES_MAX {
                return Ok(false);
            }
            read.extend_from_slice(data);
        }
        Ok(true)
    };
    match timeout(BODY_TIMEOUT, reading).await {
        Err(_) => Err(Refusal::new(Code::OperationTimedOut, "The request body did not arrive in time.")),
        Ok(Err(refusal)) => Err(refusal),
        Ok(Ok(true)) => Ok(read.freeze()),
        Ok(Ok(false)) => {
            drain(body, read.len()).await;
            Err(Refusal::new(Code::RequestBodyTooLarge, "The request body is too large and exceeds the maximum permissible limit.")
                .with("MaxLimit", BODY_BYTES_MAX)
                .hint("Send fewer tasks in one request."))
        }
    }
}

/// Continues to read for a while; a client that is still sending would otherwise not see the answer.
async fn drain(mut body: Body, mut read: usize) {
    let reading = async {
        while let Some(Ok(frame)) = body.frame().await {
            read += frame.data_ref().map_or(0, Bytes::len);
            if read > DRAIN_BYTES_MAX {
                break;
            }
        }
    };
    if timeout(BODY_TIMEOUT, reading).await.is_err() {
        tracing::debug!("a refused body did not end in time");
    }
}
