//! Resource usage of pools, jobs and tasks: core time by half hours, and the sums that statistics show.

use contract::{ids::PoolId, message::Finished, time::Timestamp};

/// Length of a usage interval.
pub const INTERVAL_MS: i64 = 30 * 60 * 1000;

/// Start of the interval that contains a point in time.
pub fn interval_of(at: Timestamp) -> Timestamp {
    Timestamp(at.0 - at.0.rem_euclid(INTERVAL_MS))
}

/// Core time that a pool used in one interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Charge {
    pub interval: Timestamp,
    /// Milliseconds times cores, summed over all nodes.
    pub core_ms: u64,
    /// The part of `core_ms` that dedicated nodes used.
    pub dedicated_core_ms: u64,
}

/// A pool's stored core time of one interval; the row outlives the pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageRow {
    pub interval: Timestamp,
    pub pool: PoolId,
    /// The pool's `vmSize`.
    pub vm_size: String,
    /// Milliseconds times cores, summed over all nodes.
    pub core_ms: u64,
}

/// Resources that one run or several runs have used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Work {
    /// CPU time in user mode.
    pub user_ms: u64,
    /// CPU time in kernel mode.
    pub kernel_ms: u64,
    /// Time from start to end of the runs.
    pub wall_ms: u64,
    pub in_bytes: u64,
    pub out_bytes: u64,
}

impl Work {
    /// Usage of one run.
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

    /// Adds the usage of more runs.
    pub fn add(&mut self, more: &Work) {
        self.user_ms = self.user_ms.saturating_add(more.user_ms);
        self.kernel_ms = self.kernel_ms.saturating_add(more.kernel_ms);
        self.wall_ms = self.wall_ms.saturating_add(more.wall_ms);
        self.in_bytes = self.in_bytes.saturating_add(more.in_bytes);
        self.out_bytes = self.out_bytes.saturating_add(more.out_bytes);
    }
}

/// Usage of one task since it was added, or of all tasks of a job or schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sums {
    pub work: Work,
    /// Time from adding each task to the start of its last run.
    pub wait_ms: u64,
    /// Runs that were repeated because of an exit code.
    pub retries: u64,
    /// Tasks that succeeded; counted for schedules only.
    pub succeeded: u64,
    /// Tasks that failed; counted for schedules only.
    pub failed: u64,
}

/// An amount that is added to a job's sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Share {
    pub work: Work,
    /// Change of the time waited; negative when a node's clock shows an earlier start.
    pub wait_ms: i64,
    /// Runs that were repeated because of an exit code.
    pub retries: u64,
}
