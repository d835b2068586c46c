//! Answers to questions of agents and of the autoscaler, and to heartbeats.

use broker_config::settings::Secret;
use contract::{
    clock::Now,
    ids::{AttemptKey, Epoch, NodeId, PoolId, RunKey},
    message::{
        Answer, Ask, Heartbeat, HeartbeatReply, Join, Joined, NodeReport, NodeSnapshot, NodeTicket, PoolSnapshot, Reply, ReplyMessage,
        RequestKind, Start, TaskMessage, VERSION,
    },
    outcome::{Fault, JobTaskKey},
    state::{AllocationState, NodeState, PoolState, SchedulingState},
    time::Timestamp,
};
use model::node::NodeProperties;
use rand::RngExt;
use scheduler::{AskAnswer, Event, HeartbeatAnswer};
use store::{StoreError, records::NodeRecord};
use subtle::ConstantTimeEq;

use crate::{
    messages::{Output, ReplyTo},
    node_faults::NODE_PAUSED,
    scaling::load,
    world::{PoolEntry, World},
};

/// Nodes that one request creates at most.
const CREATE_MAX: u32 = 1_000;

fn refused(code: &str, message: impl Into<String>) -> Reply {
    Reply::Refused(Fault { code: code.to_owned(), message: message.into(), details: vec![] })
}

fn token() -> String {
    format!("{:032x}", rand::rng().random::<u128>())
}

impl World {
    pub(super) fn on_heartbeat(&mut self, heartbeat: Heartbeat, back: Option<ReplyTo>, now: Timestamp) -> Result<(), StoreError> {
        let pool = heartbeat.pool.clone();
        if let Some(report) = &heartbeat.report {
            self.note_report(&pool, &heartbeat.node, heartbeat.epoch, report);
        }
        let answer = self.question(&pool, now, |core, now, effects| core.heartbeat(heartbeat, now, effects))?;
        if let Some(back) = back {
            let functions = self.functions_number(&pool);
            let HeartbeatAnswer { verdicts, order, over, releases, keep, set_aside_in_vain } =
                answer.unwrap_or_else(HeartbeatAnswer::leave);
            let releases = releases.into_iter().filter_map(|key| self.job_task(key)).collect();
            let keep = match keep {
                Some((key, slots)) => self.kept_task(key, slots)?.map(Box::new),
                None => None,
            };
            let reply = HeartbeatReply { v: VERSION, boot: self.boot, verdicts, order, releases, over, keep, set_aside_in_vain, functions };
            self.outputs.push(Output::HeartbeatAnswered(back, Box::new(reply)));
        }
        Ok(())
    }

    /// The message of the task that a node's slots are kept for. The agent asks again before it runs it.
    fn kept_task(&mut self, key: AttemptKey, slots: u32) -> Result<Option<TaskMessage>, StoreError> {
        let candidate = self.store.candidate(key.uid);
        let Some(candidate) = self.legible(key.uid, candidate)? else { return Ok(None) };
        Ok(self.message(key, candidate.job, candidate.id, Start::Ask, slots, None))
    }

    pub(super) fn on_request(&mut self, what: RequestKind, back: ReplyTo, now: Timestamp) -> Result<(), StoreError> {
        let reply = match what {
            RequestKind::Join(join) => self.join(join, now)?,
            RequestKind::Ask(ask) => Reply::Answer(self.ask(&ask, now)?),
            RequestKind::MayPublish { run, node, epoch, pool } => {
                let allowed = match self.pool_of_run(run, pool.as_ref()) {
                    Some(pool) => self.question(&pool, now, |core, now, effects| core.may_publish(run, (&node, epoch), now, effects))?,
                    None => None,
                };
                Reply::MayPublish { allowed: allowed == Some(true) }
            }
            RequestKind::Functions { pool, .. } => Reply::Functions(self.functions_of(&pool)),
            RequestKind::Snapshot => Reply::Snapshot { boot: self.boot, pools: self.snapshots() },
            RequestKind::CreateNodes { pool, count } => self.create_nodes(&pool, count, now)?,
            RequestKind::DrainNode { pool, node, option } => {
                self.drain(&pool, &node, option, now)?;
                Reply::Done
            }
            RequestKind::NodeGone { pool, node, reason } => self.node_gone(&pool, &node, &reason, now)?,
            RequestKind::NodeStopped { pool, node } => {
                self.node_stopped(&pool, node, now)?;
                Reply::Done
            }
            RequestKind::Decision { pool, fault, .. } => self.followed(&pool, fault),
        };
        self.outputs.push(Output::Reply(back, Box::new(ReplyMessage { v: VERSION, what: reply })));
        Ok(())
    }

