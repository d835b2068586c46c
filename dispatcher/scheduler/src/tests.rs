//! Unit tests of the scheduler: call `step`, then assert the state and exactly the effects.

use contract::{
    clock::{Moment, Now},
    ids::{AttemptKey, Epoch, Fence, JobUid, NodeId, RunId, TaskUid},
    message::{Finished, NodeReport, Started, Verdict},
    outcome::{Outcome, Stream, Usage},
    state::{DeallocationOption, NodeState},
    time::Timestamp,
};
use model::{pool::JobOrder, task::RequeueCause};

use crate::{AskAnswer, Core, Effect, EndCause, Event, JobStop, Ready, Timers};

const JOB: JobUid = JobUid(1);

struct Pool {
    core: Core,
    now: Now,
}

impl Pool {
    fn new(slots: u32) -> Pool {
        let mut pool = Pool { core: Core::new(slots, Timers::default()), now: Now { time: Timestamp(1_000_000), moment: Moment(5_000) } };
        pool.step(Event::Job { job: JOB, priority: 0, max_parallel: -1, runs: true });
        pool
    }

    fn step(&mut self, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.core.step(event, self.now, &mut effects);
        effects
    }

    fn ask(&mut self, name: &str, key: AttemptKey, run: u128) -> (AskAnswer, Vec<Effect>) {
        let mut effects = Vec::new();
        let answer = self.core.ask(key.with(RunId(run)), (&node(name), Epoch(1)), true, self.now, &mut effects);
        (answer, effects)
    }

    fn join(&mut self, name: &str, epoch: u64) -> Vec<Effect> {
        let mut effects = self.step(Event::Joined { node: node(name), epoch: Epoch(epoch), keeps_runs: false });
        let report = NodeReport { state: NodeState::Idle, start_task: None, fault: None, is_drained: false, at: self.now.time, number: 0 };
        effects.extend(self.step(Event::Reported { node: node(name), epoch: Epoch(epoch), report }));
        effects
    }

    fn add(&mut self, uids: impl IntoIterator<Item = u64>, retries_max: i32) -> Vec<Effect> {
        let tasks = uids
            .into_iter()
            .map(|uid| Ready { uid: TaskUid(uid), attempt: 0, fence: Fence(0), slots: 1, crashes: 0, retries: 0, retries_max })
            .collect();
        self.step(Event::Added { job: JOB, tasks })
    }

    fn started(&mut self, name: &str, key: AttemptKey, run: u128) -> Vec<Effect> {
        let started = Started { uid: key.uid, attempt: key.attempt, fence: key.fence, run: RunId(run), at: self.now.time };
        self.step(Event::Started { node: node(name), epoch: Epoch(1), started })
    }

    fn finished(&mut self, name: &str, key: AttemptKey, run: u128, outcome: Outcome) -> Vec<Effect> {
        let finished = Box::new(Finished {
            uid: key.uid,
            attempt: key.attempt,
            fence: key.fence,
            run: RunId(run),
            started_at: self.now.time,
            ended_at: self.now.time,
            outcome,
            stdout: Stream::Empty,
            stderr: Stream::Empty,
            usage: Usage::default(),
        });
        self.step(Event::Finished { node: node(name), epoch: Epoch(1), finished })
    }
}

fn node(name: &str) -> NodeId {
    name.parse().unwrap()
}

fn key(uid: u64, attempt: u32, fence: u64) -> AttemptKey {
    AttemptKey { uid: TaskUid(uid), attempt, fence: Fence(fence) }
}

#[test]
fn tasks_are_released_with_their_creation_while_the_window_is_open() {
    let mut pool = Pool::new(2);
    pool.join("a", 1);
    let effects = pool.add(1..=10, 0);
    let released: Vec<_> = effects.iter().filter(|effect| matches!(effect, Effect::Release { .. })).collect();
    assert_eq!(released.len(), 4, "two slots and as much lookahead");
    assert_eq!(pool.core.jobs()[&JOB].waiting, 6);
}

