//! Pages of a job's tasks: uses the index that fits the filter, reads only the requested columns, and bounds the rows
//! looked at.
//!
//! What a filter says about ids becomes one range, so that every page starts where the last one ended. Where no index
//! answers the whole filter, a page looks at [`SCAN_MAX`] rows at most, ends early and says where to continue.

use contract::ids::JobId;
use rusqlite::{Connection, Row};

use crate::{
    StoreError,
    filter::{Field, Filter, Operator, Value},
    left_out::LeftOut,
    read::{Detail, Page, TaskName, TaskPage},
    sqlite::{
        cells::Cells,
        conditions::{Condition, List},
        pages, paging, tasks,
    },
};

/// Rows that one page looks at, at most.
pub(super) const SCAN_MAX: usize = 10_000;

/// Columns of [`TaskName`].
const NAMES: &str = "t.uid, t.id, t.state";

/// The index that returns a page's rows in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Road {
    Failed,
    State(i64),
    Names,
}

/// A bound of a range of ids, and whether it is inclusive.
type End = Option<(String, bool)>;

/// The part of a filter that an index can answer, and whether that is the whole filter.
#[derive(Debug, PartialEq)]
struct Reach {
    road: Road,
    from: End,
    to: End,
    is_all: bool,
}

impl Reach {
    fn of(page: &Page) -> Reach {
        let mut parts = Vec::new();
        if let Some(filter) = &page.filter {
            flatten(filter, &mut parts);
        }
        let mut reach = Reach { road: Road::Names, from: page.after.clone().map(|id| (id, false)), to: None, is_all: true };
        let is_failed = Filter::Compare(Field::HasSucceeded, Operator::Eq, Value::Number(0));
        if parts.contains(&&is_failed) {
            reach.road = Road::Failed;
        }
        for part in parts {
            let is_known = match part {
                Filter::StartsWith(Field::Id, prefix) => {
                    reach.raise((prefix.clone(), true));
                    // Ids are ASCII, so nothing that begins with the prefix follows this.
                    reach.lower((format!("{prefix}{}", char::MAX), true));
                    true
                }
                Filter::Compare(Field::Id, operator, Value::Text(id)) => reach.compare(*operator, id),
                Filter::Compare(Field::State, Operator::Eq, Value::Text(word)) if reach.road == Road::Names => {
                    let state = contract::state::TaskState::parse(&word.to_ascii_lowercase());
                    reach.road = state.map_or(Road::Names, |state| Road::State(tasks::code(state)));
                    state.is_some()
                }
                other => *other == is_failed,
            };
            reach.is_all &= is_known;
        }
        reach
    }

    fn compare(&mut self, operator: Operator, id: &str) -> bool {
        let (from, to) = match operator {
            Operator::Eq => (Some(true), Some(true)),
            Operator::Gt => (Some(false), None),
            Operator::Ge => (Some(true), None),
            Operator::Lt => (None, Some(false)),
            Operator::Le => (None, Some(true)),
            Operator::Ne => return false,
        };
        if let Some(is_in) = from {
            self.raise((id.to_owned(), is_in));
        }
        if let Some(is_in) = to {
            self.lower((id.to_owned(), is_in));
        }
        true
    }

    fn raise(&mut self, end: (String, bool)) {
        let key = |(id, is_in): &(String, bool)| (id.to_ascii_lowercase(), !is_in);
        self.from = [self.from.take(), Some(end)].into_iter().flatten().max_by_key(key);
    }

    fn lower(&mut self, end: (String, bool)) {
        let key = |(id, is_in): &(String, bool)| (id.to_ascii_lowercase(), *is_in);
        self.to = [self.to.take(), Some(end)].into_iter().flatten().min_by_key(key);
    }

