//! Runtime `lambda`: the AWS Lambda Runtime API on loopback, for one program alone.
//!
//! ```text
//! GET  /2018-06-01/runtime/invocation/next            waits for an event; the first one says that the program is ready
//! POST /2018-06-01/runtime/invocation/{id}/response   its answer, streamed or not
//! POST /2018-06-01/runtime/invocation/{id}/error      its error; the program goes on
//! POST /2018-06-01/runtime/init/error                 it cannot start
//! ```

use std::{
    convert::Infallible,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use contract::ids::FunctionId;
use http::{Method, Request, Response, StatusCode, response::Builder};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::sleep,
};

use crate::{
    off_loop::try_off_loop,
    warm::{
        event::{ANSWER_BYTES_MAX, Event, Failure, Said, epoch_ms_in, too_large},
        peer::is_own,
    },
};

const PREFIX: &str = "/2018-06-01/runtime/";
/// Connections of one program at the same time.
const CONNECTIONS_MAX: usize = 16;
/// Bytes of an error that are kept.
const ERROR_BYTES_MAX: usize = 256 * 1024;
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Sent by clients that stream an answer and fail on the way.
const ERROR_TRAILER: &str = "lambda-runtime-function-error-type";

/// What the program said of its start.
#[derive(Clone)]
enum Readiness {
    Starting,
    Ready,
    Failed(Failure),
}

/// An event for the program, as its HTTP answer, and where its result goes.
struct Work {
    id: String,
    response: Response<Full<Bytes>>,
    said: oneshot::Sender<Said>,
}

struct Shared {
    work: tokio::sync::Mutex<mpsc::Receiver<Work>>,
    current: Mutex<Option<(String, oneshot::Sender<Said>)>>,
    readiness: watch::Sender<Readiness>,
}

