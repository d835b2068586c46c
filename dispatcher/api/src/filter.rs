//! Compiles OData filters of lists to store filters, by the columns that the schema names.

use model::refusal::Refusal;
use store::filter::{Field, Filter, JobTaskPart, Operator, Value};

use crate::{
    call::Call,
    odata::{self, Expression, Literal},
    schema::{self, Kind, Property},
};

/// The type of a property, and its column.
#[derive(Debug, Clone, Copy)]
enum Column {
    /// Text with all comparisons.
    Text(Field),
    /// One of these words.
    Word(Field, &'static [&'static str]),
    Time(Field),
    Number(Field),
    /// `success` or `failure`.
    Result(Field),
    /// Text that can only be compared for equality.
    Label(Field),
    Flag(Field),
}

/// The column named in the schema.
fn field(name: &str) -> Field {
    let part = |name: &str| match name {
        "State" => JobTaskPart::State,
        "StartedAt" => JobTaskPart::StartedAt,
        "EndedAt" => JobTaskPart::EndedAt,
        "ExitCode" => JobTaskPart::ExitCode,
        "HasSucceeded" => JobTaskPart::HasSucceeded,
        other => panic!("the schema names the column {other}"),
    };
    match name.split_once('.') {
        Some(("Preparation", name)) => return Field::Preparation(part(name)),
        Some(("Release", name)) => return Field::Release(part(name)),
        _ => {}
    }
    const FIELDS: [(&str, Field); 20] = [
        ("Id", Field::Id),
        ("State", Field::State),
        ("StateAt", Field::StateAt),
        ("CreatedAt", Field::CreatedAt),
        ("ModifiedAt", Field::ModifiedAt),
        ("StartedAt", Field::StartedAt),
        ("EndedAt", Field::EndedAt),
        ("ExitCode", Field::ExitCode),
        ("HasSucceeded", Field::HasSucceeded),
        ("Allocation", Field::Allocation),
        ("AllocationAt", Field::AllocationAt),
        ("BootedAt", Field::BootedAt),
        ("AllocatedAt", Field::AllocatedAt),
        ("Pool", Field::Pool),
        ("VmSize", Field::VmSize),
        ("InterNode", Field::InterNode),
        ("Scales", Field::Scales),
        ("NotUntil", Field::NotUntil),
        ("NotAfter", Field::NotAfter),
        ("StartState", Field::StartState),
    ];
    let known = FIELDS.iter().find(|(known, _)| *known == name);
    known.unwrap_or_else(|| panic!("the schema names the column {name}")).1
}

impl Column {
    /// The type and column of a property with this entry.
    fn of(property: &'static Property, column: &str) -> Column {
        let field = field(column);
        match &property.kind {
            Kind::Word(words) if words[..] == ["success", "failure"] => Column::Result(field),
            Kind::Word(words) => Column::Word(field, words),
            Kind::Time => Column::Time(field),
            Kind::Int { .. } => Column::Number(field),
            Kind::Flag => Column::Flag(field),
            // Compared as text, because schedules create job names that clients cannot choose.
            _ if property.kind == Kind::Id || property.name == "id" => Column::Text(field),
            _ => Column::Label(field),
        }
    }
}

