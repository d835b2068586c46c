//! Retries: the first comes at once, the second after a pause that a restart does not shorten.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use contract::{
    outcome::Outcome,
    spec::{TaskConstraints, TaskSpec},
    state::TaskState,
};
use engine::Input;

use crate::{TestEngine, finished, task};

/// Looks of the dispatcher until a rest of a second must be over.
const TICKS_MAX: u32 = 1_000;

async fn tick(engine: &mut TestEngine) {
    engine.put(Input::Tick { events_behind: false, depths: HashMap::new() }).await;
}

#[tokio::test]
async fn a_task_that_fails_again_rests_before_its_next_retry_and_its_rest_outlives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let mut engine = TestEngine::open(folder.path());
    engine.create(1, false, vec![]).await;
    let epoch = engine.join().await;
    let constraints = TaskConstraints { max_task_retry_count: Some(-1), ..TaskConstraints::default() };
    engine.add(vec![task("t", TaskSpec { command_line: "/bin/false".into(), constraints, ..TaskSpec::default() }, &[])]).await;
    let mut failed_at = Instant::now();
    for attempt in 1..=2 {
        let message = engine.published.pop().expect("the first retry comes at once");
        assert_eq!(message.attempt, attempt);
        failed_at = Instant::now();
        engine.events(epoch, vec![finished(&message, u128::from(attempt), Outcome::Exit { code: 1 })]).await;
    }
    let row = engine.task("t").await.unwrap();
    assert_eq!((row.state, row.retry_count), (TaskState::Active, 2));
    engine.close().await;

    let mut engine = TestEngine::open(folder.path());
    for _ in 0..TICKS_MAX {
        tick(&mut engine).await;
        if !engine.published.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(engine.published.pop().expect("it rests for a second").attempt, 3);
    assert!(failed_at.elapsed() >= Duration::from_millis(750));
    engine.close().await;
}
