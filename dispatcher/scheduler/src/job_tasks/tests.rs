//! Preparations and releases one by one: call `step`, then assert the state and the effects that matter.

use contract::{
    clock::{Moment, Now},
    ids::{AttemptKey, Epoch, Fence, JobUid, NodeId, RunId, TaskUid},
    message::{Finished, Heartbeat, NodeReport, Started, VERSION},
    outcome::{JobTaskEnd, JobTaskKey, JobTaskKind, Outcome, Stream, Usage},
    state::{DeallocationOption, NodeState},
    time::Timestamp,
};
use model::{
    job_tasks::{Preparation, Rules},
    node::NodeAction,
    task::RequeueCause,
};

use crate::{AskAnswer, Core, Effect, Event, JobStop, RELEASE_MARGIN_MS, Ready, Timers};

const JOB: JobUid = JobUid(1);
const RULES: Rules = Rules { waits: true, reruns: true, release_ms: Some(60_000) };

struct Pool {
    core: Core,
    now: Now,
}

impl Pool {
    fn new(slots: u32, rules: Rules) -> Pool {
        let mut pool = Pool { core: Core::new(slots, Timers::default()), now: Now { time: Timestamp(1_000_000), moment: Moment(5_000) } };
        pool.step(Event::Job { job: JOB, priority: 0, max_parallel: -1, runs: true });
        pool.step(Event::Prepares { job: JOB, rules });
        pool
    }

    fn step(&mut self, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.core.step(event, self.now, &mut effects);
        effects
    }

    fn join(&mut self, name: &str, epoch: u64) -> Vec<Effect> {
        self.step(Event::Joined { node: node(name), epoch: Epoch(epoch), keeps_runs: false });
        let report = NodeReport { state: NodeState::Idle, start_task: None, fault: None, is_drained: false, at: self.now.time, number: 0 };
        self.step(Event::Reported { node: node(name), epoch: Epoch(epoch), report })
    }

    fn add(&mut self, uids: impl IntoIterator<Item = u64>) -> Vec<Effect> {
        let ready = |uid| Ready { uid: TaskUid(uid), attempt: 0, fence: Fence(0), slots: 1, crashes: 0, retries: 0, retries_max: 0 };
        self.step(Event::Added { job: JOB, tasks: uids.into_iter().map(ready).collect() })
    }

    fn ask(&mut self, name: &str, epoch: u64, uid: u64) -> (AskAnswer, Vec<Effect>) {
        let key = self.core.live()[&TaskUid(uid)].key;
        let mut effects = Vec::new();
        let answer = self.core.ask(key.with(RunId(uid.into())), (&node(name), Epoch(epoch)), true, self.now, &mut effects);
        (answer, effects)
    }

    fn ended(&mut self, name: &str, epoch: u64, key: JobTaskKey, outcome: Outcome) -> Vec<Effect> {
        self.step(Event::JobTaskEnded { node: node(name), epoch: Epoch(epoch), end: Box::new(self.end(key, outcome)) })
    }

    fn end(&self, key: JobTaskKey, outcome: Outcome) -> JobTaskEnd {
        JobTaskEnd { key, started_at: self.now.time, ended_at: self.now.time, outcome, retries: 0, retried_at: None }
    }

    /// The job tasks that an answer to a heartbeat calls over, and the releases it orders.
    fn heartbeat(&mut self, name: &str, epoch: u64, job_tasks: Vec<JobTaskKey>) -> (Vec<JobTaskKey>, Vec<JobTaskKey>) {
        let (pool, node) = ("p".parse().unwrap(), node(name));
        let heartbeat = Heartbeat {
            v: VERSION,
            pool,
            node,
            epoch: Epoch(epoch),
            live: vec![],
            kept: vec![],
            free_slots: 1,
            is_consuming: true,
            job_tasks,
            report: None,
            sets_aside: None,
            invocations: 0,
        };
        let answer = self.core.heartbeat(heartbeat, self.now, &mut Vec::new());
        (answer.over, answer.releases)
    }

    fn state(&self, name: &str) -> Preparation {
        self.core.jobs_on_nodes()[&node(name)][&JOB].preparation
    }

    /// Node `a` has prepared the job.
    fn prepared(&mut self) {
        self.join("a", 1);
        self.add([1]);
        assert_eq!(self.ask("a", 1, 1).0, AskAnswer::Prepare(preparation(1)));
        self.ended("a", 1, preparation(1), Outcome::Exit { code: 0 });
        self.step(Event::Cancel { uid: TaskUid(1), delete: false });
    }

