//! The services that handlers use: engine, store, files of nodes, queues and blobs.

use std::sync::Arc;

use broker_config::settings::Secret;
use clients::{blobs::Blobs, broker_users::BrokerUsers};
use contract::time::Timestamp;
use engine::{
    Engine,
    command::{Command, Done},
    messaging::{Files, Invocations, Queues, dead_letters::DeadLetters},
};
use futures::future::BoxFuture;
use model::{
    health::Health,
    refusal::{Code, Refusal},
};
use store::read::Read;
use tokio::sync::watch;

use crate::{auth, left_out::Named};

/// Renders the metrics page for a request.
pub type MetricsPage = Arc<dyn Fn() -> BoxFuture<'static, String> + Send + Sync>;

/// The broker whose users publishers are.
pub struct Publishers {
    /// Administers the users; absent where only the broker's own administrator may.
    pub users: Option<Arc<dyn BrokerUsers>>,
    /// The broker's URL, with the credentials of the dispatcher.
    pub broker: Secret,
}

/// Services for handlers; shared by all requests.
pub struct ApiState {
    /// Credentials that are accepted.
    pub gate: auth::Gate,
    /// Carries out commands.
    pub engine: Engine,
    /// Reads rows.
    pub read: Arc<dyn Read>,
    /// Files of nodes.
    pub files: Files,
    /// Invocations of functions.
    pub invocations: Invocations,
    /// Queues of the broker.
    pub queues: Queues,
    /// Messages that were refused, or failed for good.
    pub dead_letters: DeadLetters,
    /// Publishers, as users of the broker.
    pub publishers: Publishers,
    /// Streams of ended tasks, and large files.
    pub blobs: Blobs,
    /// Health of the whole system.
    pub health: watch::Receiver<Health>,
    /// The metrics page; `None` when it has an address of its own.
    pub metrics: Option<MetricsPage>,
    /// Unreadable rows that the log has named already.
    pub named: Named,
    /// Whether clients reach the API by https.
    pub is_tls: bool,
}

impl ApiState {
    /// Sends a command; returns the resource's new version and modification time.
    pub async fn change(&self, command: Command) -> Result<(u64, Timestamp), Refusal> {
        match self.engine.call(command).await? {
            Done::Changed { version, at } => Ok((version, at)),
            Done::Tasks(mut results) if results.len() == 1 => results.remove(0),
            Done::Tasks(_) | Done::Scaled(_) | Done::Submitted { .. } => {
                Err(Refusal::new(Code::InternalError, "The engine answered another question."))
            }
        }
    }
}
