//! Which properties a list can be filtered by, and their columns; turns an OData tree into a store filter.

use broker_config::state::{AllocationState, JobState, NodeState, PoolState, ScheduleState, TaskState};

use crate::{
    http::odata::{self, Expression, Literal},
    refusal::Refusal,
    store::filter::{ChorePart, Field, Filter, Operator, Value},
};

/// What a property holds.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// Text that may be compared in every way.
    Text(Field),
    /// One of these words.
    Word(Field, fn(&str) -> bool),
    /// A time.
    Time(Field),
    /// A number.
    Number(Field),
    /// `success` or `failure`.
    Result(Field),
    /// Text that is the same or not.
    Label(Field),
    /// True or false.
    Flag(Field),
}

/// A list's properties.
pub type Properties = &'static [(&'static str, Kind)];

/// Pools.
pub const POOLS: Properties = &[
    ("id", Kind::Text(Field::Id)),
    ("state", Kind::Word(Field::State, |word| PoolState::parse(word).is_some())),
    ("stateTransitionTime", Kind::Time(Field::StateAt)),
    ("allocationState", Kind::Word(Field::Allocation, |word| AllocationState::parse(word).is_some())),
    ("allocationStateTransitionTime", Kind::Time(Field::AllocationAt)),
    ("creationTime", Kind::Time(Field::CreatedAt)),
    ("lastModified", Kind::Time(Field::ModifiedAt)),
    ("vmSize", Kind::Label(Field::VmSize)),
    ("enableInterNodeCommunication", Kind::Flag(Field::InterNode)),
    ("enableAutoScale", Kind::Flag(Field::Scales)),
];

/// Nodes.
pub const NODES: Properties = &[
    ("id", Kind::Text(Field::Id)),
    ("state", Kind::Word(Field::State, |word| NodeState::parse(word).is_some())),
    ("stateTransitionTime", Kind::Time(Field::StateAt)),
    ("lastBootTime", Kind::Time(Field::BootedAt)),
    ("allocationTime", Kind::Time(Field::AllocatedAt)),
    ("startTaskInfo/state", Kind::Word(Field::StartState, is_chore_state)),
    ("startTaskInfo/result", Kind::Result(Field::HasSucceeded)),
    ("startTaskInfo/exitCode", Kind::Number(Field::ExitCode)),
    ("startTaskInfo/startTime", Kind::Time(Field::StartedAt)),
    ("startTaskInfo/endTime", Kind::Time(Field::EndedAt)),
];

/// Jobs.
pub const JOBS: Properties = &[
    ("id", Kind::Text(Field::Id)),
    ("state", Kind::Word(Field::State, |word| JobState::parse(word).is_some())),
    ("stateTransitionTime", Kind::Time(Field::StateAt)),
    ("creationTime", Kind::Time(Field::CreatedAt)),
    ("lastModified", Kind::Time(Field::ModifiedAt)),
    ("executionInfo/startTime", Kind::Time(Field::CreatedAt)),
    ("executionInfo/endTime", Kind::Time(Field::EndedAt)),
    ("executionInfo/poolId", Kind::Text(Field::Pool)),
];

/// Jobs of a schedule: as jobs, without their names.
pub const JOBS_OF_SCHEDULE: Properties = JOBS.split_at(1).1;

/// Job schedules.
pub const SCHEDULES: Properties = &[
    ("id", Kind::Text(Field::Id)),
    ("state", Kind::Word(Field::State, |word| ScheduleState::parse(word).is_some())),
    ("stateTransitionTime", Kind::Time(Field::StateAt)),
    ("creationTime", Kind::Time(Field::CreatedAt)),
    ("lastModified", Kind::Time(Field::ModifiedAt)),
    ("executionInfo/endTime", Kind::Time(Field::EndedAt)),
    ("schedule/doNotRunUntil", Kind::Time(Field::NotUntil)),
    ("schedule/doNotRunAfter", Kind::Time(Field::NotAfter)),
];

/// Tasks.
pub const TASKS: Properties = &[
    ("id", Kind::Text(Field::Id)),
    ("state", Kind::Word(Field::State, |word| TaskState::parse(word).is_some())),
    ("stateTransitionTime", Kind::Time(Field::StateAt)),
    ("creationTime", Kind::Time(Field::CreatedAt)),
    ("lastModifiedTime", Kind::Time(Field::ModifiedAt)),
    ("lastModified", Kind::Time(Field::ModifiedAt)),
    ("executionInfo/startTime", Kind::Time(Field::StartedAt)),
    ("executionInfo/endTime", Kind::Time(Field::EndedAt)),
    ("executionInfo/exitCode", Kind::Number(Field::ExitCode)),
    ("executionInfo/result", Kind::Result(Field::HasSucceeded)),
];

