//! Changes of existing tasks that clients request: limits, reactivation, another pool.

use contract::{ids::Fence, outcome::Fault, state::TaskState};
use model::task::{Failure, RequeueCause};
use store::records::{Ending, Inserted};

use crate::place::{Bench, Place, at, ending, id, requeue};

fn failed(ms: i64) -> Ending {
    let fault = Fault { code: "FailureExitCode".to_owned(), message: "no".to_owned(), details: vec![] };
    Ending { has_succeeded: false, exit_code: Some(3), failure: Some(Failure { is_user_error: true, fault }), ..ending(ms) }
}

pub fn an_update_replaces_document_and_retries(place: &dyn Place) {
    let mut bench = Bench::new(place);
    let uid = bench.add("t");
    bench.write(|store| store.update_task(uid, r#"{"a":1}"#, 7, at(500), 40));
    let candidate = bench.store.candidate(uid).unwrap().unwrap();
    assert_eq!((candidate.document.as_str(), candidate.retries_max), (r#"{"a":1}"#, 7));
    let row = bench.row("t");
    assert_eq!((row.version, row.modified_at, row.state_at, row.state), (40, at(500), at(100), TaskState::Active));
}

pub fn a_reactivated_task_starts_anew_and_keeps_its_requeues(place: &dyn Place) {
    let mut bench = Bench::new(place);
    let uid = bench.add("t");
    bench.run(uid, 200);
    bench.write(|store| store.requeue(uid, Fence(5), &requeue(RequeueCause::Retry, 1, 210), 31));
    bench.run(uid, 220);
    bench.write(|store| store.requeue(uid, Fence(7), &requeue(RequeueCause::Requested, 1, 230), 32));
    bench.run(uid, 240);
    bench.end(uid, &failed(250));
    assert!(bench.write(|store| store.reactivate(uid, Fence(100), at(300), 50)));
    let row = bench.row("t");
    assert_eq!((row.state, row.previous.map(|(state, _)| state)), (TaskState::Active, Some(TaskState::Completed)));
    assert_eq!((row.exit_code, row.failure, row.has_succeeded, row.node, row.ended_at), (None, None, None, None, None));
    assert_eq!((row.retry_count, row.retried_at, row.requeue_count, row.requeued_at), (0, None, 1, Some(at(230))));
    let candidate = bench.store.candidate(uid).unwrap().unwrap();
    assert_eq!((candidate.fence, candidate.attempt, candidate.crashes, candidate.retries), (Fence(100), 1, 0, 0));
    assert_eq!(bench.ready(), ["t"]);
}

pub fn only_failed_tasks_are_reactivated_and_blocked_ones_stay_blocked(place: &dyn Place) {
    let mut bench = Bench::new(place);
    let good = bench.add("good");
    bench.end(good, &ending(200));
    assert!(!bench.write(|store| store.reactivate(good, Fence(100), at(300), 50)));
    assert_eq!(bench.row("good").state, TaskState::Completed);
    let (blocked, _) = bench.add_after("blocked", &["later"]);
    bench.end(blocked, &failed(200));
    assert!(!bench.write(|store| store.reactivate(blocked, Fence(100), at(300), 50)));
    assert!(bench.ready().is_empty());
    bench.add("later");
    assert_eq!(bench.satisfy("later"), [blocked]);
}

pub fn what_a_reactivated_task_satisfied_stays_and_what_comes_later_waits(place: &dyn Place) {
    let mut bench = Bench::new(place);
    let first = bench.add("first");
    let (early, _) = bench.add_after("early", &["first"]);
    bench.end(first, &failed(200));
    assert_eq!(bench.satisfy("first"), [early]);
    bench.write(|store| store.reactivate(first, Fence(100), at(300), 50));
    assert!(bench.ready().contains(&"early".to_owned()));
    assert_eq!(bench.add_after("late", &["first"]).1, Inserted::Blocked);
}

pub fn a_moved_job_takes_what_fits_and_remembers_where_its_tasks_ran(place: &dyn Place) {
    let mut bench = Bench::new(place);
    let ran = bench.add("ran");
    bench.run(ran, 200);
    bench.end(ran, &ending(210));
    bench.insert("wide", |task| task.slots = 4);
    bench.insert("misfit", |task| (task.slots, task.fits) = (2, false));
    bench.insert("plain", |_| {});
    let job = bench.job;
    bench.write(|store| store.leave_pool(job, &id("old")));
    assert_eq!(bench.write(|store| store.refit(job, 2, 1)), 1, "a slice");
    assert_eq!(bench.store.load().unwrap().unfitted, [], "its pool is still to come");
    assert_eq!(bench.write(|store| store.refit(job, 2, 10)), 1);
    assert_eq!(bench.ready(), ["misfit", "plain"]);
    assert_eq!(bench.row("ran").pool, Some(id("old")));
    assert_eq!(bench.row("plain").pool, None);
    bench.write(|store| store.leave_pool(job, &id("older")));
    assert_eq!(bench.store.load().unwrap().unfitted, [job], "one does not fit yet");
    assert_eq!(bench.write(|store| store.refit(job, 8, 10)), 1);
    assert_eq!(bench.write(|store| store.count_ready(job)), 3);
    assert_eq!(bench.row("ran").pool, Some(id("old")), "where it ran does not change");
}

pub fn what_is_out_while_nodes_lose_slots_is_not_ready_when_it_comes_back(place: &dyn Place) {
    let mut bench = Bench::new(place);
    let [released, ran] = ["released", "ran"].map(|name| bench.insert(name, |task| task.slots = 4).0);
    bench.write(|store| store.release(released, 1, Fence(20), at(200)));
    bench.run(ran, 200);
    let job = bench.job;
    bench.write(|store| store.refit(job, 2, 100));
    assert_eq!(bench.write(|store| store.count_ready(job)), 0);
    bench.write(|store| store.unrelease(released, Fence(21)));
    bench.write(|store| store.requeue(ran, Fence(50), &requeue(RequeueCause::Recovery, 0, 300), 40));
    assert!(bench.ready().is_empty(), "no node has four slots");
    bench.write(|store| store.refit(job, 4, 100));
    assert_eq!(bench.write(|store| store.count_ready(job)), 2);
    assert_eq!(bench.ready(), ["released", "ran"]);
    bench.write(|store| store.release(released, 2, Fence(22), at(400)));
    bench.write(|store| store.refit(job, 2, 100));
    assert_eq!(bench.write(|store| store.count_ready(job)), 0);
    bench.write(|store| store.refit(job, 4, 100));
    assert_eq!(bench.write(|store| store.count_ready(job)), 1, "what is out is not ready, whatever fits");
}
