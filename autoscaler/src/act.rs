//! The loop: look at the pools, decide, act. Everything it does may be done twice.
//!
//! A node's row is written before its instance is made, and removed after its instance is gone,
//! so whatever is cut off in between is found again by the next look or by the sweep.

use std::{
    collections::{BTreeMap, HashMap},
    future::Future,
    pin::pin,
    time::Duration,
};

use broker_config::{
    amqp::{Caller, Link},
    ids::{NodeId, PoolId},
    message::{Fault, PoolSnapshot, Reply, ReplyMessage, Request, RequestKind, VERSION},
    topology::{self, REQUESTS},
};
use futures::future::join_all;
use tokio::time::MissedTickBehavior;

use crate::{
    Error, Settings,
    decide::{Decision, Instances, decide},
    provider::{Instance, NodeProvider},
    sweep::Sweep,
};

/// The routing key of the autoscaler's questions.
const KEY: &str = "scale";
/// A question is given up after this long.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Instances made or deleted at the same time.
const PARALLEL: usize = 8;

pub(crate) async fn run(settings: Settings, provider: impl NodeProvider, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
    let mut shutdown = pin!(shutdown);
    let link = Link::open(settings.broker.clone()).await?;
    link.declare(&topology::base()).await?;
    let mut scaler = Scaler { caller: link.caller().await?, provider, told: HashMap::new(), sweep: Sweep::default() };
    tokio::select! {
        () = &mut shutdown => {}
        () = scaler.watch(settings.tick) => {}
    }
    link.close().await;
    Ok(())
}

struct Scaler<P> {
    caller: Caller,
    provider: P,
    told: HashMap<PoolId, Told>,
    sweep: Sweep,
}

/// What a pool was last told, so that equal decisions are not repeated.
#[derive(PartialEq)]
struct Told {
    target: u32,
    reason: String,
    fault: Option<Fault>,
}

impl<P: NodeProvider> Scaler<P> {
    async fn watch(&mut self, tick: Duration) {
        let mut ticks = tokio::time::interval(tick);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_blind = false;
        loop {
            ticks.tick().await;
            match self.look().await {
                Ok(()) if is_blind => tracing::info!("the autoscaler sees the pools again"),
                Ok(()) => {}
                Err(error) if is_blind => tracing::debug!(error = error.fault().message, "the autoscaler still sees no pools"),
                Err(error) => tracing::warn!(error = error.fault().message, "the autoscaler cannot see the pools and changes nothing"),
            }
            is_blind = self.sweep.is_blind;
        }
    }

    async fn look(&mut self) -> Result<(), Error> {
        // Listed before the pools are, so that an instance made in between is not taken for an orphan.
        let listed = self.provider.list().await;
        self.sweep.is_blind = true;
        let pools = match self.ask("Snapshot", RequestKind::Snapshot).await? {
            Reply::Snapshot { pools, .. } => pools,
            other => return Err(unexpected("Snapshot", &other)),
        };
        self.sweep.is_blind = false;
        let listed = match listed {
            Ok(listed) => Some(listed),
            Err(error) => {
                tracing::warn!(error = error.fault().message, "the provider cannot list its nodes; none is taken for gone");
                None
            }
        };
        for pool in &pools {
            let instances = listed.as_ref().map(|listed| instances_of(&pool.pool, listed));
            self.tend(pool, &instances).await;
        }
        self.told.retain(|id, _| pools.iter().any(|pool| pool.pool == *id));
        if let Some(listed) = listed {
            for orphan in self.sweep.orphans(&listed, &pools) {
                tracing::info!(pool = %orphan.pool, node = %orphan.node, "deleting an instance that no pool knows");
                if let Err(error) = self.provider.delete(&orphan.pool, &orphan.node).await {
                    tracing::warn!(pool = %orphan.pool, node = %orphan.node, error = error.fault().message, "orphan not deleted");
                }
            }
        }
        Ok(())
    }

    async fn tend(&mut self, pool: &PoolSnapshot, instances: &Instances) {
        let decision = decide(pool, instances);
        let mut fault = None;
        let results = [
            self.make(&pool.pool, &decision).await,
            self.drain(&pool.pool, &decision).await,
            self.remove(&pool.pool, &decision).await,
            self.power(&pool.pool, &decision).await,
        ];
        for result in results {
            if let Err(error) = result {
                tracing::warn!(pool = %pool.pool, error = error.fault().message, "pool not scaled as decided");
                fault.get_or_insert_with(|| error.fault());
            }
        }
        self.tell(&pool.pool, decision, fault).await;
    }

