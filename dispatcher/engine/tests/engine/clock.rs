//! The engine under a clock that is set back and forth, and under ticks that come late.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering::Relaxed},
};

use contract::{
    clock::{Clock, Moment, Now},
    ids::Epoch,
    message::Heartbeat,
};

use super::*;

/// Between two ticks of a dispatcher that is well.
const TICK_MS: i64 = 5_000;
const HOUR_MS: i64 = 3_600_000;

/// How far the two clocks are from where they began.
#[derive(Default)]
pub(super) struct FakeClock {
    time: AtomicI64,
    moment: AtomicI64,
}

impl FakeClock {
    pub(super) fn handle(self: &Arc<FakeClock>) -> Clock {
        let (clock, start) = (self.clone(), Timestamp::now());
        Clock::new(move || Now { time: start.plus_ms(clock.time.load(Relaxed)), moment: Moment(clock.moment.load(Relaxed)) })
    }

    /// Sets the wall clock; moments do not notice.
    pub(super) fn set(&self, by_ms: i64) {
        self.time.fetch_add(by_ms, Relaxed);
    }

    pub(super) fn pass(&self, ms: i64) {
        self.time.fetch_add(ms, Relaxed);
        self.moment.fetch_add(ms, Relaxed);
    }
}

async fn tick(engine: &mut TestEngine) {
    engine.put(Input::Tick { events_behind: false, depths: HashMap::new() }).await;
}

async fn heartbeat(engine: &mut TestEngine, epoch: Epoch, live: &[(&TaskMessage, u128)]) {
    let heartbeat = Heartbeat {
        v: VERSION,
        pool: pool(),
        node: node(),
        epoch,
        live: live.iter().map(|(message, run)| message.key().with(RunId(*run))).collect(),
        kept: vec![],
        free_slots: 0,
        is_consuming: true,
        job_tasks: vec![],
        report: None,
        sets_aside: None,
        invocations: 0,
    };
    engine.put(Input::Heartbeat(Box::new(heartbeat), None)).await;
}

/// A running task, seen alive by one tick.
async fn running(folder: &Path, clock: &Arc<FakeClock>) -> (TestEngine, Epoch, TaskMessage) {
    let mut engine = TestEngine::open_by(folder, clock.handle());
    engine.create(1, false, vec![]).await;
    let epoch = engine.join().await;
    engine.add(vec![plain("t")]).await;
    let message = engine.published.pop().unwrap();
    engine.events(epoch, vec![started(&message, 1)]).await;
    tick(&mut engine).await;
    (engine, epoch, message)
}

/// Whether the task's first attempt still runs.
async fn runs_on(engine: &TestEngine) -> bool {
    let task = engine.task("t").await.unwrap();
    (task.state, task.attempt) == (TaskState::Running, 1)
}

#[tokio::test]
async fn a_clock_that_is_set_ends_no_lease_and_hides_no_dead_node() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), Arc::new(FakeClock::default()));
    let (mut engine, epoch, message) = running(folder.path(), &clock).await;
    for step in [120_000, HOUR_MS, -3 * HOUR_MS] {
        clock.set(step);
        clock.pass(250);
        tick(&mut engine).await;
        assert!(runs_on(&engine).await, "set by {step} ms");
    }
    heartbeat(&mut engine, epoch, &[(&message, 1)]).await;
    // The node dies while the clock is hours back.
    for _ in 0..=(60_000 / TICK_MS) {
        clock.pass(TICK_MS);
        tick(&mut engine).await;
    }
    assert_eq!(engine.task("t").await.unwrap().state, TaskState::Active, "lost after its lease, whatever the clock says");
    engine.close().await;
}

#[tokio::test]
async fn a_gap_between_ticks_is_nobodys_silence() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), Arc::new(FakeClock::default()));
    let (mut engine, epoch, message) = running(folder.path(), &clock).await;
    // The machine is suspended for an hour; the first tick comes before any heartbeat.
    clock.pass(HOUR_MS);
    tick(&mut engine).await;
    assert!(runs_on(&engine).await);
    for _ in 0..20 {
        clock.pass(TICK_MS);
        heartbeat(&mut engine, epoch, &[(&message, 1)]).await;
        tick(&mut engine).await;
    }
    assert!(runs_on(&engine).await);
    for _ in 0..=(60_000 / TICK_MS) {
        clock.pass(TICK_MS);
        tick(&mut engine).await;
    }
    assert!(!runs_on(&engine).await, "who is silent afterwards is lost as ever");
    engine.close().await;
}