    fn stop(&mut self) -> Vec<Effect> {
        self.step(Event::JobStopped { job: JOB, stop: JobStop::End });
        self.step(Event::Release { job: JOB })
    }
}

fn node(name: &str) -> NodeId {
    name.parse().unwrap()
}

fn preparation(number: u32) -> JobTaskKey {
    JobTaskKey { job: JOB, kind: JobTaskKind::Preparation, number }
}

fn release(number: u32) -> JobTaskKey {
    JobTaskKey { job: JOB, kind: JobTaskKind::Release, number }
}

fn started(key: AttemptKey) -> Started {
    Started { uid: key.uid, attempt: key.attempt, fence: key.fence, run: RunId(key.uid.0.into()), at: Timestamp(5) }
}

#[test]
fn the_first_question_orders_the_preparation_and_its_run_waits_for_it() {
    let mut pool = Pool::new(2, RULES);
    pool.join("a", 1);
    pool.add([1, 2]);
    let (answer, effects) = pool.ask("a", 1, 1);
    assert_eq!(answer, AskAnswer::Prepare(preparation(1)));
    assert!(effects.iter().any(|effect| matches!(effect, Effect::JobTaskBegun { kind: JobTaskKind::Preparation, .. })));
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Start { is_preparing: true, .. })));
    assert_eq!(pool.ask("a", 1, 2).0, AskAnswer::Prepare(preparation(1)), "one for all");
    assert_eq!(pool.ask("a", 1, 1).0, AskAnswer::Prepare(preparation(1)), "and again when the answer was lost");
    let effects = pool.ended("a", 1, preparation(1), Outcome::Exit { code: 0 });
    assert!(matches!(effects[..], [Effect::JobOnNode { .. }, Effect::JobTaskEnded { is_told: true, .. }]));
    assert_eq!(pool.ended("a", 1, preparation(1), Outcome::Exit { code: 1 }), vec![], "an end counts once");
    let key = pool.core.live()[&TaskUid(1)].key;
    let event = || Event::Started { node: node("a"), epoch: Epoch(1), started: started(key) };
    assert!(matches!(pool.step(event())[..], [Effect::Begin { at: Timestamp(5), .. }]));
    assert_eq!(pool.step(event()), vec![], "a run begins once");
    pool.add([3]);
    let (answer, effects) = pool.ask("a", 1, 3);
    assert_eq!(answer, AskAnswer::Run);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Start { is_preparing: false, .. })));
}

#[test]
fn an_agent_that_knows_no_preparations_gets_no_task_that_needs_one() {
    let mut pool = Pool::new(1, RULES);
    pool.join("a", 1);
    pool.add([1]);
    let key = pool.core.live()[&TaskUid(1)].key;
    let mut effects = Vec::new();
    let answer = pool.core.ask(key.with(RunId(1)), (&node("a"), Epoch(1)), false, pool.now, &mut effects);
    assert!(matches!(answer, AskAnswer::Wait(_)));
    assert_eq!(effects, vec![]);
}

#[test]
fn tasks_do_not_wait_for_a_preparation_whose_success_nobody_wants() {
    let mut pool = Pool::new(2, Rules { waits: false, ..RULES });
    pool.join("a", 1);
    pool.add([1, 2]);
    let (answer, effects) = pool.ask("a", 1, 1);
    assert_eq!(answer, AskAnswer::Prepare(preparation(1)));
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Start { is_preparing: false, .. })));
    pool.ended("a", 1, preparation(1), Outcome::Exit { code: 1 });
    assert_eq!(pool.ask("a", 1, 2).0, AskAnswer::Run, "its failure bars nobody");
    assert_eq!(pool.stop().iter().filter(|effect| matches!(effect, Effect::Nudge { .. })).count(), 1, "and what it did is released");
}

