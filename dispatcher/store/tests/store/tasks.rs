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

use crate::place::{Bench, Place, at, ending, first, id, requeue, wait};

pub fn a_new_task_is_ready_and_a_misfit_is_not(place: &dyn Place) {
    let mut bench = Bench::new(place);
    let (uid, inserted) = bench.insert("t", |task| {
        task.document = r#"{"commandLine":"true"}"#;
        (task.slots, task.retries_max, task.version, task.fence) = (2, -1, 44, Fence(7));
    });
    assert_eq!(inserted, Inserted::Ready);
    assert_eq!(bench.insert("misfit", |task| task.fits = false).1, Inserted::Blocked);
    assert_eq!(bench.ready(), ["t"]);
    let head = bench.head(uid);
    assert_eq!((head.state, head.is_ready, head.is_live, head.has_succeeded), (TaskState::Active, true, false, None));
    assert_eq!((head.fence, head.slots, head.version, head.modified_at), (Fence(7), 2, 44, at(100)));
    let candidate = bench.store.candidate(uid).unwrap().unwrap();
    assert_eq!((candidate.attempt, candidate.crashes, candidate.retries, candidate.retries_max), (0, 0, 0, -1));
    assert_eq!((candidate.job, candidate.document.as_str()), (bench.job, r#"{"commandLine":"true"}"#));
    let row = bench.row("t");
    assert_eq!((row.state, row.state_at, row.previous, row.created_at), (TaskState::Active, at(100), None, at(100)));
    assert_eq!((row.attempt, row.node, row.started_at, row.ended_at, row.has_succeeded), (0, None, None, None, None));
    assert_eq!((row.stdout, row.stderr, row.failure), (Stream::Empty, Stream::Empty, None));
}

pub fn ready_tasks_come_lowest_number_first(place: &dyn Place) {
    let mut bench = Bench::new(place);
    for name in ["z", "a", "m", "b"] {
        bench.add(name);
    }
    assert_eq!(bench.ready(), ["z", "a", "m", "b"]);
    let two = bench.store.next_ready(bench.job, 2).unwrap();
    assert_eq!(two.iter().map(|candidate| candidate.id.as_str()).collect::<Vec<_>>(), ["z", "a"]);
    let loaded = bench.store.load().unwrap();
    assert_eq!(loaded.jobs[0].1, 4);
}

pub fn a_released_task_is_live_until_it_is_taken_back(place: &dyn Place) {
    let mut bench = Bench::new(place);
    let (uid, _) = bench.insert("t", |task| task.version = 12);
    bench.write(|store| store.release(uid, 1, Fence(2), at(5)));
    let head = bench.head(uid);
    assert_eq!((head.state, head.is_ready, head.is_live, head.fence, head.version), (TaskState::Active, false, true, Fence(2), 12));
    assert!(bench.ready().is_empty());
    let live = bench.store.load().unwrap().live;
    assert_eq!(live.len(), 1);
    assert_eq!((live[0].uid, live[0].job, live[0].attempt, live[0].fence), (uid, bench.job, 1, Fence(2)));
    assert_eq!((live[0].is_published, &live[0].owner), (false, &None));
    bench.write(|store| store.published(uid));
    assert!(bench.store.load().unwrap().live[0].is_published);
    bench.write(|store| store.unrelease(uid, Fence(3)));
    let head = bench.head(uid);
    assert_eq!((head.is_ready, head.is_live, head.fence), (true, false, Fence(3)));
    assert!(bench.store.load().unwrap().live.is_empty());
    assert_eq!(bench.ready(), ["t"]);
    bench.write(|store| store.release(uid, 2, Fence(4), at(6)));
    assert!(!bench.store.load().unwrap().live[0].is_published);
    assert_eq!(bench.store.candidate(uid).unwrap().unwrap().attempt, 2);
}

pub fn a_started_task_names_its_owner(place: &dyn Place) {
    let mut bench = Bench::new(place);
    let uid = bench.add("t");
    let active_since = bench.write(|store| {
        store.release(uid, 1, Fence(2), at(150))?;
        store.start(uid, RunId(u128::MAX - 1), &id("Node"), Epoch(9), at(200), 33)
    });
    assert_eq!(active_since, Some(at(100)));
    let live = &bench.store.load().unwrap().live[0];
    assert_eq!(live.owner, Some((RunId(u128::MAX - 1), id("node"), Epoch(9), at(200))));
    let row = bench.row("t");
    assert_eq!((row.state, row.state_at, row.previous), (TaskState::Running, at(200), Some((TaskState::Active, at(100)))));
    assert_eq!((row.node.as_ref().map(|node| node.as_str()), row.started_at), (Some("Node"), Some(at(200))));
    assert_eq!((row.version, row.modified_at, row.attempt), (33, at(200), 1));
}

pub fn a_second_start_keeps_the_state_before_the_first(place: &dyn Place) {
    let mut bench = Bench::new(place);
    let uid = bench.add("t");
    bench.run(uid, 200);
    let active_since = bench.write(|store| store.start(uid, RunId(5), &id("m"), Epoch(1), at(300), 34));
    assert_eq!(active_since, Some(at(100)));
    let row = bench.row("t");
    assert_eq!((row.state, row.previous, row.started_at), (TaskState::Running, Some((TaskState::Active, at(100))), Some(at(300))));
}

pub fn each_cause_of_a_requeue_is_counted_on_its_own(place: &dyn Place) {
    let mut bench = Bench::new(place);
    let uid = bench.add("t");
    let mut seen = Vec::new();
    for (index, cause) in [RequeueCause::Retry, RequeueCause::Recovery, RequeueCause::Requested].into_iter().enumerate() {
        let ms = 1000 * (index as i64 + 1);
        bench.run(uid, ms);
        bench.write(|store| store.requeue(uid, Fence(50), &requeue(cause, index as u32, ms + 1), 40));
        let row = bench.row("t");
        assert_eq!((row.state, row.state_at, row.previous), (TaskState::Active, at(ms + 1), Some((TaskState::Running, at(ms)))));
        assert_eq!((row.node, row.started_at, row.version), (None, None, 40));
        let head = bench.head(uid);
        assert_eq!((head.is_ready, head.is_live, head.fence), (true, false, Fence(50)));
        assert_eq!(bench.store.candidate(uid).unwrap().unwrap().crashes, index as u32);
        seen.push((row.retry_count, row.retried_at, row.requeue_count, row.requeued_at));
    }
    assert_eq!(seen[0], (1, Some(at(1001)), 0, None));
    assert_eq!(seen[1], (1, Some(at(1001)), 0, None));
    assert_eq!(seen[2], (1, Some(at(1001)), 1, Some(at(3001))));
    let loaded = bench.store.load().unwrap();
    assert_eq!((loaded.live.len(), loaded.jobs[0].1), (0, 1));
}

pub fn a_task_that_rests_is_ready_when_its_rest_is_over(place: &dyn Place) {
    let mut bench = Bench::new(place);
    let [short, long, ended, odd] = ["short", "long", "ended", "odd"].map(|name| bench.insert(name, |task| task.slots = 2).0);
    for (uid, rests_until) in [(short, 2_000), (long, 3_000), (ended, 2_000), (odd, 10_000_000)] {
        bench.run(uid, 500);
        let rest = Requeue { rests_until: Some(at(rests_until)), ..requeue(RequeueCause::Retry, 0, 1_000) };
        bench.write(|store| store.requeue(uid, Fence(50), &rest, 40));
    }
    let head = bench.head(long);
    assert_eq!((head.state, head.is_ready, head.is_live), (TaskState::Active, false, false));
    bench.end(ended, &ending(1_500));
    let job = bench.job;
    assert!(bench.ready().is_empty());
    // A change of the slots per node ends no pause, and a task that does not fit is not ready afterwards.
    for slots_max in [1, 4] {
        bench.write(|store| store.refit(job, slots_max, 100));
        assert_eq!(bench.write(|store| store.count_ready(job)), 0);
    }
    assert_eq!(bench.write(|store| store.wake(job, at(1_999))), (1, true), "what rests too long was put to rest under another clock");
    assert_eq!(bench.ready(), ["odd"]);
    assert_eq!(bench.write(|store| store.wake(job, at(2_000))), (1, true));
    assert_eq!(bench.write(|store| store.wake(job, at(3_000))), (1, false));
    assert_eq!(bench.ready(), ["short", "long", "odd"]);
    assert_eq!(bench.head(ended).state, TaskState::Completed);
}

pub fn an_end_is_shown_whole(place: &dyn Place) {
    let mut bench = Bench::new(place);
    let uid = bench.add("t");
    bench.run(uid, 200);
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
    bench.end(uid, &ending);
    let row = bench.row("t");
    assert_eq!((row.state, row.state_at, row.previous), (TaskState::Completed, at(300), Some((TaskState::Running, at(200)))));
    assert_eq!((row.exit_code, row.has_succeeded, row.failure), (Some(-3), Some(false), Some(failure)));
    assert_eq!((row.started_at, row.ended_at, row.node), (Some(at(210)), Some(at(300)), Some(id("m"))));
    assert_eq!((row.stdout, row.stderr, row.version), (Stream::Inline { bytes: vec![0, 1, 255] }, Stream::Empty, 30));
    let head = bench.head(uid);
    assert_eq!((head.is_ready, head.is_live, head.has_succeeded, head.fence), (false, false, Some(false), Fence(60)));
    let loaded = bench.store.load().unwrap();
    assert_eq!((loaded.live.len(), loaded.jobs[0].1), (0, 0));
}

pub fn an_end_is_final(place: &dyn Place) {
    let mut bench = Bench::new(place);
    let uid = bench.add("t");
    bench.run(uid, 200);
    bench.end(uid, &ending(300));
    let before = bench.row("t");
    bench.end(uid, &Ending { has_succeeded: false, exit_code: Some(9), stdout: Stream::Node { bytes: 4 }, ..ending(400) });
    assert_eq!(bench.row("t"), before);
    assert_eq!((before.started_at, before.node), (Some(at(200)), Some(id("n"))));
}

pub fn a_task_that_never_ran_can_end(place: &dyn Place) {
    let mut bench = Bench::new(place);
    let uid = bench.add("t");
    bench.write(|store| store.release(uid, 1, Fence(2), at(5)));
    bench.end(uid, &Ending { has_succeeded: false, exit_code: None, ..ending(300) });
    let row = bench.row("t");
    assert_eq!((row.state, row.started_at, row.node, row.exit_code), (TaskState::Completed, None, None, None));
    assert_eq!(row.previous, Some((TaskState::Active, at(100))));
    assert!(bench.store.load().unwrap().live.is_empty());
    assert!(bench.ready().is_empty());
}

pub fn a_completed_task_that_runs_again_forgets_its_end(place: &dyn Place) {
    let mut bench = Bench::new(place);
    let uid = bench.add("t");
    bench.run(uid, 200);
    let failure = Failure { is_user_error: false, fault: Fault { code: "X".to_owned(), message: String::new(), details: Vec::new() } };
    bench.end(uid, &Ending { has_succeeded: false, failure: Some(failure), stderr: Stream::Node { bytes: 1 }, ..ending(300) });
    bench.write(|store| store.requeue(uid, Fence(100), &requeue(RequeueCause::Requested, 0, 400), 50));
    let row = bench.row("t");
    assert_eq!((row.state, row.previous), (TaskState::Active, Some((TaskState::Completed, at(300)))));
    assert_eq!((row.exit_code, row.has_succeeded, row.failure, row.ended_at), (None, None, None, None));
    assert_eq!(row.stderr, Stream::Empty);
    bench.run(uid, 500);
    bench.end(uid, &ending(600));
    assert_eq!(bench.row("t").has_succeeded, Some(true));
}

pub fn every_stream_survives(place: &dyn Place) {
    let mut bench = Bench::new(place);
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
        let uid = bench.add(&name);
        bench.end(uid, &Ending { stdout: stream.clone(), stderr: stream.clone(), ..ending(300) });
        let row = bench.row(&name);
        assert_eq!((row.stdout, row.stderr), (stream.clone(), stream));
    }
}

pub fn streams_that_come_late_are_those_of_the_last_run(place: &dyn Place) {
    let mut bench = Bench::new(place);
    let own: NodeId = id("n");
    let uid = bench.add("t");
    let run = bench.run(uid, 10);
    let key = |attempt, run| RunKey { uid, attempt, fence: Fence(2), run };
    let wrote = |text: &str| Stream::Inline { bytes: text.as_bytes().to_vec() };
    let shown = |bench: &Bench| bench.row("t").stdout;
    bench.write(|store| store.keep_streams(&key(1, run), &own, (&wrote("running"), &Stream::Empty)));
    assert_eq!(shown(&bench), Stream::Empty, "it runs: its end will tell");

    bench.write(|store| store.requeue(uid, Fence(3), &requeue(RequeueCause::Requested, 0, 20), 31));
    bench.write(|store| store.keep_streams(&key(1, RunId(77)), &own, (&wrote("another run"), &Stream::Empty)));
    assert_eq!(shown(&bench), Stream::Empty);
    bench.write(|store| store.keep_streams(&key(1, run), &own, (&wrote("first"), &Stream::Empty)));
    assert_eq!(shown(&bench), wrote("first"));
    bench.end(uid, &Ending { streams: Streams::Earlier, has_succeeded: false, ..ending(30) });
    assert_eq!(shown(&bench), wrote("first"), "ended while it waited: the first run was its last");

    let uid = bench.add("u");
    let run = bench.run(uid, 40);
    let on_node = Stream::Node { bytes: 0 };
    bench.end(uid, &Ending { streams: Streams::Awaited, stdout: on_node.clone(), stderr: on_node.clone(), ..ending(50) });
    assert_eq!(bench.row("u").stdout, on_node);
    let last = RunKey { uid, attempt: 1, fence: Fence(2), run };
    let other: NodeId = id("other");
    bench.write(|store| store.keep_streams(&last, &other, (&wrote("forged"), &Stream::Empty)));
    assert_eq!(bench.row("u").stdout, on_node);
    bench.write(|store| store.keep_streams(&last, &own, (&wrote("last"), &Stream::Empty)));
    bench.write(|store| store.keep_streams(&last, &own, (&wrote("again"), &wrote("again"))));
    assert_eq!((bench.row("u").stdout, bench.row("u").stderr), (wrote("last"), Stream::Empty), "heard once");

    let uid = bench.add("v");
    let run = bench.run(uid, 60);
    bench.write(|store| store.requeue(uid, Fence(3), &requeue(RequeueCause::Retry, 0, 70), 31));
    bench.write(|store| store.keep_streams(&RunKey { uid, attempt: 1, fence: Fence(2), run }, &own, (&wrote("failed"), &Stream::Empty)));
    bench.write(|store| store.release(uid, 2, Fence(3), at(71)));
    bench.write(|store| store.keep_streams(&RunKey { uid, attempt: 1, fence: Fence(2), run }, &own, (&wrote("late"), &Stream::Empty)));
    assert_eq!(bench.row("v").stdout, wrote("failed"));
    bench.end(uid, &ending(80));
    assert_eq!(bench.row("v").stdout, Stream::Empty, "a second run that wrote nothing shows nothing");
}

pub fn exit_conditions_survive(place: &dyn Place) {
    let mut bench = Bench::new(place);
    let options = ExitOptions { job_action: Some(JobAction::Terminate), dependency_action: Some(DependencyAction::Satisfy) };
    let conditions = ExitConditions {
        exit_codes: vec![ExitCode { code: -1, exit_options: options }],
        otherwise: Some(ExitOptions::default()),
        ..ExitConditions::default()
    };
    let (name, uid) = (id("with"), TaskUid(5_000));
    let job = bench.job;
    let mut record = crate::place::task(uid.0, &name);
    record.exit_conditions = Some(&conditions);
    bench.write(|store| store.insert_task(job, &record));
    let without = bench.add("without");
    assert_eq!(bench.store.exit_conditions(uid).unwrap(), Some(conditions.clone()));
    assert_eq!(bench.store.exit_conditions(without).unwrap(), None);
    assert_eq!(bench.store.exit_conditions(TaskUid(9_999)).unwrap(), None);
}

pub fn deleted_tasks_are_gone_everywhere(place: &dyn Place) {
    let mut bench = Bench::new(place);
    let uid = bench.add("t");
    bench.write(|store| store.release(uid, 1, Fence(2), at(5)));
    bench.write(|store| store.delete_task(uid));
    assert!(bench.store.task_by_uid(uid).unwrap().is_none());
    assert!(bench.store.candidate(uid).unwrap().is_none());
    assert!(bench.store.task(bench.job, &id("t")).unwrap().is_none());
    assert!(bench.try_row("t").unwrap().is_none());
    let loaded = bench.store.load().unwrap();
    assert_eq!((loaded.live.len(), loaded.jobs[0].1), (0, 0));
}

pub fn jobs_are_emptied_in_batches(place: &dyn Place) {
    let mut bench = Bench::new(place);
    for index in 0..25 {
        bench.add(&format!("t{index}"));
    }
    bench.add_after("waits", &["never"]);
    let (job, other) = (bench.job, bench.add_job(600, "other"));
    let name = id("stays");
    bench.write(|store| store.insert_task(other, &crate::place::task(9_000, &name)));
    bench.add_after("late", &(0..17).map(|n| format!("n{n}")).collect::<Vec<_>>().iter().map(String::as_str).collect::<Vec<_>>());
    let counts: Vec<usize> = (0..6).map(|_| bench.write(|store| store.delete_rows(job, 10).map(|(gone, _)| gone))).collect();
    // 27 tasks, and 18 dependencies of two of them: no slice is larger than another.
    assert_eq!(counts, [10, 10, 10, 10, 5, 0]);
    bench.write(|store| store.delete_job(job));
    assert!(wait(bench.read.tasks(&id("job"), first(10), Detail::WHOLE)).unwrap().is_none());
    assert_eq!(wait(bench.read.tasks(&id("other"), first(10), Detail::WHOLE)).unwrap().unwrap().rows.len(), 1);
}

pub fn large_numbers_survive(place: &dyn Place) {
    let mut bench = Bench::new(place);
    let fence = Fence(u64::MAX - 5);
    let (uid, _) = bench.insert("t", |task| task.fence = fence);
    assert_eq!(bench.head(uid).fence, fence);
    bench.write(|store| store.release(uid, 3_000_000_000, fence.next(), at(-1)));
    let live = &bench.store.load().unwrap().live[0];
    assert_eq!((live.fence, live.attempt), (fence.next(), 3_000_000_000));
}
