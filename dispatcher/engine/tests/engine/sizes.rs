//! Resizes that meet faults of the provider: what is kept while they go on, and what is left when they end.

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

use crate::{Rig, pool};

/// Looks of the dispatcher until a resize of a millisecond must be over.
const TICKS_MAX: usize = 100_000;

async fn row(rig: &Rig) -> PoolRow {
    rig.read.pool(&pool()).await.unwrap().unwrap()
}

async fn codes(rig: &Rig) -> Vec<String> {
    row(rig).await.resize_errors.into_iter().map(|fault| fault.code).collect()
}

async fn tell(rig: &mut Rig, fault: Option<&str>) {
    let fault = fault.map(|code| Fault { code: code.to_owned(), message: "no machine is free".to_owned(), details: vec![] });
    rig.request(RequestKind::Decision { pool: pool(), target: 1, reason: "set by hand to 1".to_owned(), fault }).await;
}

async fn tick(rig: &mut Rig) {
    rig.put(Input::Tick { events_behind: false, depths: HashMap::new() }).await;
}

#[tokio::test]
async fn a_fault_that_passes_leaves_no_resize_error() {
    let folder = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(folder.path());
    rig.create_pool("pool", 1).await;
    tick(&mut rig).await;
    tell(&mut rig, Some("AllocationFailed")).await;
    assert_eq!(row(&rig).await.allocation, AllocationState::Resizing);
    assert_eq!(row(&rig).await.decision.as_deref(), Some("set by hand to 1; it failed: no machine is free (AllocationFailed)"));
    tell(&mut rig, None).await;
    assert_eq!(row(&rig).await.decision.as_deref(), Some("set by hand to 1"));
    assert!(codes(&rig).await.is_empty());

    tell(&mut rig, Some("AllocationFailed")).await;
    rig.join().await;
    tick(&mut rig).await;
    assert_eq!((row(&rig).await.allocation, codes(&rig).await), (AllocationState::Steady, vec![]));
    tell(&mut rig, Some("AllocationFailed")).await;
    assert!(codes(&rig).await.is_empty(), "the resize was over before");
    assert!(row(&rig).await.decision.unwrap().ends_with("(AllocationFailed)"));
    rig.close().await;
}

#[tokio::test]
async fn a_resize_that_ends_too_late_names_its_limit_and_the_fault_behind_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(folder.path());
    let new = NewPool { settings: PoolSettings { resize_timeout: Period::from_ms(1) }, ..Rig::new_pool("pool", 1) };
    rig.call(Command::CreatePool(Box::new(new))).await.unwrap();
    tell(&mut rig, Some("AllocationFailed")).await;
    for _ in 0..TICKS_MAX {
        tick(&mut rig).await;
        if row(&rig).await.allocation == AllocationState::Steady {
            break;
        }
    }
    assert_eq!(row(&rig).await.allocation, AllocationState::Steady);
    assert_eq!(codes(&rig).await, ["AllocationTimedOut", "AllocationFailed"]);
    tell(&mut rig, None).await;
    assert_eq!(codes(&rig).await, ["AllocationTimedOut", "AllocationFailed"], "they are those of the last resize");
    rig.close().await;
}

#[tokio::test]
async fn a_pool_that_follows_its_queue_is_sized_by_the_dispatcher_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(folder.path());
    let policy = QueuePolicy { min_nodes: 1, max_nodes: 3, ..QueuePolicy::default() };
    rig.call(Command::CreatePool(Box::new(NewPool { policy: Some(policy), ..Rig::new_pool("pool", 0) }))).await.unwrap();
    tick(&mut rig).await;
    let seen = row(&rig).await;
    assert_eq!((seen.target_dedicated, seen.allocation), (1, AllocationState::Resizing));
    assert_eq!(seen.decision.as_deref(), Some("0 slots wait and 0 run, 1 to a node: 0 nodes wanted; the floor is 1"));
    let Reply::Snapshot { pools, .. } = rig.request(RequestKind::Snapshot).await else { panic!("a snapshot") };
    assert_eq!((pools[0].target_dedicated, Some(&pools[0].reason)), (1, seen.decision.as_ref()));
    // What an autoscaler of its own mind wants changes nothing.
    rig.request(RequestKind::Decision { pool: pool(), target: 9, reason: "more".to_owned(), fault: None }).await;
    tick(&mut rig).await;
    assert_eq!(row(&rig).await.target_dedicated, 1);
    rig.close().await;
}