#[test]
fn nothing_is_released_without_nodes() {
    let mut pool = Pool::new(2);
    assert_eq!(pool.add(1..=3, 0), vec![]);
    assert_eq!(pool.core.jobs()[&JOB].waiting, 3);
    pool.join("a", 1);
    assert_eq!(pool.step(Event::Fill), vec![Effect::Fetch { job: JOB, count: 3 }]);
}

#[test]
fn an_end_is_accepted_once_and_only_from_the_owner() {
    let mut pool = Pool::new(1);
    pool.join("a", 1);
    pool.join("b", 1);
    pool.add([1], 0);
    let key = key(1, 1, 1);
    assert!(pool.started("a", key, 7).iter().any(|effect| matches!(effect, Effect::Start { .. })));
    assert_eq!(pool.started("b", key, 8), vec![Effect::Stop { node: node("b"), run: RunId(8), verdict: Verdict::Fenced }]);
    assert_eq!(pool.finished("b", key, 8, Outcome::Exit { code: 0 }), vec![]);
    let effects = pool.finished("a", key, 7, Outcome::Exit { code: 0 });
    assert!(
        effects.iter().any(|effect| matches!(effect, Effect::End { cause: EndCause::Finished(_), fence: Fence(2), was_running: true, .. }))
    );
    assert!(matches!(pool.finished("a", key, 7, Outcome::Exit { code: 0 })[..], [Effect::KeepStreams { .. }]));
    assert!(pool.core.live().is_empty());
}

#[test]
fn a_redelivery_of_a_running_task_is_resumed_at_home_and_dropped_elsewhere() {
    let mut pool = Pool::new(1);
    pool.join("a", 1);
    pool.join("b", 1);
    pool.add([1], 0);
    let key = key(1, 1, 1);
    pool.started("a", key, 7);
    assert_eq!(pool.ask("a", key, 9), (AskAnswer::Resume(RunId(7)), vec![]));
    assert_eq!(pool.ask("b", key, 9), (AskAnswer::Drop, vec![]));
    assert_eq!(pool.ask("a", key, 7), (AskAnswer::Run, vec![]), "asking again for the same run is the same answer");
    assert_eq!(pool.ask("b", self::key(1, 1, 0), 9), (AskAnswer::Drop, vec![]));
}

#[test]
fn the_first_ask_of_a_released_attempt_owns_it() {
    let mut pool = Pool::new(1);
    pool.join("a", 1);
    pool.add([1], 0);
    let (answer, effects) = pool.ask("a", key(1, 1, 1), 5);
    assert_eq!(answer, AskAnswer::Run);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Start { .. })));
}

#[test]
fn retries_are_spent_on_exit_codes_only() {
    let mut pool = Pool::new(1);
    pool.join("a", 1);
    pool.add([1], 1);
    let effects = pool.finished("a", key(1, 1, 1), 7, Outcome::Exit { code: 3 });
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Requeue { cause: RequeueCause::Retry, fence: Fence(2), crashes: 0, .. })));
    assert_eq!(pool.core.jobs()[&JOB].waiting, 1);

    pool.add([2], 1);
    let tasks = vec![Ready { uid: TaskUid(2), attempt: 0, fence: Fence(0), slots: 1, crashes: 0, retries: 0, retries_max: 1 }];
    pool.step(Event::Fetched { job: JOB, asked: 1, tasks });
    let fault = contract::outcome::Fault { code: "BlobNotFound".into(), message: "no".into(), details: vec![] };
    let effects = pool.finished("a", key(2, 1, 1), 8, Outcome::Staging(fault));
    assert!(effects.iter().any(|effect| matches!(effect, Effect::End { .. })), "a missing input is not tried again");
}

