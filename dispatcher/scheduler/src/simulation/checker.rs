//! Judges a history of facts by the invariants; it knows nothing of rows, cores or brokers.
//!
//! Facts come from commits (what the dispatcher decided), from agents (what really ran and was written)
//! and from users (what they were told). The first violation is kept.

use std::collections::{BTreeMap, BTreeSet};

use contract::{
    ids::{AttemptKey, Epoch, Fence, JobUid, NodeId, RunId, RunKey, TaskUid},
    outcome::{JobTaskKey, JobTaskKind},
};
use model::task::RequeueCause;

use crate::simulation::rows::Counts;

/// A process of an agent on its node, and how often the node's folders were emptied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub node: NodeId,
    pub process: usize,
    pub folder: u32,
}

/// An observed fact.
#[derive(Debug, Clone, PartialEq)]
pub enum Fact {
    /// A task's row was committed.
    Created { uid: TaskUid, name: usize, retries_max: i32 },
    /// A client was told that the task exists.
    Acknowledged { name: usize },
    /// An attempt was handed to the broker.
    Released { key: AttemptKey, at: i64 },
    /// A run became the owner.
    Owned { run: RunKey },
    /// The usage of a run was counted.
    Used { run: RunKey },
    /// A task was queued again.
    Requeued { uid: TaskUid, fence: Fence, cause: RequeueCause, at: i64 },
    /// The death of a node was counted against a task.
    Crashed { uid: TaskUid },
    /// The dispatcher and all agents ended at one moment.
    AllDied,
    /// A released task became ready again without having started.
    Unreleased { uid: TaskUid, fence: Fence },
    /// Completed, by the end of a run or by a decision.
    Ended { uid: TaskUid, fence: Fence, by: Option<RunKey>, has_succeeded: bool },
    /// A failed task is active again.
    Reactivated { uid: TaskUid, fence: Fence, life: u32 },
    /// The row of a task was deleted.
    Deleted { uid: TaskUid },
    /// A client was told that the task is ended; tasks that are reactivated have several lives.
    CancelAcknowledged { uid: TaskUid, life: u32 },
    /// A task of a job that does not run was released, or started.
    Disobeyed { key: AttemptKey },
    /// An attempt was handed out again though a node has listed its run for long.
    Forgotten { key: AttemptKey },
    /// An agent saw a run end.
    RunEnded { run: RunKey, has_failed: bool },
    /// A run of a job with a preparation began.
    RunBegan { run: RunKey, job: JobUid, place: Place, waits: bool, reruns: bool },
    /// A preparation or release began beside so many runs of its job.
    JobTaskBegan { key: JobTaskKey, place: Place, runs: usize },
    /// It ended.
    JobTaskEnded { key: JobTaskKey, place: Place, has_succeeded: bool },
    /// The end of a preparation was accepted from one epoch of an agent while another one was present.
    Believed { key: JobTaskKey, of: Epoch, present: Epoch },
    /// A node's report that it is drained was accepted while it keeps the end of a run that is not recorded.
    DrainedEarly { run: RunKey },
    /// The end of a run by its node's fault was taken.
    NodeFault { uid: TaskUid, node: NodeId, at: i64 },
    /// The exit of a run was taken.
    NodeWorked { node: NodeId },
    /// A newer epoch of a node's agent joined.
    NodeJoined { node: NodeId },
    /// The dispatcher restarted, which forgets all faults.
    FaultsForgotten,
    /// A node was ordered to work, or told that it may run a task.
    ToldToWork { node: NodeId, at: i64 },
    /// A task was given up because of the faults of its nodes.
    GivenUp { uid: TaskUid },
    /// A release was given up.
    ReleaseGivenUp { job: JobUid },
    /// A run was told that it may upload.
    Granted { run: RunKey },
    /// The final files of a success: who wrote each, in order.
    Final { uid: TaskUid, by: RunId, files: Vec<Option<RunId>> },
    /// A commit: counters kept from effects, and counted from rows.
    Counted { job: JobUid, kept: Counts, counted: Counts },
    /// A run of several slots became the owner of an attempt that was released so long before.
    WideStarted { run: RunKey, waited_ms: i64 },
    /// A node was kept for an attempt for so long.
    GivenBack { key: AttemptKey, kept_ms: i64 },
    /// Slots in the window after a release, and the most there may be.
    Window { live: u32, most: u32 },
}