    /// Begins a query for the rows in reach.
    fn select(&self, columns: &str, join: &str, job: i64) -> Condition {
        let mut condition = Condition::default();
        let (index, only) = match self.road {
            Road::Failed => ("tasks_failed", " AND t.success = 0"),
            Road::State(_) => ("tasks_state", " AND t.state = ?"),
            Road::Names => ("sqlite_autoindex_tasks_1", ""),
        };
        condition.push(&format!("SELECT {columns} FROM tasks t INDEXED BY {index}{join} WHERE t.job = ?{only}"), [job.into()]);
        if let Road::State(state) = self.road {
            condition.values.push(state.into());
        }
        for (end, open, closed) in [(&self.from, ">", ">="), (&self.to, "<", "<=")] {
            if let Some((id, is_in)) = end {
                condition.push(&format!(" AND t.id {} ?", if *is_in { closed } else { open }), [id.clone().into()]);
            }
        }
        condition
    }
}

fn flatten<'f>(filter: &'f Filter, parts: &mut Vec<&'f Filter>) {
    match filter {
        Filter::And(inner) => inner.iter().for_each(|part| flatten(part, parts)),
        other => parts.push(other),
    }
}

/// The last row that a page may look at, when more follow.
fn stop(connection: &Connection, reach: &Reach, job: i64) -> Result<Option<String>, StoreError> {
    let mut condition = reach.select("t.id", "", job);
    condition.push(" ORDER BY t.id LIMIT ? OFFSET ?", [paging::limit(1), (SCAN_MAX.cast_signed() as i64 - 1).into()]);
    let first = paging::rows(connection, condition, (1, &LeftOut::default()), |row| Cells::new(row, "tasks").get("id"))?;
    Ok(first.into_iter().next())
}

/// The columns of a page, and the table joined to `tasks` for them.
fn columns(detail: Detail) -> (String, &'static str) {
    let runs = if detail.runs { [", ", pages::TASK_RUNS] } else { ["", ""] }.concat();
    let document = if detail.document { "x.document" } else { "'' AS document" };
    let join = if detail.document || detail.runs { " JOIN task_texts x ON x.uid = t.uid" } else { "" };
    (format!("{}, {document}{runs}", pages::TASK_HEAD), join)
}

fn page_condition(reach: &Reach, page: &Page, (columns, join): (&str, &str), job: i64) -> Condition {
    let mut condition = reach.select(columns, join, job);
    if let Some(filter) = &page.filter {
        condition.push(" AND ", []);
        condition.filter(List::Tasks, filter);
    }
    condition.push(" ORDER BY t.id LIMIT ?", [paging::limit(page.rows_max)]);
    condition
}

/// A page of a job's tasks; `None` when the job does not exist.
pub(super) fn tasks(connection: &Connection, job: &JobId, wanted: &Page, detail: Detail) -> Result<Option<TaskPage>, StoreError> {
    let (columns, join) = columns(detail);
    let shape = if detail.runs { pages::task_runs } else { pages::task_head };
    page(connection, job, wanted, (&columns, join), shape)
}

/// Like [`tasks`], with names and states only.
pub(super) fn names(connection: &Connection, job: &JobId, wanted: &Page) -> Result<Option<TaskPage<TaskName>>, StoreError> {
    page(connection, job, wanted, (NAMES, ""), task_name)
}

fn page<R>(
    connection: &Connection,
    job: &JobId,
    wanted: &Page,
    source: (&str, &str),
    shape: paging::Shape<R>,
) -> Result<Option<TaskPage<R>>, StoreError> {
    let Some(job) = pages::job(connection, job)? else { return Ok(None) };
    let number = job.uid.0.cast_signed();
    let mut reach = Reach::of(wanted);
    let mut stopped_at = if reach.is_all { None } else { stop(connection, &reach, number)? };
    if let Some(id) = &stopped_at {
        reach.to = Some((id.clone(), true));
    }
    let condition = page_condition(&reach, wanted, source, number);
    let rows = paging::rows(connection, condition, (wanted.rows_max, &wanted.left_out), shape)?;
    if rows.len() >= wanted.rows_max {
        stopped_at = None;
    }
    Ok(Some(TaskPage { job, rows, stopped_at }))
}

fn task_name(row: &Row<'_>) -> Result<TaskName, StoreError> {
    let cells = &Cells::new(row, "tasks");
    Ok(TaskName { id: cells.name("id")?, state: cells.code("state", tasks::state_of)? })
}

#[cfg(test)]
mod tests {
    use rusqlite::params_from_iter;

    use super::*;
    use crate::sqlite::open;

