//! States of tasks, jobs, pools and nodes, spelt as Azure Batch spells them, with their legal transitions.
//!
//! ```text
//! task   active ──► running ──► completed          pool   active ──► deleting
//!          ▲ ▲─────────┘           │               alloc  steady ⇄ resizing ──► stopping ──► steady
//!          └──────(reactivate)─────┘
//! job    active ⇄ disabling/disabled/enabling      node   creating ► starting ► waitingforstarttask ► idle ⇄ running
//!          └──► terminating ──► completed                  any ► offline, unusable, unknown, preempted, leavingpool
//!        any ──► deleting
//! schedule   active ⇄ disabled, both ──► (terminating ──►) completed, any ──► deleting
//! ```

use serde::{Deserialize, Serialize};

macro_rules! states {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name { $($(#[$vdoc])* #[serde(rename = $text)] $variant),+ }
        impl $name {
            /// All values, in the order of the drawing.
            pub const ALL: &'static [$name] = &[$($name::$variant),+];
            /// The wire spelling.
            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $text),+ }
            }
            /// Reads the wire spelling in any letter case.
            pub fn parse(text: &str) -> Option<$name> {
                $name::ALL.iter().copied().find(|value| value.as_str().eq_ignore_ascii_case(text))
            }
        }
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

states!(
    /// The state of a task.
    TaskState {
        /// Waits for a slot.
        Active = "active",
        /// A node runs the job preparation first.
        Preparing = "preparing",
        /// A run owns the task.
        Running = "running",
        /// Ended; it can only be reactivated.
        Completed = "completed",
    }
);

states!(
    /// The state of a job.
    JobState {
        /// Accepts and runs tasks.
        Active = "active",
        /// Running tasks are being ended, requeued or awaited.
        Disabling = "disabling",
        /// No task runs.
        Disabled = "disabled",
        /// Becomes active next.
        Enabling = "enabling",
        /// Running tasks are being ended.
        Terminating = "terminating",
        Completed = "completed",
        /// Being removed.
        Deleting = "deleting",
    }
);

states!(
    /// The state of a job schedule.
    ScheduleState {
        /// Creates jobs.
        Active = "active",
        /// Creates no more jobs.
        Completed = "completed",
        /// Creates no jobs until it is enabled.
        Disabled = "disabled",
        /// The schedule is ending, and the job that it created last ends with it.
        Terminating = "terminating",
        /// Being removed with its jobs.
        Deleting = "deleting",
    }
);

states!(
    /// The state of a pool.
    PoolState {
        Active = "active",
        /// Being removed.
        Deleting = "deleting",
    }
);

states!(
    /// The progress of a pool's resize.
    AllocationState {
        /// The pool has its target size, or the resize has ended.
        Steady = "steady",
        /// Nodes are being added or removed.
        Resizing = "resizing",
        /// A resize is being stopped.
        Stopping = "stopping",
    }
);

states!(
    /// The state of a node.
    NodeState {
        /// Ready, and runs no task.
        Idle = "idle",
        Rebooting = "rebooting",
        /// Being set up anew.
        Reimaging = "reimaging",
        /// Runs at least one task.
        Running = "running",
        /// Cannot run tasks.
        Unusable = "unusable",
        /// The provider is creating it.
        Creating = "creating",
        Starting = "starting",
        /// The start task runs.
        WaitingForStartTask = "waitingforstarttask",
        StartTaskFailed = "starttaskfailed",
        /// Sends no heartbeats.
        Unknown = "unknown",
        /// Being removed.
        LeavingPool = "leavingpool",
        /// Scheduling is disabled and nothing runs.
        Offline = "offline",
        /// The provider took it back.
        Preempted = "preempted",
        UpgradingOs = "upgradingos",
        /// Stopped and kept.
        Deallocated = "deallocated",
        /// Being stopped.
        Deallocating = "deallocating",
    }
);

states!(
    /// Tells whether a node may be given tasks.
    SchedulingState {
        Enabled = "enabled",
        Disabled = "disabled",
    }
);

states!(
    /// How running tasks are handled when their node leaves.
    DeallocationOption {
        /// End them and queue them again.
        Requeue = "requeue",
        /// End them and complete them.
        Terminate = "terminate",
        /// Wait for their end.
        TaskCompletion = "taskcompletion",
        /// Wait for their end, and for the retention time of their files.
        RetainedData = "retaineddata",
    }
);

impl TaskState {
    /// True for a legal transition.
    pub fn may_become(self, next: TaskState) -> bool {
        use TaskState::*;
        matches!(
            (self, next),
            (Active, Preparing | Running | Completed)
                | (Preparing, Active | Running | Completed)
                | (Running, Active | Completed)
                | (Completed, Active)
        )
    }
}

impl JobState {
    /// True for a legal transition.
    pub fn may_become(self, next: JobState) -> bool {
        use JobState::*;
        match (self, next) {
            (Deleting, _) => false,
            (_, Deleting) => true,
            (Active | Disabling | Disabled, Disabling) => true,
            (Disabling, Disabled) | (Disabled | Disabling, Enabling) | (Enabling, Active) => true,
            (Active | Disabling | Disabled | Enabling, Terminating) | (Terminating, Completed) => true,
            _ => false,
        }
    }

    /// True while tasks may be added.
    pub fn takes_tasks(self) -> bool {
        matches!(self, JobState::Active | JobState::Disabling | JobState::Disabled | JobState::Enabling)
    }
}

impl ScheduleState {
    /// True for a legal transition.
    pub fn may_become(self, next: ScheduleState) -> bool {
        use ScheduleState::*;
        match (self, next) {
            (Deleting, _) => false,
            (_, Deleting) => true,
            (Active, Disabled) | (Disabled, Active) | (Active | Disabled, Terminating) => true,
            (Active | Disabled | Terminating, Completed) => true,
            _ => false,
        }
    }
}

impl NodeState {
    /// True while the node may be given tasks.
    pub fn takes_tasks(self) -> bool {
        matches!(self, NodeState::Idle | NodeState::Running)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn task_transitions_are_exactly_those_drawn() {
        use TaskState::*;
        let legal = [
            (Active, Preparing),
            (Active, Running),
            (Active, Completed),
            (Preparing, Active),
            (Preparing, Running),
            (Preparing, Completed),
            (Running, Active),
            (Running, Completed),
            (Completed, Active),
        ];
        for from in TaskState::ALL {
            for to in TaskState::ALL {
                assert_eq!(from.may_become(*to), legal.contains(&(*from, *to)), "{from} -> {to}");
            }
        }
    }

    #[test]
    fn nothing_leaves_deleting_and_completed_jobs_only_get_deleted() {
        for to in JobState::ALL {
            assert!(!JobState::Deleting.may_become(*to));
            assert_eq!(JobState::Completed.may_become(*to), *to == JobState::Deleting);
        }
    }

    #[test]
    fn a_schedule_that_has_ended_only_gets_deleted() {
        use ScheduleState::*;
        for to in ScheduleState::ALL {
            assert!(!Deleting.may_become(*to));
            assert_eq!(Completed.may_become(*to), *to == Deleting);
            assert_eq!(Terminating.may_become(*to), [Completed, Deleting].contains(to));
        }
        assert!(Active.may_become(Disabled) && Disabled.may_become(Active) && !Active.may_become(Active));
    }

    #[test]
    fn states_are_read_in_any_case() {
        assert_eq!(NodeState::parse("WaitingForStartTask"), Some(NodeState::WaitingForStartTask));
        assert_eq!(NodeState::parse("nonsense"), None);
    }
}