/// A violated invariant.
#[derive(Debug, Clone, PartialEq)]
pub enum Violation {
    /// I1: a task that a client was told of has no end and no reason to wait.
    Lost(TaskUid),
    /// I1: a task that a client was told of was never stored.
    NeverStored(usize),
    /// I1: two rows for one name.
    CreatedTwice(usize),
    /// I2: a decision about a task that nobody submitted, or that is deleted.
    Unknown(TaskUid),
    /// I2: a decision about a task that has ended.
    AlreadyEnded(TaskUid),
    /// I2: the record shown at the end is not the one written.
    RecordChanged(TaskUid),
    /// I2: the record names a run that never ended.
    NeverRan(RunKey),
    /// I3: the final files are not exactly the winner's.
    Mixed(TaskUid, Vec<Option<RunId>>),
    /// I4: counters and rows differ.
    Counters { job: JobUid, kept: Counts, counted: Counts },
    /// I5: a decision under a fence that is not larger.
    OldFence(TaskUid, Fence),
    /// I5: a decision that the task's state does not allow, such as an end from a run that does not own it.
    OutOfTurn(Box<Fact>),
    /// I7: more retries than allowed.
    TooManyRetries(TaskUid),
    /// A second retry, or a later one, came without a pause.
    RetriedAtOnce(AttemptKey),
    /// I7: a retry was spent though no run of the task failed.
    RetryForNothing(TaskUid),
    /// A run began on a node on which its job's preparation had not succeeded.
    Unprepared(RunKey, Place),
    /// I6: the work of a superseded epoch counts for the newer one, beside which it may still run.
    OldStartBelieved(JobTaskKey, Epoch),
    /// I6: a node is about to be removed before the end that it keeps is recorded: the task would run a second time.
    DrainedEarly(RunKey),
    /// A node whose runs end by its own fault was given work before its pause was over.
    FaultyNodeWorks(NodeId),
    /// I7: a task was ended by the faults of fewer than five nodes; such ends are the nodes' and spend nothing of it.
    GivenUpByFew(TaskUid),
    /// A preparation ran again though it had succeeded.
    PreparedTwice(JobTaskKey, Place),
    /// A release began before the last run of its job had ended, or again.
    ReleasedOutOfTurn(JobTaskKey, Place),
    /// A release was given up although nothing went wrong.
    GivenUpForNothing(JobUid),
    /// A run was counted as lost although nothing went wrong.
    LostForNothing(TaskUid),
    /// A task was blamed for the death of its node although nothing went wrong.
    BlamedForNothing(TaskUid),
    /// A task was released or started though its job does not run.
    Disobeyed(AttemptKey),
    /// A run that its node lists was not taken for the task's.
    Forgotten(AttemptKey),
    /// What a run used was counted twice.
    UsedTwice(RunKey),
    /// I8: success after an acknowledged cancel.
    SuccessAfterCancel(TaskUid),
    /// A run that does not own its task was allowed to upload.
    GrantedToStranger(RunKey),
    /// A node that runs an invocation of a function counts as empty, so it could be removed under it.
    InvocationsUnseen(NodeId),
    /// More slots in the broker's hands than the window has.
    WindowOverrun { live: u32, most: u32 },
    /// In a crowd an attempt of several slots waited for longer than those before it need.
    WideStarved(AttemptKey, i64),
    /// In a crowd a node was kept for longer than its last task ran.
    KeptTooLong(AttemptKey, i64),
    /// After a commit, the scheduler's state differs from the rows.
    CoreAstray(String),
    /// Something has not ended after the faults stopped.
    NotSettled(String),
    /// The scheduler panicked.
    Panicked(String),
}

/// The history so far, by task.
#[derive(Debug, Default)]
pub struct Checker {
    /// Nothing goes wrong in this world, so no run may be taken for lost.
    pub is_calm: bool,
    /// In a crowd: how long an attempt of several slots may wait, and how long a node may be kept for one.
    pub wide_ms_max: Option<(i64, i64)>,
    records: BTreeMap<TaskUid, Record>,
    names: BTreeMap<usize, TaskUid>,
    acknowledged: BTreeSet<usize>,
    ended_runs: BTreeSet<RunKey>,
    used_runs: BTreeSet<RunKey>,
    /// Where preparations succeeded and were not released.
    prepared: BTreeMap<(JobUid, NodeId), Vec<Place>>,
    /// Nodes' faults in a row, and until when each gets no work.
    faulty_nodes: BTreeMap<NodeId, (u32, i64)>,
    /// The nodes whose faults each task met.
    faulty_tasks: BTreeMap<TaskUid, BTreeSet<NodeId>>,
    /// Who began the last release of a job on a node.
    released: BTreeMap<(JobUid, NodeId), Place>,
    violation: Option<Violation>,
}