/// The API of one program; it ends when this is dropped.
pub struct RuntimeApi {
    address: SocketAddr,
    function: FunctionId,
    work: mpsc::Sender<Work>,
    readiness: watch::Receiver<Readiness>,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for RuntimeApi {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// The part of an error that people read.
#[derive(Deserialize, Default)]
#[serde(default)]
struct ErrorBody {
    #[serde(rename = "errorMessage")]
    message: String,
    #[serde(rename = "errorType")]
    kind: String,
}

impl RuntimeApi {
    /// Listens on a port of its own.
    pub async fn open(function: &FunctionId) -> io::Result<RuntimeApi> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (work, to_do) = mpsc::channel(1);
        let (readiness, told) = watch::channel(Readiness::Starting);
        let shared = Arc::new(Shared { work: tokio::sync::Mutex::new(to_do), current: Mutex::default(), readiness });
        let server = tokio::spawn(serve(listener, shared));
        Ok(RuntimeApi { address, function: function.clone(), work, readiness: told, server })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until the program asks for its first event, or says that it cannot start.
    pub async fn ready(&mut self) -> Result<(), Failure> {
        match self.readiness.wait_for(|readiness| !matches!(readiness, Readiness::Starting)).await.as_deref() {
            Ok(Readiness::Failed(failure)) => Err(failure.clone()),
            Ok(_) => Ok(()),
            Err(_) => Err(Failure::new("NodeError", "the runtime API of the function's program has ended".to_owned())),
        }
    }

    /// Hands over one event; the caller bounds the wait.
    pub async fn call(&mut self, event: &Event, limit: Duration) -> Said {
        let gone = || Said::Broken(Failure::new("FunctionCrashed", "the program does not ask for events any more".to_owned()));
        let response = match next_response(&self.function, event, limit) {
            Ok(response) => response,
            Err(error) => {
                let message = format!("the event cannot be handed over: {error}");
                return Said::Refused(Failure::lasting("FunctionEventInvalid", message));
            }
        };
        let (said, answer) = oneshot::channel();
        if self.work.send(Work { id: event.id.clone(), response, said }).await.is_err() {
            return gone();
        }
        answer.await.unwrap_or_else(|_| gone())
    }
}

fn next_response(function: &FunctionId, event: &Event, limit: Duration) -> Result<Response<Full<Bytes>>, http::Error> {
    let mut builder = Response::builder()
        .header("Lambda-Runtime-Aws-Request-Id", &event.id)
        .header("Lambda-Runtime-Deadline-Ms", epoch_ms_in(limit).to_string())
        .header("Lambda-Runtime-Invoked-Function-Arn", format!("arn:aws:lambda:local:000000000000:function:{function}"))
        .header("Content-Type", content_type_of(event));
    if let Some(trace) = event.trace_id() {
        builder = builder.header("Lambda-Runtime-Trace-Id", trace);
    }
    builder.body(Full::new(Bytes::copy_from_slice(&event.body)))
}

const JSON: &str = "application/json";

/// Clients of the Runtime API hand an event of any other type than exactly this one to the handler as bytes.
fn content_type_of(event: &Event) -> &str {
    let given = event.content_type.as_deref().unwrap_or(JSON);
    let kind = given.split(';').next().unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case(JSON) { JSON } else { given }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let (stream, peer) = tokio::select! {
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::debug!(%error, "cannot accept a connection of a function's program; trying again");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
            _ = connections.join_next(), if !connections.is_empty() => continue,
        };
        let shared = shared.clone();
        connections.spawn(async move {
            if !is_allowed(&stream, peer).await {
                return;
            }
            let service = service_fn(move |request| answer(shared.clone(), request));
            // A broken connection shows in the program's next request, or in its end.
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.ok();
        });
    }
}

/// Whether a process of this user, or of root, is at the other end.
async fn is_allowed(stream: &TcpStream, peer: SocketAddr) -> bool {
    let Ok(here) = stream.local_addr() else { return false };
    match try_off_loop(move || is_own(peer, here)).await {
        Ok(is_own) => {
            if !is_own {
                tracing::warn!(%peer, "closed a connection to the runtime API of a function: another user of this machine made it");
            }
            is_own
        }
        Err(error) => {
            tracing::warn!(%error, "cannot tell who talks to the runtime API of a function; the connection is closed");
            false
        }
    }
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().strip_prefix(PREFIX).unwrap_or_default().to_owned();
    let parts: Vec<&str> = path.split('/').collect();
    let response = match (request.method(), &parts[..]) {
        (&Method::GET, ["invocation", "next"]) => next(&shared).await,
        (&Method::POST, ["invocation", id, "response"]) => said(&shared, id, request, true).await,
        (&Method::POST, ["invocation", id, "error"]) => said(&shared, id, request, false).await,
        (&Method::POST, ["init", "error"]) => init_error(&shared, request).await,
        _ => error(StatusCode::NOT_FOUND, "NotFound", "no such operation of the runtime API"),
    };
    Ok(response)
}

async fn next(shared: &Shared) -> Response<Full<Bytes>> {
    shared.readiness.send_if_modified(|readiness| {
        let is_first = matches!(readiness, Readiness::Starting);
        if is_first {
            *readiness = Readiness::Ready;
        }
        is_first
    });
    let Some(Work { id, response, said }) = shared.work.lock().await.recv().await else {
        return error(StatusCode::GONE, "Gone", "the node ends");
    };
    *shared.current.lock().unwrap_or_else(PoisonError::into_inner) = Some((id, said));
    response
}

async fn said(shared: &Shared, id: &str, request: Request<Incoming>, is_answer: bool) -> Response<Full<Bytes>> {
    let content_type = request.headers().get("content-type").and_then(|value| value.to_str().ok()).unwrap_or("application/json").to_owned();
    let bytes_max = if is_answer { ANSWER_BYTES_MAX } else { ERROR_BYTES_MAX };
    let collected = Limited::new(request.into_body(), bytes_max).collect().await;
    let taken = {
        let mut current = shared.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref().is_some_and(|(known, _)| known == id) { current.take() } else { None }
    };
    let Some((_, told)) = taken else {
        return error(StatusCode::BAD_REQUEST, "InvalidRequestID", "this invocation is not the current one");
    };
    let said = match collected {
        Ok(body) => {
            let failed = body.trailers().and_then(|trailers| trailers.get(ERROR_TRAILER)?.to_str().ok()).map(str::to_owned);
            let body = body.to_bytes().to_vec();
            match failed {
                Some(kind) => Said::Error { message: format!("{kind}: the function failed while it streamed its answer"), body },
                None if is_answer => Said::Answer { body, content_type },
                None => Said::Error { message: message_of(&body), body },
            }
        }
        Err(reason) if reason.is::<http_body_util::LengthLimitError>() => Said::Broken(too_large()),
        Err(reason) => Said::Broken(Failure::new("FunctionCrashed", format!("the program's answer broke off: {reason}"))),
    };
    // Nobody waits any more for an invocation whose deadline is over.
    told.send(said).ok();
    done()
}

async fn init_error(shared: &Shared, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let body = match Limited::new(request.into_body(), ERROR_BYTES_MAX).collect().await {
        Ok(body) => body.to_bytes().to_vec(),
        Err(_) => Vec::new(),
    };
    let failure = Failure { body: Some(body.clone()), ..Failure::new("FunctionInitFailed", message_of(&body)) };
    shared.readiness.send_replace(Readiness::Failed(failure));
    done()
}

fn message_of(body: &[u8]) -> String {
    let ErrorBody { message, kind } = serde_json::from_slice(body).unwrap_or_default();
    match (kind.as_str(), message.as_str()) {
        ("", "") => "the function failed and did not say why".to_owned(),
        ("", message) => message.to_owned(),
        (kind, message) => format!("{kind}: {message}"),
    }
}

fn json(builder: Builder, text: String) -> Response<Full<Bytes>> {
    builder.header("Content-Type", "application/json").body(Full::new(text.into())).unwrap_or_default()
}

fn done() -> Response<Full<Bytes>> {
    json(Response::builder().status(StatusCode::ACCEPTED), r#"{"status":"OK"}"#.to_owned())
}

fn error(status: StatusCode, kind: &str, message: &str) -> Response<Full<Bytes>> {
    json(Response::builder().status(status), format!(r#"{{"errorType":"{kind}","errorMessage":"{message}"}}"#))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_goes_to_programs_under_its_bare_name_and_other_types_as_they_are() {
        let of = |given: Option<&str>| {
            let content_type = given.map(str::to_owned);
            let event = Event { id: "i".into(), message_id: None, body: vec![], content_type, traceparent: None };
            content_type_of(&event).to_owned()
        };
        for json in [None, Some("application/json; odata=minimalmetadata"), Some("Application/JSON;charset=utf-8"), Some(JSON)] {
            assert_eq!(of(json), JSON);
        }
        assert_eq!(of(Some("application/msgpack")), "application/msgpack");
    }
}