    async fn make(&self, pool: &PoolId, decision: &Decision) -> Result<(), Error> {
        let mut tickets = decision.recreate.clone();
        if decision.create > 0 {
            tracing::info!(%pool, count = decision.create, reason = decision.reason, "pool grows");
            let what = RequestKind::CreateNodes { pool: pool.clone(), count: decision.create };
            match self.ask("CreateNodes", what).await? {
                Reply::Nodes { nodes } => tickets.extend(nodes),
                other => return Err(unexpected("CreateNodes", &other)),
            }
        }
        let mut made = vec![];
        for some in tickets.chunks(PARALLEL) {
            made.extend(join_all(some.iter().map(|ticket| self.provider.create(pool, ticket))).await);
        }
        first_error(made)
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

    async fn remove(&self, pool: &PoolId, decision: &Decision) -> Result<(), Error> {
        let mut removed = vec![];
        for some in decision.remove.chunks(PARALLEL) {
            removed.extend(join_all(some.iter().map(|(node, reason)| self.remove_one(pool, node, reason))).await);
        }
        first_error(removed)
    }

    async fn power(&self, pool: &PoolId, decision: &Decision) -> Result<(), Error> {
        let mut done = vec![];
        for some in decision.stop.chunks(PARALLEL) {
            done.extend(join_all(some.iter().map(|node| self.stop_one(pool, node))).await);
        }
        for some in decision.start.chunks(PARALLEL) {
            done.extend(join_all(some.iter().map(|node| self.provider.start(pool, node))).await);
        }
        first_error(done)
    }

    async fn stop_one(&self, pool: &PoolId, node: &NodeId) -> Result<(), Error> {
        self.provider.stop(pool, node).await?;
        self.done("NodeStopped", RequestKind::NodeStopped { pool: pool.clone(), node: node.clone() }).await
    }

    async fn remove_one(&self, pool: &PoolId, node: &NodeId, reason: &str) -> Result<(), Error> {
        self.provider.delete(pool, node).await?;
        let what = RequestKind::NodeGone { pool: pool.clone(), node: node.clone(), reason: reason.to_owned() };
        self.done("NodeGone", what).await
    }

    async fn tell(&mut self, pool: &PoolId, decision: Decision, fault: Option<Fault>) {
        let told = Told { target: decision.target, reason: decision.reason, fault };
        if self.told.get(pool) == Some(&told) {
            return;
        }
        let what =
            RequestKind::Decision { pool: pool.clone(), target: told.target, reason: told.reason.clone(), fault: told.fault.clone() };
        match self.done("Decision", what).await {
            Ok(()) => drop(self.told.insert(pool.clone(), told)),
            Err(error) => tracing::debug!(%pool, error = error.fault().message, "decision not told, the next look tries again"),
        }
    }

    async fn done(&self, asked: &'static str, what: RequestKind) -> Result<(), Error> {
        match self.ask(asked, what).await? {
            Reply::Done => Ok(()),
            other => Err(unexpected(asked, &other)),
        }
    }

    async fn ask(&self, asked: &'static str, what: RequestKind) -> Result<Reply, Error> {
        tracing::trace!(asked, "asking the dispatcher");
        let request = Request { v: VERSION, what };
        let reply: ReplyMessage = self.caller.call(REQUESTS, KEY.to_owned(), &request, CALL_TIMEOUT).await?;
        match reply.what {
            Reply::Refused(fault) => Err(Error::Refused { fault }),
            other => Ok(other),
        }
    }
}

fn instances_of(pool: &PoolId, listed: &[Instance]) -> BTreeMap<NodeId, Instance> {
    listed.iter().filter(|instance| instance.pool == *pool).map(|instance| (instance.node.clone(), instance.clone())).collect()
}

fn first_error(results: Vec<Result<(), Error>>) -> Result<(), Error> {
    results.into_iter().find(Result::is_err).unwrap_or(Ok(()))
}

fn unexpected(asked: &'static str, reply: &Reply) -> Error {
    let found = match reply {
        Reply::Joined(_) => "Joined",
        Reply::Answer(_) => "Answer",
        Reply::MayPublish { .. } => "MayPublish",
        Reply::Snapshot { .. } => "Snapshot",
        Reply::Nodes { .. } => "Nodes",
        Reply::Done => "Done",
        Reply::Refused(_) => "Refused",
    };
    Error::Answer { asked, found }
}
