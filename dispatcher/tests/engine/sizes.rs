//! Resizes that meet faults of the provider: what is kept while they go on, and what is left when they end.

use std::collections::HashMap;

use broker_config::{
    message::{Fault, RequestKind},
    period::Period,
    state::AllocationState,
};
use dispatcher::{
    command::{Command, NewPool},
    engine::Input,
    store::{read::Read, rows::PoolRow},
};

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
    rig.request(RequestKind::Decision { pool: pool(), target: 1, reason: "1 node is missing".to_owned(), fault }).await;
}

async fn tick(rig: &mut Rig) {
    rig.put(Input::Tick { events_behind: false, depths: HashMap::new() }).await;
}

#[tokio::test]
async fn a_fault_that_passes_leaves_no_resize_error() {
    let folder = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(folder.path());
    rig.create_pool("pool", 1).await;
    tell(&mut rig, Some("AllocationFailed")).await;
    assert_eq!(row(&rig).await.allocation, AllocationState::Resizing);
    assert_eq!(row(&rig).await.decision.as_deref(), Some("1 node is missing; it failed: no machine is free (AllocationFailed)"));
    tell(&mut rig, None).await;
    assert_eq!(row(&rig).await.decision.as_deref(), Some("1 node is missing"));
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
    let new = NewPool { resize_timeout: Period::from_ms(1), ..Rig::new_pool("pool", 1) };
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
