//! Judges a history of facts by the invariants; it knows nothing of rows, cores or brokers.
//!
//! Facts come from commits (what the dispatcher decided), from agents (what really ran and was written)
//! and from users (what they were told). The first violation is kept.

use std::collections::{BTreeMap, BTreeSet};

use broker_config::{
    chore::{ChoreKey, ChoreKind},
    ids::{AttemptKey, Fence, JobUid, NodeId, RunId, RunKey, TaskUid},
};

use crate::{core::simulation::rows::Counts, store::records::RequeueCause};

/// A process of an agent on its node, and how often the node's folders were emptied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub node: NodeId,
    pub process: usize,
    pub folder: u32,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Fact {
    /// A task's row was committed.
    Created { uid: TaskUid, name: usize, retries_max: i32 },
    /// A user was told that the task exists.
    Acknowledged { name: usize },
    /// An attempt was handed to the broker.
    Released { key: AttemptKey },
    /// A run became the owner.
    Owned { run: RunKey },
    /// What a run used was counted.
    Used { run: RunKey },
    /// Back to the rows.
    Requeued { uid: TaskUid, fence: Fence, cause: RequeueCause },
    /// Back to the rows without having been started.
    Unreleased { uid: TaskUid, fence: Fence },
    /// Completed, by the end of a run or by a decision.
    Ended { uid: TaskUid, fence: Fence, by: Option<RunKey>, has_succeeded: bool },
    /// A failed task is active again.
    Reactivated { uid: TaskUid, fence: Fence, life: u32 },
    /// The row went.
    Deleted { uid: TaskUid },
    /// A user was told that the task is ended, in this life of it.
    CancelAcknowledged { uid: TaskUid, life: u32 },
    /// A task of a job that does not run was released, or started.
    Disobeyed { key: AttemptKey },
    /// An agent saw a run end.
    RunEnded { run: RunKey, has_failed: bool },
    /// A run of a job with a preparation began.
    RunBegan { run: RunKey, job: JobUid, place: Place, waits: bool, reruns: bool },
    /// A preparation or release began beside so many runs of its job.
    ChoreBegan { key: ChoreKey, place: Place, runs: usize },
    /// It ended.
    ChoreEnded { key: ChoreKey, place: Place, has_succeeded: bool },
    /// A release is not waited for any longer.
    ReleaseGivenUp { job: JobUid },
    /// A run was told that it may upload.
    Granted { run: RunKey },
    /// The final files of a success: who wrote each, in order.
    Final { uid: TaskUid, by: RunId, files: Vec<Option<RunId>> },
    /// A commit: counters kept from effects, and counted from rows.
    Counted { job: JobUid, kept: Counts, counted: Counts },
    /// Slots in the window after a release, and the most there may be.
    Window { live: u32, most: u32 },
}

/// A broken promise.
#[derive(Debug, Clone, PartialEq)]
pub enum Violation {
    /// I1: a task that a user was told of has no end and no reason to wait.
    Lost(TaskUid),
    /// I1: a task that a user was told of was never stored.
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
    /// I7: a retry was spent though no run of the task failed.
    RetryForNothing(TaskUid),
    /// A run began on a node on which its job's preparation had not succeeded.
    Unprepared(RunKey, Place),
    /// A preparation ran again though it had succeeded.
    PreparedTwice(ChoreKey, Place),
    /// A release began before the last run of its job had ended, or again.
    ReleasedOutOfTurn(ChoreKey, Place),
    /// A release of a calm pool was given up.
    GivenUpForNothing(JobUid),
    /// A run of a calm pool was taken for lost.
    LostForNothing(TaskUid),
    /// A task was released or started though its job does not run.
    Disobeyed(AttemptKey),
    /// What a run used was counted twice.
    UsedTwice(RunKey),
    /// I8: success after an acknowledged cancel.
    SuccessAfterCancel(TaskUid),
    /// Upload was allowed to a run that does not own its task.
    GrantedToStranger(RunKey),
    /// More slots in the broker's hands than the window has.
    WindowOverrun { live: u32, most: u32 },
    /// After a commit the core is not what its rows say.
    CoreAstray(String),
    /// After the quiet period something still moves.
    NotSettled(String),
    /// The rules panicked.
    Panicked(String),
}

/// The history so far, by task.
#[derive(Debug, Default)]
pub struct Checker {
    /// Nothing goes wrong in this world, so no run may be taken for lost.
    pub is_calm: bool,
    records: BTreeMap<TaskUid, Record>,
    names: BTreeMap<usize, TaskUid>,
    acknowledged: BTreeSet<usize>,
    ended_runs: BTreeSet<RunKey>,
    used_runs: BTreeSet<RunKey>,
    /// Where preparations succeeded and were not released.
    prepared: BTreeMap<(JobUid, NodeId), Vec<Place>>,
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
    recoveries: u32,
    phase: Phase,
    is_cancelled: bool,
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
            Fact::Released { key } => {
                let record = self.decide(key.uid, key.fence)?;
                if record.phase != Phase::Waiting || key.attempt != record.attempt + 1 {
                    return Err(Violation::OutOfTurn(Box::new(fact)));
                }
                (record.attempt, record.phase) = (key.attempt, Phase::Released(key));
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
            Fact::Requeued { uid, fence, cause } => self.requeued(uid, fence, cause)?,
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
                (record.is_cancelled, record.retries, record.failed_runs) = (false, 0, 0);
            }
            Fact::Disobeyed { key } => return Err(Violation::Disobeyed(key)),
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
            Fact::ChoreBegan { key, place, runs } => {
                let site = (key.job, place.node.clone());
                match key.kind {
                    ChoreKind::Preparation => {
                        if self.prepared.get(&site).is_some_and(|places| places.contains(&place)) {
                            return Err(Violation::PreparedTwice(key, place));
                        }
                        self.released.remove(&site);
                    }
                    ChoreKind::Release => {
                        self.prepared.remove(&site);
                        if runs > 0 || self.released.insert(site, place.clone()).as_ref() == Some(&place) {
                            return Err(Violation::ReleasedOutOfTurn(key, place));
                        }
                    }
                }
            }
            Fact::ChoreEnded { key, place, has_succeeded } => {
                if key.kind == ChoreKind::Preparation && has_succeeded {
                    self.prepared.entry((key.job, place.node.clone())).or_default().push(place);
                }
            }
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

    fn requeued(&mut self, uid: TaskUid, fence: Fence, cause: RequeueCause) -> Result<(), Violation> {
        let is_calm = self.is_calm;
        let record = self.decide(uid, fence)?;
        if !matches!(record.phase, Phase::Owned(_)) {
            return Err(Violation::OutOfTurn(Box::new(Fact::Requeued { uid, fence, cause })));
        }
        record.phase = Phase::Waiting;
        match cause {
            RequeueCause::Requested | RequeueCause::Unprepared => {}
            RequeueCause::Recovery if is_calm => return Err(Violation::LostForNothing(uid)),
            RequeueCause::Recovery => record.recoveries += 1,
            RequeueCause::Retry => {
                record.retries += 1;
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

    /// The last look: `shown` are the terminal records as users read them, `waits` the tasks that may wait for ever.
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
