//! Applies the scheduler's effects: rows, counters and outputs.

use std::collections::VecDeque;

use broker_config::topology;
use contract::{
    clock::Now,
    ids::{Fence, JobUid, NodeId, PoolId, TaskUid},
    message::{Control, ControlKind, Finished, Start, VERSION},
    outcome::{Fault, Outcome, Stream},
    state::{JobState, NodeState},
    time::Timestamp,
};
use model::{
    job::Counts,
    task::{DependencyAction, ExitConditions, ExitOptions, Failure, JobAction, RequeueCause},
};
use scheduler::{Effect, EndCause, Event, JobStop, Ready};
use store::{
    StoreError,
    records::{Candidate, Ending, RECENT_MAX, Requeue, Streams},
};

use crate::{Output, world::World};

/// The part of a row that the scheduler needs.
fn ready(task: &Candidate) -> Ready {
    let Candidate { uid, attempt, fence, slots, crashes, retries, retries_max, .. } = task;
    Ready { uid: *uid, attempt: *attempt, fence: *fence, slots: *slots, crashes: *crashes, retries: *retries, retries_max: *retries_max }
}

impl World {
    pub(super) fn apply(&mut self, pool: &PoolId, effects: Vec<Effect>, now: Timestamp) -> Result<(), StoreError> {
        let mut queue: VecDeque<Effect> = effects.into();
        while let Some(effect) = queue.pop_front() {
            match effect {
                Effect::Fetch { job, count } => {
                    let Some(candidates) = self.fetch(pool, job, count as usize, now)? else { continue };
                    let tasks = candidates.iter().map(ready).collect();
                    let mut more = Vec::new();
                    if let Some(entry) = self.pools.get_mut(pool) {
                        entry.core.step(Event::Fetched { job, asked: count, tasks }, Now { time: now, moment: self.moment }, &mut more);
                    }
                    queue.extend(more);
                }
                Effect::Release { job, key, slots } => {
                    self.store.release(key.uid, key.attempt, key.fence, now)?;
                    if let Some((task, spec)) = self.fresh.remove(&key.uid) {
                        self.publish(pool, job, (key, slots), Start::Now, (task, Some(spec)));
                    }
                }
                Effect::Republish { key, slots } => {
                    let candidate = self.store.candidate(key.uid);
                    if let Some(candidate) = self.legible(key.uid, candidate)? {
                        self.publish(pool, candidate.job, (key, slots), Start::Ask, (candidate.id, None));
                    }
                }
                Effect::Published { uid } => self.store.published(uid)?,
                Effect::Start { job, run, node, epoch, at, is_preparing } => {
                    let version = self.next_version();
                    let active_since = if is_preparing {
                        self.store.prepare((run.uid, run.run), (&node, epoch), at, version)
                    } else {
                        self.store.start(run.uid, run.run, &node, epoch, at, version)
                    };
                    if let Some(active_since) = self.legible(run.uid, active_since)? {
                        self.tally.started(pool, at.since(active_since));
                    }
                    self.note_recent(pool, node, run.uid);
                    let slots = if self.is_wide(pool, run.uid) { self.task_slots(run.uid)? } else { 1 };
                    self.count(job, slots, |counts, n| {
                        (counts.active, counts.running) = (counts.active.saturating_sub(n), counts.running + n)
                    });
                }
                Effect::Begin { run, at } => {
                    let version = self.next_version();
                    self.store.begin_run(run.uid, at, version)?;
                }
                Effect::JobOnNode { job, node, job_on_node } => self.store.put_job_on_node(job, pool, &node, &job_on_node)?,
                Effect::JobTaskBegun { job, node, kind, at } => self.store.begin_job_task(job, pool, &node, kind, at)?,
                Effect::JobTaskEnded { node, end, is_told } => self.store.end_job_task(pool, &node, &end, is_told)?,
                Effect::Keep { node, key, slots, waited_ms } => {
                    let (uid, attempt) = (key.uid.0, key.attempt);
                    tracing::info!(%pool, %node, uid, attempt, slots, waited_ms, "a task waits for several slots of one node: the node starts nothing else until it does");
                    self.control(topology::node_key(pool, &node), ControlKind::Heartbeat);
                }
                Effect::GiveBack { node, key } => {
                    let (uid, attempt) = (key.uid.0, key.attempt);
                    tracing::info!(%pool, %node, uid, attempt, "the node is not kept for the task any longer");
                    self.control(topology::node_key(pool, &node), ControlKind::Heartbeat);
                }
                Effect::NodePaused { node, in_a_row, pause_ms, fault } => {
                    self.node_paused(pool, &node, (in_a_row, pause_ms), &fault);
                }
                Effect::NodeResumed { node } => self.node_resumed(pool, &node),
                Effect::Nudge { node } => self.control(topology::node_key(pool, &node), ControlKind::Heartbeat),
                Effect::Requeue { job, uid, fence, cause, crashes, pause_ms } => {
                    let version = self.next_version();
                    let slots = self.task_slots(uid)?;
                    let rests_until = (pause_ms > 0).then(|| now.plus_ms(pause_ms.cast_signed()));
                    let before = self.store.blobs_of(uid)?;
                    self.store.requeue(uid, fence, &Requeue { cause, crashes, rests_until, at: now }, version)?;
                    self.discard_replaced(uid, before)?;
                    self.tally.requeued(cause);
                    if cause == RequeueCause::Retry {
                        self.used.entry(job).or_default().retries += 1;
                    }
                    self.count(job, slots, |counts, n| {
                        (counts.active, counts.running) = (counts.active + n, counts.running.saturating_sub(n))
                    });
                }
                Effect::Wake { job } => {
                    let (count, more) = self.store.wake(job, now)?;
                    if let Some(entry) = self.pools.get_mut(pool) {
                        entry.core.step(Event::Woken { job, count, more }, Now { time: now, moment: self.moment }, &mut Vec::new());
                    }
                }
                Effect::Unrelease { uid, fence, .. } => self.store.unrelease(uid, fence)?,
                Effect::Used { job, run, work, started_at } => {
                    let waited = self.store.add_run(run.uid, &work, started_at).map(Some);
                    let wait_ms = self.legible(run.uid, waited)?.unwrap_or(0);
                    self.tally.ran(pool, work.wall_ms);
                    let share = self.used.entry(job).or_default();
                    share.work.add(&work);
                    share.wait_ms += wait_ms;
                }
                Effect::KeepStreams { node, finished } => {
                    let before = self.store.blobs_of(finished.uid)?;
                    self.store.keep_streams(&finished.run_key(), &node, (&finished.stdout, &finished.stderr))?;
                    self.discard_replaced(finished.uid, before)?;
                }
                Effect::End { job, uid, fence, was_running, node, cause } => {
                    self.end(pool, job, uid, fence, was_running, node, cause, now)?
                }
                Effect::Delete { job, uid, was_running } => {
                    let slots = self.task_slots(uid)?;
                    let before = self.store.blobs_of(uid)?;
                    self.store.delete_task(uid)?;
                    self.tell_end(job, uid)?;
                    self.discard_replaced(uid, before)?;
                    self.count(job, slots, |counts, n| {
                        let from = if was_running { &mut counts.running } else { &mut counts.active };
                        *from = from.saturating_sub(n);
                    });
                }
                Effect::Revoke(key) => self.control(topology::pool_control_key(pool), ControlKind::Revoke { key }),
                Effect::Stop { node, run, verdict } => self.control(topology::node_key(pool, &node), ControlKind::Stop { run, verdict }),
                Effect::NodeState { node, state } => self.note_node(pool, &node, state, now),
                Effect::NodeActionChanged { node, action } => {
                    if let Some(entry) = self.pools.get_mut(pool)
                        && let Some(record) = entry.nodes.get_mut(&node)
                    {
                        (record.action, record.is_drained) = (action, false);
                        entry.dirty_nodes.insert(node);
                    }
                }
                Effect::Drained { node } => {
                    if let Some(entry) = self.pools.get_mut(pool)
                        && let Some(record) = entry.nodes.get_mut(&node)
                    {
                        record.is_drained = true;
                        entry.dirty_nodes.insert(node);
                    }
                }
            }
        }
        Ok(())
    }