    /// Answers whether a delivery may run. A run that no pool knows is dropped.
    fn ask(&mut self, ask: &Ask, now: Timestamp) -> Result<Answer, StoreError> {
        let Ask { run, node, epoch, prepares, pool } = ask;
        let Some(pool) = self.pool_of_run(*run, pool.as_ref()) else { return Ok(Answer::Drop) };
        match self.question(&pool, now, |core, now, effects| core.ask(*run, (node, *epoch), *prepares, now, effects))? {
            Some(AskAnswer::Run) => self.run_it(*run, None),
            Some(AskAnswer::Prepare(key)) => self.run_it(*run, Some(key)),
            Some(AskAnswer::Resume(run)) => Ok(Answer::Resume { run }),
            Some(AskAnswer::Wait(ms)) => Ok(Answer::Wait { ms }),
            Some(AskAnswer::Drop) | None => Ok(Answer::Drop),
        }
    }

    fn run_it(&mut self, run: RunKey, preparation: Option<JobTaskKey>) -> Result<Answer, StoreError> {
        let candidate = self.store.candidate(run.uid);
        let Some(candidate) = self.legible(run.uid, candidate)? else { return Ok(Answer::Drop) };
        let spec = self.spec(&candidate).map(Some);
        let Some(mut spec) = self.legible(run.uid, spec)? else { return Ok(Answer::Drop) };
        let preparation = preparation.and_then(|key| self.job_task(key)).map(Box::new);
        self.equip_with_token(&mut spec, &candidate, run.attempt);
        Ok(Answer::Run { spec: Some(Box::new(spec)), preparation })
    }

    /// The pool that a run belongs to; `None` when the asking agent belongs to another pool, or no pool knows the task.
    fn pool_of_run(&self, run: RunKey, claimed: Option<&PoolId>) -> Option<PoolId> {
        let pool = self.pools.values().find(|pool| pool.core.live().contains_key(&run.uid))?;
        Some(&pool.record.id).filter(|id| claimed.is_none_or(|claimed| claimed == *id)).cloned()
    }

    fn join(&mut self, join: Join, now: Timestamp) -> Result<Reply, StoreError> {
        let secret = self.identity.join_secret.clone();
        let same = |given: &str, known: &str| bool::from(given.as_bytes().ct_eq(known.as_bytes()));
        // A node that was restarting when its pool was deleted may come back, to be told to leave.
        let takes = |entry: &&mut PoolEntry| entry.record.state == PoolState::Active || entry.nodes.contains_key(&join.node);
        let Some(entry) = self.pools.get_mut(&join.pool).filter(takes) else {
            return Ok(refused("PoolNotFound", format!("there is no pool {}", join.pool)));
        };
        let by_secret = secret.as_ref().is_some_and(|secret| same(&join.token, Secret::expose(secret)));
        if !entry.nodes.contains_key(&join.node) && by_secret {
            let record = new_node(join.node.clone(), join.token.clone(), entry.record.next_node as u32, now);
            entry.record.next_node += 1;
            entry.record.target_dedicated += 1;
            entry.is_dirty = true;
            entry.nodes.insert(join.node.clone(), record);
            entry.core.step(Event::NodeAdded { node: join.node.clone() }, Now { time: now, moment: self.moment }, &mut Vec::new());
        }
        let Some(node) = entry.nodes.get_mut(&join.node) else {
            return Ok(refused("NodeNotFound", format!("pool {} has no node {}", join.pool, join.node)));
        };
        if !by_secret && !same(&join.token, &node.token) {
            return Ok(refused("AuthenticationFailed", "the join token is wrong"));
        }
        if entry.core.nodes().get(&join.node).is_some_and(|facts| facts.is_off()) {
            return Ok(refused("NodeDeallocated", format!("node {} of pool {} is deallocated; start it first", join.node, join.pool)));
        }
        let keeps_runs = join.epoch.is_some_and(|epoch| epoch == node.epoch);
        if !keeps_runs {
            entry.creations.begin_anew();
            node.epoch = Epoch(node.epoch.0 + 1);
            node.booted_at = Some(now);
            node.start_task = None;
            node.booted_with = entry.record.start_task.clone();
            node.faults.clear();
            node.is_drained = false;
        }
        node.properties = NodeProperties { address: Some(join.address), agent_version: Some(join.version), cores: join.cores };
        // The credential that the agent presented: an agent that knows only the pool's secret must not learn a node's
        // token.
        let credential = join.token;
        let (epoch, rank, is_dedicated) = (node.epoch, node.rank, node.is_dedicated);
        entry.dirty_nodes.insert(join.node.clone());
        let (slots, fill, start_task) = (entry.record.slots_per_node, entry.record.fill, entry.record.start_task.clone());
        let packages = entry.record.packages.clone();
        self.step(&join.pool, Event::Joined { node: join.node.clone(), epoch, keeps_runs }, now)?;
        let order = self.pools.get(&join.pool).map_or(contract::message::NodeOrder::Leave, |entry| entry.core.order(&join.node));
        let facts = self.pools.get(&join.pool).and_then(|entry| entry.core.nodes().get(&join.node));
        let is_reimaged = facts.is_some_and(|facts| facts.is_reimaged());
        Ok(Reply::Joined(Joined {
            epoch,
            credential,
            account: self.identity.account.clone(),
            account_url: self.identity.account_url.clone(),
            slots,
            fill,
            rank,
            start_task,
            heartbeat_ms: self.identity.heartbeat_ms,
            lease_ms: self.timers.lease_ms.unsigned_abs(),
            is_dedicated,
            order,
            is_reimaged,
            packages: self.packages(&packages),
        }))
    }

