//! A store that refuses transactions: every delivery is settled in the end, every task ends once, nothing stays deaf.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use store::usage::UsagePage;

use super::*;
use crate::{
    clock::Hands,
    faulty::{Faults, FaultyStore, Point},
};

const TASKS: usize = 24;
/// How long a run may take, of which it needs a small part.
const PATIENCE: Duration = Duration::from_secs(60);

fn rig(folder: &Path) -> (Rig, Faults) {
    let path = folder.join("store.sqlite");
    let faults = Faults::default();
    let store = FaultyStore { inner: SqliteStore::open(&path).unwrap(), faults: faults.clone() };
    (Rig::on(Box::new(store), &path, Clock::system()), faults)
}

impl Rig {
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
        self.engine.put(Input::Events { batch, tag }).await.unwrap();
        tag
    }

    async fn tick(&mut self) {
        self.engine.put(Input::Tick { events_behind: false, depths: HashMap::new() }).await.unwrap();
    }
}

/// Adds tasks and plays an agent and a broker while the store refuses; all of it must end.
async fn survive(points: &[(Point, u64)]) {
    let folder = tempfile::tempdir().unwrap();
    let (mut rig, faults) = rig(folder.path());
    rig.create(4, false, vec![]).await;
    let epoch = rig.join().await;
    rig.settled();
    faults.set(points);
    for n in 0..TASKS {
        // Adding with the same name is safe, so people try again.
        loop {
            match rig.call(Command::CreateTasks(job(), vec![plain(&format!("t{n}"))])).await {
                Ok(Done::Tasks(results)) => break assert!(results[0].is_ok(), "what was refused was not stored: {results:?}"),
                Err(refusal) => assert_eq!(refusal.code, Code::ServerBusy, "{refusal:?}"),
                other => panic!("{other:?}"),
            }
        }
    }
    let (mut told, mut settled, mut sent) = (HashSet::new(), BTreeMap::new(), 0);
    let began = Instant::now();
    loop {
        assert!(began.elapsed() < PATIENCE, "{points:?}: {:?} after {sent} deliveries, {} settled", rig.counts().await, settled.len());
        rig.tick().await;
        rig.drain();
        for message in std::mem::take(&mut rig.published) {
            let key = message.key();
            rig.engine.put(Input::Published(vec![(pool(), key, true)])).await.unwrap();
            if told.insert(key) {
                let run = u128::from(key.uid.0) << 32 | u128::from(key.attempt);
                rig.deliver(epoch, vec![started(&message, run)]).await;
                rig.deliver(epoch, vec![finished(&message, run, Outcome::Exit { code: 0 })]).await;
                sent += 2;
            }
        }
        for delivery in rig.settled() {
            let Settled::Done(tag) = delivery else { panic!("{points:?}: {delivery:?}") };
            *settled.entry(tag.number).or_insert(0) += 1;
        }
        if settled.len() == sent && rig.counts().await.succeeded == TASKS as u64 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(faults.hits() > 3, "{points:?}: the store refused {} times", faults.hits());
    assert!(settled.values().all(|times| *times == 1), "{settled:?}");
    assert_eq!(rig.counts().await, Counts { active: 0, running: 0, succeeded: TASKS as u64, failed: 0 });
    let attempts: HashSet<_> = told.iter().map(|key| key.attempt).collect();
    assert_eq!((told.len(), attempts), (TASKS, HashSet::from([1])), "no task ran twice");
    faults.set(&[]);
    rig.close().await;
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
    let (mut rig, faults) = rig(folder.path());
    rig.create(1, false, vec![]).await;
    let epoch = rig.join().await;
    rig.add(vec![plain("t")]).await;
    let message = rig.published.pop().unwrap();
    rig.settled();
    faults.set(&[(Point::Commit, 1), (Point::Begin, 1)]);
    let tags = [
        rig.deliver(epoch, vec![started(&message, 1)]).await,
        rig.deliver(epoch, vec![finished(&message, 1, Outcome::Exit { code: 7 })]).await,
    ];
    let refusal = rig.call(Command::CreateTasks(job(), vec![plain("later")])).await.unwrap_err();
    assert_eq!(refusal.code, Code::ServerBusy);
    let began = Instant::now();
    while faults.hits() < 5 {
        assert!(began.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(rig.engine.refusal().unwrap().contains("full"), "{:?}", rig.engine.refusal());
    assert_eq!((rig.settled(), rig.task("t").await.unwrap().state), (vec![], TaskState::Active));
    faults.set(&[]);
    let mut settled = Vec::new();
    while settled.len() < 2 {
        assert!(began.elapsed() < PATIENCE);
        settled.extend(rig.settled());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(settled, tags.map(Settled::Done));
    assert_eq!(rig.task("t").await.unwrap().exit_code, Some(7));
    assert!(rig.add(vec![plain("later")]).await[0].is_ok());
    assert_eq!(rig.engine.refusal(), None);
    rig.close().await;
}

#[tokio::test]
async fn a_delivery_that_can_never_be_stored_goes_aside_and_holds_up_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let (mut rig, faults) = rig(folder.path());
    rig.create(4, false, vec![]).await;
    let epoch = rig.join().await;
    rig.add((0..4).map(|n| plain(&format!("t{n}"))).collect()).await;
    let messages = std::mem::take(&mut rig.published);
    rig.settled();
    faults.set(&[(Point::StartOf(messages[1].uid), 1)]);
    let mut tags = Vec::new();
    for (n, message) in messages.iter().enumerate() {
        tags.push(rig.deliver(epoch, vec![started(message, n as u128 + 1)]).await);
    }
    let (mut settled, began) = (HashSet::new(), Instant::now());
    while settled.len() < 4 {
        assert!(began.elapsed() < PATIENCE, "{settled:?}");
        settled.extend(rig.settled().into_iter().map(|delivery| match delivery {
            Settled::Done(tag) => (tag.number, true),
            Settled::Dead(tag) => (tag.number, false),
        }));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(settled, tags.iter().enumerate().map(|(n, tag)| (tag.number, n != 1)).collect());
    assert_eq!(rig.task("t3").await.unwrap().state, TaskState::Running);
    rig.close().await;
}

#[tokio::test]
async fn an_event_that_can_never_be_stored_takes_no_other_of_its_delivery_along() {
    let folder = tempfile::tempdir().unwrap();
    let (mut rig, faults) = rig(folder.path());
    rig.create(4, false, vec![]).await;
    let epoch = rig.join().await;
    rig.add((0..4).map(|n| plain(&format!("t{n}"))).collect()).await;
    let messages = std::mem::take(&mut rig.published);
    rig.settled();
    faults.set(&[(Point::StartOf(messages[1].uid), 1)]);
    let events = messages.iter().enumerate().map(|(n, message)| started(message, n as u128 + 1));
    let tags =
        [rig.deliver(epoch, events.collect()).await, rig.deliver(epoch, vec![finished(&messages[3], 4, Outcome::Exit { code: 0 })]).await];
    let (mut settled, began) = (Vec::new(), Instant::now());
    while settled.len() < 2 {
        assert!(began.elapsed() < PATIENCE, "{settled:?}");
        settled.extend(rig.settled());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(settled, [Settled::Dead(tags[0]), Settled::Done(tags[1])], "kept for people, once");
    for (task, state) in [("t0", TaskState::Running), ("t1", TaskState::Active), ("t2", TaskState::Running), ("t3", TaskState::Completed)] {
        assert_eq!(rig.task(task).await.unwrap().state, state, "{task}");
    }
    rig.close().await;
}

/// Core time of the pool, as it is stored.
async fn core_ms(rig: &Rig) -> u64 {
    let all = UsagePage {
        from: Timestamp(0),
        until: Timestamp(i64::MAX),
        after: None,
        filter: None,
        rows_max: 1_000,
        left_out: Default::default(),
    };
    rig.read.usage(all).await.unwrap().iter().map(|row| row.core_ms).sum()
}

#[tokio::test]
async fn transactions_that_are_refused_and_clocks_that_are_set_cost_no_core_time_and_add_none() {
    let (folder, hands) = (tempfile::tempdir().unwrap(), Arc::new(Hands::default()));
    let path = folder.path().join("store.sqlite");
    let faults = Faults::default();
    let store = FaultyStore { inner: SqliteStore::open(&path).unwrap(), faults: faults.clone() };
    let mut rig = Rig::on(Box::new(store), &path, hands.clock());
    rig.create(1, false, vec![]).await;
    rig.join().await;
    rig.put(Input::Tick { events_behind: false, depths: HashMap::new() }).await;
    let before = core_ms(&rig).await;
    faults.set(&[(Point::Commit, 3)]);
    for second in 0..600 {
        hands.pass(1_000);
        if second % 100 == 50 {
            hands.set(if second % 200 == 50 { 900_000 } else { -1_700_000 });
        }
        rig.tick().await;
        rig.put(Input::Tick { events_behind: false, depths: HashMap::new() }).await;
    }
    faults.set(&[]);
    hands.pass(60_000);
    rig.put(Input::Tick { events_behind: false, depths: HashMap::new() }).await;
    assert!(faults.hits() > 20, "{}", faults.hits());
    // Two cores for eleven minutes, of which the last may not be written yet.
    let counted = core_ms(&rig).await - before;
    assert!((2 * 600_000..=2 * 660_000).contains(&counted), "{counted}");
    rig.close().await;
}

#[tokio::test]
async fn a_file_that_another_process_locks_for_longer_than_anybody_waits_costs_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(folder.path());
    rig.create(1, false, vec![]).await;
    let epoch = rig.join().await;
    rig.add(vec![plain("t")]).await;
    let message = rig.published.pop().unwrap();
    rig.settled();
    let other = rusqlite::Connection::open(folder.path().join("store.sqlite")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let tag = rig.deliver(epoch, vec![finished(&message, 1, Outcome::Exit { code: 0 })]).await;
    let began = Instant::now();
    while rig.engine.refusal().is_none() {
        assert!(began.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    other.execute_batch("ROLLBACK").unwrap();
    let mut settled = Vec::new();
    while settled.is_empty() {
        assert!(began.elapsed() < PATIENCE);
        settled.extend(rig.settled());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(settled, [Settled::Done(tag)]);
    assert_eq!(rig.counts().await.succeeded, 1);
    rig.close().await;
}
