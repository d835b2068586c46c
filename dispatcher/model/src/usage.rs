//! What pools, jobs and tasks have used: core time by half hour, and the sums that statistics show.

use contract::{ids::PoolId, message::Finished, time::Timestamp};

/// The length of an interval of usage.
pub const INTERVAL_MS: i64 = 30 * 60 * 1000;

/// The interval that holds a point in time, by its start.
pub fn interval_of(at: Timestamp) -> Timestamp {
    Timestamp(at.0 - at.0.rem_euclid(INTERVAL_MS))
}

/// Core time of a pool inside one interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Charge {
    /// The interval's start.
    pub interval: Timestamp,
    /// Milliseconds times cores, of all nodes.
    pub core_ms: u64,
    /// Of them, those of dedicated nodes.
    pub dedicated_core_ms: u64,
}

/// A pool's core time in one interval; it stays when the pool goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageRow {
    /// The interval's start.
    pub interval: Timestamp,
    /// The pool.
    pub pool: PoolId,
    /// Its size of machines.
    pub vm_size: String,
    /// Milliseconds times cores.
    pub core_ms: u64,
}

/// What runs have used, summed up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Work {
    /// CPU time in user mode.
    pub user_ms: u64,
    /// CPU time in kernel mode.
    pub kernel_ms: u64,
    /// Time from start to end.
    pub wall_ms: u64,
    /// Bytes staged in.
    pub in_bytes: u64,
    /// Bytes staged out.
    pub out_bytes: u64,
}

impl Work {
    /// What one run has used.
    pub fn of(finished: &Finished) -> Work {
        let usage = finished.usage;
        Work {
            user_ms: usage.user_ms,
            kernel_ms: usage.kernel_ms,
            wall_ms: finished.ended_at.since(finished.started_at).cast_unsigned(),
            in_bytes: usage.in_bytes,
            out_bytes: usage.out_bytes,
        }
    }

    /// Adds more runs.
    pub fn add(&mut self, more: &Work) {
        self.user_ms = self.user_ms.saturating_add(more.user_ms);
        self.kernel_ms = self.kernel_ms.saturating_add(more.kernel_ms);
        self.wall_ms = self.wall_ms.saturating_add(more.wall_ms);
        self.in_bytes = self.in_bytes.saturating_add(more.in_bytes);
        self.out_bytes = self.out_bytes.saturating_add(more.out_bytes);
    }
}

/// What a task has used since it was added, or the tasks of a job or a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sums {
    /// Its runs.
    pub work: Work,
    /// Time from adding tasks to the start of their last runs.
    pub wait_ms: u64,
    /// Runs again because of an exit code.
    pub retries: u64,
    /// Tasks that have ended well; only schedules are counted here.
    pub succeeded: u64,
    /// Tasks that have ended badly; only schedules are counted here.
    pub failed: u64,
}

/// What is added to the sums of a job; waiting may become less when a task starts by another clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Share {
    /// Runs.
    pub work: Work,
    /// A change of the time waited.
    pub wait_ms: i64,
    /// Runs again because of an exit code.
    pub retries: u64,
}
