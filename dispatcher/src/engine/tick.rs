//! What time does: leases, republishing, resizes that end, jobs that are swept.

use std::collections::HashMap;

use broker_config::{
    ids::PoolId,
    message::Fault,
    state::{AllocationState, PoolState},
    time::Timestamp,
};

use crate::{
    core::Event,
    engine::world::{PoolEntry, World},
    store::StoreError,
};

/// Idle and running, and how many tasks a node ran, are written this often and not with each task.
const FLUSH_MS: i64 = 1_000;

impl World {
    pub(super) fn on_tick(&mut self, events_behind: bool, depths: &HashMap<PoolId, u32>, now: Timestamp) -> Result<(), StoreError> {
        let pools: Vec<PoolId> = self.pools.keys().cloned().collect();
        for id in pools {
            self.step(&id, Event::Tick { events_behind, queue_ready: depths.get(&id).copied() }, now)?;
            let version = self.version + 1;
            let Some(entry) = self.pools.get_mut(&id) else { continue };
            if settle(entry, now) {
                (entry.record.version, entry.record.modified_at, entry.is_dirty) = (version, now, true);
                self.version = version;
            }
            note_waiting(entry, now);
            self.tick_meter(&id, false, now)?;
            self.tick_scaling(&id, now);
            let Some(entry) = self.pools.get_mut(&id) else { continue };
            if now.since(entry.flushed_at) >= FLUSH_MS {
                entry.flushed_at = now;
                entry.dirty_nodes.append(&mut entry.stale_nodes);
            }
            if entry.record.state == PoolState::Deleting && entry.nodes.is_empty() {
                self.forget_pool(&id, now)?;
            }
        }
        self.tick_jobs(now)?;
        self.tick_schedules(now)
    }
}

/// Ends a resize that is done or out of time; whether the record changed.
fn settle(entry: &mut PoolEntry, now: Timestamp) -> bool {
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
    let out_of_time = record.resize_timeout.limit().is_some_and(|limit| now.since(record.allocation_at) > limit.as_millis() as i64);
    if is_done {
        // What was stopped has noted what is missing.
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

fn note_waiting(entry: &mut PoolEntry, now: Timestamp) {
    let released = entry.core.live().values().any(|attempt| attempt.owner().is_none());
    let waiting = released || entry.core.jobs().values().any(|job| job.runs && job.waiting > 0);
    entry.waiting_since = if waiting { entry.waiting_since.or(Some(now)) } else { None };
}