#[derive(Debug, Default)]
struct Record {
    fence: u64,
    attempt: u32,
    retries: u32,
    retries_max: i32,
    failed_runs: u32,
    rests_until: i64,
    recoveries: u32,
    phase: Phase,
    is_cancelled: bool,
    /// All agents have ended since it was released.
    may_be_lost: bool,
    life: u32,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Phase {
    #[default]
    Waiting,
    Released(AttemptKey),
    Owned(RunKey),
    Ended {
        has_succeeded: bool,
    },
    Deleted,
}

/// What a history adds up to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Tasks stored.
    pub created: u64,
    /// Of them, completed.
    pub ended: u64,
    /// Attempts released.
    pub attempts: u64,
    /// Runs given up as lost.
    pub recoveries: u64,
}

impl Checker {
    /// The first violation, if any.
    pub fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    /// Notes something that is wrong by itself.
    pub fn fail(&mut self, violation: Violation) {
        self.violation.get_or_insert(violation);
    }

    /// Takes in one fact.
    pub fn observe(&mut self, fact: Fact) {
        if let Err(violation) = self.judge(fact) {
            self.fail(violation);
        }
    }

    fn judge(&mut self, fact: Fact) -> Result<(), Violation> {
        match fact {
            Fact::Created { uid, name, retries_max } => {
                if self.names.insert(name, uid).is_some() {
                    return Err(Violation::CreatedTwice(name));
                }
                self.records.insert(uid, Record { retries_max, ..Record::default() });
            }
            Fact::Acknowledged { name } => {
                self.acknowledged.insert(name);
                if !self.names.contains_key(&name) {
                    return Err(Violation::NeverStored(name));
                }
            }
            Fact::Released { key, at } => {
                let record = self.decide(key.uid, key.fence)?;
                if at < record.rests_until {
                    return Err(Violation::RetriedAtOnce(key));
                }
                if record.phase != Phase::Waiting || key.attempt != record.attempt + 1 {
                    return Err(Violation::OutOfTurn(Box::new(fact)));
                }
                (record.attempt, record.phase, record.may_be_lost) = (key.attempt, Phase::Released(key), false);
            }
            Fact::Owned { run } => {
                let record = self.alive(run.uid)?;
                if record.phase != Phase::Released(run.key()) {
                    return Err(Violation::OutOfTurn(Box::new(fact)));
                }
                record.phase = Phase::Owned(run);
            }
            Fact::Used { run } => {
                if self.alive(run.uid)?.phase != Phase::Owned(run) {
                    return Err(Violation::OutOfTurn(Box::new(fact)));
                }
                if !self.used_runs.insert(run) {
                    return Err(Violation::UsedTwice(run));
                }
            }
            Fact::Requeued { uid, fence, cause, at } => self.requeued(uid, fence, cause, at)?,
            Fact::Crashed { uid } if self.is_calm => return Err(Violation::BlamedForNothing(uid)),
            Fact::Crashed { .. } => {}
            Fact::AllDied => self.records.values_mut().for_each(|record| record.may_be_lost = true),
            Fact::Unreleased { uid, fence } => {
                let record = self.decide(uid, fence)?;
                if !matches!(record.phase, Phase::Released(_)) {
                    return Err(Violation::OutOfTurn(Box::new(fact)));
                }
                record.phase = Phase::Waiting;
            }
            Fact::Ended { uid, fence, by, has_succeeded } => self.ended(uid, fence, by, has_succeeded)?,
            Fact::Deleted { uid } => {
                let record = self.records.get_mut(&uid).ok_or(Violation::Unknown(uid))?;
                if record.phase == Phase::Deleted {
                    return Err(Violation::Unknown(uid));
                }
                record.phase = Phase::Deleted;
            }
            Fact::Reactivated { uid, fence, life } => {
                let record = self.records.get_mut(&uid).ok_or(Violation::Unknown(uid))?;
                if record.phase != (Phase::Ended { has_succeeded: false }) {
                    return Err(Violation::OutOfTurn(Box::new(fact)));
                }
                if fence.0 <= record.fence {
                    return Err(Violation::OldFence(uid, fence));
                }
                (record.phase, record.fence, record.life) = (Phase::Waiting, fence.0, life);
                (record.is_cancelled, record.retries, record.failed_runs, record.rests_until) = (false, 0, 0, 0);
            }
            Fact::Disobeyed { key } => return Err(Violation::Disobeyed(key)),
            Fact::Forgotten { key } => return Err(Violation::Forgotten(key)),
            Fact::CancelAcknowledged { uid, life } => {
                let record = self.records.get_mut(&uid).ok_or(Violation::Unknown(uid))?;
                if record.life != life {
                    return Ok(());
                }
                record.is_cancelled = true;
                match record.phase {
                    Phase::Ended { has_succeeded: false } | Phase::Deleted => {}
                    _ => return Err(Violation::SuccessAfterCancel(uid)),
                }
            }
            Fact::RunEnded { run, has_failed } => {
                if self.ended_runs.insert(run)
                    && has_failed
                    && let Some(record) = self.records.get_mut(&run.uid)
                {
                    record.failed_runs += 1;
                }
            }
            Fact::RunBegan { run, job, place, waits, reruns } => {
                let counts = |there: &Place| there.folder == place.folder && (!reruns || there.process == place.process);
                let prepared = self.prepared.get(&(job, place.node.clone()));
                if waits && !prepared.is_some_and(|places| places.iter().any(counts)) {
                    return Err(Violation::Unprepared(run, place));
                }
            }
            Fact::JobTaskBegan { key, place, runs } => {
                let job_on_node = (key.job, place.node.clone());
                match key.kind {
                    JobTaskKind::Preparation => {
                        if self.prepared.get(&job_on_node).is_some_and(|places| places.contains(&place)) {
                            return Err(Violation::PreparedTwice(key, place));
                        }
                        self.released.remove(&job_on_node);
                    }
                    JobTaskKind::Release => {
                        self.prepared.remove(&job_on_node);
                        if runs > 0 || self.released.insert(job_on_node, place.clone()).as_ref() == Some(&place) {
                            return Err(Violation::ReleasedOutOfTurn(key, place));
                        }
                    }
                }
            }
            Fact::JobTaskEnded { key, place, has_succeeded } => {
                if key.kind == JobTaskKind::Preparation && has_succeeded {
                    self.prepared.entry((key.job, place.node.clone())).or_default().push(place);
                }
            }
            Fact::Believed { key, of, present } => {
                if of != present {
                    return Err(Violation::OldStartBelieved(key, of));
                }
            }
            Fact::NodeFault { uid, node, at } => {
                self.faulty_tasks.entry(uid).or_default().insert(node.clone());
                // Documented: a second, then twice as long each time up to five minutes; faults meanwhile change nothing.
                let (in_a_row, until) = self.faulty_nodes.entry(node).or_default();
                if at >= *until {
                    (*in_a_row, *until) = (*in_a_row + 1, at + (1_000_i64 << (*in_a_row).min(16)).min(300_000));
                }
            }
            Fact::NodeWorked { node } => {
                if let Some((in_a_row, _)) = self.faulty_nodes.get_mut(&node) {
                    *in_a_row = 0;
                }
            }
            Fact::NodeJoined { node } => drop(self.faulty_nodes.remove(&node)),
            Fact::FaultsForgotten => {
                self.faulty_nodes.clear();
                self.faulty_tasks.clear();
            }
            Fact::ToldToWork { node, at } => {
                if self.faulty_nodes.get(&node).is_some_and(|(_, until)| at < *until) {
                    return Err(Violation::FaultyNodeWorks(node));
                }
            }
            Fact::GivenUp { uid } => {
                if self.faulty_tasks.get(&uid).is_none_or(|nodes| nodes.len() < 5) {
                    return Err(Violation::GivenUpByFew(uid));
                }
            }
            Fact::DrainedEarly { run } => return Err(Violation::DrainedEarly(run)),
            Fact::ReleaseGivenUp { job } if self.is_calm => return Err(Violation::GivenUpForNothing(job)),
            Fact::ReleaseGivenUp { .. } => {}
            Fact::Granted { run } => {
                if self.records.get(&run.uid).is_none_or(|record| record.phase != Phase::Owned(run)) {
                    return Err(Violation::GrantedToStranger(run));
                }
            }
            Fact::Final { uid, by, files } => {
                if files.iter().any(|file| *file != Some(by)) {
                    return Err(Violation::Mixed(uid, files));
                }
            }
            Fact::Counted { job, kept, counted } => {
                if kept != counted {
                    return Err(Violation::Counters { job, kept, counted });
                }
            }
            Fact::WideStarted { run, waited_ms } => {
                if self.wide_ms_max.is_some_and(|(most, _)| waited_ms > most) {
                    return Err(Violation::WideStarved(run.key(), waited_ms));
                }
            }
            Fact::GivenBack { key, kept_ms } => {
                if self.wide_ms_max.is_some_and(|(_, most)| kept_ms > most) {
                    return Err(Violation::KeptTooLong(key, kept_ms));
                }
            }
            Fact::Window { live, most } => {
                if live > most {
                    return Err(Violation::WindowOverrun { live, most });
                }
            }
        }
        Ok(())
    }

