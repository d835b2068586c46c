//! The life of a task: every step, the fields it writes, and how they are read.

use contract::{
    ids::{Epoch, Fence, NodeId, RunId, RunKey, TaskUid},
    outcome::{Fault, Stream},
    state::TaskState,
};
use model::task::{DependencyAction, ExitCode, ExitConditions, ExitOptions, Failure, JobAction, RequeueCause};
use store::{
    read::Detail,
    records::{Ending, Inserted, Requeue, Streams},
};

use crate::fixture::{Fixture, Location, at, ending, first, id, requeue, wait};

pub fn a_new_task_is_ready_and_a_misfit_is_not(location: &dyn Location) {
    let mut fixture = Fixture::new(location);
    let (uid, inserted) = fixture.insert("t", |task| {
        task.document = r#"{"commandLine":"true"}"#;
        (task.slots, task.retries_max, task.version, task.fence) = (2, -1, 44, Fence(7));
    });
    assert_eq!(inserted, Inserted::Ready);
    assert_eq!(fixture.insert("misfit", |task| task.fits = false).1, Inserted::Blocked);
    assert_eq!(fixture.ready(), ["t"]);
    let head = fixture.head(uid);
    assert_eq!((head.state, head.is_ready, head.is_live, head.has_succeeded), (TaskState::Active, true, false, None));
    assert_eq!((head.fence, head.slots, head.version, head.modified_at), (Fence(7), 2, 44, at(100)));
    let candidate = fixture.store.candidate(uid).unwrap().unwrap();
    assert_eq!((candidate.attempt, candidate.crashes, candidate.retries, candidate.retries_max), (0, 0, 0, -1));
    assert_eq!((candidate.job, candidate.document.as_str()), (fixture.job, r#"{"commandLine":"true"}"#));
    let row = fixture.row("t");
    assert_eq!((row.state, row.state_at, row.previous, row.created_at), (TaskState::Active, at(100), None, at(100)));
    assert_eq!((row.attempt, row.node, row.started_at, row.ended_at, row.has_succeeded), (0, None, None, None, None));
    assert_eq!((row.stdout, row.stderr, row.failure), (Stream::Empty, Stream::Empty, None));
}

pub fn ready_tasks_come_lowest_number_first(location: &dyn Location) {
    let mut fixture = Fixture::new(location);
    for name in ["z", "a", "m", "b"] {
        fixture.add(name);
    }
    assert_eq!(fixture.ready(), ["z", "a", "m", "b"]);
    let two = fixture.store.next_ready(fixture.job, 2).unwrap();
    assert_eq!(two.iter().map(|candidate| candidate.id.as_str()).collect::<Vec<_>>(), ["z", "a"]);
    let loaded = fixture.store.load().unwrap();
    assert_eq!(loaded.jobs[0].1, 4);
}

pub fn a_released_task_is_live_until_it_is_taken_back(location: &dyn Location) {
    let mut fixture = Fixture::new(location);
    let (uid, _) = fixture.insert("t", |task| task.version = 12);
    fixture.write(|store| store.release(uid, 1, Fence(2), at(5)));
    let head = fixture.head(uid);
    assert_eq!((head.state, head.is_ready, head.is_live, head.fence, head.version), (TaskState::Active, false, true, Fence(2), 12));
    assert!(fixture.ready().is_empty());
    let live = fixture.store.load().unwrap().live;
    assert_eq!(live.len(), 1);
    assert_eq!((live[0].uid, live[0].job, live[0].attempt, live[0].fence), (uid, fixture.job, 1, Fence(2)));
    assert_eq!((live[0].is_published, &live[0].owner), (false, &None));
    fixture.write(|store| store.published(uid));
    assert!(fixture.store.load().unwrap().live[0].is_published);
    fixture.write(|store| store.unrelease(uid, Fence(3)));
    let head = fixture.head(uid);
    assert_eq!((head.is_ready, head.is_live, head.fence), (true, false, Fence(3)));
    assert!(fixture.store.load().unwrap().live.is_empty());
    assert_eq!(fixture.ready(), ["t"]);
    fixture.write(|store| store.release(uid, 2, Fence(4), at(6)));
    assert!(!fixture.store.load().unwrap().live[0].is_published);
    assert_eq!(fixture.store.candidate(uid).unwrap().unwrap().attempt, 2);
}

pub fn a_started_task_names_its_owner(location: &dyn Location) {
    let mut fixture = Fixture::new(location);
    let uid = fixture.add("t");
    let active_since = fixture.write(|store| {
        store.release(uid, 1, Fence(2), at(150))?;
        store.start(uid, RunId(u128::MAX - 1), &id("Node"), Epoch(9), at(200), 33)
    });
    assert_eq!(active_since, Some(at(100)));
    let live = &fixture.store.load().unwrap().live[0];
    assert_eq!(live.owner, Some((RunId(u128::MAX - 1), id("node"), Epoch(9), at(200))));
    let row = fixture.row("t");
    assert_eq!((row.state, row.state_at, row.previous), (TaskState::Running, at(200), Some((TaskState::Active, at(100)))));
    assert_eq!((row.node.as_ref().map(|node| node.as_str()), row.started_at), (Some("Node"), Some(at(200))));
    assert_eq!((row.version, row.modified_at, row.attempt), (33, at(200), 1));
}

pub fn a_second_start_keeps_the_state_before_the_first(location: &dyn Location) {
    let mut fixture = Fixture::new(location);
    let uid = fixture.add("t");
    fixture.run(uid, 200);
    let active_since = fixture.write(|store| store.start(uid, RunId(5), &id("m"), Epoch(1), at(300), 34));
    assert_eq!(active_since, Some(at(100)));
    let row = fixture.row("t");
    assert_eq!((row.state, row.previous, row.started_at), (TaskState::Running, Some((TaskState::Active, at(100))), Some(at(300))));
}

pub fn each_cause_of_a_requeue_is_counted_on_its_own(location: &dyn Location) {
    let mut fixture = Fixture::new(location);
    let uid = fixture.add("t");
    let mut seen = Vec::new();
    for (index, cause) in [RequeueCause::Retry, RequeueCause::Recovery, RequeueCause::Requested].into_iter().enumerate() {
        let ms = 1000 * (index as i64 + 1);
        fixture.run(uid, ms);
        fixture.write(|store| store.requeue(uid, Fence(50), &requeue(cause, index as u32, ms + 1), 40));
        let row = fixture.row("t");
        assert_eq!((row.state, row.state_at, row.previous), (TaskState::Active, at(ms + 1), Some((TaskState::Running, at(ms)))));
        assert_eq!((row.node, row.started_at, row.version), (None, None, 40));
        let head = fixture.head(uid);
        assert_eq!((head.is_ready, head.is_live, head.fence), (true, false, Fence(50)));
        assert_eq!(fixture.store.candidate(uid).unwrap().unwrap().crashes, index as u32);
        seen.push((row.retry_count, row.retried_at, row.requeue_count, row.requeued_at));
    }
    assert_eq!(seen[0], (1, Some(at(1001)), 0, None));
    assert_eq!(seen[1], (1, Some(at(1001)), 0, None));
    assert_eq!(seen[2], (1, Some(at(1001)), 1, Some(at(3001))));
    let loaded = fixture.store.load().unwrap();
    assert_eq!((loaded.live.len(), loaded.jobs[0].1), (0, 1));
}

pub fn a_task_that_rests_is_ready_when_its_rest_is_over(location: &dyn Location) {
    let mut fixture = Fixture::new(location);
    let [short, long, ended, odd] = ["short", "long", "ended", "odd"].map(|name| fixture.insert(name, |task| task.slots = 2).0);
    for (uid, rests_until) in [(short, 2_000), (long, 3_000), (ended, 2_000), (odd, 10_000_000)] {
        fixture.run(uid, 500);
        let rest = Requeue { rests_until: Some(at(rests_until)), ..requeue(RequeueCause::Retry, 0, 1_000) };
        fixture.write(|store| store.requeue(uid, Fence(50), &rest, 40));
    }
    let head = fixture.head(long);
    assert_eq!((head.state, head.is_ready, head.is_live), (TaskState::Active, false, false));
    fixture.end(ended, &ending(1_500));
    let job = fixture.job;
    assert!(fixture.ready().is_empty());
    // A change of the slots per node ends no pause, and a task that does not fit is not ready afterwards.
    for slots_max in [1, 4] {
        fixture.write(|store| store.refit(job, slots_max, 100));
        assert_eq!(fixture.write(|store| store.count_ready(job)), 0);
    }
    assert_eq!(fixture.write(|store| store.wake(job, at(1_999))), (1, true), "what rests too long was put to rest under another clock");
    assert_eq!(fixture.ready(), ["odd"]);
    assert_eq!(fixture.write(|store| store.wake(job, at(2_000))), (1, true));
    assert_eq!(fixture.write(|store| store.wake(job, at(3_000))), (1, false));
    assert_eq!(fixture.ready(), ["short", "long", "odd"]);
    assert_eq!(fixture.head(ended).state, TaskState::Completed);
}

pub fn an_end_is_shown_whole(location: &dyn Location) {
    let mut fixture = Fixture::new(location);
    let uid = fixture.add("t");
    fixture.run(uid, 200);
    let failure = Failure {
        is_user_error: true,
        fault: Fault { code: "FailureExitCode".to_owned(), message: "3".to_owned(), details: vec![("a".to_owned(), "b".to_owned())] },
    };
    let ending = Ending {
        fence: Fence(60),
        has_succeeded: false,
        exit_code: Some(-3),
        failure: Some(failure.clone()),
        stdout: Stream::Inline { bytes: vec![0, 1, 255] },
        started_at: Some(at(210)),
        node: Some(id("m")),
        ..ending(300)
    };
    fixture.end(uid, &ending);
    let row = fixture.row("t");
    assert_eq!((row.state, row.state_at, row.previous), (TaskState::Completed, at(300), Some((TaskState::Running, at(200)))));
    assert_eq!((row.exit_code, row.has_succeeded, row.failure), (Some(-3), Some(false), Some(failure)));
    assert_eq!((row.started_at, row.ended_at, row.node), (Some(at(210)), Some(at(300)), Some(id("m"))));
    assert_eq!((row.stdout, row.stderr, row.version), (Stream::Inline { bytes: vec![0, 1, 255] }, Stream::Empty, 30));
    let head = fixture.head(uid);
    assert_eq!((head.is_ready, head.is_live, head.has_succeeded, head.fence), (false, false, Some(false), Fence(60)));
    let loaded = fixture.store.load().unwrap();
    assert_eq!((loaded.live.len(), loaded.jobs[0].1), (0, 0));
}

pub fn an_end_is_final(location: &dyn Location) {
    let mut fixture = Fixture::new(location);
    let uid = fixture.add("t");
    fixture.run(uid, 200);
    fixture.end(uid, &ending(300));
    let before = fixture.row("t");
    fixture.end(uid, &Ending { has_succeeded: false, exit_code: Some(9), stdout: Stream::Node { bytes: 4 }, ..ending(400) });
    assert_eq!(fixture.row("t"), before);
    assert_eq!((before.started_at, before.node), (Some(at(200)), Some(id("n"))));
}

pub fn a_task_that_never_ran_can_end(location: &dyn Location) {
    let mut fixture = Fixture::new(location);
    let uid = fixture.add("t");
    fixture.write(|store| store.release(uid, 1, Fence(2), at(5)));
    fixture.end(uid, &Ending { has_succeeded: false, exit_code: None, ..ending(300) });
    let row = fixture.row("t");
    assert_eq!((row.state, row.started_at, row.node, row.exit_code), (TaskState::Completed, None, None, None));
    assert_eq!(row.previous, Some((TaskState::Active, at(100))));
    assert!(fixture.store.load().unwrap().live.is_empty());
    assert!(fixture.ready().is_empty());
}

pub fn a_completed_task_that_runs_again_forgets_its_end(location: &dyn Location) {
    let mut fixture = Fixture::new(location);
    let uid = fixture.add("t");
    fixture.run(uid, 200);
    let failure = Failure { is_user_error: false, fault: Fault { code: "X".to_owned(), message: String::new(), details: Vec::new() } };
    fixture.end(uid, &Ending { has_succeeded: false, failure: Some(failure), stderr: Stream::Node { bytes: 1 }, ..ending(300) });
    fixture.write(|store| store.requeue(uid, Fence(100), &requeue(RequeueCause::Requested, 0, 400), 50));
    let row = fixture.row("t");
    assert_eq!((row.state, row.previous), (TaskState::Active, Some((TaskState::Completed, at(300)))));
    assert_eq!((row.exit_code, row.has_succeeded, row.failure, row.ended_at), (None, None, None, None));
    assert_eq!(row.stderr, Stream::Empty);
    fixture.run(uid, 500);
    fixture.end(uid, &ending(600));
    assert_eq!(fixture.row("t").has_succeeded, Some(true));
}

pub fn every_stream_survives(location: &dyn Location) {
    let mut fixture = Fixture::new(location);
    for (index, stream) in [
        Stream::Empty,
        Stream::Inline { bytes: Vec::new() },
        Stream::Inline { bytes: (0..=255).collect() },
        Stream::Blob { key: "logs/ä/1".to_owned(), bytes: 1 << 40 },
        Stream::Node { bytes: 0 },
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("t{index}");
        let uid = fixture.add(&name);
        fixture.end(uid, &Ending { stdout: stream.clone(), stderr: stream.clone(), ..ending(300) });
        let row = fixture.row(&name);
        assert_eq!((row.stdout, row.stderr), (stream.clone(), stream));
    }
}

pub fn streams_that_come_late_are_those_of_the_last_run(location: &dyn Location) {
    let mut fixture = Fixture::new(location);
    let own: NodeId = id("n");
    let uid = fixture.add("t");
    let run = fixture.run(uid, 10);
    let key = |attempt, run| RunKey { uid, attempt, fence: Fence(2), run };
    let wrote = |text: &str| Stream::Inline { bytes: text.as_bytes().to_vec() };
    let shown = |fixture: &Fixture| fixture.row("t").stdout;
    fixture.write(|store| store.keep_streams(&key(1, run), &own, (&wrote("running"), &Stream::Empty)));
    assert_eq!(shown(&fixture), Stream::Empty, "it runs: its end will tell");

    fixture.write(|store| store.requeue(uid, Fence(3), &requeue(RequeueCause::Requested, 0, 20), 31));
    fixture.write(|store| store.keep_streams(&key(1, RunId(77)), &own, (&wrote("another run"), &Stream::Empty)));
    assert_eq!(shown(&fixture), Stream::Empty);
    fixture.write(|store| store.keep_streams(&key(1, run), &own, (&wrote("first"), &Stream::Empty)));
    assert_eq!(shown(&fixture), wrote("first"));
    fixture.end(uid, &Ending { streams: Streams::Earlier, has_succeeded: false, ..ending(30) });
    assert_eq!(shown(&fixture), wrote("first"), "ended while it waited: the first run was its last");

    let uid = fixture.add("u");
    let run = fixture.run(uid, 40);
    let on_node = Stream::Node { bytes: 0 };
    fixture.end(uid, &Ending { streams: Streams::Awaited, stdout: on_node.clone(), stderr: on_node.clone(), ..ending(50) });
    assert_eq!(fixture.row("u").stdout, on_node);
    let last = RunKey { uid, attempt: 1, fence: Fence(2), run };
    let other: NodeId = id("other");
    fixture.write(|store| store.keep_streams(&last, &other, (&wrote("forged"), &Stream::Empty)));
    assert_eq!(fixture.row("u").stdout, on_node);
    fixture.write(|store| store.keep_streams(&last, &own, (&wrote("last"), &Stream::Empty)));
    fixture.write(|store| store.keep_streams(&last, &own, (&wrote("again"), &wrote("again"))));
    assert_eq!((fixture.row("u").stdout, fixture.row("u").stderr), (wrote("last"), Stream::Empty), "heard once");

    let uid = fixture.add("v");
    let run = fixture.run(uid, 60);
    fixture.write(|store| store.requeue(uid, Fence(3), &requeue(RequeueCause::Retry, 0, 70), 31));
    fixture.write(|store| store.keep_streams(&RunKey { uid, attempt: 1, fence: Fence(2), run }, &own, (&wrote("failed"), &Stream::Empty)));
    fixture.write(|store| store.release(uid, 2, Fence(3), at(71)));
    fixture.write(|store| store.keep_streams(&RunKey { uid, attempt: 1, fence: Fence(2), run }, &own, (&wrote("late"), &Stream::Empty)));
    assert_eq!(fixture.row("v").stdout, wrote("failed"));
    fixture.end(uid, &ending(80));
    assert_eq!(fixture.row("v").stdout, Stream::Empty, "a second run that wrote nothing shows nothing");
}

pub fn exit_conditions_survive(location: &dyn Location) {
    let mut fixture = Fixture::new(location);
    let options = ExitOptions { job_action: Some(JobAction::Terminate), dependency_action: Some(DependencyAction::Satisfy) };
    let conditions = ExitConditions {
        exit_codes: vec![ExitCode { code: -1, exit_options: options }],
        otherwise: Some(ExitOptions::default()),
        ..ExitConditions::default()
    };
    let (name, uid) = (id("with"), TaskUid(5_000));
    let job = fixture.job;
    let mut record = crate::fixture::task(uid.0, &name);
    record.exit_conditions = Some(&conditions);
    fixture.write(|store| store.insert_task(job, &record));
    let without = fixture.add("without");
    assert_eq!(fixture.store.exit_conditions(uid).unwrap(), Some(conditions.clone()));
    assert_eq!(fixture.store.exit_conditions(without).unwrap(), None);
    assert_eq!(fixture.store.exit_conditions(TaskUid(9_999)).unwrap(), None);
}

pub fn deleted_tasks_are_gone_everywhere(location: &dyn Location) {
    let mut fixture = Fixture::new(location);
    let uid = fixture.add("t");
    fixture.write(|store| store.release(uid, 1, Fence(2), at(5)));
    fixture.write(|store| store.delete_task(uid));
    assert!(fixture.store.task_by_uid(uid).unwrap().is_none());
    assert!(fixture.store.candidate(uid).unwrap().is_none());
    assert!(fixture.store.task(fixture.job, &id("t")).unwrap().is_none());
    assert!(fixture.try_row("t").unwrap().is_none());
    let loaded = fixture.store.load().unwrap();
    assert_eq!((loaded.live.len(), loaded.jobs[0].1), (0, 0));
}

pub fn jobs_are_emptied_in_batches(location: &dyn Location) {
    let mut fixture = Fixture::new(location);
    for index in 0..25 {
        fixture.add(&format!("t{index}"));
    }
    fixture.add_after("waits", &["never"]);
    let (job, other) = (fixture.job, fixture.add_job(600, "other"));
    let name = id("stays");
    fixture.write(|store| store.insert_task(other, &crate::fixture::task(9_000, &name)));
    fixture.add_after("late", &(0..17).map(|n| format!("n{n}")).collect::<Vec<_>>().iter().map(String::as_str).collect::<Vec<_>>());
    let counts: Vec<usize> = (0..6).map(|_| fixture.write(|store| store.delete_rows(job, 10).map(|(gone, _)| gone))).collect();
    // 27 tasks, and 18 dependencies of two of them: no slice is larger than another.
    assert_eq!(counts, [10, 10, 10, 10, 5, 0]);
    fixture.write(|store| store.delete_job(job));
    assert!(wait(fixture.read.tasks(&id("job"), first(10), Detail::WHOLE)).unwrap().is_none());
    assert_eq!(wait(fixture.read.tasks(&id("other"), first(10), Detail::WHOLE)).unwrap().unwrap().rows.len(), 1);
}

pub fn large_numbers_survive(location: &dyn Location) {
    let mut fixture = Fixture::new(location);
    let fence = Fence(u64::MAX - 5);
    let (uid, _) = fixture.insert("t", |task| task.fence = fence);
    assert_eq!(fixture.head(uid).fence, fence);
    fixture.write(|store| store.release(uid, 3_000_000_000, fence.next(), at(-1)));
    let live = &fixture.store.load().unwrap().live[0];
    assert_eq!((live.fence, live.attempt), (fence.next(), 3_000_000_000));
}
