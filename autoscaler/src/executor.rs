//! Carries out decisions: makes, drains, deletes, stops and starts a pool's nodes, and reports the decision to the
//! dispatcher.
//!
//! Pools are handled concurrently and independently, so a pool whose provider is slow holds up no other. Calls of the
//! provider are bounded: [`PER_POOL`] for one pool, the first on a permit of the pool's own and the others on the
//! [`SHARED`] permits of all pools. So calls that hang, however many, leave every other pool its own permit.

use std::{sync::Arc, time::Instant};

use broker_config::{metrics::NODES_ASKED, topology::REQUESTS};
use clients::amqp::Caller;
use contract::{
    ids::{NodeId, PoolId},
    message::{Reply, ReplyMessage, Request, RequestKind, VERSION},
    outcome::Fault,
};
use futures::{StreamExt, stream};
use providers::{Instance, NodeProvider, ProviderError};
use tokio::{sync::Semaphore, time::Duration};

use crate::{decide::Decision, error::Error, repeats::Repeats};

/// Routing key of the autoscaler's requests.
const KEY: &str = "scale";
/// Timeout of one request.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Calls of the provider for one pool at the same time.
const PER_POOL: usize = 8;
/// Calls of the provider for all pools together, beside one for each pool.
const SHARED: usize = 64;

/// The decision that a pool was last reported, so that an equal one is not sent again.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Reported {
    target: u32,
    reason: String,
    fault: Option<Fault>,
}

/// Carries out decisions by the provider and requests to the dispatcher.
pub(crate) struct Executor<P> {
    caller: Caller,
    pub(crate) provider: P,
    shared: Semaphore,
    /// Pools of which a step fails.
    failing: Repeats<PoolId>,
    /// Orphans that cannot be deleted.
    undeleted: Repeats<(PoolId, NodeId)>,
}

/// A pool, with a permit of its own for calls of the provider, so that a slow pool holds up no other.
struct Target<'a> {
    pool: &'a PoolId,
    own: Semaphore,
}

impl<P: NodeProvider> Executor<P> {
    pub(crate) fn new(caller: Caller, provider: P) -> Arc<Executor<P>> {
        Arc::new(Executor { caller, provider, shared: Semaphore::new(SHARED), failing: Repeats::default(), undeleted: Repeats::default() })
    }

    /// Carries out the decision for a pool; returns the report that the dispatcher has now.
    pub(crate) async fn execute(&self, pool: &PoolId, decision: Decision, reported: Option<Reported>) -> Option<Reported> {
        let mut found = None;
        let target = Target { pool, own: Semaphore::new(1) };
        let results = [
            self.make(&target, &decision).await,
            self.drain(pool, &decision).await,
            self.remove(&target, &decision).await,
            self.power(&target, &decision).await,
        ];
        for error in results.into_iter().filter_map(Result::err) {
            found.get_or_insert_with(|| error.fault());
        }
        self.log(pool, found.as_ref());
        // An error of this step says more than the decision's own fault.
        let fault = found.or_else(|| decision.fault.clone());
        self.report(pool, decision, fault, reported).await
    }

    /// Logs that a step for the pool fails, in growing intervals while it lasts, and once when all steps work again.
    fn log(&self, pool: &PoolId, fault: Option<&Fault>) {
        match fault {
            Some(fault) => {
                if let Some(lasting) = self.failing.failed(pool.clone(), &fault.message, Instant::now()) {
                    tracing::warn!(
                        %pool,
                        error = fault.message,
                        tries = lasting.count,
                        for_s = lasting.seconds,
                        "a step of scaling the pool failed; it is tried again as long as decisions need it, and logged less often"
                    );
                }
            }
            None => {
                if let Some(lasting) = self.failing.works(pool, Instant::now()) {
                    tracing::info!(%pool, tries = lasting.count, for_s = lasting.seconds, "the steps of scaling the pool work again");
                }
            }
        }
    }

    /// Forgets the failures of pools that are gone.
    pub(crate) fn keep(&self, is_there: impl Fn(&PoolId) -> bool) {
        self.failing.retain(is_there);
    }

    /// Forgets the failures of orphans that are gone.
    pub(crate) fn keep_orphans(&self, listed: &[Instance]) {
        self.undeleted.retain(|(pool, node)| listed.iter().any(|one| one.pool == *pool && one.node == *node));
    }

    /// Deletes an instance that belongs to no pool.
    pub(crate) async fn delete_orphan(&self, orphan: &Instance) {
        let key = (orphan.pool.clone(), orphan.node.clone());
        tracing::debug!(pool = %orphan.pool, node = %orphan.node, "deleting an instance that has no row in any pool");
        match recorded("delete", self.provider.delete(&orphan.pool, &orphan.node)).await {
            Ok(()) => {
                let tries = self.undeleted.works(&key, Instant::now()).map_or(0, |lasting| lasting.count);
                tracing::info!(pool = %orphan.pool, node = %orphan.node, tries, "deleted an instance that has no row in any pool");
            }
            Err(error) => {
                let message = error.fault().message;
                if let Some(lasting) = self.undeleted.failed(key, &message, Instant::now()) {
                    tracing::warn!(
                        pool = %orphan.pool,
                        node = %orphan.node,
                        error = message,
                        tries = lasting.count,
                        for_s = lasting.seconds,
                        "cannot delete an instance that has no row in any pool; the next sweep tries again"
                    );
                }
            }
        }
    }

