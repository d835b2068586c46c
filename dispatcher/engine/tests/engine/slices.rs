//! Commands about many rows work in slices, and ticks read only rows that change.

use std::collections::BTreeSet;

use super::*;

#[tokio::test]
async fn a_large_job_goes_in_slices_and_lets_others_in() {
    let folder = tempfile::tempdir().unwrap();
    let mut engine = TestEngine::open(folder.path());
    engine.create(1, false, vec![]).await;
    for chunk in 0..30 {
        engine.add((0..100).map(|n| plain(&format!("t{chunk}-{n}"))).collect()).await;
    }
    engine.call(Command::DeleteJob(job(), Condition::default())).await.unwrap();
    engine.put(Input::Tick { events_behind: false, depths: HashMap::new() }).await;
    let mut seen = BTreeSet::new();
    // No more ticks: one is enough, and every request in between is answered.
    while let Some(row) = engine.read.job(&job()).await.unwrap() {
        let page = Page { rows_max: 10_000, ..Page::default() };
        seen.extend(engine.read.task_names(&job(), page).await.unwrap().map(|page| page.rows.len()));
        assert_eq!(row.state, JobState::Deleting);
        engine.call(Command::TerminateJob("other".parse().unwrap(), None, Condition::default())).await.unwrap_err();
    }
    assert!(seen.iter().all(|left| left % 500 == 0), "{seen:?} left");
    engine.close().await;
}

#[tokio::test]
async fn a_pool_for_parked_tasks_takes_those_that_fit() {
    let folder = tempfile::tempdir().unwrap();
    let mut engine = TestEngine::open(folder.path());
    engine.call(Command::CreateJob(Box::new(TestEngine::new_job(false, vec![])))).await.unwrap();
    let wide = |id: &str, slots| task(id, TaskSpec { required_slots: Some(slots), command_line: "x".into(), ..TaskSpec::default() }, &[]);
    engine.add(vec![wide("a", 2), plain("b"), wide("c", 4), wide("d", 2)]).await;
    engine.create_pool("pool", 2).await;
    engine.join().await;
    let mut out: Vec<_> = engine.published.drain(..).map(|message| message.task.to_string()).collect();
    out.sort();
    assert_eq!(out, ["a", "b", "d"], "four slots fit no node");
    engine.close().await;
}

#[tokio::test]
async fn a_pool_too_small_for_many_wide_tasks_looks_at_them_in_slices_and_begins_none_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let mut engine = TestEngine::open(folder.path());
    engine.call(Command::CreateJob(Box::new(TestEngine::new_job(false, vec![])))).await.unwrap();
    let wide = |id: &str| task(id, TaskSpec { required_slots: Some(4), command_line: "x".into(), ..TaskSpec::default() }, &[]);
    for chunk in 0..100 {
        engine.add((0..100).map(|n| wide(&format!("t{chunk}-{n}"))).collect()).await;
    }
    engine.add(vec![plain("small")]).await;
    let store = rusqlite::Connection::open(folder.path().join("store.sqlite")).unwrap();
    let fitting = || store.query_row("SELECT count(*) FROM tasks WHERE fits = 1 AND slots > 1", [], |row| row.get::<_, u32>(0)).unwrap();
    let (handle, create) = (engine.handle.clone(), Command::CreatePool(Box::new(TestEngine::new_pool("pool", 2))));
    let asked = tokio::spawn(async move { handle.call(create).await });
    tokio::task::yield_now().await;
    // The engine ends while slices are left, and goes on where the rows are when it starts anew.
    engine.close().await;
    drop(asked.await);
    let first = fitting();
    assert!(first > 0 && first < 10_000, "{first} are left after the transaction that added the pool");
    let mut engine = TestEngine::open(folder.path());
    let Reply::Snapshot { pools, .. } = engine.request(RequestKind::Snapshot).await else { panic!() };
    assert!(pools[0].waiting_slots <= 1, "no node is made for what may not fit it: {pools:?}");
    engine.join().await;
    let mut seen = BTreeSet::from([first]);
    while fitting() > 0 {
        seen.insert(fitting());
        engine.call(Command::TerminateJob("other".parse().unwrap(), None, Condition::default())).await.unwrap_err();
    }
    engine.put(Input::Tick { events_behind: false, depths: HashMap::new() }).await;
    assert!(seen.iter().all(|left| left % 100 == 0), "{seen:?}");
    let out: Vec<_> = engine.published.drain(..).map(|message| message.task.to_string()).collect();
    assert_eq!(out, ["small"]);
    engine.close().await;
}
