//! Pages and filters.

use contract::{
    ids::TaskUid,
    state::{AllocationState, JobState, NodeState},
};
use model::node::NodeActivity;
use store::{
    filter::{Field, Filter, Operator, Value},
    read::{Detail, Page},
    records::{Ending, NodeRecord, PoolRecord},
};

use crate::fixture::{Fixture, Location, at, ending, first, id, job, node, pool, wait};

fn text(field: Field, operator: Operator, value: &str) -> Filter {
    Filter::Compare(field, operator, Value::Text(value.to_owned()))
}

fn number(field: Field, operator: Operator, value: i64) -> Filter {
    Filter::Compare(field, operator, Value::Number(value))
}

fn only(filter: Filter) -> Page {
    Page { rows_max: 100, filter: Some(filter), ..Page::default() }
}

/// Tasks `active`, `running`, `good` (0), `bad` (3) and `killed` (no code).
fn stage(location: &dyn Location) -> Fixture {
    let mut fixture = Fixture::new(location);
    fixture.add("active");
    for (name, ms) in [("running", 200), ("good", 300), ("bad", 400)] {
        let uid = fixture.add(name);
        fixture.run(uid, ms);
        match name {
            "good" => fixture.end(uid, &ending(1000)),
            "bad" => fixture.end(uid, &Ending { has_succeeded: false, exit_code: Some(3), ..ending(2000) }),
            _ => {}
        }
    }
    let uid = fixture.add("killed");
    fixture.end(uid, &Ending { has_succeeded: false, exit_code: None, ..ending(3000) });
    fixture
}

pub fn pages_follow_each_other_without_case_and_without_gaps(location: &dyn Location) {
    let mut fixture = Fixture::new(location);
    for name in ["b", "A", "c", "B2", "a_", "a-", "D", "10", "9"] {
        fixture.add(name);
        fixture.write(|store| store.put_pool(&pool(name), Some("{}")));
    }
    let expected = ["10", "9", "A", "a-", "a_", "b", "B2", "c", "D"];
    assert_eq!(fixture.listed(first(100)), expected);
    let (mut pages, mut after) = (Vec::new(), None);
    loop {
        let page = fixture.listed(Page { after, rows_max: 2, ..Page::default() });
        after = page.last().map(|id| id.to_ascii_uppercase());
        if page.is_empty() {
            break;
        }
        assert!(page.len() <= 2);
        pages.extend(page);
    }
    assert_eq!(pages, expected);
    let pools = wait(fixture.read.pools(Page { after: Some("B".to_owned()), rows_max: 2, ..Page::default() })).unwrap();
    assert_eq!(pools.iter().map(|pool| pool.id.as_str()).collect::<Vec<_>>(), ["B2", "c"]);
    assert!(fixture.listed(first(0)).is_empty());
}

pub fn lists_of_unknown_jobs_are_nothing(location: &dyn Location) {
    let fixture = Fixture::new(location);
    assert!(wait(fixture.read.tasks(&id("none"), first(10), Detail::WHOLE)).unwrap().is_none());
    assert!(wait(fixture.read.task(&id("none"), &id("t"))).unwrap().is_none());
    assert_eq!(wait(fixture.read.tasks(&id("job"), first(10), Detail::WHOLE)).unwrap().map(|page| page.rows), Some(Vec::new()));
    assert!(wait(fixture.read.nodes(&id("none"), first(10), &[])).unwrap().is_empty());
    assert!(wait(fixture.read.pool(&id("none"))).unwrap().is_none());
    assert!(wait(fixture.read.job(&id("none"))).unwrap().is_none());
}

