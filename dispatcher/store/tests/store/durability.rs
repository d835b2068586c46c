//! Crashes: what survives them, and numbers that are never reused.
//!
//! A crash is a store that is dropped in the middle of a transaction and opened again.

use contract::ids::{Fence, TaskUid};
use store::StoreError;

use crate::place::{Bench, Place, at, ending, id, job, task, wait};

pub fn a_transaction_that_was_rolled_back_leaves_nothing(place: &dyn Place) {
    let mut bench = Bench::new(place);
    let kept = bench.add("kept");
    let (job, name) = (bench.job, id("lost"));
    bench.store.begin().unwrap();
    bench.store.insert_task(job, &task(kept.0 + 1, &name)).unwrap();
    bench.store.release(kept, 1, Fence(2), at(5)).unwrap();
    bench.store.rollback().unwrap();
    assert!(bench.store.task(job, &name).unwrap().is_none());
    assert!(bench.head(kept).is_ready);
    // A rollback without a transaction does no harm.
    bench.store.rollback().unwrap();
    assert_eq!(bench.ready(), ["kept"]);
}

pub fn readers_see_commits_and_nothing_else(place: &dyn Place) {
    let mut bench = Bench::new(place);
    let (job, name) = (bench.job, id("t"));
    bench.store.begin().unwrap();
    bench.store.insert_task(job, &task(1_000, &name)).unwrap();
    assert!(bench.try_row("t").unwrap().is_none());
    assert!(bench.store.task(job, &name).unwrap().is_some());
    bench.store.commit().unwrap();
    assert!(bench.try_row("t").unwrap().is_some());
}

pub fn what_was_committed_is_loaded_after_a_crash(place: &dyn Place) {
    let mut bench = Bench::new(place);
    let [sent, unsent, running, done] = ["sent", "unsent", "running", "done"].map(|name| bench.add(name));
    bench.add("waiting");
    bench.add_after("blocked", &["never"]);
    bench.write(|store| {
        store.release(sent, 1, Fence(21), at(5))?;
        store.release(unsent, 1, Fence(22), at(5))?;
        store.published(sent)
    });
    let run = bench.run(running, 10);
    bench.run(done, 10);
    bench.end(done, &ending(20));
    let job = bench.job;
    drop(bench);
    let mut store = place.store().unwrap();
    let loaded = store.load().unwrap();
    assert_eq!(loaded.jobs.iter().map(|(job, ready)| (job.uid, *ready)).collect::<Vec<_>>(), [(job, 1)]);
    let live: Vec<_> = loaded.live.iter().map(|task| (task.uid, task.is_published, task.owner.as_ref().map(|owner| owner.0))).collect();
    assert_eq!(live, [(sent, true, None), (unsent, false, None), (running, true, Some(run))]);
}

pub fn what_was_not_committed_is_gone_after_a_crash(place: &dyn Place) {
    let mut bench = Bench::new(place);
    let [kept, ended] = ["kept", "ended"].map(|name| bench.add(name));
    bench.run(ended, 10);
    let (job, name) = (bench.job, id("lost"));
    bench.store.begin().unwrap();
    bench.store.insert_task(job, &task(1_000, &name)).unwrap();
    bench.store.release(kept, 1, Fence(2), at(5)).unwrap();
    bench.store.end(ended, &ending(20), 40).unwrap();
    drop(bench);
    let mut store = place.store().unwrap();
    let loaded = store.load().unwrap();
    assert_eq!(loaded.jobs[0].1, 1);
    assert_eq!(loaded.live.iter().map(|task| task.uid).collect::<Vec<_>>(), [ended]);
    assert!(store.task(job, &name).unwrap().is_none());
    assert!(wait(place.read().task(&id("job"), &name)).unwrap().is_none());
}

pub fn numbers_are_never_given_twice(place: &dyn Place) {
    let mut bench = Bench::new(place);
    let mut largest = (0, 0, 0);
    for round in 0..3 {
        let loaded = bench.store.load().unwrap();
        assert!(loaded.next_task > largest.0 && loaded.next_job > largest.1 && loaded.next_version > largest.2, "{largest:?}");
        let (job_uid, version) = (loaded.next_job + 3, loaded.next_version + 25_000);
        let mut record = job(job_uid, &format!("j{round}"));
        record.version = version;
        let uids = [loaded.next_task, loaded.next_task + 10_000, loaded.next_task + 12_345];
        bench.write(|store| {
            store.put_job(&record, Some("{}"))?;
            for (index, uid) in uids.into_iter().enumerate() {
                store.insert_task(record.uid, &task(uid, &id(&format!("t{index}"))))?;
            }
            store.delete_rows(record.uid, 100)?;
            store.delete_job(record.uid)
        });
        largest = (uids[2], job_uid, version);
        drop(bench);
        bench = Bench::new(place);
    }
}

pub fn numbers_of_a_lost_transaction_leave_the_bound_true(place: &dyn Place) {
    let mut bench = Bench::new(place);
    let job = bench.job;
    let far = 1_000_000;
    bench.store.begin().unwrap();
    bench.store.insert_task(job, &task(far, &id("lost"))).unwrap();
    bench.store.rollback().unwrap();
    // The bound was rolled back with the transaction, so the same number must raise it again.
    bench.write(|store| store.insert_task(job, &task(far, &id("kept"))));
    bench.write(|store| store.delete_task(TaskUid(far)));
    assert!(bench.store.load().unwrap().next_task > far);
}

pub fn every_start_has_a_larger_boot_number(place: &dyn Place) {
    let mut boots = Vec::new();
    for _ in 0..3 {
        let loaded = place.store().unwrap().load().unwrap();
        boots.push(loaded.boot);
        assert_eq!(loaded.store_epoch, 1);
    }
    assert!(boots.is_sorted_by(|a, b| a < b), "{boots:?}");
}

pub fn a_second_writer_is_refused(place: &dyn Place) {
    let first = place.store().unwrap();
    assert!(matches!(place.store(), Err(StoreError::InUse { .. })));
    drop(first);
    assert!(place.store().is_ok());
}
