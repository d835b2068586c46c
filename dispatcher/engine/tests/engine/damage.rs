//! Unreadable rows: a damaged task ends and says why, other damaged rows are left out and named, and nothing else changes.

use model::schedule::{NewSchedule, Timetable};
use store::read::{Detail, ScanFrom};

use super::*;

pub(super) fn vandalise(folder: &Path, statement: &str) {
    let vandal = rusqlite::Connection::open(folder.join("store.sqlite")).unwrap();
    assert_eq!(vandal.execute(statement, []).unwrap(), 1, "{statement}");
}

impl TestEngine {
    async fn names(&self) -> Vec<String> {
        let page = Page { rows_max: 100, ..Page::default() };
        let found = self.read.tasks(&job(), page, Detail::WHOLE).await.unwrap().unwrap();
        found.rows.into_iter().map(|row| row.id.to_string()).collect()
    }

    async fn failure(&self, task: &str) -> String {
        let row = self.task(task).await.unwrap();
        assert_eq!((row.state, row.has_succeeded), (TaskState::Completed, Some(false)), "{row:?}");
        row.failure.unwrap().fault.code
    }
}

#[tokio::test]
async fn waiting_tasks_that_cannot_be_read_end_as_failed_and_the_others_run() {
    for damage in [
        "UPDATE task_texts SET document = '{' WHERE uid = 2",
        "UPDATE task_texts SET document = x'00' WHERE uid = 2",
        "UPDATE task_texts SET document = '{\"commandLine\":7}' WHERE uid = 2",
        "UPDATE tasks SET fence = 'x' WHERE uid = 2",
        "UPDATE tasks SET slots = -1 WHERE uid = 2",
        "UPDATE tasks SET retries_max = 'many' WHERE uid = 2",
    ] {
        let folder = tempfile::tempdir().unwrap();
        let mut engine = TestEngine::open(folder.path());
        engine.create(8, false, vec![]).await;
        engine.add((1..=4).map(|n| plain(&format!("t{n}"))).collect()).await;
        vandalise(folder.path(), damage);
        let epoch = engine.join().await;
        let messages = std::mem::take(&mut engine.published);
        assert_eq!(messages.iter().map(|message| message.task.as_str()).collect::<Vec<_>>(), ["t1", "t3", "t4"], "{damage}");
        assert_eq!(engine.failure("t2").await, "TaskUnreadable", "{damage}");
        let ends = messages.iter().enumerate().map(|(n, message)| finished(message, n as u128 + 1, Outcome::Exit { code: 0 }));
        engine.events(epoch, ends.collect()).await;
        assert_eq!(engine.counts().await, Counts { active: 0, running: 0, succeeded: 3, failed: 1 }, "{damage}");
        assert_eq!(engine.names().await, ["t1", "t2", "t3", "t4"], "{damage}");
        assert_eq!((engine.handle.refusal(), engine.handle.unreadable().len()), (None, 1), "{damage}");
        engine.close().await;
    }
}

#[tokio::test]
async fn tasks_that_are_out_and_cannot_be_read_end_with_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let mut engine = TestEngine::open(folder.path());
    engine.create(3, false, vec![]).await;
    let epoch = engine.join().await;
    engine.add((1..=3).map(|n| plain(&format!("t{n}"))).collect()).await;
    let messages = std::mem::take(&mut engine.published);
    engine.events(epoch, vec![started(&messages[0], 1), started(&messages[1], 2)]).await;
    engine.close().await;
    vandalise(folder.path(), "UPDATE tasks SET run = 'nobody' WHERE uid = 1");
    vandalise(folder.path(), "UPDATE tasks SET attempt = 'x' WHERE uid = 3");
    let mut engine = TestEngine::open(folder.path());
    engine.put(Input::Tick { events_behind: false, depths: HashMap::new() }).await;
    assert_eq!((engine.failure("t1").await, engine.failure("t3").await), ("TaskUnreadable".to_owned(), "TaskUnreadable".to_owned()));
    assert_eq!(engine.counts().await, Counts { active: 0, running: 1, succeeded: 0, failed: 2 });
    engine.events(epoch, vec![finished(&messages[1], 2, Outcome::Exit { code: 0 })]).await;
    assert_eq!(engine.counts().await, Counts { active: 0, running: 0, succeeded: 1, failed: 2 });
    engine.close().await;
}