pub fn tasks_are_filtered_by_state_time_code_and_result(location: &dyn Location) {
    use Operator::*;
    let fixture = stage(location);
    for (filter, expected) in [
        (text(Field::State, Eq, "ACTIVE"), &["active"][..]),
        (text(Field::State, Eq, "running"), &["running"]),
        (text(Field::State, Ne, "Completed"), &["active", "running"]),
        (text(Field::State, Gt, "active"), &["bad", "good", "killed", "running"]),
        (text(Field::State, Le, "completed"), &["active", "bad", "good", "killed"]),
        (text(Field::State, Eq, "nonsense"), &[]),
        (text(Field::Id, Eq, "GOOD"), &["good"]),
        (text(Field::Id, Ge, "Good"), &["good", "killed", "running"]),
        (text(Field::Id, Lt, "bad"), &["active"]),
        (number(Field::ExitCode, Eq, 3), &["bad"]),
        (number(Field::ExitCode, Ge, 0), &["bad", "good"]),
        (number(Field::HasSucceeded, Eq, 1), &["good"]),
        (number(Field::HasSucceeded, Eq, 0), &["bad", "killed"]),
        (number(Field::EndedAt, Gt, 1000), &["bad", "killed"]),
        (number(Field::StartedAt, Le, 300), &["good", "running"]),
        (number(Field::StateAt, Eq, 100), &["active"]),
        (number(Field::CreatedAt, Eq, 100), &["active", "bad", "good", "killed", "running"]),
        (number(Field::ModifiedAt, Ge, 2000), &["bad", "killed"]),
    ] {
        assert_eq!(fixture.listed(only(filter.clone())), expected, "{filter:?}");
    }
}

pub fn missing_values_pass_only_ne(location: &dyn Location) {
    use Operator::*;
    let fixture = stage(location);
    assert_eq!(fixture.listed(only(number(Field::ExitCode, Ne, 3))), ["active", "good", "killed", "running"]);
    for operator in [Eq, Gt, Ge, Lt, Le] {
        let passed = fixture.listed(only(number(Field::ExitCode, operator, 1)));
        assert!(!passed.contains(&"killed".to_owned()), "{operator:?}: {passed:?}");
    }
}

pub fn fields_that_a_list_lacks_count_as_missing(location: &dyn Location) {
    use Operator::*;
    let fixture = stage(location);
    for field in [Field::Pool, Field::Allocation, Field::AllocationAt, Field::BootedAt] {
        for operator in [Eq, Gt, Ge, Lt, Le] {
            assert!(fixture.listed(only(text(field, operator, "x"))).is_empty(), "{field:?} {operator:?}");
        }
        assert_eq!(fixture.listed(only(text(field, Ne, "x"))).len(), 5);
        assert!(fixture.listed(only(Filter::StartsWith(field, String::new()))).is_empty());
    }
    // A value of the wrong type matches nothing either.
    assert!(fixture.listed(only(text(Field::ExitCode, Lt, "x"))).is_empty());
    assert!(fixture.listed(only(number(Field::Id, Ge, 0))).is_empty());
    assert!(fixture.listed(only(number(Field::State, Ge, 0))).is_empty());
    assert_eq!(fixture.listed(only(number(Field::Id, Ne, 0))).len(), 5);
}

pub fn filters_combine(location: &dyn Location) {
    use Operator::*;
    let fixture = stage(location);
    let done = || text(Field::State, Eq, "completed");
    let failed = Filter::And(vec![done(), number(Field::HasSucceeded, Eq, 0)]);
    assert_eq!(fixture.listed(only(failed.clone())), ["bad", "killed"]);
    let either = Filter::Or(vec![failed.clone(), text(Field::Id, Eq, "active")]);
    assert_eq!(fixture.listed(only(either)), ["active", "bad", "killed"]);
    let neither = Filter::And(vec![failed, text(Field::Id, Eq, "active")]);
    assert!(fixture.listed(only(neither)).is_empty());
    assert_eq!(fixture.listed(only(Filter::And(Vec::new()))).len(), 5);
    assert!(fixture.listed(only(Filter::Or(Vec::new()))).is_empty());
    let many = Filter::Or((0..200).map(|index| text(Field::Id, Eq, &format!("x{index}"))).chain([done()]).collect());
    assert_eq!(fixture.listed(only(many)).len(), 3);
}

