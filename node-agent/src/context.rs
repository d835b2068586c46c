//! State that all runs of this node share: folders, clients, threads, the node's identity.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use broker_config::topology;
use clients::{amqp::Caller, blobs::Blobs};
use contract::{
    ids::{Epoch, RunKey},
    message::{Reply, ReplyMessage, Request, RequestKind, VERSION},
};
use tokio::{
    sync::{Mutex, Notify, Semaphore},
    time::{Instant, sleep},
};

use crate::{
    disk_watch::DiskWatch,
    fetch,
    packages::deployed::Deployed,
    process::{environment::NodeFacts, orphans::Orphans, threads::Threads},
    retention::Retention,
    root::Root,
};

/// Job preparations whose processes run at the same time. The tasks of their jobs hold slots meanwhile, or do not wait.
const PREPARATIONS_MAX: usize = 64;
/// Job releases whose processes run at the same time, however many jobs end together.
const RELEASES_MAX: usize = 16;
/// Programs of functions that live at the same time; the slots bound them before this does.
const FUNCTION_PROGRAMS_MAX: usize = 4_096;
/// File requests that are answered at the same time.
const FILE_REQUESTS_MAX: usize = 8;
/// Files that are uploaded on request at the same time.
const FILE_UPLOADS_MAX: usize = 4;
/// Longest time that a run waits for the permission to upload.
const MAY_PUBLISH_MAX: Duration = Duration::from_secs(600);
/// Timeout of one question to the dispatcher.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause between two questions.
const QUESTION_PAUSE: Duration = Duration::from_millis(500);

/// State that all runs of this node share.
pub struct NodeContext {
    pub root: Root,
    pub facts: NodeFacts,
    /// Absent where the node has no blob store.
    pub blobs: Option<Blobs>,
    /// Calls the dispatcher.
    pub caller: Caller,
    /// Start processes of tasks and of the start task: one thread for each slot and one more.
    pub threads: Threads,
    pub preparation_threads: Threads,
    pub release_threads: Threads,
    pub function_threads: Threads,
    pub disk: DiskWatch,
    /// Finds and ends processes that outlive their runs.
    pub orphans: Orphans,
    /// The epoch of the last join.
    pub epoch: AtomicU64,
    pub retention: Arc<Retention>,
    /// Notified when something was moved to the trash.
    pub trash: Arc<Notify>,
    /// Limits concurrent file requests, so that they leave descriptors and threads to runs.
    pub file_turns: Semaphore,
    pub upload_turns: Semaphore,
    /// Held while a package is fetched and unpacked.
    pub deploying: Mutex<()>,
    /// Set once the pool's packages are deployed.
    pub packages: OnceLock<Vec<Deployed>>,
    web: OnceLock<Option<reqwest::Client>>,
}

impl NodeContext {
    /// Assembles the context of a node that has joined; only `web` and `packages` are set later.
    pub fn new(
        root: Root,
        facts: NodeFacts,
        blobs: Option<Blobs>,
        caller: Caller,
        (threads, orphans): (Threads, Orphans),
        epoch: Epoch,
    ) -> Arc<NodeContext> {
        let retention = Retention::new(root.clone());
        let (preparation_threads, release_threads) = (threads.beside(PREPARATIONS_MAX), threads.beside(RELEASES_MAX));
        let function_threads = threads.beside(FUNCTION_PROGRAMS_MAX);
        Arc::new(NodeContext {
            disk: DiskWatch::new(facts.disk_limits.clone(), orphans.clone()),
            root,
            facts,
            blobs,
            caller,
            threads,
            preparation_threads,
            release_threads,
            function_threads,
            orphans,
            epoch: AtomicU64::new(epoch.0),
            retention,
            trash: Arc::new(Notify::new()),
            file_turns: Semaphore::new(FILE_REQUESTS_MAX),
            upload_turns: Semaphore::new(FILE_UPLOADS_MAX),
            deploying: Mutex::new(()),
            packages: OnceLock::new(),
            web: OnceLock::new(),
        })
    }

    /// The HTTP client, made when it is first needed.
    pub fn web(&self) -> Option<&reqwest::Client> {
        self.web
            .get_or_init(|| {
                fetch::client()
                    .inspect_err(|error| tracing::warn!(%error, "cannot create an HTTP client; resource files from URLs cannot be fetched"))
                    .ok()
            })
            .as_ref()
    }

    /// The epoch of the last join.
    pub fn epoch(&self) -> Epoch {
        Epoch(self.epoch.load(Ordering::Relaxed))
    }

    /// Asks the dispatcher until it says whether the run may upload; `None` when no answer comes within
    /// [`MAY_PUBLISH_MAX`].
    pub async fn may_publish(&self, run: RunKey) -> Option<bool> {
        let deadline = Instant::now() + MAY_PUBLISH_MAX;
        while Instant::now() < deadline {
            let what =
                RequestKind::MayPublish { run, node: self.facts.node.clone(), epoch: self.epoch(), pool: Some(self.facts.pool.clone()) };
            let question = Request { v: VERSION, what };
            let answer = self.caller.call::<_, ReplyMessage>(topology::REQUESTS, "asks".to_owned(), &question, QUESTION_TIMEOUT).await;
            match answer.map(|reply| reply.what) {
                Ok(Reply::MayPublish { allowed }) => return Some(allowed),
                Ok(other) => {
                    tracing::warn!(?other, "the dispatcher's reply does not say whether a run may upload its outputs; asking again")
                }
                Err(error) => tracing::warn!(%error, "cannot ask the dispatcher whether a run may upload its outputs; asking again"),
            }
            sleep(QUESTION_PAUSE).await;
        }
        None
    }
}