#[test]
fn a_failed_preparation_bars_the_node_and_spends_nothing_of_its_tasks() {
    let mut pool = Pool::new(1, RULES);
    pool.join("a", 1);
    pool.join("b", 1);
    pool.add([1, 2]);
    pool.ask("a", 1, 1);
    let key = pool.core.live()[&TaskUid(1)].key;
    let end = Box::new(pool.end(preparation(1), Outcome::Exit { code: 1 }));
    // The end of the preparation itself was lost; the run's own brings it.
    let finished = Box::new(Finished {
        uid: key.uid,
        attempt: key.attempt,
        fence: key.fence,
        run: RunId(1),
        started_at: pool.now.time,
        ended_at: pool.now.time,
        outcome: Outcome::Unprepared(end),
        stdout: Stream::Empty,
        stderr: Stream::Empty,
        usage: Usage::default(),
    });
    let effects = pool.step(Event::Finished { node: node("a"), epoch: Epoch(1), finished });
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Requeue { cause: RequeueCause::Unprepared, crashes: 0, .. })));
    assert_eq!(pool.state("a"), Preparation::Failed);
    // A delivery that comes to the node again is turned away and published anew a little later.
    let (answer, effects) = pool.ask("a", 1, 2);
    assert_eq!((answer, effects), (AskAnswer::Drop, vec![]));
    let key = pool.core.live()[&TaskUid(2)].key;
    pool.step(Event::Published(key));
    pool.now = pool.now.plus_ms(1_001);
    let effects = pool.step(Event::Tick { events_behind: false, queue_ready: Some(0) });
    assert!(effects.contains(&Effect::Republish { key, slots: 1 }), "also when its confirm came late: {effects:?}");
    assert_eq!(pool.ask("b", 1, 2).0, AskAnswer::Prepare(preparation(1)), "the other node may run it");
}

#[test]
fn a_job_that_no_node_may_run_keeps_nothing_in_the_window() {
    let mut pool = Pool::new(2, RULES);
    pool.join("a", 1);
    pool.add(1..=10);
    pool.ask("a", 1, 1);
    pool.ended("a", 1, preparation(1), Outcome::Exit { code: 1 });
    assert_eq!(pool.step(Event::Fill), vec![], "nothing is released any more");
    let (answer, effects) = pool.ask("a", 1, 2);
    assert_eq!(answer, AskAnswer::Drop);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Unrelease { .. })));
    pool.step(Event::Job { job: JobUid(2), priority: -5, max_parallel: -1, runs: true });
    pool.step(Event::Unblocked { job: JobUid(2), count: 5 });
    let effects = pool.step(Event::Fill);
    assert!(matches!(effects[..], [Effect::Fetch { job: JobUid(2), .. }]), "others have the room: {effects:?}");
    // Another node takes some, no more than it can soon run.
    pool.join("b", 1);
    let effects = pool.step(Event::Fill);
    let count = effects.iter().find_map(|effect| if let Effect::Fetch { job: JOB, count } = effect { Some(*count) } else { None });
    assert!(count.is_some_and(|count| count <= 4), "{effects:?}");
}

#[test]
fn a_newer_start_prepares_again_where_the_rules_say_so_and_a_reimage_always() {
    for reruns in [true, false] {
        let mut pool = Pool::new(1, Rules { reruns, ..RULES });
        pool.prepared();
        pool.join("a", 2);
        pool.add([2]);
        let expected = if reruns { AskAnswer::Prepare(preparation(2)) } else { AskAnswer::Run };
        assert_eq!(pool.ask("a", 2, 2).0, expected);
        pool.step(Event::Cancel { uid: TaskUid(2), delete: false });
        pool.step(Event::NodeAction {
            node: node("a"),
            action: NodeAction::Reimage { option: DeallocationOption::Requeue, since: Epoch(2) },
        });
        pool.join("a", 3);
        assert_eq!(pool.state("a"), Preparation::Void);
        pool.add([3]);
        assert!(matches!(pool.ask("a", 3, 3).0, AskAnswer::Prepare(_)));
    }
}

#[test]
fn a_failed_preparation_lasts_over_a_reboot_and_not_over_a_reimage() {
    let mut pool = Pool::new(1, RULES);
    pool.join("a", 1);
    pool.join("b", 1);
    pool.add([1, 2]);
    pool.ask("a", 1, 1);
    pool.ended("a", 1, preparation(1), Outcome::Exit { code: 1 });
    pool.join("a", 2);
    assert_eq!(pool.ask("a", 2, 2).0, AskAnswer::Drop);
    pool.step(Event::NodeAction { node: node("a"), action: NodeAction::Reimage { option: DeallocationOption::Requeue, since: Epoch(2) } });
    pool.join("a", 3);
    assert_eq!(pool.ask("a", 3, 2).0, AskAnswer::Prepare(preparation(2)));
    assert_eq!(pool.core.jobs()[&JOB].barred, 0);
}