pub fn prefixes_ignore_case_and_know_no_wildcards(location: &dyn Location) {
    let mut fixture = Fixture::new(location);
    for name in ["render-1", "Render-2", "render_3", "rendez", "other"] {
        fixture.add(name);
    }
    let starting = |prefix: &str| fixture.listed(only(Filter::StartsWith(Field::Id, prefix.to_owned())));
    assert_eq!(starting("RENDER"), ["render-1", "Render-2", "render_3"]);
    assert_eq!(starting("render_"), ["render_3"]);
    assert_eq!(starting("").len(), 5);
    assert_eq!(fixture.listed(only(Filter::StartsWith(Field::State, "ACT".to_owned()))).len(), 5);
    assert!(fixture.listed(only(Filter::StartsWith(Field::State, "x".to_owned()))).is_empty());
    for prefix in ["%", "render%", "*", "r?", "[r]", "render-1x"] {
        let passed = fixture.listed(only(Filter::StartsWith(Field::Id, prefix.to_owned())));
        assert!(passed.is_empty(), "{prefix}: {passed:?}");
    }
}

pub fn hostile_text_in_filters_is_only_text(location: &dyn Location) {
    let mut fixture = stage(location);
    for hostile in [
        "' OR 1=1 --",
        "\"; DROP TABLE tasks; --",
        "good' UNION SELECT 1",
        "good\0",
        "\0",
        "good\u{0}' OR '1'='1",
        "\u{10ffff}",
        "gööd",
        "?1",
        ":id",
    ] {
        for filter in [
            text(Field::Id, Operator::Eq, hostile),
            text(Field::State, Operator::Eq, hostile),
            Filter::StartsWith(Field::Id, hostile.to_owned()),
            Filter::StartsWith(Field::State, hostile.to_owned()),
        ] {
            assert!(fixture.listed(only(filter.clone())).is_empty(), "{filter:?}");
        }
        assert_eq!(fixture.listed(only(text(Field::Id, Operator::Ne, hostile))).len(), 5);
        wait(fixture.read.task_names(&id("job"), Page { after: Some(hostile.to_owned()), rows_max: 10, ..Page::default() })).unwrap();
        wait(fixture.read.pools(only(text(Field::Allocation, Operator::Gt, hostile)))).unwrap();
    }
    fixture.add("still-there");
    assert_eq!(fixture.listed(first(10)).len(), 6);
}

