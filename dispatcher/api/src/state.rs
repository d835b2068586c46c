//! What every handler may use: the engine, the rows, files of nodes, queues and blobs.

use std::sync::Arc;

use clients::blobs::Blobs;
use contract::time::Timestamp;
use engine::{
    Engine,
    command::{Command, Done},
    messaging::{Files, Queues},
};
use futures::future::BoxFuture;
use model::{
    health::Health,
    refusal::{Code, Refusal},
};
use store::read::Read;
use tokio::sync::watch;

use crate::auth;

/// Makes the page of metrics anew for every request.
pub type MetricsPage = Arc<dyn Fn() -> BoxFuture<'static, String> + Send + Sync>;

/// What handlers use.
pub struct ApiState {
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
    /// The page of metrics, unless it has an address of its own.
    pub metrics: Option<MetricsPage>,
    /// Whether clients reach the API by https.
    pub is_tls: bool,
}

impl ApiState {
    /// Asks the engine for a change; the new version and its time.
    pub async fn change(&self, command: Command) -> Result<(u64, Timestamp), Refusal> {
        match self.engine.call(command).await? {
            Done::Changed { version, at } => Ok((version, at)),
            Done::Tasks(mut results) if results.len() == 1 => results.remove(0),
            Done::Tasks(_) | Done::Scaled(_) => Err(Refusal::new(Code::InternalError, "The engine answered another question.")),
        }
    }
}
