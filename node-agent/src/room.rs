//! What every run on this node shares: folders, clients, threads, and who the node is.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use broker_config::{
    amqp::Caller,
    blobs::Blobs,
    ids::{Epoch, RunKey},
    message::{Reply, ReplyMessage, Request, RequestKind, VERSION},
    topology,
};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep},
};

use crate::{
    fetch,
    packages::Deployed,
    process::{environment::NodeFacts, threads::Threads},
    root::Root,
};

/// The longest a run waits to be told whether it may upload.
const MAY_PUBLISH_MAX: Duration = Duration::from_secs(600);
/// One question.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two.
const QUESTION_PAUSE: Duration = Duration::from_millis(500);

/// What every run on this node shares.
pub struct Room {
    /// The node's folder.
    pub root: Root,
    /// Who the node is.
    pub facts: NodeFacts,
    /// The blob store, when there is one.
    pub blobs: Option<Blobs>,
    /// For questions to the dispatcher.
    pub caller: Caller,
    /// For processes.
    pub threads: Threads,
    /// The present epoch.
    pub epoch: AtomicU64,
    /// Held while a package is fetched and unpacked.
    pub deploying: Mutex<()>,
    /// The pool's packages, once they stand.
    pub packages: OnceLock<Vec<Deployed>>,
    web: OnceLock<Option<reqwest::Client>>,
}

impl Room {
    /// Puts the room together.
    pub fn new(root: Root, facts: NodeFacts, blobs: Option<Blobs>, caller: Caller, threads: Threads, epoch: Epoch) -> Arc<Room> {
        Arc::new(Room {
            root,
            facts,
            blobs,
            caller,
            threads,
            epoch: AtomicU64::new(epoch.0),
            deploying: Mutex::new(()),
            packages: OnceLock::new(),
            web: OnceLock::new(),
        })
    }

    /// The HTTP client, made when it is first needed.
    pub fn web(&self) -> Option<&reqwest::Client> {
        self.web.get_or_init(|| fetch::client().inspect_err(|error| tracing::warn!(%error, "no client for HTTP")).ok()).as_ref()
    }

    /// The epoch of the last join.
    pub fn epoch(&self) -> Epoch {
        Epoch(self.epoch.load(Ordering::Relaxed))
    }

    /// Asks until told whether the run may upload; nothing when no answer comes.
    pub async fn may_publish(&self, run: RunKey) -> Option<bool> {
        let deadline = Instant::now() + MAY_PUBLISH_MAX;
        while Instant::now() < deadline {
            let what = RequestKind::MayPublish { run, node: self.facts.node.clone(), epoch: self.epoch() };
            let question = Request { v: VERSION, what };
            let answer = self.caller.call::<_, ReplyMessage>(topology::REQUESTS, "asks".to_owned(), &question, QUESTION_TIMEOUT).await;
            match answer.map(|reply| reply.what) {
                Ok(Reply::MayPublish { allowed }) => return Some(allowed),
                Ok(other) => tracing::warn!(?other, "no answer to whether a run may upload"),
                Err(error) => tracing::warn!(%error, "cannot ask whether a run may upload"),
            }
            sleep(QUESTION_PAUSE).await;
        }
        None
    }
}
