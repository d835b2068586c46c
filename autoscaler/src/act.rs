//! The loop: poll the pools, decide, act. Every step is idempotent.
//!
//! A node's row is written before its instance is made, and removed after its instance is gone,
//! so whatever is cut off in between is found again by the next poll or by the sweep.
//! The loop itself waits for no provider: decisions are carried out in tasks, one at a time for each pool.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    future::Future,
    pin::pin,
    sync::Arc,
    time::Duration,
};

use broker_config::topology;
use clients::amqp::Link;
use contract::{
    ids::{NodeId, PoolId},
    message::{PoolSnapshot, Reply, RequestKind},
};
use providers::{Instance, NodeProvider, ProviderError};
use tokio::{
    task::{Id, JoinError, JoinHandle, JoinSet},
    time::MissedTickBehavior,
};

use crate::{
    decide::decide,
    error::Error,
    executor::{Executor, Reported, unexpected},
    settings::Settings,
    sweep::Sweep,
};

/// Longest wait of a poll for the provider's list; a list that comes later is used by a later poll.
const LIST_WAIT: Duration = Duration::from_secs(2);
/// Orphans that are deleted at the same time; the others wait for the next list.
const ORPHANS_MAX: usize = 16;

pub(crate) async fn run(settings: Settings, provider: impl NodeProvider, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
    let mut shutdown = pin!(shutdown);
    let link = tokio::select! {
        link = Link::open(settings.broker.clone()) => link?,
        () = &mut shutdown => return Ok(()),
    };
    link.declare(&topology::base()).await?;
    let mut scaler = Scaler::new(Executor::new(link.caller().await?, provider));
    tokio::select! {
        () = &mut shutdown => {}
        () = scaler.watch(settings.tick) => {}
    }
    scaler.end();
    link.close().await;
    Ok(())
}

/// The subject of a running task: a pool, or an instance without a row.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Work {
    Pool(PoolId),
    Orphan(PoolId, NodeId),
}

impl Work {
    fn pool(&self) -> Option<&PoolId> {
        match self {
            Work::Pool(pool) => Some(pool),
            Work::Orphan(..) => None,
        }
    }
}

struct Scaler<P> {
    executor: Arc<Executor<P>>,
    reported: HashMap<PoolId, Reported>,
    /// The dispatcher's boot number; after a new one every decision is reported again.
    boot: Option<u64>,
    sweep: Sweep,
    listing: Option<JoinHandle<Result<Vec<Instance>, ProviderError>>>,
    /// Pools whose instances may have changed since that list was begun, so that it is not valid for them.
    changed: HashSet<PoolId>,
    running: JoinSet<Option<Reported>>,
    names: HashMap<Id, Work>,
}

impl<P: NodeProvider> Scaler<P> {
    fn new(executor: Arc<Executor<P>>) -> Scaler<P> {
        let (reported, names) = (HashMap::new(), HashMap::new());
        Scaler {
            executor,
            reported,
            boot: None,
            sweep: Sweep::default(),
            listing: None,
            changed: HashSet::new(),
            running: JoinSet::new(),
            names,
        }
    }

