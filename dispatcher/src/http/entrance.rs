//! The way in, the same for every request.
//!
//! ```text
//! host ─► signature ─► operation ─► api-version ─► parameters ─► condition ─► body ─► handler ─► answer
//! ```
//! A refusal at any step becomes Azure Batch's error body; nothing leaves without a request id.

use std::{
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::{Router, body::Body, response::Response};
use broker_config::{
    blobs::Blobs,
    ids::{JobId, TaskId},
    state::TaskState,
    time::Timestamp,
};
use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header, request::Parts};
use http_body_util::BodyExt;
use tokio::{sync::watch, time::timeout};

use crate::{
    command::{Command, Done},
    engine::Engine,
    http::{
        account,
        answer::Answer,
        applications, auth,
        call::Call,
        chore_status, conditional, document, error,
        error::RequestId,
        explain, health,
        health::Health,
        images, jobs,
        listen::HEADER_BYTES_MAX,
        metrics, node_files, node_orders, nodes, pools,
        query::Query,
        queues, retired,
        routes::{self, Refused, Route, Served},
        scaling, schedules, task_collection, task_files, tasks,
        version::{Lacks, Version},
    },
    refusal::{Code, Refusal},
    road::{Files, Queues},
    store::read::Read,
};
/// A body may have this many bytes.
pub const BODY_BYTES_MAX: usize = 1024 * 1024;
/// What is read of a body that is refused, so that its sender sees the answer.
const DRAIN_BYTES_MAX: usize = 16 * 1024 * 1024;
/// A body must have arrived after this long.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// A handler must have answered after this long.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// What handlers use.
pub struct Door {
    /// Who may come in.
    pub gate: auth::Gate,
    /// Changes go here.
    pub engine: Engine,
    /// Reads come from here.
    pub read: Arc<dyn Read>,
    /// Files of nodes.
    pub files: Files,
    /// Queues of the broker.
    pub queues: Queues,
    /// Streams of ended tasks, and large files.
    pub blobs: Blobs,
    /// Whether the whole stack can run a task.
    pub health: watch::Receiver<Health>,
    /// Whether clients reach the door by https.
    pub is_tls: bool,
}

macro_rules! verbs {
    ($($verb:ident => $handler:path),+ $(,)?) => {
        /// What the door can do; each has one handler.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[allow(missing_docs)]
        pub enum Verb { $($verb),+ }
        impl Door {
            async fn act(&self, verb: Verb, call: &Call) -> Result<Answer, Refusal> {
                match verb { $(Verb::$verb => $handler(self, call).await),+ }
            }
        }
    };
}