    async fn make(&self, target: &Target<'_>, decision: &Decision) -> Result<(), Error> {
        let pool = target.pool;
        let mut tickets = vec![];
        if decision.create > 0 {
            tracing::info!(%pool, count = decision.create, reason = decision.reason, "pool grows");
            let what = RequestKind::CreateNodes { pool: pool.clone(), count: decision.create };
            match self.request("CreateNodes", what).await? {
                Reply::Nodes { nodes } => tickets.extend(nodes),
                other => return Err(unexpected("CreateNodes", &other)),
            }
        }
        side_by_side(tickets.iter().map(|ticket| self.call("create", target, self.provider.create(pool, ticket))).collect()).await
    }

    async fn drain(&self, pool: &PoolId, decision: &Decision) -> Result<(), Error> {
        let Some(option) = decision.option else { return Ok(()) };
        for node in &decision.drain {
            tracing::info!(%pool, %node, reason = decision.reason, "pool shrinks");
            let what = RequestKind::DrainNode { pool: pool.clone(), node: node.clone(), option };
            self.done("DrainNode", what).await?;
        }
        Ok(())
    }

    async fn remove(&self, target: &Target<'_>, decision: &Decision) -> Result<(), Error> {
        side_by_side(decision.remove.iter().map(|(node, reason)| self.remove_one(target, node, reason)).collect()).await
    }

    async fn power(&self, target: &Target<'_>, decision: &Decision) -> Result<(), Error> {
        let start = |node| self.call("start", target, self.provider.start(target.pool, node));
        let stopped = side_by_side(decision.stop.iter().map(|node| self.stop_one(target, node)).collect()).await;
        let started = side_by_side(decision.start.iter().map(start).collect()).await;
        stopped.and(started)
    }

    async fn stop_one(&self, target: &Target<'_>, node: &NodeId) -> Result<(), Error> {
        self.call("stop", target, self.provider.stop(target.pool, node)).await?;
        self.done("NodeStopped", RequestKind::NodeStopped { pool: target.pool.clone(), node: node.clone() }).await
    }

    async fn remove_one(&self, target: &Target<'_>, node: &NodeId, reason: &str) -> Result<(), Error> {
        self.call("delete", target, self.provider.delete(target.pool, node)).await?;
        let what = RequestKind::NodeGone { pool: target.pool.clone(), node: node.clone(), reason: reason.to_owned() };
        self.done("NodeGone", what).await
    }

    /// Calls the provider once a permit is free.
    async fn call(
        &self,
        action: &'static str,
        target: &Target<'_>,
        call: impl Future<Output = Result<(), ProviderError>>,
    ) -> Result<(), Error> {
        let place = tokio::select! {
            biased;
            place = target.own.acquire() => place,
            place = self.shared.acquire() => place,
        };
        let _place = place.expect("the semaphores are never closed");
        Ok(recorded(action, call).await?)
    }

    async fn report(&self, pool: &PoolId, decision: Decision, fault: Option<Fault>, before: Option<Reported>) -> Option<Reported> {
        let reported = Reported { target: decision.target, reason: decision.reason, fault };
        if before.as_ref() == Some(&reported) {
            return before;
        }
        let what = RequestKind::Decision {
            pool: pool.clone(),
            target: reported.target,
            reason: reported.reason.clone(),
            fault: reported.fault.clone(),
        };
        match self.done("Decision", what).await {
            Ok(()) => Some(reported),
            Err(error) => {
                tracing::debug!(%pool, error = error.fault().message, "cannot report the decision to the dispatcher; the next poll tries again");
                before
            }
        }
    }

    async fn done(&self, requested: &'static str, what: RequestKind) -> Result<(), Error> {
        match self.request(requested, what).await? {
            Reply::Done => Ok(()),
            other => Err(unexpected(requested, &other)),
        }
    }

    /// Sends a request to the dispatcher; a refusal is an error.
    pub(crate) async fn request(&self, requested: &'static str, what: RequestKind) -> Result<Reply, Error> {
        tracing::trace!(requested, "sending a request to the dispatcher");
        let request = Request { v: VERSION, what };
        let reply: ReplyMessage = self.caller.call(REQUESTS, KEY.to_owned(), &request, CALL_TIMEOUT).await?;
        match reply.what {
            Reply::Refused(fault) => Err(Error::Refused { fault }),
            other => Ok(other),
        }
    }
}

/// Calls the provider, and counts the call by its result.
async fn recorded(action: &'static str, call: impl Future<Output = Result<(), ProviderError>>) -> Result<(), ProviderError> {
    let result = call.await;
    NODES_ASKED.of([action, if result.is_ok() { "ok" } else { "error" }]).increment(1);
    result
}

/// Runs calls concurrently, [`PER_POOL`] at a time; returns the first error.
async fn side_by_side(calls: Vec<impl Future<Output = Result<(), Error>>>) -> Result<(), Error> {
    let first = |first: Result<(), Error>, next| async move { first.and(next) };
    stream::iter(calls).buffer_unordered(PER_POOL).fold(Ok(()), first).await
}

/// The error for a reply of another kind than the request asks for.
pub(crate) fn unexpected(requested: &'static str, reply: &Reply) -> Error {
    let found = match reply {
        Reply::Joined(_) => "Joined",
        Reply::Answer(_) => "Answer",
        Reply::MayPublish { .. } => "MayPublish",
        Reply::Functions(_) => "Functions",
        Reply::Snapshot { .. } => "Snapshot",
        Reply::Nodes { .. } => "Nodes",
        Reply::Done => "Done",
        Reply::Refused(_) => "Refused",
    };
    Error::Answer { requested, found }
}
