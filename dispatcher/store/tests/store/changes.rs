//! Changes of existing tasks that clients request: limits, reactivation, another pool.

use contract::{ids::Fence, outcome::Fault, state::TaskState};
use model::task::{Failure, RequeueCause};
use store::records::{Ending, Inserted};

use crate::fixture::{Fixture, Location, at, ending, id, requeue};

fn failed(ms: i64) -> Ending {
    let fault = Fault { code: "FailureExitCode".to_owned(), message: "no".to_owned(), details: vec![] };
    Ending { has_succeeded: false, exit_code: Some(3), failure: Some(Failure { is_user_error: true, fault }), ..ending(ms) }
}

pub fn an_update_replaces_document_and_retries(location: &dyn Location) {
    let mut fixture = Fixture::new(location);
    let uid = fixture.add("t");
    fixture.write(|store| store.update_task(uid, r#"{"a":1}"#, 7, at(500), 40));
    let candidate = fixture.store.candidate(uid).unwrap().unwrap();
    assert_eq!((candidate.document.as_str(), candidate.retries_max), (r#"{"a":1}"#, 7));
    let row = fixture.row("t");
    assert_eq!((row.version, row.modified_at, row.state_at, row.state), (40, at(500), at(100), TaskState::Active));
}

pub fn a_reactivated_task_starts_anew_and_keeps_its_requeues(location: &dyn Location) {
    let mut fixture = Fixture::new(location);
    let uid = fixture.add("t");
    fixture.run(uid, 200);
    fixture.write(|store| store.requeue(uid, Fence(5), &requeue(RequeueCause::Retry, 1, 210), 31));
    fixture.run(uid, 220);
    fixture.write(|store| store.requeue(uid, Fence(7), &requeue(RequeueCause::Requested, 1, 230), 32));
    fixture.run(uid, 240);
    fixture.end(uid, &failed(250));
    assert!(fixture.write(|store| store.reactivate(uid, Fence(100), at(300), 50)));
    let row = fixture.row("t");
    assert_eq!((row.state, row.previous.map(|(state, _)| state)), (TaskState::Active, Some(TaskState::Completed)));
    assert_eq!((row.exit_code, row.failure, row.has_succeeded, row.node, row.ended_at), (None, None, None, None, None));
    assert_eq!((row.retry_count, row.retried_at, row.requeue_count, row.requeued_at), (0, None, 1, Some(at(230))));
    let candidate = fixture.store.candidate(uid).unwrap().unwrap();
    assert_eq!((candidate.fence, candidate.attempt, candidate.crashes, candidate.retries), (Fence(100), 1, 0, 0));
    assert_eq!(fixture.ready(), ["t"]);
}

pub fn only_failed_tasks_are_reactivated_and_blocked_ones_stay_blocked(location: &dyn Location) {
    let mut fixture = Fixture::new(location);
    let good = fixture.add("good");
    fixture.end(good, &ending(200));
    assert!(!fixture.write(|store| store.reactivate(good, Fence(100), at(300), 50)));
    assert_eq!(fixture.row("good").state, TaskState::Completed);
    let (blocked, _) = fixture.add_after("blocked", &["later"]);
    fixture.end(blocked, &failed(200));
    assert!(!fixture.write(|store| store.reactivate(blocked, Fence(100), at(300), 50)));
    assert!(fixture.ready().is_empty());
    fixture.add("later");
    assert_eq!(fixture.satisfy("later"), [blocked]);
}

pub fn what_a_reactivated_task_satisfied_stays_and_what_comes_later_waits(location: &dyn Location) {
    let mut fixture = Fixture::new(location);
    let first = fixture.add("first");
    let (early, _) = fixture.add_after("early", &["first"]);
    fixture.end(first, &failed(200));
    assert_eq!(fixture.satisfy("first"), [early]);
    fixture.write(|store| store.reactivate(first, Fence(100), at(300), 50));
    assert!(fixture.ready().contains(&"early".to_owned()));
    assert_eq!(fixture.add_after("late", &["first"]).1, Inserted::Blocked);
}

pub fn a_moved_job_takes_what_fits_and_remembers_where_its_tasks_ran(location: &dyn Location) {
    let mut fixture = Fixture::new(location);
    let ran = fixture.add("ran");
    fixture.run(ran, 200);
    fixture.end(ran, &ending(210));
    fixture.insert("wide", |task| task.slots = 4);
    fixture.insert("misfit", |task| (task.slots, task.fits) = (2, false));
    fixture.insert("plain", |_| {});
    let job = fixture.job;
    fixture.write(|store| store.leave_pool(job, &id("old")));
    assert_eq!(fixture.write(|store| store.refit(job, 2, 1)), 1, "a slice");
    assert_eq!(fixture.store.load().unwrap().unfitted, [], "its pool is still to come");
    assert_eq!(fixture.write(|store| store.refit(job, 2, 10)), 1);
    assert_eq!(fixture.ready(), ["misfit", "plain"]);
    assert_eq!(fixture.row("ran").pool, Some(id("old")));
    assert_eq!(fixture.row("plain").pool, None);
    fixture.write(|store| store.leave_pool(job, &id("older")));
    assert_eq!(fixture.store.load().unwrap().unfitted, [job], "one does not fit yet");
    assert_eq!(fixture.write(|store| store.refit(job, 8, 10)), 1);
    assert_eq!(fixture.write(|store| store.count_ready(job)), 3);
    assert_eq!(fixture.row("ran").pool, Some(id("old")), "where it ran does not change");
}

pub fn what_is_out_while_nodes_lose_slots_is_not_ready_when_it_comes_back(location: &dyn Location) {
    let mut fixture = Fixture::new(location);
    let [released, ran] = ["released", "ran"].map(|name| fixture.insert(name, |task| task.slots = 4).0);
    fixture.write(|store| store.release(released, 1, Fence(20), at(200)));
    fixture.run(ran, 200);
    let job = fixture.job;
    fixture.write(|store| store.refit(job, 2, 100));
    assert_eq!(fixture.write(|store| store.count_ready(job)), 0);
    fixture.write(|store| store.unrelease(released, Fence(21)));
    fixture.write(|store| store.requeue(ran, Fence(50), &requeue(RequeueCause::Recovery, 0, 300), 40));
    assert!(fixture.ready().is_empty(), "no node has four slots");
    fixture.write(|store| store.refit(job, 4, 100));
    assert_eq!(fixture.write(|store| store.count_ready(job)), 2);
    assert_eq!(fixture.ready(), ["released", "ran"]);
    fixture.write(|store| store.release(released, 2, Fence(22), at(400)));
    fixture.write(|store| store.refit(job, 2, 100));
    assert_eq!(fixture.write(|store| store.count_ready(job)), 0);
    fixture.write(|store| store.refit(job, 4, 100));
    assert_eq!(fixture.write(|store| store.count_ready(job)), 1, "what is out is not ready, whatever fits");
}
