//! A store that refuses transactions: every delivery is settled in the end, every task ends once, and the engine recovers.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use store::usage::UsagePage;

use super::*;
use crate::{
    clock::FakeClock,
    faulty::{Faults, FaultyStore, Point},
};

const TASKS: usize = 24;
/// How long a run may take, of which it needs a small part.
const PATIENCE: Duration = Duration::from_secs(60);

fn engine(folder: &Path) -> (TestEngine, Faults) {
    let path = folder.join("store.sqlite");
    let faults = Faults::default();
    let store = FaultyStore { inner: SqliteStore::open(&path).unwrap(), faults: faults.clone() };
    (TestEngine::on(Box::new(store), &path, Clock::system()), faults)
}

impl TestEngine {
    fn settled(&mut self) -> Vec<Settled> {
        let mut all = Vec::new();
        while let Ok(settled) = self.outlets.settled.try_recv() {
            all.extend(settled);
        }
        all
    }

    /// Hands in events as a delivery of their own, without waiting.
    async fn deliver(&mut self, epoch: Epoch, events: Vec<AgentEvent>) -> Tag {
        self.delivery += 1;
        let tag = Tag { generation: 1, number: self.delivery };
        let batch = EventBatch { v: VERSION, pool: pool(), node: node(), epoch, events };
        self.handle.put(Input::Events { batch, tag }).await.unwrap();
        tag
    }

    async fn tick(&mut self) {
        self.handle.put(Input::Tick { events_behind: false, depths: HashMap::new() }).await.unwrap();
    }
}