    pub(super) fn control(&mut self, key: String, what: ControlKind) {
        self.outputs.push(Output::Control { key, control: Control { v: VERSION, what } });
    }

    fn note_node(&mut self, pool: &PoolId, node: &NodeId, state: NodeState, now: Timestamp) {
        if let Some(entry) = self.pools.get_mut(pool)
            && let Some(record) = entry.nodes.get_mut(node)
        {
            let is_busy = |state: NodeState| matches!(state, NodeState::Idle | NodeState::Running);
            let nodes = if is_busy(state) && is_busy(record.state) { &mut entry.stale_nodes } else { &mut entry.dirty_nodes };
            nodes.insert(node.clone());
            (record.state, record.state_at) = (state, now);
        }
    }

    fn note_recent(&mut self, pool: &PoolId, node: NodeId, uid: TaskUid) {
        if let Some(entry) = self.pools.get_mut(pool)
            && let Some(record) = entry.nodes.get_mut(&node)
        {
            record.recent.retain(|known| *known != uid);
            if record.recent.len() >= RECENT_MAX {
                record.recent.remove(0);
            }
            record.recent.push(uid);
            entry.stale_nodes.insert(node);
        }
    }

    fn is_wide(&self, pool: &PoolId, uid: TaskUid) -> bool {
        self.pools.get(pool).and_then(|pool| pool.core.live().get(&uid)).is_none_or(|attempt| attempt.slots > 1)
    }