verbs! {
    ImagesList => images::list,
    NodeCounts => account::node_counts,
    UsageMetrics => metrics::list,
    ApplicationsList => applications::summaries,
    ApplicationGet => applications::get_summary,
    AppsList => applications::views,
    AppGet => applications::get,
    AppPut => applications::put,
    AppPatch => applications::patch,
    AppDelete => applications::delete,
    PackageBegin => applications::begin,
    PackageActivate => applications::activate,
    PackageDelete => applications::delete_version,
    NothingList => account::nothing,
    PoolAdd => pools::add,
    PoolList => pools::list,
    PoolDelete => pools::delete,
    PoolExists => pools::exists,
    PoolGet => pools::get,
    PoolPatch => pools::patch,
    PoolUpdateProperties => pools::update_properties,
    PoolResize => pools::resize,
    PoolStopResize => pools::stop_resize,
    PoolRemoveNodes => pools::remove_nodes,
    PoolEnableScaling => scaling::enable,
    PoolDisableScaling => scaling::disable,
    PoolEvaluateScaling => scaling::evaluate,
    NodeGet => nodes::get,
    NodeList => nodes::list,
    NodeUserAdd => node_orders::add_user,
    NodeUserUpdate => node_orders::update_user,
    NodeUserDelete => node_orders::delete_user,
    NodeReboot => node_orders::reboot,
    NodeReimage => node_orders::reimage,
    NodeStart => node_orders::start,
    NodeDeallocate => node_orders::deallocate,
    NodeDisableScheduling => node_orders::disable_scheduling,
    NodeEnableScheduling => node_orders::enable_scheduling,
    NodeRemoteLogin => node_orders::remote_login,
    NodeUploadLogs => node_orders::upload_logs,
    NodeExtensionsList => nodes::extensions,
    JobAdd => jobs::add,
    JobList => jobs::list,
    JobGet => jobs::get,
    JobPatch => jobs::patch,
    JobUpdate => jobs::update,
    JobDisable => jobs::disable,
    JobEnable => jobs::enable,
    JobPreparationStatus => chore_status::list_status,
    JobTerminate => jobs::terminate,
    JobDelete => jobs::delete,
    TaskCounts => jobs::task_counts,
    ScheduleAdd => schedules::add,
    ScheduleList => schedules::list,
    ScheduleGet => schedules::get,
    ScheduleExists => schedules::exists,
    SchedulePatch => schedules::patch,
    ScheduleUpdate => schedules::update,
    ScheduleDisable => schedules::disable,
    ScheduleEnable => schedules::enable,
    ScheduleTerminate => schedules::terminate,
    ScheduleDelete => schedules::delete,
    ScheduleJobs => schedules::list_jobs,
    TaskAdd => tasks::add,
    TaskAddCollection => task_collection::add,
    TaskList => tasks::list,
    TaskGet => tasks::get,
    TaskUpdate => tasks::update,
    TaskReactivate => tasks::reactivate,
    TaskTerminate => tasks::terminate,
    TaskDelete => tasks::delete,
    CertificateAdd => retired::add_certificate,
    CertificateNone => retired::no_certificate,
    RemoteDesktop => retired::remote_desktop,
    NodeExtensionGet => retired::extension,
    SubtaskList => tasks::subtasks,
    TaskFileList => task_files::list,
    TaskFileGet => task_files::get,
    TaskFileHead => task_files::head,
    TaskFileDelete => task_files::delete,
    NodeFileList => node_files::list,
    NodeFileGet => node_files::get,
    NodeFileHead => node_files::head,
    NodeFileDelete => node_files::delete,
    Health => health::get,
    PoolView => explain::pool,
    PolicyGet => explain::policy,
    PolicySet => explain::set_policy,
    PolicyRemove => explain::remove_policy,
    QueueList => queues::all,
    QueueGet => queues::get,
    QueuePeek => queues::peek,
    QueuePurge => queues::purge,
    OpenApi => document::get,
}

/// All operations as one router.
pub fn router(door: Door) -> Router {
    let door = Arc::new(door);
    Router::new().fallback(move |request: Request<Body>| enter(door.clone(), request))
}

