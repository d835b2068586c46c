//! Who may come in, and what for: the account's keys, an issuer's bearer tokens, and tokens of tasks.
//!
//! The entrance asks twice: `identify` before anything else is looked at, `may` once the operation is known.

mod bearer;
mod keys;
mod replay;
mod shared_key;

use std::{sync::Mutex, time::SystemTime};

use broker_config::ids::{JobId, TaskId};
use http::{HeaderMap, Method, header};
use tokio::sync::watch;

pub use bearer::{Oidc, OidcSettings, Role};
pub use keys::{Keys, KeysError, read as read_keys, watch_file};
pub use shared_key::{Key, Signed};

use crate::{
    http::{
        auth::{
            bearer::TokenFault,
            replay::{Replays, SIGNATURES_MAX},
        },
        routes::Route,
    },
    refusal::{Code, Refusal},
    task_token::TaskTokens,
};

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// Nobody in particular, where anybody may ask.
    Anybody,
    /// The holder of an account key.
    Account,
    /// The holder of a bearer token.
    Bearer(Role),
    /// A task, for its own job.
    Task(JobId, TaskId),
}

/// Everything that opens.
pub struct Gate {
    account: String,
    keys: watch::Receiver<Keys>,
    replays: Mutex<Replays>,
    oidc: Option<Oidc>,
    tokens: TaskTokens,
}

fn failed(code: Code, detail: String) -> Refusal {
    Refusal::new(
        code,
        "Server failed to authenticate the request. Make sure the value of Authorization header is formed correctly including the signature.",
    )
    .with("AuthenticationErrorDetail", detail)
}

impl Gate {
    /// A gate for one account.
    pub fn new(account: String, keys: watch::Receiver<Keys>, oidc: Option<Oidc>, tokens: TaskTokens) -> Gate {
        Gate { account, keys, replays: Mutex::new(Replays::new(SystemTime::now(), SIGNATURES_MAX)), oidc, tokens }
    }

    /// Finds out who asks, by the Authorization header.
    pub async fn identify(&self, request: &Signed<'_>, now: SystemTime) -> Result<Caller, Refusal> {
        match bearer_of(request.headers) {
            Some(token) => self.bearer(token).await,
            None => self.shared_key(request, now).map(|()| Caller::Account),
        }
    }

    fn shared_key(&self, request: &Signed<'_>, now: SystemTime) -> Result<(), Refusal> {
        let keys = self.keys.borrow().clone();
        let (signature, date) = shared_key::check(&self.account, &keys, request, now)?;
        if request.method == Method::GET || request.method == Method::HEAD {
            return Ok(());
        }
        let mut replays = self.replays.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if replays.admit(signature, date, now) {
            return Ok(());
        }
        Err(failed(Code::AuthenticationFailed, "This signature was used before, or may have been; sign the request anew.".to_owned()))
    }

    async fn bearer(&self, token: &str) -> Result<Caller, Refusal> {
        if token.split('.').count() != 3 {
            return Err(Refusal::new(Code::InvalidAuthenticationInfo, "The Authorization header is not provided in the correct format.")
                .with("Reason", "A bearer token has three parts, joined by dots."));
        }
        let of_task = self.tokens.read(token);
        let reason = match (of_task, &self.oidc) {
            (Ok((job, task)), _) => return Ok(Caller::Task(job, task)),
            (Err(reason), None) => reason,
            (Err(_), Some(oidc)) => match oidc.check(token).await {
                Ok(role) => return Ok(Caller::Bearer(role)),
                Err(TokenFault::Wrong(reason)) => reason,
                Err(TokenFault::Issuer(reason)) => {
                    let refusal =
                        Refusal::new(Code::ServerBusy, "The server is currently unable to receive requests. Please retry your request.");
                    return Err(refusal.with("Reason", reason));
                }
            },
        };
        Err(failed(Code::Unauthorized, format!("The bearer token is not accepted: {reason}.")))
    }
}

fn bearer_of(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("Bearer").then(|| token.trim())
}

impl Caller {
    /// Whether the caller may use an operation on what its path names.
    pub fn may(&self, route: &Route, values: &[String]) -> Result<(), Refusal> {
        let is_read = route.method == Method::GET || route.method == Method::HEAD;
        let (is_allowed, reason) = match self {
            Caller::Anybody => (route.is_open(), "nobody was identified"),
            Caller::Account | Caller::Bearer(Role::Contributor) => (true, ""),
            Caller::Bearer(Role::Reader) => (is_read, "a reader may only look"),
            Caller::Bearer(Role::Submitter) => {
                let is_work = route.path.starts_with("/jobs");
                (is_read || is_work, "a submitter may change jobs, tasks and job schedules only")
            }
            Caller::Task(job, _) => {
                let is_own = values.first().is_some_and(|value| value.eq_ignore_ascii_case(job.as_str()));
                (is_own && TASK_MAY.contains(&route.name), "a task's token is good for its own job, its tasks and their files only")
            }
        };
        if is_allowed {
            return Ok(());
        }
        Err(Refusal::new(
            Code::InsufficientAccountPermissions,
            "The account being accessed does not have sufficient permissions to execute this operation.",
        )
        .with("Operation", route.name)
        .with("Reason", reason))
    }
}

/// What a task's token is good for.
const TASK_MAY: &[&str] = &[
    "job.get",
    "job.get_task_counts",
    "task.add",
    "task.add_collection",
    "task.list",
    "task.get",
    "task.list_subtasks",
    "file.list_from_task",
    "file.get_from_task",
    "file.get_properties_from_task",
];