#[test]
fn a_preparation_that_takes_its_agent_along_is_given_up_and_blames_no_task() {
    let mut pool = Pool::new(1, RULES);
    pool.join("b", 1);
    pool.join("a", 1);
    pool.add([1]);
    for epoch in 1..=5 {
        assert_eq!(pool.ask("a", epoch, 1).0, AskAnswer::Prepare(preparation(epoch as u32)));
        pool.join("a", epoch + 1);
        let (attempt, fence) = (epoch as u32, Fence(2 * epoch));
        let again = Ready { uid: TaskUid(1), attempt, fence, slots: 1, crashes: 0, retries: 0, retries_max: 0 };
        pool.step(Event::Fetched { job: JOB, asked: 1, tasks: vec![again] });
    }
    assert_eq!(pool.core.live()[&TaskUid(1)].crashes, 0);
    let lost = pool.core.jobs_on_nodes()[&node("a")][&JOB].lost;
    assert_eq!(lost, 4);
    let (answer, effects) = pool.ask("a", 6, 1);
    assert_eq!((answer, pool.state("a")), (AskAnswer::Drop, Preparation::Failed));
    assert!(effects.iter().any(|effect| matches!(effect, Effect::JobTaskEnded { is_told: false, .. })));
}

#[test]
fn a_release_is_told_until_it_ends_and_never_twice() {
    let mut pool = Pool::new(1, RULES);
    pool.prepared();
    let effects = pool.stop();
    assert!(effects.contains(&Effect::Nudge { node: node("a") }));
    assert!(!pool.core.is_released(JOB));
    for _ in 0..2 {
        assert_eq!(pool.heartbeat("a", 1, vec![preparation(1)]), (vec![preparation(1)], vec![release(1)]));
    }
    assert_eq!(pool.heartbeat("a", 1, vec![release(1)]), (vec![], vec![]), "it runs");
    pool.join("a", 2);
    assert_eq!(pool.heartbeat("a", 2, vec![]).1, [release(1)], "a newer start runs it again");
    pool.ended("a", 2, release(1), Outcome::Exit { code: 9 });
    assert!(pool.core.is_released(JOB), "also when it failed");
    assert_eq!(pool.heartbeat("a", 2, vec![release(1)]), (vec![release(1)], vec![]));
    assert_eq!(pool.step(Event::Release { job: JOB }), vec![], "a job that is deleted after its end is not released again");
}

#[test]
fn a_release_is_given_up_with_its_node_or_after_its_time() {
    let stopped = |pool: &mut Pool| {
        pool.prepared();
        pool.stop();
        assert!(!pool.core.is_released(JOB));
    };
    let mut pool = Pool::new(1, RULES);
    stopped(&mut pool);
    let effects = pool.step(Event::NodeGone { node: node("a") });
    assert!(effects.iter().any(|effect| matches!(effect, Effect::JobTaskEnded { is_told: false, .. })));
    assert!(pool.core.is_released(JOB) && pool.core.jobs_on_nodes().is_empty());

    let mut pool = Pool::new(1, RULES);
    stopped(&mut pool);
    pool.step(Event::NodeAction { node: node("a"), action: NodeAction::Deallocate { option: DeallocationOption::Requeue } });
    assert!(pool.heartbeat("a", 1, vec![]).1.is_empty(), "a node that has to empty itself begins none");
    pool.step(Event::NodeStopped { node: node("a") });
    assert!(pool.core.is_released(JOB));

    let mut pool = Pool::new(1, RULES);
    stopped(&mut pool);
    pool.ended("a", 1, release(1), Outcome::Stopped);
    assert!(!pool.core.is_released(JOB), "its agent ended under it");
    pool.now = pool.now.plus_ms(60_000 + RELEASE_MARGIN_MS + 1);
    pool.step(Event::Tick { events_behind: true, queue_ready: None });
    assert!(pool.core.is_released(JOB));
}

#[test]
fn nodes_that_ran_nothing_of_a_job_release_nothing() {
    let mut pool = Pool::new(1, RULES);
    pool.join("a", 1);
    pool.join("b", 1);
    pool.join("c", 1);
    pool.add([1, 2]);
    pool.ask("a", 1, 1);
    pool.ended("a", 1, preparation(1), Outcome::Exit { code: 1 });
    pool.ask("b", 1, 2);
    let effects = pool.stop();
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Nudge { .. })), "{effects:?}");
    assert_eq!(pool.state("b"), Preparation::Void, "what was under way is stopped");
    assert_eq!(pool.heartbeat("b", 1, vec![preparation(1)]).0, [preparation(1)]);
    assert!(pool.core.is_released(JOB));
}

#[test]
fn a_job_without_a_release_ends_at_once() {
    let mut pool = Pool::new(1, Rules { release_ms: None, ..RULES });
    pool.prepared();
    assert_eq!(pool.stop(), vec![]);
    assert!(pool.core.is_released(JOB));
}