    fn alive(&mut self, uid: TaskUid) -> Result<&mut Record, Violation> {
        let record = self.records.get_mut(&uid).ok_or(Violation::Unknown(uid))?;
        match record.phase {
            Phase::Deleted => Err(Violation::Unknown(uid)),
            Phase::Ended { .. } => Err(Violation::AlreadyEnded(uid)),
            _ => Ok(record),
        }
    }

    fn decide(&mut self, uid: TaskUid, fence: Fence) -> Result<&mut Record, Violation> {
        let record = self.alive(uid)?;
        if fence.0 <= record.fence {
            return Err(Violation::OldFence(uid, fence));
        }
        record.fence = fence.0;
        Ok(record)
    }

    fn requeued(&mut self, uid: TaskUid, fence: Fence, cause: RequeueCause, at: i64) -> Result<(), Violation> {
        let is_calm = self.is_calm;
        let record = self.decide(uid, fence)?;
        if !matches!(record.phase, Phase::Owned(_)) {
            return Err(Violation::OutOfTurn(Box::new(Fact::Requeued { uid, fence, cause, at })));
        }
        record.phase = Phase::Waiting;
        match cause {
            RequeueCause::Requested | RequeueCause::Unprepared => {}
            RequeueCause::Recovery if is_calm && !record.may_be_lost => return Err(Violation::LostForNothing(uid)),
            RequeueCause::Recovery => record.recoveries += 1,
            RequeueCause::Retry => {
                record.retries += 1;
                // Documented: at once the first time, then a second and more, each up to a quarter shorter.
                record.rests_until = if record.retries > 1 { at + (750 << (record.retries - 2).min(5)) } else { 0 };
                if record.retries_max >= 0 && i64::from(record.retries) > i64::from(record.retries_max) {
                    return Err(Violation::TooManyRetries(uid));
                }
                if record.retries > record.failed_runs {
                    return Err(Violation::RetryForNothing(uid));
                }
            }
        }
        Ok(())
    }