#[test]
fn a_lost_node_gives_its_runs_back_and_the_fifth_loss_ends_the_task() {
    let mut pool = Pool::new(1);
    pool.join("a", 1);
    pool.add([1], 0);
    pool.started("a", key(1, 1, 1), 7);
    pool.now = pool.now.plus_ms(61_000);
    assert!(
        pool.step(Event::Tick { events_behind: true, queue_ready: None }).iter().all(|effect| !matches!(effect, Effect::Requeue { .. })),
        "not while events wait unread"
    );
    let effects = pool.step(Event::Tick { events_behind: false, queue_ready: None });
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Requeue { cause: RequeueCause::Recovery, crashes: 1, .. })));
    assert!(effects.contains(&Effect::NodeState { node: node("a"), state: NodeState::Unknown }));

    pool.join("a", 2);
    let task = Ready { uid: TaskUid(1), attempt: 4, fence: Fence(9), slots: 1, crashes: 4, retries: 0, retries_max: 0 };
    let effects = pool.step(Event::Fetched { job: JOB, asked: 1, tasks: vec![task] });
    assert_eq!(effects, vec![Effect::Release { job: JOB, key: key(1, 5, 10), slots: 1 }]);
    let started = Started { uid: TaskUid(1), attempt: 5, fence: Fence(10), run: RunId(9), at: pool.now.time };
    pool.step(Event::Started { node: node("a"), epoch: Epoch(2), started });
    let effects = pool.join("a", 3);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::End { cause: EndCause::Crashes(5), .. })));
}

#[test]
fn a_poisonous_task_runs_alone() {
    let mut pool = Pool::new(4);
    pool.join("a", 1);
    let task = Ready { uid: TaskUid(1), attempt: 2, fence: Fence(4), slots: 1, crashes: 2, retries: 0, retries_max: 0 };
    assert_eq!(
        pool.step(Event::Fetched { job: JOB, asked: 1, tasks: vec![task] }),
        vec![Effect::Release { job: JOB, key: key(1, 3, 5), slots: 4 }]
    );
}

#[test]
fn a_cancelled_task_is_revoked_or_stopped_and_its_end_is_ignored() {
    let mut pool = Pool::new(1);
    pool.join("a", 1);
    pool.add([1, 2], 0);
    pool.started("a", key(1, 1, 1), 7);
    let effects = pool.step(Event::Cancel { uid: TaskUid(1), delete: false });
    assert!(effects.contains(&Effect::Stop { node: node("a"), run: RunId(7), verdict: Verdict::Stop }));
    assert!(effects.iter().any(|effect| matches!(effect, Effect::End { cause: EndCause::Ended, .. })));
    let effects = pool.step(Event::Cancel { uid: TaskUid(2), delete: true });
    assert_eq!(effects, vec![Effect::Revoke(key(2, 1, 1)), Effect::Delete { job: JOB, uid: TaskUid(2), was_running: false }]);
    // Only its output is taken over.
    assert!(matches!(pool.finished("a", key(1, 1, 1), 7, Outcome::Exit { code: 0 })[..], [Effect::KeepStreams { .. }]));
    let (run, mut effects) = (key(1, 1, 1).with(RunId(7)), vec![]);
    assert!(!pool.core.may_publish(run, (&node("a"), Epoch(1)), pool.now, &mut effects));
    assert_eq!(effects, vec![]);
}

#[test]
fn a_failed_publish_is_repeated_as_a_question() {
    let mut pool = Pool::new(1);
    pool.join("a", 1);
    pool.add([1], 0);
    pool.step(Event::PublishFailed(key(1, 1, 1)));
    pool.now = pool.now.plus_ms(1_000);
    let effects = pool.step(Event::Tick { events_behind: false, queue_ready: None });
    assert_eq!(effects, vec![Effect::Republish { key: key(1, 1, 1), slots: 1 }]);
}