/// Certificates, of which there are none.
pub const CERTIFICATES: Properties = &[
    ("state", Kind::Word(Field::State, |word| ["active", "deleting", "deletefailed"].iter().any(|known| known.eq_ignore_ascii_case(word)))),
    ("stateTransitionTime", Kind::Time(Field::StateAt)),
];

/// Preparation and release by node.
pub const CHORES: Properties = &[
    ("poolId", Kind::Label(Field::Pool)),
    ("nodeId", Kind::Label(Field::Id)),
    ("jobPreparationTaskExecutionInfo/state", Kind::Word(Field::Preparation(ChorePart::State), is_chore_state)),
    ("jobPreparationTaskExecutionInfo/startTime", Kind::Time(Field::Preparation(ChorePart::StartedAt))),
    ("jobPreparationTaskExecutionInfo/endTime", Kind::Time(Field::Preparation(ChorePart::EndedAt))),
    ("jobPreparationTaskExecutionInfo/exitCode", Kind::Number(Field::Preparation(ChorePart::ExitCode))),
    ("jobPreparationTaskExecutionInfo/result", Kind::Result(Field::Preparation(ChorePart::HasSucceeded))),
    ("jobReleaseTaskExecutionInfo/state", Kind::Word(Field::Release(ChorePart::State), is_chore_state)),
    ("jobReleaseTaskExecutionInfo/startTime", Kind::Time(Field::Release(ChorePart::StartedAt))),
    ("jobReleaseTaskExecutionInfo/endTime", Kind::Time(Field::Release(ChorePart::EndedAt))),
    ("jobReleaseTaskExecutionInfo/exitCode", Kind::Number(Field::Release(ChorePart::ExitCode))),
    ("jobReleaseTaskExecutionInfo/result", Kind::Result(Field::Release(ChorePart::HasSucceeded))),
];

fn is_chore_state(word: &str) -> bool {
    ["running", "completed"].iter().any(|known| known.eq_ignore_ascii_case(word))
}

/// Node counts.
pub const COUNTS: Properties = &[("poolId", Kind::Text(Field::Id))];

/// A filter for the store, or what it always is.
#[derive(Debug, Clone, PartialEq)]
pub enum Compiled {
    /// Every row passes, or none does.
    Constant(bool),
    /// The store decides.
    Store(Filter),
}

/// Reads and compiles a filter; without one every row passes.
pub fn compile(filter: Option<&str>, properties: Properties) -> Result<Compiled, Refusal> {
    let Some(text) = filter else { return Ok(Compiled::Constant(true)) };
    tree(&odata::parse(text)?, properties).map_err(|reason| {
        let known = properties.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        odata::refused(text, &reason).with("FilterableProperties", known)
    })
}

fn tree(expression: &Expression, properties: Properties) -> Result<Compiled, String> {
    match expression {
        Expression::And(parts) => joined(parts, properties, false, Filter::And),
        Expression::Or(parts) => joined(parts, properties, true, Filter::Or),
        Expression::StartsWith(path, text) => match kind(path, properties)? {
            Kind::Text(field) => Ok(Compiled::Store(Filter::StartsWith(field, text.clone()))),
            _ => Err(format!("{path} cannot be used with startswith.")),
        },
        Expression::Compare(path, operator, literal) => compare(path, *operator, literal, kind(path, properties)?),
    }
}

fn kind(path: &str, properties: Properties) -> Result<Kind, String> {
    let found = properties.iter().find(|(name, _)| *name == path);
    found.map(|(_, kind)| *kind).ok_or_else(|| format!("This list cannot be filtered by {path}."))
}

/// `absorbing` is the constant that decides the whole: true for or, false for and.
fn joined(parts: &[Expression], properties: Properties, absorbing: bool, join: fn(Vec<Filter>) -> Filter) -> Result<Compiled, String> {
    let mut kept = Vec::new();
    let mut is_decided = false;
    for part in parts {
        match tree(part, properties)? {
            Compiled::Constant(value) => is_decided |= value == absorbing,
            Compiled::Store(filter) => kept.push(filter),
        }
    }
    Ok(match kept.len() {
        _ if is_decided => Compiled::Constant(absorbing),
        0 => Compiled::Constant(!absorbing),
        1 => Compiled::Store(kept.remove(0)),
        _ => Compiled::Store(join(kept)),
    })
}

