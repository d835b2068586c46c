//! Builds SQL conditions from filters: columns come from a fixed list, and values are always bound.
//!
//! A field that the list does not have, and a value of the wrong type, count as missing: they pass `Ne` only.

use contract::state::TaskState;
use rusqlite::types::Value as Bound;

use crate::{
    filter::{Field, Filter, JobTaskPart, Operator, Value},
    sqlite::tasks,
};

/// The list that is filtered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum List {
    Pools,
    Nodes,
    Jobs,
    Schedules,
    Applications,
    Functions,
    Triggers,
    Tasks,
    Usage,
    JobsOnNodes,
}

/// How a field is stored.
enum Column {
    Text(&'static str),
    Number(&'static str),
    TaskState,
    Missing,
}

fn column(list: List, field: Field) -> Column {
    use Column::{Missing, Number, Text};
    match (list, field) {
        (List::Tasks, Field::State) => Column::TaskState,
        (List::JobsOnNodes, Field::Id) => Text("node"),
        (List::JobsOnNodes, Field::Pool) => Text("pool"),
        (List::JobsOnNodes, Field::Preparation(part)) => part_of(part, "preparation"),
        (List::JobsOnNodes, Field::Release(part)) => part_of(part, "release"),
        (List::JobsOnNodes, _) => Missing,
        (List::Usage, Field::Id) => Text("pool"),
        (List::Usage, _) => Missing,
        // The plus keeps the planner from using this condition for the index; the page's own range of ids is better.
        (List::Tasks, Field::Id) => Text("+id"),
        (_, Field::Id) => Text("id"),
        (_, Field::State) => Text("state"),
        (_, Field::StateAt) => Number("state_at"),
        (List::Pools | List::Jobs | List::Schedules | List::Tasks, Field::CreatedAt) => Number("created_at"),
        (List::Pools | List::Jobs | List::Schedules | List::Tasks, Field::ModifiedAt) => Number("modified_at"),
        (List::Pools, Field::Allocation) => Text("allocation"),
        (List::Pools, Field::AllocationAt) => Number("allocation_at"),
        (List::Nodes, Field::AllocatedAt) => Number("allocated_at"),
        (List::Nodes, Field::BootedAt) => Number("booted_at"),
        (List::Jobs, Field::Pool) => Text("pool"),
        (List::Pools, Field::VmSize) => Text("json_extract(CASE WHEN json_valid(document) THEN document END, '$.vmSize')"),
        (List::Pools, Field::Scales) => Number("(scaling IS NOT NULL)"),
        (List::Pools, Field::InterNode) => {
            Number("json_extract(CASE WHEN json_valid(document) THEN document END, '$.enableInterNodeCommunication')")
        }
        (List::Nodes, Field::StartState) => {
            Text("(CASE WHEN start_task IS NOT NULL THEN 'completed' WHEN booted_with IS NOT NULL THEN 'running' END)")
        }
        (List::Nodes, Field::StartedAt) => Number(
            "COALESCE(json_extract(CASE WHEN json_valid(start_task) THEN start_task END, '$.started_at'), CASE WHEN booted_with IS NOT NULL THEN booted_at END)",
        ),
        (List::Nodes, Field::EndedAt) => Number("json_extract(CASE WHEN json_valid(start_task) THEN start_task END, '$.ended_at')"),
        (List::Nodes, Field::ExitCode) => Number("json_extract(CASE WHEN json_valid(start_task) THEN start_task END, '$.outcome.code')"),
        (List::Nodes, Field::HasSucceeded) => Number(
            "(CASE WHEN start_task IS NOT NULL THEN \
             json_extract(CASE WHEN json_valid(start_task) THEN start_task END, '$.outcome.kind') = 'exit' AND json_extract(CASE WHEN json_valid(start_task) THEN start_task END, '$.outcome.code') = 0 END)",
        ),
        (List::Tasks, Field::StartedAt) => Number("started_at"),
        (List::Schedules, Field::NotUntil) => Number("not_until"),
        (List::Schedules, Field::NotAfter) => Number("not_after"),
        (List::Jobs | List::Schedules | List::Tasks, Field::EndedAt) => Number("ended_at"),
        (List::Tasks, Field::ExitCode) => Number("exit_code"),
        (List::Tasks, Field::HasSucceeded) => Number("success"),
        _ => Missing,
    }
}

/// The column expression for a part of a preparation or release.
fn part_of(part: JobTaskPart, job_task: &'static str) -> Column {
    use Column::{Number, Text};
    match (part, job_task) {
        (JobTaskPart::State, "preparation") => {
            Text("(CASE WHEN preparation IS NOT NULL THEN 'completed' WHEN preparation_at IS NOT NULL THEN 'running' END)")
        }
        (JobTaskPart::State, _) => Text("(CASE WHEN release IS NOT NULL THEN 'completed' WHEN release_at IS NOT NULL THEN 'running' END)"),
        (JobTaskPart::StartedAt, "preparation") => Number("preparation_at"),
        (JobTaskPart::StartedAt, _) => Number("release_at"),
        (JobTaskPart::EndedAt, "preparation") => {
            Number("json_extract(CASE WHEN json_valid(preparation) THEN preparation END, '$.ended_at')")
        }
        (JobTaskPart::EndedAt, _) => Number("json_extract(CASE WHEN json_valid(release) THEN release END, '$.ended_at')"),
        (JobTaskPart::ExitCode, "preparation") => {
            Number("json_extract(CASE WHEN json_valid(preparation) THEN preparation END, '$.outcome.code')")
        }
        (JobTaskPart::ExitCode, _) => Number("json_extract(CASE WHEN json_valid(release) THEN release END, '$.outcome.code')"),
        (JobTaskPart::HasSucceeded, "preparation") => Number(
            "(CASE WHEN preparation IS NOT NULL THEN \
             json_extract(CASE WHEN json_valid(preparation) THEN preparation END, '$.outcome.kind') = 'exit' AND json_extract(CASE WHEN json_valid(preparation) THEN preparation END, '$.outcome.code') = 0 END)",
        ),
        (JobTaskPart::HasSucceeded, _) => Number(
            "(CASE WHEN release IS NOT NULL THEN \
             json_extract(CASE WHEN json_valid(release) THEN release END, '$.outcome.kind') = 'exit' AND json_extract(CASE WHEN json_valid(release) THEN release END, '$.outcome.code') = 0 END)",
        ),
    }
}

/// A condition under construction: SQL text with anonymous parameters, and their values.
#[derive(Debug, Default)]
pub(super) struct Condition {
    /// SQL text; contains no text of a request.
    pub(super) sql: String,
    /// Values of the `?`, in their order.
    pub(super) values: Vec<Bound>,
}

impl Condition {
    /// Appends fixed text with the values of its parameters.
    pub(super) fn push<const N: usize>(&mut self, sql: &str, values: [Bound; N]) {
        self.sql.push_str(sql);
        self.values.extend(values);
    }

    /// Appends a filter in parentheses.
    pub(super) fn filter(&mut self, list: List, filter: &Filter) {
        match filter {
            Filter::And(parts) => self.join(list, parts, " AND ", "1"),
            Filter::Or(parts) => {
                // The plus keeps the planner on the list's own order; otherwise it would collect and sort all matching
                // rows.
                self.sql.push('+');
                self.join(list, parts, " OR ", "0");
            }
            Filter::Compare(field, operator, value) => self.compare(column(list, *field), *operator, value),
            Filter::StartsWith(field, prefix) => self.starts_with(column(list, *field), prefix),
        }
    }

    fn join(&mut self, list: List, parts: &[Filter], word: &str, nothing: &str) {
        self.sql.push('(');
        for (index, part) in parts.iter().enumerate() {
            self.sql.push_str(if index == 0 { "" } else { word });
            self.filter(list, part);
        }
        self.sql.push_str(if parts.is_empty() { nothing } else { "" });
        self.sql.push(')');
    }

    fn compare(&mut self, column: Column, operator: Operator, value: &Value) {
        match (column, value) {
            (Column::Text(name), Value::Text(text)) => {
                self.push(&format!("({name} COLLATE NOCASE {} ?)", symbol(operator)), [text.clone().into()]);
            }
            (Column::Number(name), Value::Number(number)) => {
                self.push(&format!("({name} {} ?)", symbol(operator)), [(*number).into()]);
            }
            (Column::TaskState, Value::Text(text)) => {
                let text = text.to_ascii_lowercase();
                self.task_states(|state| holds(operator, state.as_str(), &text));
            }
            _ => self.sql.push_str(if operator == Operator::Ne { "1" } else { "0" }),
        }
    }

    fn starts_with(&mut self, column: Column, prefix: &str) {
        match column {
            Column::Text(name) => {
                // Counted here, because SQLite's length() stops at a NUL character.
                let length = prefix.chars().count().cast_signed() as i64;
                let sql = format!("({name} >= ? COLLATE NOCASE AND substr({name}, 1, ?) = ? COLLATE NOCASE)");
                self.push(&sql, [prefix.to_owned().into(), length.into(), prefix.to_owned().into()]);
            }
            Column::TaskState => {
                let prefix = prefix.to_ascii_lowercase();
                self.task_states(|state| state.as_str().starts_with(&prefix));
            }
            Column::Number(_) | Column::Missing => self.sql.push('0'),
        }
    }

    /// Appends the condition on a task's state, which is stored as a number.
    fn task_states(&mut self, passes: impl Fn(TaskState) -> bool) {
        let codes: Vec<Bound> =
            TaskState::ALL.iter().copied().filter(|state| passes(*state)).map(|state| tasks::code(state).into()).collect();
        match codes.len() {
            // A single state has an index in the list's order; rows of several states would have to be sorted.
            1 => self.sql.push_str("(state = ?)"),
            many => self.sql.push_str(&format!("(+state IN ({}))", vec!["?"; many].join(", "))),
        }
        self.values.extend(codes);
    }
}

fn symbol(operator: Operator) -> &'static str {
    match operator {
        Operator::Eq => "=",
        Operator::Ne => "IS NOT",
        Operator::Gt => ">",
        Operator::Ge => ">=",
        Operator::Lt => "<",
        Operator::Le => "<=",
    }
}

fn holds(operator: Operator, left: &str, right: &str) -> bool {
    match operator {
        Operator::Eq => left == right,
        Operator::Ne => left != right,
        Operator::Gt => left > right,
        Operator::Ge => left >= right,
        Operator::Lt => left < right,
        Operator::Le => left <= right,
    }
}