#[test]
fn what_the_broker_lost_is_published_again() {
    let mut pool = Pool::new(1);
    pool.join("a", 1);
    pool.add([1], 0);
    assert_eq!(pool.step(Event::Published(key(1, 1, 1))), vec![Effect::Published { uid: TaskUid(1) }]);
    for _ in 0..12 {
        pool.now = pool.now.plus_ms(5_000);
        pool.join("a", 1);
        assert_eq!(pool.step(Event::Tick { events_behind: false, queue_ready: Some(0) }), vec![]);
    }
    pool.now = pool.now.plus_ms(1_000);
    assert_eq!(pool.step(Event::Tick { events_behind: false, queue_ready: Some(1) }), vec![], "it lies in the queue");
    assert_eq!(
        pool.step(Event::Tick { events_behind: false, queue_ready: Some(0) }),
        vec![Effect::Republish { key: key(1, 1, 1), slots: 1 }]
    );
}

#[test]
fn draining_requeues_or_waits_and_is_complete_when_the_agent_says_so() {
    for (option, requeues) in [(DeallocationOption::Requeue, true), (DeallocationOption::TaskCompletion, false)] {
        let mut pool = Pool::new(1);
        pool.join("a", 1);
        pool.add([1], 0);
        pool.started("a", key(1, 1, 1), 7);
        let effects = pool.step(Event::Drain { node: node("a"), option });
        assert_eq!(effects.iter().any(|effect| matches!(effect, Effect::Requeue { cause: RequeueCause::Requested, .. })), requeues);
        assert_eq!(pool.core.slots(), 0);
        pool.finished("a", key(1, 1, 1), 7, Outcome::Exit { code: 0 });
        let report = NodeReport { state: NodeState::Idle, start_task: None, fault: None, is_drained: true, at: pool.now.time, number: 0 };
        let effects = pool.step(Event::Reported { node: node("a"), epoch: Epoch(1), report });
        assert!(effects.contains(&Effect::Drained { node: node("a") }));
    }
}

#[test]
fn a_small_job_gets_its_share_beside_a_large_one_and_priority_comes_first() {
    let mut pool = Pool::new(8);
    pool.add(1..=100, 0);
    pool.step(Event::Job { job: JobUid(2), priority: 0, max_parallel: -1, runs: true });
    pool.step(Event::Unblocked { job: JobUid(2), count: 3 });
    pool.step(Event::Job { job: JobUid(3), priority: 9, max_parallel: 2, runs: true });
    pool.step(Event::Unblocked { job: JobUid(3), count: 50 });
    pool.join("a", 1);
    let effects = pool.step(Event::Fill);
    assert_eq!(
        effects,
        vec![Effect::Fetch { job: JOB, count: 11 }, Effect::Fetch { job: JobUid(2), count: 3 }, Effect::Fetch { job: JobUid(3), count: 2 }]
    );
}

#[test]
fn a_terminated_job_ends_what_runs_and_keeps_what_waits() {
    let mut pool = Pool::new(1);
    pool.join("a", 1);
    pool.add([1, 2], 0);
    pool.started("a", key(1, 1, 1), 7);
    let effects = pool.step(Event::JobStopped { job: JOB, stop: JobStop::End });
    assert!(effects.iter().any(|effect| matches!(effect, Effect::End { uid: TaskUid(1), .. })));
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Unrelease { uid: TaskUid(2), fence: Fence(2), .. })));
    assert!(pool.core.is_quiet(JOB));
    assert_eq!(pool.step(Event::Fill), vec![]);
}

#[test]
fn a_run_is_not_missed_because_its_node_has_another_clock() {
    let mut pool = Pool::new(1);
    pool.join("a", 1);
    pool.add([1], 0);
    let started = Started { uid: TaskUid(1), attempt: 1, fence: Fence(1), run: RunId(7), at: Timestamp(0) };
    pool.step(Event::Started { node: node("a"), epoch: Epoch(1), started });
    assert_eq!(pool.step(Event::Tick { events_behind: false, queue_ready: None }), vec![]);
}