#[tokio::test]
async fn tasks_that_become_unreadable_while_they_run_end_and_their_node_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut engine = TestEngine::open(folder.path());
    engine.create(1, false, vec![]).await;
    let epoch = engine.join().await;
    engine.add((1..=3).map(|n| plain(&format!("t{n}"))).collect()).await;
    let messages = std::mem::take(&mut engine.published);
    engine.events(epoch, vec![started(&messages[0], 1)]).await;
    vandalise(folder.path(), "UPDATE tasks SET version = 'x' WHERE uid = 1");
    // The run is given back, for which its row is read.
    engine.call(Command::DisableJob(job(), model::job::DisableOption::Requeue, Condition::default())).await.unwrap();
    assert_eq!(engine.failure("t1").await, "TaskUnreadable");
    assert_eq!(engine.counts().await, Counts { active: 2, running: 0, succeeded: 0, failed: 1 });
    for _ in 0..2 {
        engine.put(Input::Tick { events_behind: false, depths: HashMap::new() }).await;
    }
    engine.call(Command::EnableJob(job(), Condition::default())).await.unwrap();
    engine.put(Input::Tick { events_behind: false, depths: HashMap::new() }).await;
    assert!(engine.published.iter().any(|message| message.task.as_str() == "t2"), "{:?}", engine.published);
    engine.close().await;
}

#[tokio::test]
async fn who_asks_for_an_unreadable_task_is_told_and_afterwards_it_can_be_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let mut engine = TestEngine::open(folder.path());
    engine.create(1, false, vec![]).await;
    engine.add((1..=2).map(|n| plain(&format!("t{n}"))).collect()).await;
    vandalise(folder.path(), "UPDATE tasks SET state = 77 WHERE uid = 1");
    let id: TaskId = "t1".parse().unwrap();
    let refusal = engine.call(Command::TerminateTask(job(), id.clone(), Condition::default())).await.unwrap_err();
    assert_eq!(refusal.code, Code::InternalError);
    assert_eq!(engine.failure("t1").await, "TaskUnreadable");
    engine.call(Command::DeleteTask(job(), id, Condition::default())).await.unwrap();
    assert_eq!(engine.names().await, ["t2"]);
    assert_eq!(engine.counts().await, Counts { active: 1, running: 0, succeeded: 0, failed: 0 });
    engine.close().await;
}

#[tokio::test]
async fn rows_of_other_tables_that_cannot_be_read_are_left_out_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let mut engine = TestEngine::open(folder.path());
    engine.create(1, false, vec![]).await;
    engine.create_pool("bad", 1).await;
    let spoiled = NewJob { id: "spoiled".parse().unwrap(), ..TestEngine::new_job(false, vec![]) };
    engine.call(Command::CreateJob(Box::new(spoiled))).await.unwrap();
    let epoch = engine.join().await;
    engine.add(vec![plain("t1"), plain("t2")]).await;
    let messages = std::mem::take(&mut engine.published);
    engine.events(epoch, vec![started(&messages[0], 1)]).await;
    engine.close().await;
    vandalise(folder.path(), "UPDATE pools SET policy = '{' WHERE id = 'bad'");
    vandalise(folder.path(), "UPDATE jobs SET environment = '[' WHERE id = 'spoiled'");
    vandalise(folder.path(), "UPDATE nodes SET faults = '[' WHERE id = 'node-0001'");
    let mut engine = TestEngine::open(folder.path());
    // The node that lives goes on.
    engine.events(epoch, vec![finished(&messages[0], 1, Outcome::Exit { code: 0 })]).await;
    assert_eq!(engine.counts().await.succeeded, 1);
    let named: Vec<_> = engine.handle.unreadable().into_iter().map(|row| (row.table, row.row, row.column)).collect();
    assert_eq!(
        named,
        [("jobs", "2".to_owned(), "environment"), ("pools", "bad".to_owned(), "policy"), ("nodes", "node-0001".to_owned(), "faults")]
    );
    let page = || Page { rows_max: 10, ..Page::default() };
    assert_eq!(engine.read.pools(page()).await.unwrap().len(), 1);
    assert_eq!(engine.read.jobs(page()).await.unwrap().len(), 2, "what people read of that job is whole");
    let spoiled: JobId = "spoiled".parse().unwrap();
    let refusal = engine.call(Command::CreateTasks(spoiled.clone(), vec![plain("x")])).await.unwrap_err();
    assert_eq!(refusal.code, Code::InternalError);
    engine.add(vec![plain("t3")]).await;
    engine.close().await;
}