/// Adds tasks and plays an agent and a broker while the store refuses; all of it must end.
async fn survive(points: &[(Point, u64)]) {
    let folder = tempfile::tempdir().unwrap();
    let (mut engine, faults) = engine(folder.path());
    engine.create(4, false, vec![]).await;
    let epoch = engine.join().await;
    engine.settled();
    faults.set(points);
    for n in 0..TASKS {
        // Adding with the same name is safe, so people try again.
        loop {
            match engine.call(Command::CreateTasks(job(), vec![plain(&format!("t{n}"))])).await {
                Ok(Done::Tasks(results)) => break assert!(results[0].is_ok(), "what was refused was not stored: {results:?}"),
                Err(refusal) => assert_eq!(refusal.code, Code::ServerBusy, "{refusal:?}"),
                other => panic!("{other:?}"),
            }
        }
    }
    let (mut told, mut settled, mut sent) = (HashSet::new(), BTreeMap::new(), 0);
    let began = Instant::now();
    loop {
        assert!(began.elapsed() < PATIENCE, "{points:?}: {:?} after {sent} deliveries, {} settled", engine.counts().await, settled.len());
        engine.tick().await;
        engine.drain();
        for message in std::mem::take(&mut engine.published) {
            let key = message.key();
            engine.handle.put(Input::Published(vec![(pool(), key, true)])).await.unwrap();
            if told.insert(key) {
                let run = u128::from(key.uid.0) << 32 | u128::from(key.attempt);
                engine.deliver(epoch, vec![started(&message, run)]).await;
                engine.deliver(epoch, vec![finished(&message, run, Outcome::Exit { code: 0 })]).await;
                sent += 2;
            }
        }
        for delivery in engine.settled() {
            let Settled::Done(tag) = delivery else { panic!("{points:?}: {delivery:?}") };
            *settled.entry(tag.number).or_insert(0) += 1;
        }
        if settled.len() == sent && engine.counts().await.succeeded == TASKS as u64 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(faults.hits() > 3, "{points:?}: the store refused {} times", faults.hits());
    assert!(settled.values().all(|times| *times == 1), "{settled:?}");
    assert_eq!(engine.counts().await, Counts { active: 0, running: 0, succeeded: TASKS as u64, failed: 0 });
    let attempts: HashSet<_> = told.iter().map(|key| key.attempt).collect();
    assert_eq!((told.len(), attempts), (TASKS, HashSet::from([1])), "no task ran twice");
    faults.set(&[]);
    engine.close().await;
}

#[tokio::test]
async fn every_delivery_is_settled_though_every_nth_commit_fails() {
    for every in [2, 3, 5] {
        survive(&[(Point::Commit, every)]).await;
    }
}

#[tokio::test]
async fn every_delivery_is_settled_though_transactions_cannot_be_opened_now_and_then() {
    survive(&[(Point::Begin, 2)]).await;
}

#[tokio::test]
async fn every_delivery_is_settled_though_changes_and_the_load_after_them_fail() {
    survive(&[(Point::Inside, 23), (Point::Load, 2)]).await;
}

#[tokio::test]
async fn nothing_is_lost_while_the_store_refuses_everything_and_people_are_told_why() {
    let folder = tempfile::tempdir().unwrap();
    let (mut engine, faults) = engine(folder.path());
    engine.create(1, false, vec![]).await;
    let epoch = engine.join().await;
    engine.add(vec![plain("t")]).await;
    let message = engine.published.pop().unwrap();
    engine.settled();
    faults.set(&[(Point::Commit, 1), (Point::Begin, 1)]);
    let tags = [
        engine.deliver(epoch, vec![started(&message, 1)]).await,
        engine.deliver(epoch, vec![finished(&message, 1, Outcome::Exit { code: 7 })]).await,
    ];
    let refusal = engine.call(Command::CreateTasks(job(), vec![plain("later")])).await.unwrap_err();
    assert_eq!(refusal.code, Code::ServerBusy);
    let began = Instant::now();
    while faults.hits() < 5 {
        assert!(began.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(engine.handle.refusal().unwrap().contains("full"), "{:?}", engine.handle.refusal());
    assert_eq!((engine.settled(), engine.task("t").await.unwrap().state), (vec![], TaskState::Active));
    faults.set(&[]);
    let mut settled = Vec::new();
    while settled.len() < 2 {
        assert!(began.elapsed() < PATIENCE);
        settled.extend(engine.settled());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(settled, tags.map(Settled::Done));
    assert_eq!(engine.task("t").await.unwrap().exit_code, Some(7));
    assert!(engine.add(vec![plain("later")]).await[0].is_ok());
    assert_eq!(engine.handle.refusal(), None);
    engine.close().await;
}

#[tokio::test]
async fn a_delivery_that_can_never_be_stored_goes_aside_and_holds_up_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let (mut engine, faults) = engine(folder.path());
    engine.create(4, false, vec![]).await;
    let epoch = engine.join().await;
    engine.add((0..4).map(|n| plain(&format!("t{n}"))).collect()).await;
    let messages = std::mem::take(&mut engine.published);
    engine.settled();
    faults.set(&[(Point::StartOf(messages[1].uid), 1)]);
    let mut tags = Vec::new();
    for (n, message) in messages.iter().enumerate() {
        tags.push(engine.deliver(epoch, vec![started(message, n as u128 + 1)]).await);
    }
    let (mut settled, began) = (HashSet::new(), Instant::now());
    while settled.len() < 4 {
        assert!(began.elapsed() < PATIENCE, "{settled:?}");
        settled.extend(engine.settled().into_iter().map(|delivery| match delivery {
            Settled::Done(tag) => (tag.number, true),
            Settled::Dead(tag) => (tag.number, false),
        }));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(settled, tags.iter().enumerate().map(|(n, tag)| (tag.number, n != 1)).collect());
    assert_eq!(engine.task("t3").await.unwrap().state, TaskState::Running);
    engine.close().await;
}

#[tokio::test]
async fn an_event_that_can_never_be_stored_takes_no_other_of_its_delivery_along() {
    let folder = tempfile::tempdir().unwrap();
    let (mut engine, faults) = engine(folder.path());
    engine.create(4, false, vec![]).await;
    let epoch = engine.join().await;
    engine.add((0..4).map(|n| plain(&format!("t{n}"))).collect()).await;
    let messages = std::mem::take(&mut engine.published);
    engine.settled();
    faults.set(&[(Point::StartOf(messages[1].uid), 1)]);
    let events = messages.iter().enumerate().map(|(n, message)| started(message, n as u128 + 1));
    let tags = [
        engine.deliver(epoch, events.collect()).await,
        engine.deliver(epoch, vec![finished(&messages[3], 4, Outcome::Exit { code: 0 })]).await,
    ];
    let (mut settled, began) = (Vec::new(), Instant::now());
    while settled.len() < 2 {
        assert!(began.elapsed() < PATIENCE, "{settled:?}");
        settled.extend(engine.settled());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(settled, [Settled::Dead(tags[0]), Settled::Done(tags[1])], "kept for people, once");
    for (task, state) in [("t0", TaskState::Running), ("t1", TaskState::Active), ("t2", TaskState::Running), ("t3", TaskState::Completed)] {
        assert_eq!(engine.task(task).await.unwrap().state, state, "{task}");
    }
    engine.close().await;
}

/// Core time of the pool, as it is stored.
async fn core_ms(engine: &TestEngine) -> u64 {
    let all = UsagePage {
        from: Timestamp(0),
        until: Timestamp(i64::MAX),
        after: None,
        filter: None,
        rows_max: 1_000,
        left_out: Default::default(),
    };
    engine.read.usage(all).await.unwrap().iter().map(|row| row.core_ms).sum()
}

#[tokio::test]
async fn transactions_that_are_refused_and_clocks_that_are_set_cost_no_core_time_and_add_none() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), Arc::new(FakeClock::default()));
    let path = folder.path().join("store.sqlite");
    let faults = Faults::default();
    let store = FaultyStore { inner: SqliteStore::open(&path).unwrap(), faults: faults.clone() };
    let mut engine = TestEngine::on(Box::new(store), &path, clock.handle());
    engine.create(1, false, vec![]).await;
    engine.join().await;
    engine.put(Input::Tick { events_behind: false, depths: HashMap::new() }).await;
    let before = core_ms(&engine).await;
    faults.set(&[(Point::Commit, 3)]);
    for second in 0..600 {
        clock.pass(1_000);
        if second % 100 == 50 {
            clock.set(if second % 200 == 50 { 900_000 } else { -1_700_000 });
        }
        engine.tick().await;
        engine.put(Input::Tick { events_behind: false, depths: HashMap::new() }).await;
    }
    faults.set(&[]);
    clock.pass(60_000);
    engine.put(Input::Tick { events_behind: false, depths: HashMap::new() }).await;
    assert!(faults.hits() > 20, "{}", faults.hits());
    // Two cores for eleven minutes, of which the last may not be written yet.
    let counted = core_ms(&engine).await - before;
    assert!((2 * 600_000..=2 * 660_000).contains(&counted), "{counted}");
    engine.close().await;
}

#[tokio::test]
async fn a_file_that_another_process_locks_for_longer_than_anybody_waits_costs_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut engine = TestEngine::open(folder.path());
    engine.create(1, false, vec![]).await;
    let epoch = engine.join().await;
    engine.add(vec![plain("t")]).await;
    let message = engine.published.pop().unwrap();
    engine.settled();
    let other = rusqlite::Connection::open(folder.path().join("store.sqlite")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let tag = engine.deliver(epoch, vec![finished(&message, 1, Outcome::Exit { code: 0 })]).await;
    let began = Instant::now();
    while engine.handle.refusal().is_none() {
        assert!(began.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    other.execute_batch("ROLLBACK").unwrap();
    let mut settled = Vec::new();
    while settled.is_empty() {
        assert!(began.elapsed() < PATIENCE);
        settled.extend(engine.settled());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(settled, [Settled::Done(tag)]);
    assert_eq!(engine.counts().await.succeeded, 1);
    engine.close().await;
}
