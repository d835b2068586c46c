//! Job preparation and release on nodes: stored, shown, filtered, and loaded while the job is not completed.

use contract::{
    ids::{Epoch, JobUid, RunId},
    outcome::{JobTaskEnd, JobTaskKey, JobTaskKind, Outcome},
    spec::TaskSpec,
    state::{JobState, TaskState},
};
use model::job_tasks::{JobOnNode, JobOnNodeRecord, JobOnNodeRow, JobTasks, Preparation, PreparationTask, Release, ReleaseTask};
use store::{
    filter::{Field, Filter, JobTaskPart, Operator, Value},
    read::Page,
    records::JobRecord,
};

use crate::fixture::{Fixture, Location, at, first, id, job, wait};

fn job_tasks() -> JobTasks {
    let spec = |line: &str| TaskSpec { command_line: line.to_owned(), ..TaskSpec::default() };
    JobTasks {
        preparation: PreparationTask { id: id("prep"), spec: spec("a 'b'"), waits: false, reruns: true },
        release: Some(ReleaseTask { id: id("tidy"), spec: spec("c") }),
    }
}

fn job_on_node(preparation: Preparation) -> JobOnNode {
    let release = Some(Release { is_over: false });
    JobOnNode { number: 3, epoch: Epoch(9), preparation, lost: 2, release }
}

fn end(uid: u64, kind: JobTaskKind, outcome: Outcome) -> JobTaskEnd {
    let key = JobTaskKey { job: JobUid(uid), kind, number: 3 };
    JobTaskEnd { key, started_at: at(11), ended_at: at(12), outcome, retries: 1, retried_at: Some(at(10)) }
}

/// A job whose preparation succeeded on one node, failed on another, and runs on a third.
fn fixture(location: &dyn Location) -> Fixture {
    let mut fixture = Fixture::new(location);
    fixture.write(|store| {
        store.put_job_tasks(JobUid(1), &job_tasks())?;
        for node in ["a", "B", "c"] {
            store.put_job_on_node(JobUid(1), &id("p"), &id(node), &job_on_node(Preparation::Ordered))?;
            store.begin_job_task(JobUid(1), &id("p"), &id(node), JobTaskKind::Preparation, at(5))?;
        }
        store.end_job_task(&id("p"), &id("a"), &end(1, JobTaskKind::Preparation, Outcome::Exit { code: 0 }), true)?;
        store.end_job_task(&id("p"), &id("b"), &end(1, JobTaskKind::Preparation, Outcome::Signal { number: 9 }), false)?;
        store.begin_job_task(JobUid(1), &id("p"), &id("a"), JobTaskKind::Release, at(20))?;
        store.end_job_task(&id("p"), &id("a"), &end(1, JobTaskKind::Release, Outcome::Exit { code: 4 }), false)
    });
    fixture
}

fn listed(fixture: &Fixture, filter: Filter) -> String {
    let page = Page { filter: Some(filter), ..first(10) };
    let rows = wait(fixture.read.jobs_on_nodes(&id("job"), page)).unwrap().unwrap();
    rows.iter().map(|row| row.node.to_string()).collect()
}

pub fn every_field_of_a_job_on_node_survives(location: &dyn Location) {
    let mut fixture = fixture(location);
    let loaded = fixture.store.load().unwrap();
    assert_eq!(loaded.job_tasks, [(JobUid(1), job_tasks())]);
    let record =
        |node: &str| JobOnNodeRecord { job: JobUid(1), pool: id("p"), node: id(node), job_on_node: job_on_node(Preparation::Ordered) };
    assert_eq!(loaded.jobs_on_nodes, [record("a"), record("B"), record("c")]);
    let rows = wait(fixture.read.jobs_on_nodes(&id("JOB"), first(10))).unwrap().unwrap();
    let told = JobOnNodeRow {
        pool: id("p"),
        node: id("a"),
        preparation_at: Some(at(11)),
        preparation: Some(end(1, JobTaskKind::Preparation, Outcome::Exit { code: 0 })),
        release_at: Some(at(20)),
        release: Some(end(1, JobTaskKind::Release, Outcome::Exit { code: 4 })),
    };
    assert_eq!(rows[0], told);
    assert_eq!((rows[1].preparation_at, rows[1].release_at), (Some(at(5)), None), "its own beginning was not told");
    assert_eq!((rows[2].preparation_at, &rows[2].preparation), (Some(at(5)), &None));
    assert_eq!(wait(fixture.read.jobs_on_nodes(&id("none"), first(10))).unwrap(), None);
}

pub fn a_new_preparation_begins_a_new_story(location: &dyn Location) {
    let mut fixture = fixture(location);
    fixture.write(|store| store.begin_job_task(JobUid(1), &id("p"), &id("a"), JobTaskKind::Preparation, at(30)));
    let rows = wait(fixture.read.jobs_on_nodes(&id("job"), first(1))).unwrap().unwrap();
    let fresh =
        JobOnNodeRow { pool: id("p"), node: id("a"), preparation_at: Some(at(30)), preparation: None, release_at: None, release: None };
    assert_eq!(rows, [fresh]);
}