#[tokio::test]
async fn tasks_whose_names_cannot_be_read_get_others_that_nobody_has() {
    let folder = tempfile::tempdir().unwrap();
    let mut engine = TestEngine::open(folder.path());
    engine.create(8, false, vec![]).await;
    engine.add(["a", "b", "c", "unreadable-2"].map(plain).to_vec()).await;
    vandalise(folder.path(), "UPDATE tasks SET id = CAST(x'ff00fe' AS TEXT) WHERE uid = 2");
    vandalise(folder.path(), "UPDATE tasks SET id = x'61', slots = 'x' WHERE uid = 3");
    engine.join().await;
    let out: Vec<_> = engine.published.drain(..).map(|message| message.task.to_string()).collect();
    assert_eq!(out, ["a", "unreadable-2"]);
    let names = engine.names().await;
    assert_eq!(names.len(), 4, "{names:?}");
    assert!(names.iter().any(|name| name.starts_with("unreadable-2-")), "{names:?}");
    assert_eq!(engine.failure("unreadable-3").await, "TaskUnreadable");
    assert_eq!(engine.counts().await, Counts { active: 2, running: 0, succeeded: 0, failed: 2 });
    engine.close().await;
}

#[tokio::test]
async fn a_task_that_is_out_and_does_not_tell_its_job_is_left_out_and_stops_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let mut engine = TestEngine::open(folder.path());
    engine.create(2, false, vec![]).await;
    let epoch = engine.join().await;
    engine.add(vec![plain("t1"), plain("t2")]).await;
    let messages = std::mem::take(&mut engine.published);
    engine.events(epoch, vec![started(&messages[0], 1), started(&messages[1], 2)]).await;
    engine.close().await;
    vandalise(folder.path(), "UPDATE tasks SET job = 'x' WHERE uid = 1");
    let mut engine = TestEngine::open(folder.path());
    engine.events(epoch, vec![finished(&messages[1], 2, Outcome::Exit { code: 0 })]).await;
    assert_eq!(engine.task("t2").await.unwrap().has_succeeded, Some(true));
    assert_eq!((engine.handle.refusal(), engine.handle.unreadable().len()), (None, 1));
    engine.close().await;
}

#[tokio::test]
async fn sums_that_cannot_be_read_cost_no_end_of_a_run() {
    for damage in ["UPDATE tasks SET created_at = 'x' WHERE uid = 1", "UPDATE task_sums SET wait_ms = x'00' WHERE owner = 1"] {
        let folder = tempfile::tempdir().unwrap();
        let mut engine = TestEngine::open(folder.path());
        engine.create(2, false, vec![]).await;
        let epoch = engine.join().await;
        engine.add(vec![plain("t1"), plain("t2")]).await;
        let messages = std::mem::take(&mut engine.published);
        engine.events(epoch, vec![started(&messages[0], 1), started(&messages[1], 2)]).await;
        let store = rusqlite::Connection::open(folder.path().join("store.sqlite")).unwrap();
        store.execute("INSERT INTO task_sums VALUES (1, 0, 0, 0, 0, 0, 0)", []).unwrap();
        vandalise(folder.path(), damage);
        let ends = messages.iter().enumerate().map(|(n, message)| finished(message, n as u128 + 1, Outcome::Exit { code: 0 }));
        engine.events(epoch, ends.collect()).await;
        assert_eq!(engine.counts().await, Counts { active: 0, running: 0, succeeded: 2, failed: 0 }, "{damage}");
        assert_eq!(engine.task("t1").await.unwrap().has_succeeded, Some(true), "{damage}");
        while let Ok(settled) = engine.outlets.settled.try_recv() {
            assert!(settled.iter().all(|delivery| matches!(delivery, Settled::Done(_))), "{damage}: {settled:?}");
        }
        engine.close().await;
    }
}