    /// Stores what a node reports about itself, for the API. Reports that are old or unchanged write nothing.
    pub(super) fn note_report(&mut self, pool: &PoolId, node: &NodeId, epoch: Epoch, report: &NodeReport) {
        if let Some(entry) = self.pools.get_mut(pool)
            && let Some(record) = entry.nodes.get_mut(node).filter(|record| record.epoch == epoch)
        {
            let is_old = entry.core.nodes().get(node).is_some_and(|facts| report.number < facts.report_number);
            let start_task = report.start_task.as_ref().or(record.start_task.as_ref()).cloned();
            // Faults that the scheduler found stay until it removes them.
            let found = record.faults.iter().filter(|fault| fault.code == NODE_PAUSED);
            let faults: Vec<Fault> = report.fault.iter().chain(found).cloned().collect();
            if !is_old && (record.start_task != start_task || record.faults != faults) {
                (record.start_task, record.faults) = (start_task, faults);
                entry.dirty_nodes.insert(node.clone());
            }
        }
    }

    fn snapshots(&self) -> Vec<PoolSnapshot> {
        let now = self.moment;
        let mut pools: Vec<PoolSnapshot> = self
            .pools
            .values()
            .map(|entry| {
                let record = &entry.record;
                let load = load(entry, now);
                let nodes = entry
                    .nodes
                    .values()
                    .map(|node| {
                        let facts = entry.core.nodes().get(&node.id);
                        let runs = facts.map_or(0, |facts| facts.run_count() + facts.invocations);
                        let idle_ms =
                            facts.filter(|_| runs == 0).map_or(0, |facts| now.since(facts.empty_since.max(facts.state_since)) as u64);
                        NodeSnapshot {
                            node: node.id.clone(),
                            state: facts.map_or(node.state, |facts| facts.state()),
                            scheduling: node.scheduling,
                            runs,
                            idle_ms,
                            state_ms: facts.map_or(0, |facts| now.since(facts.state_since) as u64),
                            is_draining: node.drain.is_some(),
                            is_drained: node.is_drained,
                            is_dedicated: node.is_dedicated,
                            power: facts.and_then(|facts| facts.power()),
                        }
                    })
                    .collect();
                PoolSnapshot {
                    pool: record.id.clone(),
                    state: record.state,
                    allocation: record.allocation,
                    target_dedicated: record.target_dedicated,
                    target_low_priority: record.target_low_priority,
                    deallocation: record.deallocation,
                    policy: record.policy,
                    slots_per_node: record.slots_per_node,
                    waiting_slots: load.waiting_slots,
                    running_slots: load.running_slots,
                    waiting_for_ms: load.waiting_for_ms,
                    reason: entry.decided.reason.clone(),
                    failed_creations: entry.creations.failed(),
                    creation_rests_ms: entry.creations.rest_ms(now),
                    nodes,
                }
            })
            .collect();
        pools.sort_by(|a, b| a.pool.cmp(&b.pool));
        pools
    }

