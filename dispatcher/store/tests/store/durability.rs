//! Crashes: what survives them, and numbers that are never reused.
//!
//! A crash is a store that is dropped in the middle of a transaction and opened again.

use contract::ids::{Fence, TaskUid};
use store::StoreError;

use crate::fixture::{Fixture, Location, at, ending, id, job, task, wait};

pub fn a_transaction_that_was_rolled_back_leaves_nothing(location: &dyn Location) {
    let mut fixture = Fixture::new(location);
    let kept = fixture.add("kept");
    let (job, name) = (fixture.job, id("lost"));
    fixture.store.begin().unwrap();
    fixture.store.insert_task(job, &task(kept.0 + 1, &name)).unwrap();
    fixture.store.release(kept, 1, Fence(2), at(5)).unwrap();
    fixture.store.rollback().unwrap();
    assert!(fixture.store.task(job, &name).unwrap().is_none());
    assert!(fixture.head(kept).is_ready);
    // A rollback without a transaction does no harm.
    fixture.store.rollback().unwrap();
    assert_eq!(fixture.ready(), ["kept"]);
}

pub fn readers_see_commits_and_nothing_else(location: &dyn Location) {
    let mut fixture = Fixture::new(location);
    let (job, name) = (fixture.job, id("t"));
    fixture.store.begin().unwrap();
    fixture.store.insert_task(job, &task(1_000, &name)).unwrap();
    assert!(fixture.try_row("t").unwrap().is_none());
    assert!(fixture.store.task(job, &name).unwrap().is_some());
    fixture.store.commit().unwrap();
    assert!(fixture.try_row("t").unwrap().is_some());
}

pub fn what_was_committed_is_loaded_after_a_crash(location: &dyn Location) {
    let mut fixture = Fixture::new(location);
    let [sent, unsent, running, done] = ["sent", "unsent", "running", "done"].map(|name| fixture.add(name));
    fixture.add("waiting");
    fixture.add_after("blocked", &["never"]);
    fixture.write(|store| {
        store.release(sent, 1, Fence(21), at(5))?;
        store.release(unsent, 1, Fence(22), at(5))?;
        store.published(sent)
    });
    let run = fixture.run(running, 10);
    fixture.run(done, 10);
    fixture.end(done, &ending(20));
    let job = fixture.job;
    drop(fixture);
    let mut store = location.store().unwrap();
    let loaded = store.load().unwrap();
    assert_eq!(loaded.jobs.iter().map(|(job, ready)| (job.uid, *ready)).collect::<Vec<_>>(), [(job, 1)]);
    let live: Vec<_> = loaded.live.iter().map(|task| (task.uid, task.is_published, task.owner.as_ref().map(|owner| owner.0))).collect();
    assert_eq!(live, [(sent, true, None), (unsent, false, None), (running, true, Some(run))]);
}

pub fn what_was_not_committed_is_gone_after_a_crash(location: &dyn Location) {
    let mut fixture = Fixture::new(location);
    let [kept, ended] = ["kept", "ended"].map(|name| fixture.add(name));
    fixture.run(ended, 10);
    let (job, name) = (fixture.job, id("lost"));
    fixture.store.begin().unwrap();
    fixture.store.insert_task(job, &task(1_000, &name)).unwrap();
    fixture.store.release(kept, 1, Fence(2), at(5)).unwrap();
    fixture.store.end(ended, &ending(20), 40).unwrap();
    drop(fixture);
    let mut store = location.store().unwrap();
    let loaded = store.load().unwrap();
    assert_eq!(loaded.jobs[0].1, 1);
    assert_eq!(loaded.live.iter().map(|task| task.uid).collect::<Vec<_>>(), [ended]);
    assert!(store.task(job, &name).unwrap().is_none());
    assert!(wait(location.read().task(&id("job"), &name)).unwrap().is_none());
}

pub fn numbers_are_never_given_twice(location: &dyn Location) {
    let mut fixture = Fixture::new(location);
    let mut largest = (0, 0, 0);
    for round in 0..3 {
        let loaded = fixture.store.load().unwrap();
        assert!(loaded.next_task > largest.0 && loaded.next_job > largest.1 && loaded.next_version > largest.2, "{largest:?}");
        let (job_uid, version) = (loaded.next_job + 3, loaded.next_version + 25_000);
        let mut record = job(job_uid, &format!("j{round}"));
        record.version = version;
        let uids = [loaded.next_task, loaded.next_task + 10_000, loaded.next_task + 12_345];
        fixture.write(|store| {
            store.put_job(&record, Some("{}"))?;
            for (index, uid) in uids.into_iter().enumerate() {
                store.insert_task(record.uid, &task(uid, &id(&format!("t{index}"))))?;
            }
            store.delete_rows(record.uid, 100)?;
            store.delete_job(record.uid)
        });
        largest = (uids[2], job_uid, version);
        drop(fixture);
        fixture = Fixture::new(location);
    }
}

pub fn numbers_of_a_lost_transaction_leave_the_bound_true(location: &dyn Location) {
    let mut fixture = Fixture::new(location);
    let job = fixture.job;
    let far = 1_000_000;
    fixture.store.begin().unwrap();
    fixture.store.insert_task(job, &task(far, &id("lost"))).unwrap();
    fixture.store.rollback().unwrap();
    // The bound was rolled back with the transaction, so the same number must raise it again.
    fixture.write(|store| store.insert_task(job, &task(far, &id("kept"))));
    fixture.write(|store| store.delete_task(TaskUid(far)));
    assert!(fixture.store.load().unwrap().next_task > far);
}

pub fn every_start_has_a_larger_boot_number(location: &dyn Location) {
    let mut boots = Vec::new();
    for _ in 0..3 {
        let loaded = location.store().unwrap().load().unwrap();
        boots.push(loaded.boot);
        assert_eq!(loaded.store_epoch, 1);
    }
    assert!(boots.is_sorted_by(|a, b| a < b), "{boots:?}");
}

pub fn a_second_writer_is_refused(location: &dyn Location) {
    let first = location.store().unwrap();
    assert!(matches!(location.store(), Err(StoreError::InUse { .. })));
    drop(first);
    assert!(location.store().is_ok());
}