pub fn pools_nodes_and_jobs_are_filtered_by_their_fields(location: &dyn Location) {
    use Operator::*;
    let mut fixture = Fixture::new(location);
    let mut done = job(700, "done");
    (done.state, done.ended_at, done.pool) = (JobState::Completed, Some(at(900)), id("Far"));
    fixture.write(|store| {
        store.put_pool(&pool("calm"), Some("{}"))?;
        store.put_pool(&PoolRecord { allocation: AllocationState::Resizing, allocation_at: at(50), ..pool("busy") }, Some("{}"))?;
        store.put_node(&id("calm"), &NodeRecord { booted_at: Some(at(60)), ..node("up") })?;
        store.put_node(&id("calm"), &NodeRecord { state: NodeState::Creating, allocated_at: at(70), ..node("new") })?;
        store.put_job(&done, Some("{}"))
    });
    let pools = |filter| {
        let rows = wait(fixture.read.pools(only(filter))).unwrap();
        rows.iter().map(|row| row.id.as_str().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(pools(text(Field::Allocation, Eq, "Resizing")), ["busy"]);
    assert_eq!(pools(number(Field::AllocationAt, Lt, 50)), ["calm"]);
    assert_eq!(pools(text(Field::State, Eq, "ACTIVE")).len(), 2);
    let nodes = |filter| {
        let rows = wait(fixture.read.nodes(&id("CALM"), only(filter), &[])).unwrap();
        rows.iter().map(|row| row.id.as_str().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(nodes(text(Field::State, Ne, "creating")), ["up"]);
    assert_eq!(nodes(number(Field::BootedAt, Gt, 0)), ["up"]);
    assert_eq!(nodes(number(Field::AllocatedAt, Eq, 70)), ["new"]);
    let jobs = |filter| {
        let rows = wait(fixture.read.jobs(only(filter))).unwrap();
        rows.iter().map(|row| row.id.as_str().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(jobs(text(Field::Pool, Eq, "far")), ["done"]);
    assert_eq!(jobs(number(Field::EndedAt, Ge, 900)), ["done"]);
    assert_eq!(jobs(text(Field::State, Eq, "Active")), ["job"]);
    assert_eq!(jobs(Filter::StartsWith(Field::Id, "D".to_owned())), ["done"]);
}

pub fn nodes_are_shown_and_filtered_by_activity_that_is_newer_than_their_rows(location: &dyn Location) {
    let mut fixture = Fixture::new(location);
    fixture.write(|store| {
        store.put_pool(&pool("p"), Some("{}"))?;
        for name in ["a", "b", "c"] {
            let (state, state_at) = (NodeState::Idle, at(50));
            store.put_node(
                &id("p"),
                &NodeRecord { state, state_at, tasks_run: 7, tasks_succeeded: 6, recent: vec![TaskUid(1)], ..node(name) },
            )?;
        }
        Ok(())
    });
    let active = |name: &str, state_at, tasks_run| NodeActivity {
        id: id(name),
        state: NodeState::Running,
        state_at: at(state_at),
        tasks_run,
        tasks_succeeded: 7,
        recent: vec![TaskUid(1), TaskUid(2)],
    };
    let activity = [active("A", 60, 8), active("b", 49, 8), active("c", 60, 6), active("gone", 60, 8)];
    let row = wait(fixture.read.node(&id("p"), &id("a"), &activity)).unwrap().unwrap();
    assert_eq!((row.state, row.state_at, row.tasks_run, row.tasks_succeeded), (NodeState::Running, at(60), 8, 7));
    assert_eq!(row.recent, [TaskUid(1), TaskUid(2)]);
    for older in ["b", "c"] {
        let row = wait(fixture.read.node(&id("p"), &id(older), &activity)).unwrap().unwrap();
        assert_eq!((row.state, row.tasks_run, row.recent.len()), (NodeState::Idle, 7, 1), "{older}'s row is newer");
    }
    let listed = |state: &str, active: &[NodeActivity]| {
        let rows = wait(fixture.read.nodes(&id("P"), only(text(Field::State, Operator::Eq, state)), active)).unwrap();
        rows.iter().map(|row| row.id.as_str().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(listed("running", &activity), ["a"]);
    assert_eq!(listed("idle", &activity), ["b", "c"]);
    assert_eq!(listed("idle", &[]), ["a", "b", "c"]);
    let page = wait(fixture.read.nodes(&id("p"), Page { after: Some("A".to_owned()), rows_max: 1, ..Page::default() }, &activity)).unwrap();
    assert_eq!(page.iter().map(|row| row.id.as_str()).collect::<Vec<_>>(), ["b"]);
}

pub fn filters_and_pages_work_together(location: &dyn Location) {
    let mut fixture = Fixture::new(location);
    for index in 0..30 {
        let uid = fixture.add(&format!("t{index:02}"));
        if index % 3 == 0 {
            fixture.run(uid, 200);
        }
    }
    let running = || Some(text(Field::State, Operator::Eq, "running"));
    let page = fixture.listed(Page { rows_max: 4, filter: running(), ..Page::default() });
    assert_eq!(page, ["t00", "t03", "t06", "t09"]);
    let page = fixture.listed(Page { after: Some("T09".to_owned()), rows_max: 4, filter: running(), ..Page::default() });
    assert_eq!(page, ["t12", "t15", "t18", "t21"]);
}
