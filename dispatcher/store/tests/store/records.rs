//! Pools, nodes, jobs and schedules with every field set: what is written can be loaded and read.

use contract::{
    ids::{Epoch, Fence, RunId, TaskUid},
    message::StartTaskEnd,
    outcome::{Fault, Outcome},
    period::Period,
    spec::{EnvironmentSetting, FillType, QueuePolicy, StartTask},
    state::{AllocationState, DeallocationOption, JobState, NodeState, PoolState, ScheduleState, SchedulingState},
};
use model::{
    auto_pool::{AutoPool, JobPool, Lifetime, Tie},
    job::Counts,
    node::{NodeAction, NodeProperties},
    pool::{JobOrder, PoolSettings},
    schedule::{ScheduleRow, Timetable},
};
use store::records::{JobRecord, NodeRecord, PoolRecord};

use crate::fixture::{Fixture, Location, at, first, id, job, new_job, new_pool, node, pool, wait};

fn fault(code: &str) -> Fault {
    Fault { code: code.to_owned(), message: "it's \"broken\"".to_owned(), details: vec![("File".to_owned(), "a'b".to_owned())] }
}

pub fn every_field_of_a_pool_survives(location: &dyn Location) {
    let mut fixture = Fixture::new(location);
    let record = PoolRecord {
        version: 77,
        state: PoolState::Deleting,
        allocation: AllocationState::Stopping,
        target_dedicated: 3,
        target_low_priority: u32::MAX,
        settings: PoolSettings { resize_timeout: Period::UNLIMITED },
        deallocation: DeallocationOption::RetainedData,
        resize_errors: vec![fault("AllocationTimedout"), fault("Other")],
        slots_per_node: 64,
        fill: FillType::Pack,
        job_order: JobOrder::CreationTime,
        start_task: Some(StartTask { command_line: "echo 'hi'".to_owned(), wait_for_success: Some(false), ..StartTask::default() }),
        policy: Some(QueuePolicy { max_nodes: 9, ..QueuePolicy::default() }),
        decision: Some("3 nodes, for 30 tasks wait".to_owned()),
        next_node: 12,
        ..pool("full")
    };
    fixture.write(|store| store.put_pool(&record, Some(r#"{"a":1}"#)));
    let loaded = fixture.store.load().unwrap();
    assert_eq!(loaded.pools, [(record.clone(), Vec::new())]);
    let row = wait(fixture.read.pool(&record.id)).unwrap().unwrap();
    assert_eq!(wait(fixture.read.pools(first(10))).unwrap(), std::slice::from_ref(&row));
    assert_eq!((row.version, row.state, row.allocation, row.document.as_str()), (77, record.state, record.allocation, r#"{"a":1}"#));
    assert_eq!((row.target_dedicated, row.target_low_priority, row.slots_per_node), (3, u32::MAX, 64));
    assert_eq!((row.settings, row.resize_errors), (record.settings, record.resize_errors));
    assert_eq!((row.policy, row.decision), (record.policy, record.decision));
    assert_eq!((row.state_at, row.allocation_at, row.created_at, row.modified_at), (at(1), at(2), at(3), at(4)));
}

pub fn every_field_of_a_node_survives(location: &dyn Location) {
    let mut fixture = Fixture::new(location);
    let record = NodeRecord {
        epoch: Epoch(4),
        state: NodeState::WaitingForStartTask,
        scheduling: SchedulingState::Disabled,
        drain: Some(DeallocationOption::TaskCompletion),
        is_drained: true,
        action: Some(NodeAction::Reimage { option: DeallocationOption::Terminate, since: Epoch(3) }),
        properties: NodeProperties { address: Some("10.0.0.4".to_owned()), agent_version: Some("0.1.0".to_owned()), cores: 12 },
        booted_at: Some(at(5)),
        is_dedicated: false,
        rank: 6,
        tasks_run: 7,
        tasks_succeeded: 8,
        recent: vec![TaskUid(4), TaskUid(1 << 40)],
        booted_with: Some(StartTask { command_line: "setup".to_owned(), ..StartTask::default() }),
        start_task: Some(StartTaskEnd {
            started_at: at(1),
            ended_at: at(2),
            outcome: Outcome::Exit { code: 3 },
            retries: 1,
            retried_at: Some(at(2)),
        }),
        faults: vec![fault("StartTaskFailed")],
        ..node("n1")
    };
    let plain = node("N0");
    fixture.write(|store| {
        store.put_pool(&pool("p"), Some("{}"))?;
        store.put_node(&id("p"), &record)?;
        store.put_node(&id("p"), &plain)
    });
    let loaded = fixture.store.load().unwrap();
    assert_eq!(loaded.pools, [(pool("p"), vec![plain, record.clone()])]);
    let row = wait(fixture.read.node(&id("P"), &id("N1"), &[])).unwrap().unwrap();
    assert_eq!((row.pool.as_str(), row.id.as_str(), row.state, row.scheduling), ("p", "n1", record.state, record.scheduling));
    assert_eq!((row.properties, row.booted_at, row.is_dedicated), (record.properties, record.booted_at, false));
    assert_eq!((row.tasks_run, row.tasks_succeeded, row.running_tasks, row.running_slots), (7, 8, 0, 0));
    assert_eq!((row.recent, row.booted_with), (record.recent, record.booted_with));
    assert_eq!((row.start_task, row.faults), (record.start_task, record.faults));
}

pub fn every_field_of_a_job_survives(location: &dyn Location) {
    let mut fixture = Fixture::new(location);
    let counts = |n| Counts { active: n, running: n + 1, succeeded: n + 2, failed: n + 3 };
    let record = JobRecord {
        version: 5,
        state: JobState::Terminating,
        state_at: at(2),
        previous: Some((JobState::Disabled, at(1))),
        pool: id("Pool"),
        auto_pool: Some(Tie { lifetime: Lifetime::JobSchedule, keep_alive: true }),
        scheduling_error: Some(fault("InvalidAutoPoolSettings")),
        priority: -1000,
        max_parallel: 3,
        environment: vec![EnvironmentSetting { name: "A".to_owned(), value: Some("'; --".to_owned()) }],
        max_task_retry_count: -1,
        max_wall_clock: Some(Period::from_ms(1)),
        terminate_when_complete: true,
        performs_exit_options: true,
        uses_dependencies: false,
        ends_with: Some(TaskUid(u64::MAX)),
        created_at: at(3),
        modified_at: at(4),
        ended_at: Some(at(5)),
        terminate_reason: Some("AllTasksCompleted".to_owned()),
        tasks: counts(10),
        slots: counts(20),
        ..job(900, "s:job-1")
    };
    fixture.write(|store| store.put_job(&record, Some(r#"{"b":2}"#)));
    let loaded = fixture.store.load().unwrap();
    assert_eq!(loaded.jobs.iter().find(|(job, _)| job.uid == record.uid), Some(&(record.clone(), 0)));
    assert_eq!(fixture.store.find_job(&record.id).unwrap(), Some(record.clone()));
    let row = wait(fixture.read.job(&record.id)).unwrap().unwrap();
    assert!(wait(fixture.read.jobs(first(10))).unwrap().contains(&row));
    assert_eq!((row.uid, row.id, row.document.as_str(), row.version), (record.uid, record.id, r#"{"b":2}"#, 5));
    assert_eq!((row.state, row.state_at, row.previous), (record.state, record.state_at, record.previous));
    assert_eq!((row.pool, row.priority, row.max_parallel), (record.pool, -1000, 3));
    assert_eq!((row.auto_pool, row.scheduling_error), (record.auto_pool, record.scheduling_error));
    assert_eq!((row.max_task_retry_count, row.max_wall_clock), (-1, record.max_wall_clock));
    assert_eq!((row.terminate_when_complete, row.performs_exit_options, row.uses_dependencies), (true, true, false));
    assert_eq!((row.created_at, row.modified_at, row.ended_at), (at(3), at(4), Some(at(5))));
    assert_eq!((row.terminate_reason, row.tasks, row.slots), (record.terminate_reason, record.tasks, record.slots));
}

pub fn every_field_of_a_schedule_survives(location: &dyn Location) {
    let mut fixture = Fixture::new(location);
    let auto = AutoPool {
        prefix: Some(id("Auto")),
        tie: Tie { lifetime: Lifetime::JobSchedule, keep_alive: true },
        pool: model::pool::NewPool {
            fill: FillType::Pack,
            job_order: JobOrder::CreationTime,
            start_task: Some(StartTask { command_line: "setup".to_owned(), ..StartTask::default() }),
            scaling: Some(("$a = 1;".to_owned(), Period::from_secs(300))),
            ..new_pool("template")
        },
    };
    let row = ScheduleRow {
        id: id("Schedule"),
        version: 9,
        state: ScheduleState::Disabled,
        state_at: at(1),
        previous: Some((ScheduleState::Active, at(2))),
        created_at: at(3),
        modified_at: at(4),
        ended_at: Some(at(5)),
        timetable: Timetable { not_after: Some(at(6)), interval: Some(Period::from_secs(60)), ..Timetable::default() },
        next_due: Some(at(7)),
        last_due: Some(at(8)),
        next_number: 10,
        recent: Some(id("Schedule:job-9")),
        auto_pool: Some(id("Auto_1")),
        job: new_job("Schedule:job-1", JobPool::Auto(Box::new(auto))),
        document: r#"{"c":3}"#.to_owned(),
    };
    fixture.write(|store| store.put_schedule(&row));
    assert_eq!(fixture.store.load().unwrap().schedules, std::slice::from_ref(&row));
    assert_eq!(wait(fixture.read.schedule(&id("schedule"))).unwrap(), Some(row));
}

pub fn current_nodes_are_counted_without_those_being_created(location: &dyn Location) {
    let mut fixture = Fixture::new(location);
    fixture.write(|store| {
        store.put_pool(&pool("p"), Some("{}"))?;
        store.put_pool(&pool("q"), Some("{}"))?;
        for (name, state, is_dedicated) in [
            ("a", NodeState::Creating, true),
            ("b", NodeState::Starting, true),
            ("c", NodeState::Unusable, true),
            ("d", NodeState::Idle, false),
        ] {
            store.put_node(&id("P"), &NodeRecord { state, is_dedicated, ..node(name) })?;
        }
        Ok(())
    });
    let row = wait(fixture.read.pool(&id("p"))).unwrap().unwrap();
    assert_eq!((row.current_dedicated, row.current_low_priority), (2, 1));
    let row = wait(fixture.read.pool(&id("q"))).unwrap().unwrap();
    assert_eq!((row.current_dedicated, row.current_low_priority), (0, 0));
}

pub fn a_node_shows_the_runs_it_holds(location: &dyn Location) {
    let mut fixture = Fixture::new(location);
    let mut elsewhere = job(600, "elsewhere");
    elsewhere.pool = id("other");
    fixture.write(|store| {
        store.put_node(&id("pool"), &node("n"))?;
        store.put_node(&id("pool"), &node("idle"))?;
        store.put_node(&id("other"), &node("n"))?;
        store.put_job(&elsewhere, Some("{}"))
    });
    let (one, _) = fixture.insert("one", |task| task.slots = 4);
    let two = fixture.add("two");
    let done = fixture.add("done");
    let (waiting, _) = fixture.insert("released", |_| {});
    for uid in [one, two, done] {
        fixture.run(uid, 10);
    }
    fixture.end(done, &crate::fixture::ending(20));
    fixture.write(|store| store.release(waiting, 1, Fence(2), at(5)));
    let name = id("far");
    let record = crate::fixture::task(waiting.0 + 50, &name);
    fixture.write(|store| {
        store.insert_task(elsewhere.uid, &record)?;
        store.release(record.uid, 1, Fence(2), at(5))?;
        store.start(record.uid, RunId(1), &id("n"), Epoch(1), at(6), 21)
    });
    let shown = |pool: &str, node: &str| {
        let row = wait(fixture.read.node(&id(pool), &id(node), &[])).unwrap().unwrap();
        (row.running_tasks, row.running_slots)
    };
    assert_eq!(shown("pool", "n"), (2, 5));
    assert_eq!(shown("pool", "idle"), (0, 0));
    assert_eq!(shown("other", "n"), (1, 1));
    let page = wait(fixture.read.nodes(&id("pool"), first(10), &[])).unwrap();
    assert_eq!(page.iter().map(|node| (node.id.as_str(), node.running_slots)).collect::<Vec<_>>(), [("idle", 0), ("n", 5)]);
}