    fn create_nodes(&mut self, pool: &PoolId, count: u32, now: Timestamp) -> Result<Reply, StoreError> {
        let Some(entry) = self.pools.get_mut(pool).filter(|entry| entry.record.state == PoolState::Active) else {
            return Ok(refused("PoolNotFound", format!("there is no active pool {pool}")));
        };
        let mut tickets = Vec::new();
        let staying = |entry: &PoolEntry| entry.nodes.values().filter(|node| node.drain.is_none() && node.is_dedicated).count();
        let mut dedicated =
            if entry.record.policy.is_some() { u32::MAX } else { entry.record.target_dedicated.saturating_sub(staying(entry) as u32) };
        // An autoscaler of an earlier build does not know pauses; it gets no tickets during one.
        let count = if entry.creations.rest_ms(self.moment) > 0 { 0 } else { count.min(CREATE_MAX) };
        for _ in 0..count {
            let number = entry.record.next_node;
            entry.record.next_node += 1;
            entry.is_dirty = true;
            let Ok(id) = format!("node-{number:04}").parse::<NodeId>() else { continue };
            let is_dedicated = dedicated > 0;
            dedicated = dedicated.saturating_sub(1);
            let record = NodeRecord { is_dedicated, ..new_node(id.clone(), token(), number as u32, now) };
            tickets.push(NodeTicket { node: id.clone(), token: record.token.clone() });
            entry.nodes.insert(id.clone(), record);
            entry.dirty_nodes.insert(id.clone());
            entry.core.step(Event::NodeAdded { node: id }, Now { time: now, moment: self.moment }, &mut Vec::new());
        }
        Ok(Reply::Nodes { nodes: tickets })
    }

    fn node_gone(&mut self, pool: &PoolId, node: &NodeId, reason: &str, now: Timestamp) -> Result<Reply, StoreError> {
        tracing::info!(%pool, %node, reason, "the node was removed");
        self.note_creation(pool, node);
        self.step(pool, Event::NodeGone { node: node.clone() }, now)?;
        if let Some(entry) = self.pools.get_mut(pool) {
            entry.nodes.remove(node);
            entry.dirty_nodes.remove(node);
            self.store.delete_node(pool, node)?;
        }
        Ok(Reply::Done)
    }

    /// Counts a node as failed when it leaves before it joined.
    fn note_creation(&mut self, pool: &PoolId, node: &NodeId) {
        let now = self.moment;
        let Some(entry) = self.pools.get_mut(pool) else { return };
        let Some(facts) = entry.core.nodes().get(node).filter(|facts| !facts.has_joined() && facts.drain.is_none()) else { return };
        entry.creations.note_failed(facts.state_since, now);
        let (failed, pause_ms) = (entry.creations.failed(), entry.creations.rest_ms(now));
        tracing::warn!(%pool, %node, failed, pause_ms, "the node's agent never joined; the next nodes are made once the pause is over");
    }

    /// Records whether the autoscaler could create and remove nodes as the pool's size requires.
    fn followed(&mut self, pool: &PoolId, fault: Option<Fault>) -> Reply {
        let Some(entry) = self.pools.get_mut(pool) else { return refused("PoolNotFound", format!("there is no pool {pool}")) };
        entry.decided.fault = fault.clone();
        let record = &mut entry.record;
        // A fault belongs to the running resize; a later try may still succeed.
        let faults: Vec<Fault> = fault.into_iter().filter(|_| record.allocation == AllocationState::Resizing).collect();
        let has_other_faults = record.allocation == AllocationState::Resizing && record.resize_errors != faults;
        if has_other_faults {
            record.resize_errors = faults;
            entry.is_dirty = true;
        }
        entry.show_decision();
        Reply::Done
    }
}

fn new_node(id: NodeId, token: String, rank: u32, now: Timestamp) -> NodeRecord {
    NodeRecord {
        id,
        token,
        epoch: Epoch(0),
        state: NodeState::Creating,
        state_at: now,
        scheduling: SchedulingState::Enabled,
        drain: None,
        is_drained: false,
        action: None,
        properties: NodeProperties::default(),
        allocated_at: now,
        booted_at: None,
        is_dedicated: true,
        rank,
        tasks_run: 0,
        tasks_succeeded: 0,
        recent: vec![],
        booted_with: None,
        start_task: None,
        faults: vec![],
    }
}
