//! Names: letter case, and names that are used twice.

use contract::{ids::JobUid, state::JobState};
use store::records::Inserted;

use crate::fixture::{Fixture, Location, first, id, job, node, pool, task, wait};

pub fn names_keep_their_case_and_compare_without_it(location: &dyn Location) {
    let mut fixture = Fixture::new(location);
    fixture.write(|store| {
        store.put_pool(&pool("Pool-A"), Some("{}"))?;
        store.put_pool(&pool("POOL-a"), None)?;
        store.put_node(&id("pool-A"), &node("Node-1"))?;
        store.put_node(&id("POOL-A"), &node("node-1"))
    });
    let uid = fixture.add("Task-1");
    assert_eq!(wait(fixture.read.pool(&id("pool-a"))).unwrap().unwrap().id.as_str(), "Pool-A");
    assert_eq!(wait(fixture.read.pools(first(10))).unwrap().len(), 1);
    assert_eq!(wait(fixture.read.nodes(&id("pool-a"), first(10), &[])).unwrap().len(), 1);
    assert_eq!(wait(fixture.read.job(&id("JOB"))).unwrap().unwrap().id.as_str(), "job");
    let row = wait(fixture.read.task(&id("JoB"), &id("TASK-1"))).unwrap().unwrap();
    assert_eq!((row.uid, row.id.as_str()), (uid, "Task-1"));
    assert_eq!(fixture.store.task(fixture.job, &id("tAsK-1")).unwrap().unwrap().uid, uid);
}

pub fn a_taken_name_changes_nothing(location: &dyn Location) {
    let mut fixture = Fixture::new(location);
    let first = fixture.add("Task");
    let before = fixture.row("task");
    assert_eq!(fixture.insert("tASK", |task| task.document = r#"{"other":1}"#).1, Inserted::Exists);
    assert_eq!(fixture.row("task"), before);
    assert_eq!(fixture.ready(), ["Task"]);
    fixture.write(|store| store.delete_task(first));
    assert_eq!(fixture.insert("tASK", |_| {}).1, Inserted::Ready);
}

pub fn the_same_name_in_another_job_is_another_task(location: &dyn Location) {
    let mut fixture = Fixture::new(location);
    let here = fixture.add("t");
    let other = fixture.add_job(500, "other");
    let name = id("t");
    let record = task(here.0 + 100, &name);
    assert_eq!(fixture.write(|store| store.insert_task(other, &record)), Inserted::Ready);
    assert_ne!(fixture.store.task(other, &name).unwrap().unwrap().uid, here);
    assert_eq!(fixture.row("t").uid, here);
}

pub fn completed_jobs_are_found_by_name_and_not_loaded(location: &dyn Location) {
    let mut fixture = Fixture::new(location);
    let mut done = job(700, "Done");
    done.state = JobState::Completed;
    fixture.write(|store| store.put_job(&done, Some("{}")));
    assert_eq!(fixture.store.find_job(&id("dONE")).unwrap(), Some(done));
    assert_eq!(fixture.store.find_job(&id("none")).unwrap(), None);
    let loaded = fixture.store.load().unwrap();
    assert_eq!(loaded.jobs.iter().map(|(job, _)| job.id.as_str()).collect::<Vec<_>>(), ["job"]);
    fixture.write(|store| store.delete_job(JobUid(700)));
    assert_eq!(fixture.store.find_job(&id("done")).unwrap(), None);
    fixture.add_job(701, "DONE");
    assert_eq!(fixture.store.find_job(&id("done")).unwrap().unwrap().uid, JobUid(701));
}

pub fn deleting_a_pool_takes_its_nodes(location: &dyn Location) {
    let mut fixture = Fixture::new(location);
    fixture.write(|store| {
        store.put_pool(&pool("a"), Some("{}"))?;
        store.put_pool(&pool("b"), Some("{}"))?;
        store.put_node(&id("a"), &node("n1"))?;
        store.put_node(&id("a"), &node("n2"))?;
        store.put_node(&id("b"), &node("n1"))
    });
    fixture.write(|store| store.delete_node(&id("A"), &id("N2")));
    assert!(wait(fixture.read.node(&id("a"), &id("n2"), &[])).unwrap().is_none());
    fixture.write(|store| store.delete_pool(&id("A")));
    assert!(wait(fixture.read.pool(&id("a"))).unwrap().is_none());
    assert!(wait(fixture.read.nodes(&id("a"), first(10), &[])).unwrap().is_empty());
    assert_eq!(wait(fixture.read.nodes(&id("b"), first(10), &[])).unwrap().len(), 1);
}

pub fn documents_stay_when_not_given(location: &dyn Location) {
    let mut fixture = Fixture::new(location);
    let mut changed = job(800, "kept");
    fixture.write(|store| {
        store.put_pool(&pool("p"), Some(r#"{"vmSize":"x"}"#))?;
        store.put_job(&changed, Some(r#"{"displayName":"x"}"#))
    });
    changed.priority = 7;
    fixture.write(|store| {
        store.put_pool(&pool("p"), None)?;
        store.put_job(&changed, None)
    });
    assert_eq!(wait(fixture.read.pool(&id("p"))).unwrap().unwrap().document, r#"{"vmSize":"x"}"#);
    let row = wait(fixture.read.job(&id("kept"))).unwrap().unwrap();
    assert_eq!((row.document.as_str(), row.priority), (r#"{"displayName":"x"}"#, 7));
    fixture.write(|store| store.put_job(&changed, Some("{}")));
    assert_eq!(wait(fixture.read.job(&id("kept"))).unwrap().unwrap().document, "{}");
}
