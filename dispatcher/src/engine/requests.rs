//! Questions of agents and of the autoscaler, and beats.

use broker_config::{
    chore::ChoreKey,
    ids::{Epoch, NodeId, PoolId, TaskUid},
    message::{
        Answer, Beat, BeatReply, Fault, Join, Joined, NodeReport, NodeSnapshot, NodeTicket, PoolSnapshot, Reply, ReplyMessage, RequestKind,
        VERSION,
    },
    settings::Secret,
    state::{AllocationState, NodeState, PoolState, SchedulingState},
    time::Timestamp,
};
use rand::RngExt;
use subtle::ConstantTimeEq;

use crate::{
    core::{AskAnswer, Effect, Event},
    engine::{
        Back, Output,
        world::{PoolEntry, World},
    },
    store::{StoreError, records::NodeRecord},
};

/// Nodes created by one request at most.
const CREATE_MAX: u32 = 1_000;

fn refused(code: &str, message: impl Into<String>) -> Reply {
    Reply::Refused(Fault { code: code.to_owned(), message: message.into(), details: vec![] })
}

fn token() -> String {
    format!("{:032x}", rand::rng().random::<u128>())
}

impl World {
    pub(super) fn on_beat(&mut self, beat: Beat, back: Option<Back>, now: Timestamp) -> Result<(), StoreError> {
        let pool = beat.pool.clone();
        let pick = |effects: &[Effect]| {
            effects.iter().find_map(|effect| match effect {
                Effect::Beaten { verdicts, order, over, releases } => Some((verdicts.clone(), *order, over.clone(), releases.clone())),
                _ => None,
            })
        };
        let found = self.step_with(&pool, Event::Beat(beat), now, pick)?.flatten();
        let (verdicts, order, over, releases) = found.unwrap_or((vec![], broker_config::message::NodeOrder::Leave, vec![], vec![]));
        if let Some(back) = back {
            let releases = releases.into_iter().filter_map(|key| self.chore(key)).collect();
            let reply = BeatReply { v: VERSION, boot: self.boot, verdicts, order, releases, over };
            self.outputs.push(Output::Beaten(back, Box::new(reply)));
        }
        Ok(())
    }

    pub(super) fn on_request(&mut self, what: RequestKind, back: Back, now: Timestamp) -> Result<(), StoreError> {
        let reply = match what {
            RequestKind::Join(join) => self.join(join, now)?,
            RequestKind::Ask(ask) => match self.pool_of_node(&ask.node, ask.run.uid) {
                Some(pool) => {
                    let pick = |effects: &[Effect]| {
                        effects.iter().find_map(|effect| match effect {
                            Effect::Answer(answer) => Some(*answer),
                            _ => None,
                        })
                    };
                    let event = Event::Ask { run: ask.run, node: ask.node, epoch: ask.epoch, prepares: ask.prepares };
                    let answer = self.step_with(&pool, event, now, pick)?.flatten().unwrap_or(AskAnswer::Drop);
                    Reply::Answer(match answer {
                        AskAnswer::Run => self.run_it(ask.run.uid, None)?,
                        AskAnswer::Prepare(key) => self.run_it(ask.run.uid, Some(key))?,
                        AskAnswer::Resume(run) => Answer::Resume { run },
                        AskAnswer::Drop => Answer::Drop,
                        AskAnswer::Wait(ms) => Answer::Wait { ms },
                    })
                }
                None => Reply::Answer(Answer::Drop),
            },
            RequestKind::MayPublish { run, node, epoch } => {
                let allowed = match self.pool_of_node(&node, run.uid) {
                    Some(pool) => {
                        let pick = |effects: &[Effect]| effects.contains(&Effect::MayPublish(true));
                        self.step_with(&pool, Event::MayPublish { run, node, epoch }, now, pick)?.unwrap_or(false)
                    }
                    None => false,
                };
                Reply::MayPublish { allowed }
            }
            RequestKind::Snapshot => Reply::Snapshot { boot: self.boot, pools: self.snapshots(now) },
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
            RequestKind::Decision { pool, target, reason, fault } => self.decision(&pool, target, reason, fault, now),
        };
        self.outputs.push(Output::Reply(back, Box::new(ReplyMessage { v: VERSION, what: reply })));
        Ok(())
    }

    fn run_it(&mut self, uid: TaskUid, preparation: Option<ChoreKey>) -> Result<Answer, StoreError> {
        let Some(candidate) = self.store.candidate(uid)? else { return Ok(Answer::Drop) };
        let preparation = preparation.and_then(|key| self.chore(key)).map(Box::new);
        Ok(Answer::Run { spec: Some(Box::new(self.spec(&candidate)?)), preparation })
    }

    /// The pool whose core knows the task; a task that none knows is void anyway.
    fn pool_of_node(&self, _node: &NodeId, uid: TaskUid) -> Option<PoolId> {
        self.pools.values().find(|pool| pool.core.live().contains_key(&uid)).map(|pool| pool.record.id.clone())
    }