    fn task_slots(&mut self, uid: TaskUid) -> Result<u64, StoreError> {
        let head = self.store.task_by_uid(uid);
        Ok(self.legible(uid, head)?.map_or(1, |task| u64::from(task.slots)))
    }

    /// Moves one task and its slots between a job's counters.
    pub(super) fn count(&mut self, job: JobUid, slots: u64, change: impl Fn(&mut Counts, u64)) {
        if let Some(entry) = self.jobs.get_mut(&job) {
            change(&mut entry.record.tasks, 1);
            change(&mut entry.record.slots, slots);
            entry.is_dirty = true;
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn end(
        &mut self,
        pool: &PoolId,
        job: JobUid,
        uid: TaskUid,
        fence: Fence,
        was_running: bool,
        node: Option<NodeId>,
        cause: EndCause,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let finished = run_of(&cause);
        let (exit_code, failure) = judge(&cause);
        let has_succeeded = failure.is_none();
        let (streams, stdout, stderr) = match finished {
            Some(finished) => (Streams::Told, finished.stdout.clone(), finished.stderr.clone()),
            // Until the run reports its output, GET reads it from the node.
            None if was_running => (Streams::Awaited, Stream::Node { bytes: 0 }, Stream::Node { bytes: 0 }),
            None => (Streams::Earlier, Stream::Empty, Stream::Empty),
        };
        let started_at = finished.as_ref().map(|finished| finished.started_at);
        if let Some(node) = &node
            && let Some(entry) = self.pools.get_mut(pool)
            && let Some(record) = entry.nodes.get_mut(node)
        {
            record.tasks_run += 1;
            record.tasks_succeeded += u64::from(has_succeeded);
            entry.stale_nodes.insert(node.clone());
        }
        let ending = Ending { fence, has_succeeded, exit_code, failure, streams, stdout, stderr, started_at, node, at: now };
        let version = self.next_version();
        // The first run of a task has no older streams that it could replace.
        let before = if finished.is_some_and(|finished| finished.attempt == 1) { [None, None] } else { self.store.blobs_of(uid)? };
        self.store.end(uid, &ending, version)?;
        self.discard_replaced(uid, before)?;
        if was_running || run_of(&cause).is_some() {
            self.tally.ended(&cause);
        }
        self.ended(job, uid, was_running, &cause, has_succeeded, now)
    }

    /// Applies the end of a task to counters, dependent tasks and the job.
    pub(super) fn ended(
        &mut self,
        job: JobUid,
        uid: TaskUid,
        was_running: bool,
        cause: &EndCause,
        has_succeeded: bool,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.tell_end(job, uid)?;
        if let Some(entry) = self.jobs.get(&job) {
            self.tally.completed(&entry.record.pool, has_succeeded);
        }
        let wants_options = self.jobs.get(&job).is_some_and(|job| job.record.uses_dependencies || job.record.performs_exit_options);
        let needs_head = wants_options
            || self.jobs.get(&job).is_some_and(|job| {
                job.record.slots.active + job.record.slots.running != job.record.tasks.active + job.record.tasks.running
            });
        let head = if needs_head { self.store.task_by_uid(uid) } else { Ok(None) };
        let head = self.legible(uid, head)?;
        let slots = head.as_ref().map_or(1, |head| u64::from(head.slots));
        self.count(job, slots, |counts, n| {
            let from = if was_running { &mut counts.running } else { &mut counts.active };
            *from = from.saturating_sub(n);
            let to = if has_succeeded { &mut counts.succeeded } else { &mut counts.failed };
            *to += n;
        });
        if wants_options && let Some(head) = head {
            let conditions = self.store.exit_conditions(uid);
            let conditions = self.legible(uid, conditions)?.unwrap_or_default();
            let options = options(&conditions, run_of(cause).map(|finished| &finished.outcome), has_succeeded);
            let satisfies = options.dependency_action.map_or(has_succeeded, |action| action == DependencyAction::Satisfy);
            if satisfies {
                let ready = self.store.satisfy(job, &head.id)?.len() as u64;
                self.unblocked(job, ready, now)?;
            }
            // A task that was ended on request does not trigger the job's failure action.
            let is_requested = matches!(cause, EndCause::Ended);
            let usual = if has_succeeded || is_requested { JobAction::None } else { JobAction::Terminate };
            let action = options.job_action.unwrap_or(usual);
            let is_disabling = |state| is_requested && state == JobState::Disabling;
            if self.jobs.get(&job).is_some_and(|job| job.record.performs_exit_options && !is_disabling(job.record.state)) {
                match action {
                    JobAction::None => {}
                    JobAction::Terminate => self.stop_job(job, JobState::Terminating, Some("TaskFailed".to_owned()), JobStop::End, now)?,
                    JobAction::Disable => self.stop_job(job, JobState::Disabling, None, JobStop::Requeue, now)?,
                }
            }
        }
        if self.jobs.get(&job).is_some_and(|entry| entry.record.ends_with == Some(uid)) {
            self.stop_job(job, JobState::Terminating, Some("JMComplete".to_owned()), JobStop::End, now)?;
        }
        self.complete_if_done(job, now)
    }

    pub(super) fn unblocked(&mut self, job: JobUid, count: u64, now: Timestamp) -> Result<(), StoreError> {
        if count == 0 {
            return Ok(());
        }
        let Some(entry) = self.jobs.get_mut(&job) else { return Ok(()) };
        let pool = entry.record.pool.clone();
        if !self.pools.contains_key(&pool) {
            entry.parked += count;
            return Ok(());
        }
        self.step(&pool, Event::Unblocked { job, count }, now)
    }
}

/// The report of the run, when a run ended.
fn run_of(cause: &EndCause) -> Option<&Finished> {
    match cause {
        EndCause::Finished(finished) => Some(finished),
        EndCause::Ended | EndCause::Crashes(_) | EndCause::Faults { .. } | EndCause::Unreadable => None,
    }
}

/// The exit options that apply to an end, in Azure's order of precedence.
fn options(conditions: &ExitConditions, outcome: Option<&Outcome>, has_succeeded: bool) -> ExitOptions {
    let by_code = |code: i32| {
        let single = conditions.exit_codes.iter().find(|entry| entry.code == code).map(|entry| entry.exit_options);
        single.or_else(|| {
            conditions.exit_code_ranges.iter().find(|entry| (entry.start..=entry.end).contains(&code)).map(|entry| entry.exit_options)
        })
    };
    let otherwise = || if has_succeeded { None } else { conditions.otherwise };
    let found = match outcome {
        Some(Outcome::Exit { code }) => by_code(*code),
        Some(Outcome::Upload { code, .. }) => code.and_then(by_code).or(conditions.file_upload_error),
        Some(outcome) if outcome.is_before_start() => conditions.pre_processing_error,
        _ => None,
    };
    found.or_else(otherwise).unwrap_or_default()
}

/// The exit code and the failure that the API shows for an end.
fn judge(cause: &EndCause) -> (Option<i32>, Option<Failure>) {
    let fault = |code: &str, message: String, details: Vec<(String, String)>| Fault { code: code.to_owned(), message, details };
    let user = |fault| Some(Failure { is_user_error: true, fault });
    let server = |fault| Some(Failure { is_user_error: false, fault });
    match cause {
        EndCause::Ended => (None, user(fault("TaskEnded", "The task was ended by request.".to_owned(), vec![]))),
        EndCause::Unreadable => (None, server(fault("TaskUnreadable", "The task's row cannot be read.".to_owned(), vec![]))),
        EndCause::Crashes(count) => {
            let message = format!("The task's node died {count} times while the task ran; it is not tried again.");
            (None, server(fault("MaxInternalRetryCountReached", message, vec![("Crashes".to_owned(), count.to_string())])))
        }
        EndCause::Faults { nodes, fault: last } => {
            let message = format!("{nodes} nodes could not run the task by faults of their own; it is not tried again.");
            let details = [("Nodes".to_owned(), nodes.to_string()), ("LastFault".to_owned(), format!("{}: {}", last.code, last.message))];
            (None, server(fault("MaxInternalRetryCountReached", message, [&details[..], &last.details].concat())))
        }
        EndCause::Finished(finished) => match &finished.outcome {
            Outcome::Exit { code: 0 } => (Some(0), None),
            Outcome::Exit { code } => (
                Some(*code),
                user(fault(
                    "FailureExitCode",
                    format!("The task exited with an exit code representing a failure: {code}."),
                    vec![("Message".to_owned(), format!("The task process exited with {code}"))],
                )),
            ),
            Outcome::Signal { number } => {
                let message = format!("The task's process was ended by signal {number}.");
                (Some(128 + number), user(fault("FailureExitCode", message, vec![("Signal".to_owned(), number.to_string())])))
            }
            Outcome::Timeout { limit_ms } => {
                let message = format!("The task ran longer than its limit of {} s and was ended.", *limit_ms as f64 / 1000.0);
                (None, user(fault("TaskEnded", message, vec![("Reason".to_owned(), "MaxWallClockTimeExpiry".to_owned())])))
            }
            Outcome::Stopped => (None, user(fault("TaskEnded", "The task was ended by request.".to_owned(), vec![]))),
            Outcome::Staging(fault) | Outcome::Launch(fault) => (None, user(fault.clone())),
            Outcome::Upload { code, fault } => (*code, user(fault.clone())),
            Outcome::Node(fault) => (None, server(fault.clone())),
            Outcome::Unprepared(_) => {
                (None, server(fault("TaskEnded", "The task's node could not be prepared for its job.".to_owned(), vec![])))
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use contract::message::DISK_FULL;

    use super::*;

    #[test]
    fn a_task_that_filled_the_disk_has_failed_by_its_users_fault() {
        let fault = Fault { code: DISK_FULL.to_owned(), message: "full".to_owned(), details: Vec::new() };
        let finished = Finished {
            uid: TaskUid(1),
            attempt: 1,
            fence: Fence(1),
            run: contract::ids::RunId(1),
            started_at: Timestamp(0),
            ended_at: Timestamp(1),
            outcome: Outcome::Launch(fault.clone()),
            stdout: Stream::Empty,
            stderr: Stream::Empty,
            usage: Default::default(),
        };
        let (code, failure) = judge(&EndCause::Finished(Box::new(finished)));
        assert_eq!((code, failure), (None, Some(Failure { is_user_error: true, fault })));
    }

    #[test]
    fn a_task_that_filled_the_disk_has_run() {
        let does = |job_action| Some(ExitOptions { job_action: Some(job_action), ..ExitOptions::default() });
        let conditions = ExitConditions {
            pre_processing_error: does(JobAction::Terminate),
            otherwise: does(JobAction::Disable),
            ..ExitConditions::default()
        };
        let action = |code: &str| {
            let fault = Fault { code: code.to_owned(), message: String::new(), details: Vec::new() };
            options(&conditions, Some(&Outcome::Launch(fault)), false).job_action
        };
        assert_eq!(action("CommandProgramNotFound"), Some(JobAction::Terminate));
        assert_eq!(action(DISK_FULL), Some(JobAction::Disable));
    }
}
