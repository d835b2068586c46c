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
            /// Every value, in drawing order.
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
    /// Where a task is in its life.
    TaskState {
        /// Waiting for a slot.
        Active = "active",
        /// A node prepares for the job.
        Preparing = "preparing",
        /// A run owns it.
        Running = "running",
        /// Ended, for good unless reactivated.
        Completed = "completed",
    }
);

states!(
    /// Where a job is in its life.
    JobState {
        /// Takes tasks and runs them.
        Active = "active",
        /// Running tasks are being dealt with.
        Disabling = "disabling",
        /// Nothing runs.
        Disabled = "disabled",
        /// About to be active.
        Enabling = "enabling",
        /// Running tasks are being ended.
        Terminating = "terminating",
        /// Ended.
        Completed = "completed",
        /// Being removed.
        Deleting = "deleting",
    }
);

states!(
    /// Where a job schedule is in its life.
    ScheduleState {
        /// Makes jobs.
        Active = "active",
        /// Makes no more jobs.
        Completed = "completed",
        /// Makes no jobs until it is enabled.
        Disabled = "disabled",
        /// Its job is being ended.
        Terminating = "terminating",
        /// Being removed with its jobs.
        Deleting = "deleting",
    }
);

states!(
    /// Where a pool is in its life.
    PoolState {
        /// In use.
        Active = "active",
        /// Being removed.
        Deleting = "deleting",
    }
);

states!(
    /// Whether a pool's size is changing.
    AllocationState {
        /// As many nodes as wanted, or the resize has ended.
        Steady = "steady",
        /// Nodes come or go.
        Resizing = "resizing",
        /// A resize is being stopped.
        Stopping = "stopping",
    }
);

states!(
    /// Where a node is in its life.
    NodeState {
        /// Ready and empty.
        Idle = "idle",
        /// Restarting.
        Rebooting = "rebooting",
        /// Being set up anew.
        Reimaging = "reimaging",
        /// Runs at least one task.
        Running = "running",
        /// Cannot run tasks.
        Unusable = "unusable",
        /// Asked for, not there yet.
        Creating = "creating",
        /// Booting.
        Starting = "starting",
        /// The start task runs.
        WaitingForStartTask = "waitingforstarttask",
        /// The start task failed.
        StartTaskFailed = "starttaskfailed",
        /// Not heard from.
        Unknown = "unknown",
        /// Being removed.
        LeavingPool = "leavingpool",
        /// Scheduling is disabled and nothing runs.
        Offline = "offline",
        /// Taken back by the provider.
        Preempted = "preempted",
        /// Its system is being upgraded.
        UpgradingOs = "upgradingos",
        /// Stopped, kept.
        Deallocated = "deallocated",
        /// Being stopped.
        Deallocating = "deallocating",
    }
);

states!(
    /// Whether a node may be given tasks.
    SchedulingState {
        /// Yes.
        Enabled = "enabled",
        /// No.
        Disabled = "disabled",
    }
);

states!(
    /// What becomes of running tasks when their node leaves.
    DeallocationOption {
        /// Killed and queued again.
        Requeue = "requeue",
        /// Killed and completed.
        Terminate = "terminate",
        /// Run to their end first.
        TaskCompletion = "taskcompletion",
        /// Run to their end, then wait for the files' retention.
        RetainedData = "retaineddata",
    }
);

impl TaskState {
    /// Whether the rules allow the step.
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
    /// Whether the rules allow the step.
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

    /// Whether new tasks may be added.
    pub fn takes_tasks(self) -> bool {
        matches!(self, JobState::Active | JobState::Disabling | JobState::Disabled | JobState::Enabling)
    }
}

impl ScheduleState {
    /// Whether the rules allow the step.
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
    /// Whether the node can be given tasks.
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