#[tokio::test]
async fn a_node_that_ends_together_with_the_dispatcher_is_no_crash_of_its_task() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), Arc::new(FakeClock::default()));
    let mut engine = TestEngine::open_by(folder.path(), clock.handle());
    engine.create(2, false, vec![]).await;
    let token = match engine.request(RequestKind::CreateNodes { pool: pool(), count: 1 }).await {
        Reply::Nodes { nodes } => nodes[0].token.clone(),
        other => panic!("{other:?}"),
    };
    let mut epoch = engine.rejoin(&token).await;
    engine.add(vec![plain("t")]).await;
    for kill in 1..=6 {
        let message = engine.published.pop().expect("released again");
        assert_eq!((message.attempt, message.slots), (kill, 1), "it never waits for an empty node");
        engine.events(epoch, vec![started(&message, kill.into())]).await;
        engine.close().await;
        clock.pass(3_000);
        engine = TestEngine::open_by(folder.path(), clock.handle());
        // One that was sent before everything ended.
        engine.heartbeat(epoch, &[(&message, kill.into())], None).await;
        epoch = engine.rejoin(&token).await;
    }
    let message = engine.published.pop().unwrap();
    // An agent that ends alone is one.
    engine.events(epoch, vec![started(&message, 9)]).await;
    engine.close().await;
    let mut engine = TestEngine::open_by(folder.path(), clock.handle());
    clock.pass(25_000);
    tick(&mut engine).await;
    engine.heartbeat(epoch, &[(&message, 9)], None).await;
    for _ in 0..4 {
        epoch = engine.rejoin(&token).await;
        let message = engine.published.pop().expect("released again");
        engine.events(epoch, vec![started(&message, message.attempt.into())]).await;
    }
    engine.rejoin(&token).await;
    let failure = engine.task("t").await.unwrap().failure.unwrap();
    assert_eq!(failure.fault.code, "MaxInternalRetryCountReached");
    engine.close().await;
}

/// Asks for a node and gives it up ten minutes later; whether there was one.
async fn node_that_never_joins(engine: &mut TestEngine, clock: &FakeClock) -> bool {
    let tickets = match engine.request(RequestKind::CreateNodes { pool: pool(), count: 1 }).await {
        Reply::Nodes { nodes } => nodes,
        other => panic!("{other:?}"),
    };
    clock.pass(600_000);
    for ticket in &tickets {
        let reason = "its agent never joined".to_owned();
        engine.request(RequestKind::NodeGone { pool: pool(), node: ticket.node.clone(), reason }).await;
    }
    !tickets.is_empty()
}

#[tokio::test]
async fn nodes_that_never_join_are_made_anew_after_pauses_that_grow_until_one_joins() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(FakeClock::default());
    let mut engine = TestEngine::open_by(folder.path(), clock.handle());
    engine.create_pool("pool", 1).await;
    let mut shown = Vec::new();
    for pause_ms in [0, 60_000, 120_000, 240_000] {
        assert!(node_that_never_joins(&mut engine, &clock).await, "the pause before is over");
        let Reply::Snapshot { pools, .. } = engine.request(RequestKind::Snapshot).await else { panic!("no snapshot") };
        assert_eq!(pools[0].creation_rests_ms, pause_ms);
        shown.push(pools[0].failed_creations);
        if pause_ms > 0 {
            clock.pass(pause_ms.cast_signed() - 1);
            let reply = engine.request(RequestKind::CreateNodes { pool: pool(), count: 1 }).await;
            assert!(matches!(reply, Reply::Nodes { nodes } if nodes.is_empty()), "not before it is over");
            clock.pass(1);
        }
    }
    assert_eq!(shown, [1, 2, 3, 4]);
    let Reply::Nodes { nodes } = engine.request(RequestKind::CreateNodes { pool: pool(), count: 1 }).await else { panic!("no node") };
    let join = Join {
        pool: pool(),
        node: nodes[0].node.clone(),
        token: nodes[0].token.clone(),
        epoch: None,
        address: "127.0.0.1".into(),
        cores: 2,
        version: "t".into(),
    };
    engine.request(RequestKind::Join(join)).await;
    let Reply::Snapshot { pools, .. } = engine.request(RequestKind::Snapshot).await else { panic!("no snapshot") };
    assert_eq!((pools[0].failed_creations, pools[0].creation_rests_ms), (0, 0));
    engine.close().await;
}