    fn join(&mut self, join: Join, now: Timestamp) -> Result<Reply, StoreError> {
        let secret = self.identity.join_secret.clone();
        let same = |given: &str, known: &str| bool::from(given.as_bytes().ct_eq(known.as_bytes()));
        // A node that was starting again when its pool was deleted comes back to be told to leave.
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
            entry.core.step(Event::NodeAdded { node: join.node.clone() }, now, &mut Vec::new());
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
            node.epoch = Epoch(node.epoch.0 + 1);
            node.booted_at = Some(now);
            node.start_task = None;
            node.booted_with = entry.record.start_task.clone();
            node.faults.clear();
            node.is_drained = false;
        }
        node.address = Some(join.address);
        node.agent_version = Some(join.version);
        node.cores = join.cores;
        let (epoch, credential, rank, is_dedicated) = (node.epoch, node.token.clone(), node.rank, node.is_dedicated);
        entry.dirty_nodes.insert(join.node.clone());
        let (slots, fill, start_task) = (entry.record.slots_per_node, entry.record.fill, entry.record.start_task.clone());
        let packages = entry.record.packages.clone();
        self.step(&join.pool, Event::Joined { node: join.node.clone(), epoch, keeps_runs }, now)?;
        let order = self.pools.get(&join.pool).map_or(broker_config::message::NodeOrder::Leave, |entry| entry.core.order(&join.node));
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
            beat_ms: self.identity.beat_ms,
            lease_ms: self.timers.lease_ms.unsigned_abs(),
            is_dedicated,
            order,
            is_reimaged,
            packages: self.packages(&packages),
        }))
    }

    pub(super) fn note_report(&mut self, pool: &PoolId, node: &NodeId, epoch: Epoch, report: &NodeReport) {
        if let Some(entry) = self.pools.get_mut(pool)
            && let Some(record) = entry.nodes.get_mut(node).filter(|record| record.epoch == epoch)
        {
            record.start_task = report.start_task.clone().or(record.start_task.take());
            record.faults = report.fault.iter().cloned().collect();
            entry.dirty_nodes.insert(node.clone());
        }
    }

    fn snapshots(&self, now: Timestamp) -> Vec<PoolSnapshot> {
        let mut pools: Vec<PoolSnapshot> = self
            .pools
            .values()
            .map(|entry| {
                let record = &entry.record;
                let jobs = self
                    .jobs
                    .values()
                    .filter(|job| job.record.pool == record.id && job.record.state == broker_config::state::JobState::Active);
                let running_slots: u64 = entry.core.nodes().values().map(|node| u64::from(node.running_slots())).sum();
                let released: u64 =
                    entry.core.live().values().filter(|attempt| attempt.owner().is_none()).map(|attempt| u64::from(attempt.slots)).sum();
                let ready: u64 = jobs
                    .filter_map(|job| {
                        let facts = entry.core.jobs().get(&job.record.uid)?;
                        let open = u64::try_from(facts.max_parallel).unwrap_or(u64::MAX).saturating_sub(u64::from(facts.live));
                        Some(facts.waiting.min(open))
                    })
                    .sum();
                let waiting_slots = released + ready;
                let nodes = entry
                    .nodes
                    .values()
                    .map(|node| {
                        let facts = entry.core.nodes().get(&node.id);
                        let runs = facts.map_or(0, |facts| facts.run_count());
                        let idle_ms = facts.filter(|_| runs == 0).map_or(0, |facts| now.since(facts.empty_since.max(node.state_at)) as u64);
                        NodeSnapshot {
                            node: node.id.clone(),
                            state: facts.map_or(node.state, |facts| facts.state()),
                            scheduling: node.scheduling,
                            runs,
                            idle_ms,
                            state_ms: now.since(node.state_at) as u64,
                            is_draining: node.drain.is_some(),
                            is_drained: node.is_drained,
                            is_dedicated: node.is_dedicated,
                            token: (node.state == NodeState::Creating).then(|| node.token.clone()),
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
                    waiting_slots,
                    running_slots,
                    waiting_for_ms: entry.waiting_since.map_or(0, |since| now.since(since) as u64),
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
        for _ in 0..count.min(CREATE_MAX) {
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
            entry.core.step(Event::NodeAdded { node: id }, now, &mut Vec::new());
        }
        Ok(Reply::Nodes { nodes: tickets })
    }

    fn node_gone(&mut self, pool: &PoolId, node: &NodeId, reason: &str, now: Timestamp) -> Result<Reply, StoreError> {
        tracing::info!(%pool, %node, reason, "node is gone");
        self.step(pool, Event::NodeGone { node: node.clone() }, now)?;
        if let Some(entry) = self.pools.get_mut(pool) {
            entry.nodes.remove(node);
            entry.dirty_nodes.remove(node);
            self.store.delete_node(pool, node)?;
        }
        Ok(Reply::Done)
    }

    fn decision(&mut self, pool: &PoolId, target: u32, reason: String, fault: Option<Fault>, now: Timestamp) -> Reply {
        let version = self.version + 1;
        let Some(entry) = self.pools.get_mut(pool) else { return refused("PoolNotFound", format!("there is no pool {pool}")) };
        let record = &mut entry.record;
        if record.policy.is_some() && record.state == PoolState::Active && record.target_dedicated != target {
            record.target_dedicated = target;
            (record.allocation, record.allocation_at) = (AllocationState::Resizing, now);
            (record.version, record.modified_at) = (version, now);
            self.version = version;
        }
        let decision = match &fault {
            None => reason,
            Some(fault) => format!("{reason}; it failed: {} ({})", fault.message, fault.code),
        };
        // A fault belongs to the resize that goes on: the next try may still end it well.
        let faults: Vec<Fault> = fault.into_iter().filter(|_| record.allocation == AllocationState::Resizing).collect();
        let has_other_faults = record.allocation == AllocationState::Resizing && record.resize_errors != faults;
        if has_other_faults {
            record.resize_errors = faults;
        }
        if has_other_faults || record.decision.as_deref() != Some(decision.as_str()) {
            record.decision = Some(decision);
            entry.is_dirty = true;
        }
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
        turn: None,
        address: None,
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
        agent_version: None,
        cores: 0,
    }
}