/// Rows of all kinds, and a task that runs.
async fn populate(folder: &Path) -> (Epoch, TaskMessage) {
    let mut engine = TestEngine::open(folder);
    engine.create(2, true, vec![EnvironmentSetting { name: "A".into(), value: None }]).await;
    let epoch = engine.join().await;
    let waiting = (0..6).map(|n| plain(&format!("w{n}")));
    let blocked = task("blocked", TaskSpec::default(), &["w2"]);
    engine.add([plain("done"), plain("runs")].into_iter().chain(waiting).chain([blocked]).collect()).await;
    let messages = std::mem::take(&mut engine.published);
    engine.events(epoch, vec![started(&messages[0], 1), finished(&messages[0], 1, Outcome::Exit { code: 0 })]).await;
    engine.events(epoch, vec![started(&messages[1], 2)]).await;
    let later = Timetable { not_until: Some(Timestamp::now().plus_ms(86_400_000)), ..Timetable::default() };
    let schedule =
        NewSchedule { id: "later".parse().unwrap(), timetable: later, job: TestEngine::new_job(false, vec![]), document: "{}".into() };
    engine.call(Command::CreateSchedule(Box::new(schedule))).await.unwrap();
    engine.create_pool("gone", 1).await;
    engine.call(Command::DeletePool("gone".parse().unwrap(), Condition::default())).await.unwrap();
    engine.put(Input::Tick { events_behind: false, depths: HashMap::new() }).await;
    engine.close().await;
    let store = rusqlite::Connection::open(folder.join("store.sqlite")).unwrap();
    store
        .execute_batch(
            "UPDATE tasks SET rests_until = 1, ready = 0 WHERE id = 'w5' AND live = 0;
            INSERT OR IGNORE INTO outbox VALUES (3);
            INSERT INTO applications VALUES ('app', 1, 'A', 1, NULL, NULL, 1, 1);
            INSERT OR IGNORE INTO pool_sums VALUES ('pool', 5);
            INSERT OR IGNORE INTO pool_usage VALUES (0, 'pool', '', 5);",
        )
        .unwrap();
    (epoch, messages[1].clone())
}

/// Every column that can hold what is no text, by table.
fn columns(folder: &Path) -> Vec<(String, String)> {
    let store = rusqlite::Connection::open(folder.join("store.sqlite")).unwrap();
    let sql = "SELECT t.name, c.name FROM sqlite_schema t JOIN pragma_table_info(t.name) c WHERE t.type = 'table' AND t.name <> 'meta'";
    let mut statement = store.prepare(sql).unwrap();
    let found = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    found.collect::<Result<_, _>>().unwrap()
}

/// What a bad disk or a build of another time may leave in a cell: each is tried somewhere, the first everywhere.
const DAMAGES: [&str; 9] =
    ["CAST(x'ff' AS TEXT)", "'{oops}'", "9223372036854775807", "-1", "''", "NULL", "'[1]'", "1.5", "-9223372036854775808"];

#[tokio::test]
async fn whatever_cell_is_spoilt_the_engine_goes_on_and_others_never_notice() {
    let model = tempfile::tempdir().unwrap();
    let (epoch, runs) = populate(model.path()).await;
    let columns = columns(model.path());
    assert!(columns.len() > 150, "{}", columns.len());
    let mut spoilt = 0;
    for (number, (table, column)) in columns.into_iter().enumerate() {
        for damage in [DAMAGES[0], DAMAGES[1 + number % (DAMAGES.len() - 1)]] {
            let what = format!("{table}.{column} = {damage}");
            let folder = tempfile::tempdir().unwrap();
            std::fs::copy(model.path().join("store.sqlite"), folder.path().join("store.sqlite")).unwrap();
            let vandal = rusqlite::Connection::open(folder.path().join("store.sqlite")).unwrap();
            // Numbers of rows are what they are.
            let is_number = ["uid", "owner", "number"].contains(&column.as_str());
            let changed = vandal.execute(&format!("UPDATE OR IGNORE {table} SET {column} = {damage}"), []).unwrap_or(0);
            drop(vandal);
            if changed == 0 || is_number {
                continue;
            }
            spoilt += 1;
            let mut engine = TestEngine::open(folder.path());
            engine.events(epoch, vec![finished(&runs, 2, Outcome::Exit { code: 0 })]).await;
            for _ in 0..2 {
                engine.put(Input::Tick { events_behind: false, depths: HashMap::new() }).await;
            }
            engine.create_pool("other", 1).await;
            let other = NewJob {
                id: "other".parse().unwrap(),
                pool: "other".parse::<PoolId>().unwrap().into(),
                ..TestEngine::new_job(false, vec![])
            };
            engine.call(Command::CreateJob(Box::new(other))).await.unwrap();
            let added = engine.call(Command::CreateTasks("other".parse().unwrap(), vec![plain("t")])).await.unwrap();
            assert!(matches!(added, Done::Tasks(results) if results[0].is_ok()), "{what}");
            assert_eq!(engine.handle.refusal(), None, "{what}");
            while let Ok(settled) = engine.outlets.settled.try_recv() {
                assert!(settled.iter().all(|delivery| matches!(delivery, Settled::Done(_))), "{what}: {settled:?}");
            }
            engine.close().await;
        }
    }
    assert!(spoilt > 200, "{spoilt}");
}

