//! Twenty thousand tasks in one job: pages stay whole, in order and bounded.

use std::collections::BTreeSet;

use contract::ids::TaskUid;
use store::{
    filter::{Field, Filter, Operator, Value},
    read::{Detail, Page, TaskPage},
    records::{Ending, NewTaskRecord},
};

use crate::fixture::{Fixture, Location, ending, id, task, wait};

const TASKS: usize = 20_000;
const PAGE: usize = 1_000;
/// One of this many tasks has failed.
const FAILED_EVERY: usize = 500;

/// Numbers of tasks that are added later.
const NEW: u64 = 1_000_000;

/// Every second task is completed, every [`FAILED_EVERY`]th of all badly.
fn stage(location: &dyn Location) -> Fixture {
    let mut fixture = Fixture::new(location);
    let (job, first) = (fixture.job, fixture.store.load().unwrap().next_task);
    fixture.write(|store| {
        for index in 0..TASKS {
            let name = id(&format!("t{index:05}"));
            let record = NewTaskRecord { document: r#"{"commandLine":"x"}"#, ..task(first + index as u64, &name) };
            store.insert_task(job, &record)?;
            if index % FAILED_EVERY == 0 {
                store.end(record.uid, &Ending { has_succeeded: false, exit_code: Some(7), ..ending(900) }, 30)?;
            } else if index % 2 == 0 {
                store.end(record.uid, &ending(800), 30)?;
            }
        }
        Ok(())
    });
    fixture
}

fn first(fixture: &Fixture, filter: Filter, detail: Detail) -> TaskPage {
    wait(fixture.read.tasks(&id("job"), Page { rows_max: PAGE, filter: Some(filter), ..Page::default() }, detail)).unwrap().unwrap()
}

/// All names of a list, read page by page with `between` called after each, and the number of pages.
fn walk(fixture: &mut Fixture, filter: Option<Filter>, mut between: impl FnMut(&mut Fixture)) -> (Vec<String>, usize) {
    let (mut names, mut pages, mut after) = (Vec::new(), 0, None);
    loop {
        let wanted = Page { after: after.take(), rows_max: PAGE, filter: filter.clone(), ..Page::default() };
        let found = wait(fixture.read.task_names(&id("job"), wanted)).unwrap().unwrap();
        names.extend(found.rows.iter().map(|row| row.id.as_str().to_owned()));
        pages += 1;
        after = match found.rows.last() {
            Some(last) if found.rows.len() == PAGE => Some(last.id.as_str().to_owned()),
            _ => found.stopped_at,
        };
        if after.is_none() {
            return (names, pages);
        }
        between(fixture);
    }
}

fn compare(field: Field, operator: Operator, value: i64) -> Filter {
    Filter::Compare(field, operator, Value::Number(value))
}

fn completed(operator: Operator) -> Filter {
    Filter::Compare(Field::State, operator, Value::Text("completed".to_owned()))
}

pub fn every_row_is_on_one_page_in_order_while_others_come_and_go(location: &dyn Location) {
    let mut fixture = stage(location);
    let mut round = 0;
    let (names, pages) = walk(&mut fixture, Some(completed(Operator::Eq)), |fixture| {
        for name in [format!("t0000{round}a"), format!("z{round}")] {
            round += 1;
            fixture.insert(&name, |task| task.uid = TaskUid(NEW + round));
        }
        fixture.write(|store| store.delete_task(TaskUid(NEW + round)));
    });
    let expected: Vec<_> = (0..TASKS).filter(|index| index % 2 == 0).map(|index| format!("t{index:05}")).collect();
    assert_eq!(names, expected);
    assert_eq!(pages, TASKS / 2 / PAGE + 1, "the last page is empty, for the one before was full");
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
}

pub fn a_page_that_finds_little_stops_early_and_says_where(location: &dyn Location) {
    let mut fixture = stage(location);
    let failed = (TASKS / FAILED_EVERY, TASKS / 2);
    for (filter, rows, is_bounded) in [
        (compare(Field::ExitCode, Operator::Eq, 7), failed.0, true),
        (compare(Field::EndedAt, Operator::Gt, 5_000), 0, true),
        (Filter::And(vec![completed(Operator::Ne), compare(Field::ExitCode, Operator::Eq, 7)]), 0, true),
        (Filter::Or(vec![compare(Field::ExitCode, Operator::Eq, 1), compare(Field::ExitCode, Operator::Eq, 7)]), failed.0, true),
        (Filter::And(vec![completed(Operator::Eq), compare(Field::HasSucceeded, Operator::Eq, 0)]), failed.0, false),
        (compare(Field::HasSucceeded, Operator::Eq, 0), failed.0, false),
        (Filter::StartsWith(Field::Id, "T1999".to_owned()), 10, false),
        (Filter::Compare(Field::Id, Operator::Eq, Value::Text("T19999".to_owned())), 1, false),
    ] {
        let whole = first(&fixture, filter.clone(), Detail::WHOLE);
        assert_eq!(whole.stopped_at.is_some(), is_bounded, "{filter:?}");
        let (names, pages) = walk(&mut fixture, Some(filter.clone()), |_| {});
        assert_eq!((names.len(), pages > 1), (rows, is_bounded), "{filter:?}");
        assert!(names.is_sorted(), "{filter:?}");
    }
}

pub fn a_page_holds_what_was_wanted_of_its_tasks(location: &dyn Location) {
    let fixture = stage(location);
    let first = |detail| first(&fixture, completed(Operator::Eq), detail).rows.remove(0);
    let whole = first(Detail::WHOLE);
    assert_eq!((whole.document.as_str(), whole.exit_code, whole.ended_at.is_some()), (r#"{"commandLine":"x"}"#, Some(7), true));
    let ran = first(Detail { document: false, ..Detail::WHOLE });
    assert_eq!((ran.document.as_str(), ran.exit_code, ran.version), ("", Some(7), whole.version));
    let head = first(Detail::HEADS);
    assert_eq!((head.document.as_str(), head.exit_code, head.version, &head.node), ("", None, whole.version, &whole.node));
    let shown = first(Detail { runs: false, ..Detail::WHOLE });
    assert_eq!((shown.document, shown.exit_code), (whole.document, None));
    let page = Page { rows_max: 1, filter: Some(completed(Operator::Eq)), ..Page::default() };
    let named = wait(fixture.read.task_names(&id("job"), page)).unwrap().unwrap().rows.remove(0);
    assert_eq!((named.id, named.state), (whole.id, whole.state));
}
