//! Work that is due by time: leases, republishing, resizes that end, deleted jobs.

use std::collections::HashMap;

use contract::{
    clock::{Moment, Now},
    ids::PoolId,
    outcome::Fault,
    state::{AllocationState, NodeState, PoolState},
    time::Timestamp,
};
use model::usage::interval_of;
use scheduler::Event;
use store::StoreError;

use crate::world::{PoolEntry, World};

/// Usage intervals older than this are deleted.
const KEPT_MS: i64 = 90 * 24 * 60 * 60 * 1000;
/// Node states idle and running, and a node's task counts, are written this often instead of with each task.
const FLUSH_MS: i64 = 1_000;

impl World {
    pub(super) fn on_tick(&mut self, events_behind: bool, depths: &HashMap<PoolId, u32>, now: Timestamp) -> Result<(), StoreError> {
        let moment = self.moment;
        let gap_ms = self.ticked_at.replace(moment).map_or(0, |last| moment.since(last));
        if gap_ms > self.timers.gap_ms() {
            tracing::warn!(
                gap_ms,
                "the dispatcher stood still (suspended, stopped, or its disk did not answer); every node has its whole lease again"
            );
        }
        let pools: Vec<PoolId> = self.pools.keys().cloned().collect();
        for id in pools {
            self.step(&id, Event::Tick { events_behind, queue_ready: depths.get(&id).copied() }, now)?;
            let version = self.version + 1;
            let Some(entry) = self.pools.get_mut(&id) else { continue };
            if settle(entry, now, moment) {
                (entry.record.version, entry.record.modified_at, entry.is_dirty) = (version, now, true);
                self.version = version;
            }
            if let Some(depth) = depths.get(&id) {
                note_invocations(entry, *depth);
            }
            note_waiting(entry, moment);
            self.tick_meter(&id, false, now)?;
            let is_flushed = self.pools.get(&id).is_some_and(|entry| moment.since(entry.flushed_at) >= FLUSH_MS);
            self.tick_scaling(&id, is_flushed, now);
            let Some(entry) = self.pools.get_mut(&id) else { continue };
            if is_flushed {
                entry.flushed_at = moment;
                entry.dirty_nodes.append(&mut entry.stale_nodes);
            }
            if entry.record.state == PoolState::Deleting && entry.nodes.is_empty() {
                self.forget_pool(&id, now)?;
            }
        }
        self.tick_jobs(now)?;
        self.tick_errands()?;
        self.tick_messages(now)?;
        self.tick_triggers()?;
        self.tick_schedules(now)
    }

    /// Meters a pool's cores up to now.
    pub(super) fn tick_meter(&mut self, pool: &PoolId, is_last: bool, now: Timestamp) -> Result<(), StoreError> {
        let Some(entry) = self.pools.get_mut(pool) else { return Ok(()) };
        let cores = cores(entry);
        let oldest = self.first_time.plus_ms(self.moment.0).min(now).plus_ms(-KEPT_MS);
        for charge in entry.meter.count(cores, Now { time: now, moment: self.moment }, is_last) {
            self.store.charge(pool, &charge)?;
            if charge.interval < interval_of(now) {
                // Old by the steady clock, so that setting the wall clock forward deletes nothing.
                self.store.forget_usage(oldest)?;
            }
        }
        Ok(())
    }
}

/// Cores of the present nodes: all, and dedicated.
fn cores(entry: &PoolEntry) -> (u64, u64) {
    let is_there = |state| !matches!(state, NodeState::Creating | NodeState::Preempted | NodeState::Deallocated);
    entry.nodes.values().filter(|node| is_there(node.state)).fold((0, 0), |(all, dedicated), node| {
        let cores = u64::from(node.properties.cores);
        (all + cores, dedicated + if node.is_dedicated { cores } else { 0 })
    })
}

/// Ends a resize that is done or out of time; returns whether the record changed.
fn settle(entry: &mut PoolEntry, now: Timestamp, moment: Moment) -> bool {
    let record = &mut entry.record;
    if record.allocation == AllocationState::Steady || record.state == PoolState::Deleting {
        return false;
    }
    let wanted = (record.target_dedicated + record.target_low_priority) as usize;
    let leaving = entry.nodes.values().filter(|node| node.drain.is_some()).count();
    let joined = |is_dedicated: bool| {
        let there = entry.nodes.values().filter(|node| node.drain.is_none() && node.epoch.0 > 0);
        there.filter(|node| node.is_dedicated == is_dedicated).count()
    };
    let (dedicated, low_priority) = (joined(true), joined(false));
    let there = dedicated + low_priority;
    let asked_for = entry.nodes.len() - leaving;
    let fits = there == wanted && (record.policy.is_some() || dedicated == record.target_dedicated as usize);
    let is_done = match record.allocation {
        AllocationState::Stopping => asked_for <= wanted.max(there) && leaving == 0,
        _ => fits && asked_for == wanted && leaving == 0,
    };
    let passed = entry.allocating.ms(record.allocation_at, Now { time: now, moment });
    let out_of_time = record.settings.resize_timeout.limit().is_some_and(|limit| passed > limit.as_millis() as i64);
    if is_done {
        // A stopped resize has already recorded what is missing.
        if record.allocation == AllocationState::Resizing {
            record.resize_errors.clear();
        }
    } else if out_of_time {
        let message = format!("The resize did not end in time: {there} of {wanted} nodes are there.");
        record.resize_errors.insert(0, Fault { code: "AllocationTimedOut".to_owned(), message, details: vec![] });
        if record.policy.is_none() && record.scaling.is_none() {
            (record.target_dedicated, record.target_low_priority) = (dedicated as u32, low_priority as u32);
        }
    } else {
        return false;
    }
    (record.allocation, record.allocation_at) = (AllocationState::Steady, now);
    true
}

/// Counts what others than the dispatcher have put into the pool's queues; released tasks that are on their way to a node
/// are not there any more, so the count may be too low for a moment and never too high.
fn note_invocations(entry: &mut PoolEntry, depth: u32) {
    let released = entry.core.live().values().filter(|attempt| attempt.owner().is_none()).count();
    let others = u64::from(depth).saturating_sub(released as u64);
    entry.waiting_invocations = if entry.functions.is_empty() { 0 } else { others };
}

fn note_waiting(entry: &mut PoolEntry, now: Moment) {
    let released = entry.core.live().values().any(|attempt| attempt.owner().is_none());
    let waiting = released || entry.waiting_invocations > 0 || entry.core.jobs().values().any(|job| job.runs && job.waiting > 0);
    entry.waiting_since = if waiting { entry.waiting_since.or(Some(now)) } else { None };
}