#[tokio::test]
async fn a_job_that_cannot_be_read_can_be_deleted_with_all_its_rows() {
    for (damage, name) in [
        ("UPDATE jobs SET environment = '[' WHERE id = 'job'", "job"),
        ("UPDATE jobs SET pool = CAST(x'ff' AS TEXT), state = 'x', version = x'00' WHERE id = 'job'", "job"),
        ("UPDATE jobs SET id = CAST(x'ff' AS TEXT) WHERE id = 'job'", "unreadable-1"),
        ("INSERT INTO job_chores VALUES (1, '{')", "job"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let mut engine = TestEngine::open(folder.path());
        engine.create(1, true, vec![]).await;
        let epoch = engine.join().await;
        engine.add(vec![plain("t1"), plain("t2"), task("t3", TaskSpec::default(), &["t2"])]).await;
        let message = engine.published.remove(0);
        engine.events(epoch, vec![started(&message, 1)]).await;
        engine.close().await;
        vandalise(folder.path(), damage);
        let mut engine = TestEngine::open(folder.path());
        let named: JobId = name.parse().unwrap();
        engine.call(Command::DeleteJob(named.clone(), Condition::default())).await.unwrap();
        for _ in 0..3 {
            engine.put(Input::Tick { events_behind: false, depths: HashMap::new() }).await;
        }
        let store = rusqlite::Connection::open(folder.path().join("store.sqlite")).unwrap();
        for table in ["jobs", "job_texts", "tasks", "task_texts", "dependencies", "job_chores", "outbox"] {
            let left: u32 = store.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap();
            assert_eq!(left, 0, "{damage}: rows of {table} are left");
        }
        // Its run is over for everybody, and its name free.
        engine.heartbeat(epoch, &[(&message, 1)], None).await;
        engine.call(Command::CreateJob(Box::new(TestEngine::new_job(false, vec![])))).await.unwrap();
        assert_eq!(engine.handle.refusal(), None, "{damage}");
        engine.close().await;
    }
}

#[tokio::test]
async fn a_scan_names_every_cell_that_is_spoilt_in_slices() {
    let model = tempfile::tempdir().unwrap();
    populate(model.path()).await;
    let scan = async |folder: &Path, rows| {
        let read = SqliteReader::open(&folder.join("store.sqlite"), 1).unwrap();
        let (mut from, mut found, mut slices) = (ScanFrom::default(), Vec::new(), 0);
        loop {
            let scanned = read.scan(from, rows).await.unwrap();
            slices += 1;
            found.extend(scanned.unreadable.into_iter().map(|row| (row.table, row.column)));
            match scanned.next {
                Some(next) => from = next,
                None => return (found, slices),
            }
        }
    };
    assert_eq!(scan(model.path(), 1_000).await, (vec![], 1), "one slice is enough, and what is well is not named");
    assert!(scan(model.path(), 3).await.1 > 10);
    let mut unnamed = Vec::new();
    for (table, column) in columns(model.path()) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::copy(model.path().join("store.sqlite"), folder.path().join("store.sqlite")).unwrap();
        let vandal = rusqlite::Connection::open(folder.path().join("store.sqlite")).unwrap();
        let changed = vandal.execute(&format!("UPDATE OR IGNORE {table} SET {column} = CAST(x'ff' AS TEXT)"), []).unwrap_or(0);
        drop(vandal);
        if changed > 0 && scan(folder.path(), 7).await.0.is_empty() {
            unnamed.push(format!("{table}.{column}"));
        }
    }
    // The database alone reads these; what they say is told by others, too.
    assert_eq!(unnamed, ["job_schedules.not_until", "job_schedules.not_after", "tasks.plain"]);
}