    /// How the database would read a page of tasks.
    fn plan(page: &Page, source: (&str, &str)) -> String {
        let folder = tempfile::tempdir().unwrap();
        let (connection, _lock) = open::writer(&folder.path().join("store.db")).unwrap();
        let condition = page_condition(&Reach::of(page), page, source, 1);
        let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {}", condition.sql)).unwrap();
        let steps = statement.query_map(params_from_iter(condition.values), |row| row.get::<_, String>(3)).unwrap();
        steps.collect::<Result<Vec<_>, _>>().unwrap().join("; ")
    }

    fn state(word: &str, operator: Operator) -> Filter {
        Filter::Compare(Field::State, operator, Value::Text(word.to_owned()))
    }

    fn id(operator: Operator, id: &str) -> Filter {
        Filter::Compare(Field::Id, operator, Value::Text(id.to_owned()))
    }

    fn failed() -> Filter {
        Filter::Compare(Field::HasSucceeded, Operator::Eq, Value::Number(0))
    }

    fn code() -> Filter {
        Filter::Compare(Field::ExitCode, Operator::Eq, Value::Number(1))
    }

    #[test]
    fn pages_of_tasks_are_read_in_order_and_never_sorted() {
        for (filter, index) in [
            (None, "tasks_1 (job=? AND id>?"),
            (Some(state("running", Operator::Eq)), "tasks_state (job=? AND state=? AND id>?"),
            (Some(state("completed", Operator::Ne)), "tasks_1 (job=? AND id>?"),
            (Some(Filter::And(vec![state("active", Operator::Eq), code()])), "tasks_state (job=? AND state=? AND id>?"),
            (Some(Filter::Or(vec![state("active", Operator::Eq), code()])), "tasks_1 (job=? AND id>?"),
            (Some(Filter::StartsWith(Field::Id, "a".to_owned())), "tasks_1 (job=? AND id>? AND id<?"),
            (Some(id(Operator::Eq, "x")), "tasks_1 (job=? AND id>? AND id<?"),
            (Some(failed()), "tasks_failed (job=? AND id>?"),
            (Some(Filter::And(vec![state("completed", Operator::Eq), failed()])), "tasks_failed (job=? AND id>?"),
        ] {
            let page = Page { after: Some("a".to_owned()), rows_max: 10, filter, ..Page::default() };
            let (columns, join) = columns(Detail::WHOLE);
            let plan = plan(&page, (&columns, join));
            assert!(plan.contains(index) && !plan.contains("TEMP"), "{page:?}: {plan}");
        }
    }

    #[test]
    fn names_and_states_come_from_the_index_alone() {
        let page = Page { rows_max: 10, filter: Some(state("completed", Operator::Eq)), ..Page::default() };
        let plan = plan(&page, (NAMES, ""));
        assert!(plan.contains("COVERING INDEX tasks_state"), "{plan}");
    }

    #[test]
    fn the_narrowest_range_of_ids_counts() {
        let reach = |after: Option<&str>, filter| {
            Reach::of(&Page { after: after.map(str::to_owned), rows_max: 10, filter: Some(filter), ..Page::default() })
        };
        let both = Filter::And(vec![id(Operator::Ge, "B"), Filter::And(vec![id(Operator::Lt, "x"), id(Operator::Le, "X")])]);
        let found = reach(Some("a"), both);
        assert_eq!((found.from, found.to, found.is_all), (Some(("B".into(), true)), Some(("x".into(), false)), true));
        let found = reach(Some("task-5"), Filter::StartsWith(Field::Id, "task".to_owned()));
        assert_eq!((found.from, found.is_all), (Some(("task-5".into(), false)), true));
        assert_eq!(reach(Some("b"), id(Operator::Ge, "B")).from, Some(("b".into(), false)));
        assert!(!reach(None, id(Operator::Ne, "b")).is_all);
        assert!(!reach(None, Filter::And(vec![state("active", Operator::Eq), code()])).is_all);
        assert!(!reach(None, Filter::And(vec![state("active", Operator::Eq), state("running", Operator::Eq)])).is_all);
        assert!(reach(None, Filter::And(vec![])).is_all);
    }
}