/// Properties of a list that can be filtered by, and their columns.
type Columns = Vec<(&'static str, Column)>;

fn columns(shape: &str, is_left_out: impl Fn(&str) -> bool) -> Columns {
    let paths = schema::shape(shape).paths().iter();
    let found = paths.filter_map(|path| Some((path.path.as_str(), Column::of(path.property, path.property.filter?))));
    found.filter(|(path, _)| !is_left_out(path)).collect()
}

/// A compiled filter.
#[derive(Debug, Clone, PartialEq)]
pub enum Compiled {
    /// The filter is constant: every row passes, or none does.
    Constant(bool),
    /// The store decides.
    Store(Filter),
}

/// Compiles the filter of a request for a list of this shape; without one every row passes.
pub fn compile(call: &Call, shape: &str) -> Result<Compiled, Refusal> {
    compiled(call.query.text("$filter")?, shape, |_| false)
}

/// Like [`compile`], without the id.
pub fn compile_without_id(call: &Call, shape: &str) -> Result<Compiled, Refusal> {
    compiled(call.query.text("$filter")?, shape, |path| path == "id")
}

fn compiled(filter: Option<&str>, shape: &str, is_left_out: impl Fn(&str) -> bool) -> Result<Compiled, Refusal> {
    let Some(text) = filter else { return Ok(Compiled::Constant(true)) };
    let properties = &columns(shape, is_left_out);
    tree(&odata::parse(text)?, properties).map_err(|reason| {
        let known = properties.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        odata::refused(text, &reason).with("FilterableProperties", known)
    })
}

fn tree(expression: &Expression, properties: &Columns) -> Result<Compiled, String> {
    match expression {
        Expression::And(parts) => joined(parts, properties, false, Filter::And),
        Expression::Or(parts) => joined(parts, properties, true, Filter::Or),
        Expression::StartsWith(path, text) => match kind(path, properties)? {
            Column::Text(field) => Ok(Compiled::Store(Filter::StartsWith(field, text.clone()))),
            _ => Err(format!("{path} cannot be used with startswith.")),
        },
        Expression::Compare(path, operator, literal) => compare(path, *operator, literal, kind(path, properties)?),
    }
}

fn kind(path: &str, properties: &Columns) -> Result<Column, String> {
    let found = properties.iter().find(|(name, _)| *name == path);
    found.map(|(_, kind)| *kind).ok_or_else(|| format!("This list cannot be filtered by {path}."))
}

/// `absorbing` is the constant that decides the result: true for `or`, false for `and`.
fn joined(parts: &[Expression], properties: &Columns, absorbing: bool, join: fn(Vec<Filter>) -> Filter) -> Result<Compiled, String> {
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

fn compare(path: &str, operator: Operator, literal: &Literal, kind: Column) -> Result<Compiled, String> {
    let is_equality = matches!(operator, Operator::Eq | Operator::Ne);
    let only_equality = || if is_equality { Ok(()) } else { Err(format!("{path} can only be compared with eq and ne.")) };
    let store = |field, value| Ok(Compiled::Store(Filter::Compare(field, operator, value)));
    match (kind, literal) {
        (Column::Text(field), Literal::Text(text)) => store(field, Value::Text(text.clone())),
        (Column::Word(field, words), Literal::Text(text)) => {
            only_equality()?;
            if !words.iter().any(|word| word.eq_ignore_ascii_case(text)) {
                return Err(format!("'{text}' is not a value of {path}."));
            }
            store(field, Value::Text(text.to_ascii_lowercase()))
        }
        (Column::Time(field), Literal::Time(time)) => store(field, Value::Number(time.0)),
        (Column::Number(field), Literal::Number(number)) => store(field, Value::Number(*number)),
        (Column::Result(field), Literal::Text(text)) => {
            only_equality()?;
            match text.to_ascii_lowercase().as_str() {
                "success" => store(field, Value::Number(1)),
                "failure" => store(field, Value::Number(0)),
                _ => Err(format!("'{text}' is not a value of {path}.")),
            }
        }
        (Column::Label(field), Literal::Text(text)) => {
            only_equality()?;
            store(field, Value::Text(text.clone()))
        }
        (Column::Flag(field), Literal::Flag(flag)) => {
            only_equality()?;
            store(field, Value::Number(i64::from(*flag)))
        }
        (Column::Time(_), _) => Err(format!("{path} is compared with a time, such as DateTime'2026-11-23T19:00:00Z'.")),
        (Column::Number(_), _) => Err(format!("{path} is compared with a number.")),
        (Column::Flag(_), _) => Err(format!("{path} is compared with true or false.")),
        _ => Err(format!("{path} is compared with a text in single quotes.")),
    }
}

/// Evaluates a filter on something that is not a row: files, images.
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
            compiled(Some(text), "CloudTask", |_| false).unwrap_or_else(|refusal| panic!("{text}: {refusal:?}"));
        }
        assert_eq!(
            compiled(Some("state eq 'COMPLETED'"), "CloudTask", |_| false).unwrap(),
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
            assert!(compiled(Some(text), "CloudTask", |_| false).is_err(), "{text}");
        }
    }
}
