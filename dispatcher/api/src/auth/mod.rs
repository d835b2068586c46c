//! Authentication: the account's keys, an issuer's bearer tokens, and tokens of tasks.
//!
//! The pipeline calls `identify` first, and `permissions` once the operation is known.

mod bearer;
mod keys;
mod refusals;
mod replay;
mod shared_key;

use std::{sync::Mutex, time::SystemTime};

use http::{HeaderMap, Method, header};
use tokio::sync::watch;

pub use bearer::{Oidc, OidcSettings, Role};
pub use keys::{Keys, KeysError, read as read_keys, watch_file};
pub use shared_key::{Key, Signed};

use engine::task_token::{Bearer, TaskTokens};
use model::refusal::{Code, Refusal};

use crate::auth::{
    bearer::TokenFault,
    refusals::failed,
    replay::{Replays, SIGNATURES_MAX},
};

/// The identity of a request's sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// Unauthenticated, for operations that are open to everybody.
    Anybody,
    /// The holder of an account key.
    Account,
    /// The holder of a bearer token.
    Bearer(Role),
    /// An attempt of a task, limited to its own job.
    Task(Bearer),
}

/// The credentials that are accepted.
pub struct Gate {
    account: String,
    keys: watch::Receiver<Keys>,
    replays: Mutex<Replays>,
    oidc: Option<Oidc>,
    tokens: TaskTokens,
}

impl Gate {
    /// Accepts keys and tokens for one account.
    pub fn new(account: String, keys: watch::Receiver<Keys>, oidc: Option<Oidc>, tokens: TaskTokens) -> Gate {
        Gate { account, keys, replays: Mutex::new(Replays::new(SystemTime::now(), SIGNATURES_MAX)), oidc, tokens }
    }

    /// Identifies the sender by the Authorization header.
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
            (Ok(bearer), _) => return Ok(Caller::Task(bearer)),
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
