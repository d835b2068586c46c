//! Resizes during faults of the provider: the state while they go on and after their end.

use std::collections::HashMap;

use contract::{
    message::{Reply, RequestKind},
    outcome::Fault,
    period::Period,
    spec::QueuePolicy,
    state::AllocationState,
};
use engine::{Input, command::Command};
use model::pool::{NewPool, PoolSettings};
use store::{read::Read, rows::PoolRow};

use crate::{TestEngine, pool};

/// Looks of the dispatcher until a resize of a millisecond must be over.
const TICKS_MAX: usize = 100_000;

async fn row(engine: &TestEngine) -> PoolRow {
    engine.read.pool(&pool()).await.unwrap().unwrap()
}

async fn codes(engine: &TestEngine) -> Vec<String> {
    row(engine).await.resize_errors.into_iter().map(|fault| fault.code).collect()
}

async fn tell(engine: &mut TestEngine, fault: Option<&str>) {
    let fault = fault.map(|code| Fault { code: code.to_owned(), message: "no machine is free".to_owned(), details: vec![] });
    engine.request(RequestKind::Decision { pool: pool(), target: 1, reason: "set by hand to 1".to_owned(), fault }).await;
}

async fn tick(engine: &mut TestEngine) {
    engine.put(Input::Tick { events_behind: false, depths: HashMap::new() }).await;
}

#[tokio::test]
async fn a_fault_that_passes_leaves_no_resize_error() {
    let folder = tempfile::tempdir().unwrap();
    let mut engine = TestEngine::open(folder.path());
    engine.create_pool("pool", 1).await;
    tick(&mut engine).await;
    tell(&mut engine, Some("AllocationFailed")).await;
    assert_eq!(row(&engine).await.allocation, AllocationState::Resizing);
    assert_eq!(row(&engine).await.decision.as_deref(), Some("set by hand to 1; it failed: no machine is free (AllocationFailed)"));
    tell(&mut engine, None).await;
    assert_eq!(row(&engine).await.decision.as_deref(), Some("set by hand to 1"));
    assert!(codes(&engine).await.is_empty());

    tell(&mut engine, Some("AllocationFailed")).await;
    engine.join().await;
    tick(&mut engine).await;
    assert_eq!((row(&engine).await.allocation, codes(&engine).await), (AllocationState::Steady, vec![]));
    tell(&mut engine, Some("AllocationFailed")).await;
    assert!(codes(&engine).await.is_empty(), "the resize was over before");
    assert!(row(&engine).await.decision.unwrap().ends_with("(AllocationFailed)"));
    engine.close().await;
}

#[tokio::test]
async fn a_resize_that_ends_too_late_names_its_limit_and_the_fault_behind_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut engine = TestEngine::open(folder.path());
    let new = NewPool { settings: PoolSettings { resize_timeout: Period::from_ms(1) }, ..TestEngine::new_pool("pool", 1) };
    engine.call(Command::CreatePool(Box::new(new))).await.unwrap();
    tell(&mut engine, Some("AllocationFailed")).await;
    for _ in 0..TICKS_MAX {
        tick(&mut engine).await;
        if row(&engine).await.allocation == AllocationState::Steady {
            break;
        }
    }
    assert_eq!(row(&engine).await.allocation, AllocationState::Steady);
    assert_eq!(codes(&engine).await, ["AllocationTimedOut", "AllocationFailed"]);
    tell(&mut engine, None).await;
    assert_eq!(codes(&engine).await, ["AllocationTimedOut", "AllocationFailed"], "they are those of the last resize");
    engine.close().await;
}

#[tokio::test]
async fn a_pool_that_follows_its_queue_is_sized_by_the_dispatcher_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let mut engine = TestEngine::open(folder.path());
    let policy = QueuePolicy { min_nodes: 1, max_nodes: 3, ..QueuePolicy::default() };
    engine.call(Command::CreatePool(Box::new(NewPool { policy: Some(policy), ..TestEngine::new_pool("pool", 0) }))).await.unwrap();
    tick(&mut engine).await;
    let seen = row(&engine).await;
    assert_eq!((seen.target_dedicated, seen.allocation), (1, AllocationState::Resizing));
    assert_eq!(seen.decision.as_deref(), Some("0 slots wait and 0 run, 1 to a node: 0 nodes wanted; the floor is 1"));
    let Reply::Snapshot { pools, .. } = engine.request(RequestKind::Snapshot).await else { panic!("a snapshot") };
    assert_eq!((pools[0].target_dedicated, Some(&pools[0].reason)), (1, seen.decision.as_ref()));
    // What an autoscaler of its own mind wants changes nothing.
    engine.request(RequestKind::Decision { pool: pool(), target: 9, reason: "more".to_owned(), fault: None }).await;
    tick(&mut engine).await;
    assert_eq!(row(&engine).await.target_dedicated, 1);
    engine.close().await;
}