    async fn watch(&mut self, tick: Duration) {
        let mut ticks = tokio::time::interval(tick);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_failing = false;
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                Some(done) = self.running.join_next_with_id() => {
                    self.on_done(done);
                    continue;
                }
            }
            match self.poll().await {
                Ok(()) if is_failing => tracing::info!("the dispatcher answers again; pools are scaled again"),
                Ok(()) => {}
                Err(error) if is_failing => tracing::debug!(error = error.fault().message, "the pools can still not be read"),
                Err(error) => tracing::warn!(
                    error = error.fault().message,
                    "cannot read the pools from the dispatcher; no pool is scaled until it answers"
                ),
            }
            is_failing = self.sweep.is_failing;
        }
    }

    fn end(&mut self) {
        self.running.abort_all();
        if let Some(listing) = self.listing.take() {
            listing.abort();
        }
    }

    fn on_done(&mut self, done: Result<(Id, Option<Reported>), JoinError>) {
        let (id, reported) = match done {
            Ok(done) => done,
            Err(error) => {
                tracing::error!(%error, "carrying out a decision failed inside the autoscaler; the next poll tries again");
                (error.id(), None)
            }
        };
        match self.names.remove(&id) {
            Some(Work::Pool(pool)) => match reported {
                Some(reported) => drop(self.reported.insert(pool, reported)),
                None => drop(self.reported.remove(&pool)),
            },
            Some(Work::Orphan(..)) | None => {}
        }
    }

    async fn poll(&mut self) -> Result<(), Error> {
        // Listed before the pools are, so that an instance made in between is not taken for an orphan.
        let listed = self.list().await;
        let changed = if listed.is_some() { std::mem::take(&mut self.changed) } else { HashSet::new() };
        while let Some(done) = self.running.try_join_next_with_id() {
            self.on_done(done);
        }
        // A pool with a running task may appear here as it was before that task.
        let busy: HashSet<Work> = self.names.values().cloned().collect();
        self.sweep.is_failing = true;
        let pools = match self.executor.request("Snapshot", RequestKind::Snapshot).await? {
            Reply::Snapshot { boot, pools } => {
                if self.boot.replace(boot) != Some(boot) {
                    self.reported.clear();
                }
                pools
            }
            other => return Err(unexpected("Snapshot", &other)),
        };
        self.sweep.is_failing = false;
        for pool in pools.iter().filter(|pool| !busy.contains(&Work::Pool(pool.pool.clone()))) {
            let known = listed.as_ref().filter(|_| !changed.contains(&pool.pool));
            let (executor, id, decision) =
                (self.executor.clone(), pool.pool.clone(), decide(pool, &known.map(|all| instances_of(&pool.pool, all))));
            if decision.changes_instances() {
                self.changed.insert(id.clone());
            }
            let reported = self.reported.get(&id).cloned();
            self.begin(Work::Pool(pool.pool.clone()), async move { executor.execute(&id, decision, reported).await });
        }
        self.reported.retain(|id, _| pools.iter().any(|pool| pool.pool == *id));
        self.executor.keep(|id| pools.iter().any(|pool| pool.pool == *id));
        if let Some(listed) = listed {
            self.delete_orphans(&listed, &pools, &busy);
        }
        Ok(())
    }

    fn delete_orphans(&mut self, listed: &[Instance], pools: &[PoolSnapshot], busy: &HashSet<Work>) {
        self.executor.keep_orphans(listed);
        let mut places = ORPHANS_MAX - self.names.values().filter(|work| work.pool().is_none()).count();
        if places == 0 {
            return;
        }
        for orphan in self.sweep.orphans(listed, pools) {
            let work = Work::Orphan(orphan.pool.clone(), orphan.node.clone());
            if busy.contains(&work) {
                continue;
            }
            if places == 0 {
                return self.sweep.again();
            }
            places -= 1;
            let executor = self.executor.clone();
            self.begin(work, async move {
                executor.delete_orphan(&orphan).await;
                None
            });
        }
    }

    fn begin(&mut self, work: Work, doing: impl Future<Output = Option<Reported>> + Send + 'static) {
        let task = self.running.spawn(doing);
        self.names.insert(task.id(), work);
    }

    /// All instances; `None` when the provider fails or takes too long.
    async fn list(&mut self) -> Option<Vec<Instance>> {
        let executor = self.executor.clone();
        if self.listing.is_none() {
            self.changed = self.names.values().filter_map(Work::pool).cloned().collect();
        }
        let listing = self.listing.get_or_insert_with(|| tokio::spawn(async move { executor.provider.list().await }));
        let Ok(listed) = tokio::time::timeout(LIST_WAIT, &mut *listing).await else {
            tracing::debug!("the provider has not listed its nodes yet; no node counts as gone");
            return None;
        };
        self.listing = None;
        match listed {
            Ok(Ok(listed)) => Some(listed),
            Ok(Err(error)) => {
                tracing::warn!(error = error.fault().message, "the provider cannot list its nodes; no node counts as gone until it can");
                None
            }
            Err(error) => {
                tracing::error!(%error, "listing the provider's nodes failed inside the autoscaler; no node counts as gone");
                None
            }
        }
    }
}

fn instances_of(pool: &PoolId, listed: &[Instance]) -> BTreeMap<NodeId, Instance> {
    listed.iter().filter(|instance| instance.pool == *pool).map(|instance| (instance.node.clone(), instance.clone())).collect()
}