fn compare(path: &str, operator: Operator, literal: &Literal, kind: Kind) -> Result<Compiled, String> {
    let is_equality = matches!(operator, Operator::Eq | Operator::Ne);
    let only_equality = || if is_equality { Ok(()) } else { Err(format!("{path} can only be compared with eq and ne.")) };
    let store = |field, value| Ok(Compiled::Store(Filter::Compare(field, operator, value)));
    match (kind, literal) {
        (Kind::Text(field), Literal::Text(text)) => store(field, Value::Text(text.clone())),
        (Kind::Word(field, is_known), Literal::Text(text)) => {
            only_equality()?;
            if !is_known(text) {
                return Err(format!("'{text}' is not a value of {path}."));
            }
            store(field, Value::Text(text.to_ascii_lowercase()))
        }
        (Kind::Time(field), Literal::Time(time)) => store(field, Value::Number(time.0)),
        (Kind::Number(field), Literal::Number(number)) => store(field, Value::Number(*number)),
        (Kind::Result(field), Literal::Text(text)) => {
            only_equality()?;
            match text.to_ascii_lowercase().as_str() {
                "success" => store(field, Value::Number(1)),
                "failure" => store(field, Value::Number(0)),
                _ => Err(format!("'{text}' is not a value of {path}.")),
            }
        }
        (Kind::Label(field), Literal::Text(text)) => {
            only_equality()?;
            store(field, Value::Text(text.clone()))
        }
        (Kind::Flag(field), Literal::Flag(flag)) => {
            only_equality()?;
            store(field, Value::Number(i64::from(*flag)))
        }
        (Kind::Time(_), _) => Err(format!("{path} is compared with a time, such as DateTime'2026-11-23T19:00:00Z'.")),
        (Kind::Number(_), _) => Err(format!("{path} is compared with a number.")),
        (Kind::Flag(_), _) => Err(format!("{path} is compared with true or false.")),
        _ => Err(format!("{path} is compared with a text in single quotes.")),
    }
}

/// A filter on a text property of things that are no rows: names of files, fields of images.
pub fn holds(expression: &Expression, value_of: &dyn Fn(&str) -> Option<String>) -> Result<bool, String> {
    let value = |path: &str| value_of(path).ok_or_else(|| format!("This list cannot be filtered by {path}."));
    match expression {
        Expression::And(parts) => parts.iter().try_fold(true, |all, part| Ok(holds(part, value_of)? && all)),
        Expression::Or(parts) => parts.iter().try_fold(false, |any, part| Ok(holds(part, value_of)? || any)),
        Expression::StartsWith(path, text) => Ok(value(path)?.to_ascii_lowercase().starts_with(&text.to_ascii_lowercase())),
        Expression::Compare(path, operator @ (Operator::Eq | Operator::Ne), Literal::Text(text)) => {
            Ok(value(path)?.eq_ignore_ascii_case(text) == (*operator == Operator::Eq))
        }
        Expression::Compare(path, ..) => Err(format!("{path} can only be compared with eq and ne and a text in single quotes.")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_send_compiles() {
        for text in [
            "startswith(id,'x')",
            "id eq 'x'",
            "state eq 'Completed'",
            "executionInfo/exitCode eq 9",
            "executionInfo/result eq 'failure' and creationTime gt DateTime'2026-01-01T00:00:00Z'",
        ] {
            compile(Some(text), TASKS).unwrap_or_else(|refusal| panic!("{text}: {refusal:?}"));
        }
        assert_eq!(
            compile(Some("state eq 'COMPLETED'"), TASKS).unwrap(),
            Compiled::Store(Filter::Compare(Field::State, Operator::Eq, Value::Text("completed".into())))
        );
    }

    #[test]
    fn unknown_properties_values_and_operators_are_refused() {
        for text in [
            "Id eq 'x'",
            "commandLine eq 'x'",
            "state eq 'done'",
            "state gt 'active'",
            "executionInfo/exitCode eq '9'",
            "creationTime gt '2026'",
            "startswith(state,'a')",
            "id eq 5",
        ] {
            assert!(compile(Some(text), TASKS).is_err(), "{text}");
        }
    }
}