    fn ended(&mut self, uid: TaskUid, fence: Fence, by: Option<RunKey>, has_succeeded: bool) -> Result<(), Violation> {
        let has_run = by.is_none_or(|run| self.ended_runs.contains(&run));
        let record = self.decide(uid, fence)?;
        if has_succeeded && record.is_cancelled {
            return Err(Violation::SuccessAfterCancel(uid));
        }
        if by.is_some_and(|run| record.phase != Phase::Owned(run)) {
            return Err(Violation::OutOfTurn(Box::new(Fact::Ended { uid, fence, by, has_succeeded })));
        }
        record.phase = Phase::Ended { has_succeeded };
        match by {
            Some(run) if !has_run => Err(Violation::NeverRan(run)),
            _ => Ok(()),
        }
    }

    /// The final check. `shown` are the terminal records as clients read them, `waits` the tasks that may wait for
    /// ever.
    pub fn finish(&mut self, shown: &BTreeMap<TaskUid, bool>, waits: &BTreeSet<TaskUid>) -> Totals {
        let mut totals = Totals::default();
        let mut wrong = None;
        for (uid, record) in &self.records {
            totals.created += 1;
            totals.attempts += u64::from(record.attempt);
            totals.recoveries += u64::from(record.recoveries);
            match record.phase {
                Phase::Ended { has_succeeded } => {
                    totals.ended += 1;
                    if shown.get(uid) != Some(&has_succeeded) {
                        wrong = wrong.or(Some(Violation::RecordChanged(*uid)));
                    }
                }
                Phase::Deleted => {}
                _ if shown.contains_key(uid) => wrong = wrong.or(Some(Violation::RecordChanged(*uid))),
                _ if waits.contains(uid) => {}
                _ => wrong = wrong.or(Some(Violation::Lost(*uid))),
            }
        }
        if let Some(uid) = shown.keys().find(|uid| !self.records.contains_key(uid)) {
            wrong = wrong.or(Some(Violation::Unknown(*uid)));
        }
        if let Some(violation) = wrong {
            self.fail(violation);
        }
        totals
    }
}