async fn enter(door: Arc<Door>, request: Request<Body>) -> Response {
    let id = RequestId::random();
    let (parts, body) = request.into_parts();
    let base = base_url(&parts, door.is_tls);
    let shown = base.clone().unwrap_or_default();
    let work = AssertUnwindSafe(door.handle(id, base, &parts, body)).catch_unwind();
    let answer = work.await.unwrap_or_else(|_| {
        tracing::error!(request = %id, method = %parts.method, path = parts.uri.path(), "a handler panicked");
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
    finish(answer, id, &parts)
}

/// Adds what every answer has.
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

/// Where the client reached us, from its Host header.
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

impl Door {
    /// Asks the engine for a change; the new version and its time.
    pub async fn change(&self, command: Command) -> Result<(u64, Timestamp), Refusal> {
        match self.engine.call(command).await? {
            Done::Changed { version, at } => Ok((version, at)),
            Done::Tasks(mut results) if results.len() == 1 => results.remove(0),
            Done::Tasks(_) | Done::Scaled(_) => Err(Refusal::new(Code::InternalError, "The engine answered another question.")),
        }
    }

    async fn handle(&self, id: RequestId, base: Result<String, Refusal>, parts: &Parts, body: Body) -> Result<Answer, Refused> {
        let entered = match base {
            Ok(base) => self.let_in(id, base, parts).await,
            Err(refusal) => Err(plain(refusal)),
        };
        let (route, mut call) = match entered {
            Ok(entered) => entered,
            Err(refused) => {
                // Who waits to be told to continue is told no at once.
                if !parts.headers.contains_key(header::EXPECT) {
                    drain(body, 0).await;
                }
                return Err(refused);
            }
        };
        call.body = read_body(body, &parts.headers).await.map_err(plain)?;
        let acted = match route.served {
            Served::NotYet(hint) => return routes::not_yet(route, hint).map_err(plain),
            Served::Yes(verb) => timeout(CALL_TIMEOUT, self.act(verb, &call)).await,
        };
        acted
            .unwrap_or_else(|_| {
                tracing::warn!(request = %id, operation = route.name, "gave up after {CALL_TIMEOUT:?}");
                Err(Refusal::new(Code::OperationTimedOut, "The operation could not be completed within the permitted time."))
            })
            .map_err(plain)
    }

    /// A task's token dies with its task.
    async fn check_task(&self, job: &JobId, task: &TaskId) -> Result<(), Refusal> {
        let row = self.read.task(job, task).await.map_err(error::store_failed)?;
        if row.is_some_and(|row| row.state != TaskState::Completed) {
            return Ok(());
        }
        Err(Refusal::new(Code::Unauthorized, "The task that this token belongs to has ended."))
    }

    /// Everything that is checked before the body is read.
    async fn let_in(&self, id: RequestId, base: String, parts: &Parts) -> Result<(&'static Route, Call), Refused> {
        let path = parts.uri.path();
        let query = Query::parse(parts.uri.query());
        check_headers(parts).map_err(plain)?;
        let found = routes::find(&parts.method, path);
        let caller = if found.as_ref().is_ok_and(|(route, _)| route.is_open()) {
            auth::Caller::Anybody
        } else {
            let signed = auth::Signed { method: &parts.method, path, query: &query, headers: &parts.headers };
            self.gate.identify(&signed, SystemTime::now()).await.map_err(plain)?
        };
        let (route, values) = found?;
        caller.may(route, &values).map_err(plain)?;
        if let auth::Caller::Task(job, task) = &caller {
            self.check_task(job, task).await.map_err(plain)?;
        }
        let version = if route.is_ours() { Version::ALL } else { Version::read(&query).map_err(plain)? };
        version.check(route.name, path).map_err(plain)?;
        query.only(route.query).map_err(plain)?;
        query.number("timeout", 1, i64::from(i32::MAX)).map_err(plain)?;
        let condition = conditional::read(&parts.headers, route.honours).map_err(plain)?;
        let headers = parts.headers.clone();
        Ok((
            route,
            Call {
                lacks: Lacks::default(),
                id,
                base,
                version,
                path: path.to_owned(),
                values,
                query,
                condition,
                headers,
                body: Bytes::new(),
            },
        ))
    }
}

/// Headers that count only once, and would otherwise mean one thing to a proxy and another to us.
const SINGLE: [HeaderName; 5] = [header::HOST, header::AUTHORIZATION, header::CONTENT_LENGTH, header::CONTENT_TYPE, header::DATE];

fn check_headers(parts: &Parts) -> Result<(), Refusal> {
    // The library stops reading at this size, but takes what had arrived whole before it looked.
    let bytes: usize = parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if bytes > HEADER_BYTES_MAX {
        return Err(
            Refusal::new(Code::InvalidHeaderValue, "The request's headers are too many or too long.").with("MaxLimit", HEADER_BYTES_MAX)
        );
    }
    let repeated = SINGLE.iter().find(|name| parts.headers.get_all(*name).iter().nth(1).is_some());
    if let Some(name) = repeated {
        return Err(Refusal::new(
            Code::InvalidHeaderValue,
            "The value provided for one of the HTTP headers was not in the correct format.",
        )
        .with("HeaderName", name)
        .with("Reason", "The header is there more than once."));
    }
    if parts.version == http::Version::HTTP_11 && !parts.headers.contains_key(header::HOST) {
        return Err(Refusal::new(Code::MissingRequiredHeader, "An HTTP header that's mandatory for this request is not specified.")
            .with("HeaderName", "Host"));
    }
    Ok(())
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

/// Reads on for a while: a client that is still sending would otherwise never see the answer.
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