#[test]
fn wide_tasks_fill_the_window_by_their_slots() {
    let mut pool = Pool::new(4);
    pool.join("a", 1);
    let tasks: Vec<_> = (1..=8)
        .map(|uid| Ready { uid: TaskUid(uid), attempt: 0, fence: Fence(0), slots: 4, crashes: 0, retries: 0, retries_max: 0 })
        .collect();
    pool.step(Event::Unblocked { job: JOB, count: 8 });
    assert_eq!(pool.step(Event::Fill), vec![Effect::Fetch { job: JOB, count: 8 }]);
    let effects = pool.step(Event::Fetched { job: JOB, asked: 8, tasks });
    assert_eq!(effects.iter().filter(|effect| matches!(effect, Effect::Release { slots: 4, .. })).count(), 2);
    assert_eq!(pool.core.jobs()[&JOB].waiting, 6);
    assert_eq!(pool.core.room(), 0);
}

#[test]
fn a_start_told_after_the_lease_does_not_hold_its_task_for_ever() {
    let mut pool = Pool::new(1);
    pool.join("a", 1);
    pool.add([1], 0);
    pool.now = pool.now.plus_ms(61_000);
    pool.step(Event::Tick { events_behind: false, queue_ready: None });
    pool.started("a", key(1, 1, 1), 7);
    pool.now = pool.now.plus_ms(1_000);
    let effects = pool.step(Event::Tick { events_behind: false, queue_ready: None });
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Requeue { cause: RequeueCause::Recovery, .. })));
}

#[test]
fn a_job_that_is_waited_for_runs_on_and_starts_nothing_new() {
    let mut pool = Pool::new(1);
    pool.join("a", 1);
    pool.add([1, 2, 3], 1);
    pool.started("a", key(1, 1, 1), 7);
    let effects = pool.step(Event::JobStopped { job: JOB, stop: JobStop::Wait });
    let taken_back = Effect::Unrelease { job: JOB, uid: TaskUid(2), fence: Fence(2) };
    assert_eq!(effects, vec![Effect::Revoke(key(2, 1, 1)), taken_back]);
    assert!(!pool.core.is_quiet(JOB));
    pool.finished("a", key(1, 1, 1), 7, Outcome::Exit { code: 1 });
    assert!(pool.core.is_quiet(JOB), "a retry waits like the others");
    assert_eq!((pool.core.jobs()[&JOB].waiting, pool.step(Event::Fill)), (3, vec![]));
    pool.step(Event::Job { job: JOB, priority: 0, max_parallel: -1, runs: true });
    assert!(matches!(pool.step(Event::Fill)[..], [Effect::Fetch { job: JOB, .. }]));
}

#[test]
fn jobs_in_line_are_served_by_their_age_within_a_priority() {
    let mut pool = Pool::new(8);
    pool.core.set_job_order(JobOrder::CreationTime);
    pool.step(Event::Job { job: JobUid(2), priority: 0, max_parallel: -1, runs: true });
    pool.step(Event::Job { job: JobUid(3), priority: 9, max_parallel: 2, runs: true });
    for (job, count) in [(JobUid(2), 50), (JobUid(3), 50), (JOB, 9)] {
        pool.step(Event::Unblocked { job, count });
    }
    pool.join("a", 1);
    assert_eq!(
        pool.step(Event::Fill),
        vec![Effect::Fetch { job: JOB, count: 9 }, Effect::Fetch { job: JobUid(2), count: 5 }, Effect::Fetch { job: JobUid(3), count: 2 }]
    );
}

#[test]
fn new_limits_reach_the_attempt_that_is_out() {
    let mut pool = Pool::new(1);
    pool.join("a", 1);
    pool.add([1], 0);
    pool.step(Event::Limits { uid: TaskUid(1), retries_max: 1 });
    let effects = pool.finished("a", key(1, 1, 1), 7, Outcome::Exit { code: 1 });
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Requeue { cause: RequeueCause::Retry, .. })));
}