pub fn jobs_on_nodes_of_completed_jobs_are_shown_and_not_loaded(location: &dyn Location) {
    let mut fixture = fixture(location);
    fixture.write(|store| store.put_job(&JobRecord { state: JobState::Completed, ..job(1, "job") }, None));
    let loaded = fixture.store.load().unwrap();
    assert!(loaded.job_tasks.is_empty() && loaded.jobs_on_nodes.is_empty());
    assert_eq!(wait(fixture.read.jobs_on_nodes(&id("job"), first(10))).unwrap().unwrap().len(), 3);
    let counts: Vec<usize> = (0..3).map(|_| fixture.write(|store| store.delete_rows(JobUid(1), 2).map(|(gone, _)| gone))).collect();
    assert_eq!(counts, [2, 1, 0]);
    fixture.write(|store| store.delete_job(JobUid(1)));
    assert_eq!(wait(fixture.read.jobs_on_nodes(&id("job"), first(10))).unwrap(), None);
}

pub fn jobs_on_nodes_are_filtered_by_both_job_tasks(location: &dyn Location) {
    let fixture = fixture(location);
    let compare = |field, operator, value| listed(&fixture, Filter::Compare(field, operator, value));
    let text = |text: &str| Value::Text(text.to_owned());
    let (before, after) = (Field::Preparation, Field::Release);
    assert_eq!(compare(Field::Id, Operator::Ne, text("b")), "ac");
    assert_eq!(compare(Field::Pool, Operator::Eq, text("P")), "aBc");
    assert_eq!(compare(before(JobTaskPart::State), Operator::Eq, text("running")), "c");
    assert_eq!(compare(before(JobTaskPart::State), Operator::Eq, text("completed")), "aB");
    assert_eq!(compare(before(JobTaskPart::StartedAt), Operator::Ge, Value::Number(11)), "a");
    assert_eq!(compare(before(JobTaskPart::EndedAt), Operator::Le, Value::Number(12)), "aB");
    assert_eq!(compare(before(JobTaskPart::ExitCode), Operator::Eq, Value::Number(0)), "a");
    assert_eq!(compare(before(JobTaskPart::HasSucceeded), Operator::Eq, Value::Number(0)), "B");
    assert_eq!(compare(after(JobTaskPart::State), Operator::Eq, text("completed")), "a");
    assert_eq!(compare(after(JobTaskPart::ExitCode), Operator::Gt, Value::Number(3)), "a");
    assert_eq!(compare(after(JobTaskPart::StartedAt), Operator::Eq, Value::Number(20)), "a");
    assert_eq!(compare(after(JobTaskPart::EndedAt), Operator::Gt, Value::Number(0)), "a");
    assert_eq!(compare(after(JobTaskPart::HasSucceeded), Operator::Ne, Value::Number(1)), "aBc");
}

pub fn jobs_on_nodes_are_paged_by_node_and_pool(location: &dyn Location) {
    let mut fixture = fixture(location);
    fixture.write(|store| store.put_job_on_node(JobUid(1), &id("other"), &id("b"), &job_on_node(Preparation::Void)));
    let (mut after, mut seen) = (None, Vec::new());
    loop {
        let page = Page { after, ..first(1) };
        let rows = wait(fixture.read.jobs_on_nodes(&id("job"), page)).unwrap().unwrap();
        let Some(row) = rows.first() else { break };
        after = Some(row.place());
        seen.push(row.place().to_ascii_lowercase());
    }
    assert_eq!(seen, ["a/p", "b/other", "b/p", "c/p"]);
}

pub fn a_run_that_waits_for_a_preparation_is_preparing_until_it_begins(location: &dyn Location) {
    let mut fixture = Fixture::new(location);
    let uid = fixture.add("t");
    fixture.write(|store| store.prepare((uid, RunId(5)), (&id("a"), Epoch(2)), at(100), 20));
    let row = fixture.row("t");
    assert_eq!((row.state, row.previous.map(|(state, _)| state)), (TaskState::Preparing, Some(TaskState::Active)));
    fixture.write(|store| store.release(uid, 1, contract::ids::Fence(1), at(101)));
    fixture.write(|store| store.prepare((uid, RunId(5)), (&id("a"), Epoch(2)), at(100), 20));
    let live = fixture.store.load().unwrap().live;
    assert_eq!((live[0].is_preparing, live[0].owner.as_ref().map(|owner| owner.0)), (true, Some(RunId(5))));
    fixture.write(|store| store.begin_run(uid, at(200), 21));
    let row = fixture.row("t");
    assert_eq!((row.state, row.started_at, row.version), (TaskState::Running, Some(at(200)), 21));
    assert_eq!(row.previous.map(|(state, _)| state), Some(TaskState::Preparing));
    assert!(!fixture.store.load().unwrap().live[0].is_preparing);
    fixture.write(|store| store.begin_run(uid, at(300), 22));
    let row = fixture.row("t");
    assert_eq!((row.started_at, row.version), (Some(at(300)), 22), "a start that comes late still tells when the run began");
    assert_eq!(row.previous.map(|(state, _)| state), Some(TaskState::Preparing));
}
