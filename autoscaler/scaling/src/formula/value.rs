//! Values and their operators, exactly those of Azure's table; every other combination is an error.

use contract::time::Timestamp;

use super::{
    names::{Member, Metric, TICKS_PER_MS},
    parser::Operator,
};

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Number(f64),
    Vector(Vec<f64>),
    Text(String),
    /// Ticks of 100 ns since 1970.
    Time(i64),
    /// Ticks of 100 ns.
    Interval(i64),
    /// The samples of a metric; where a number is wanted, the latest one.
    Metric(Metric),
}

/// Converts a timestamp to ticks.
pub(super) fn ticks(at: Timestamp) -> i64 {
    at.0.saturating_mul(TICKS_PER_MS)
}

/// Converts ticks to a timestamp in whole milliseconds.
pub(super) fn timestamp(ticks: i64) -> Timestamp {
    Timestamp(ticks.div_euclid(TICKS_PER_MS))
}

impl Value {
    /// Name of the type, for error texts.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Value::Number(_) => "a double",
            Value::Vector(_) => "a doubleVec",
            Value::Text(_) => "a string",
            Value::Time(_) => "a timestamp",
            Value::Interval(_) => "a timeinterval",
            Value::Metric(_) => "a sample variable",
        }
    }

    pub(super) fn flag(flag: bool) -> Value {
        Value::Number(f64::from(u8::from(flag)))
    }
}

fn arithmetic(operator: Operator, left: f64, right: f64) -> Option<f64> {
    match operator {
        Operator::Plus => Some(left + right),
        Operator::Minus => Some(left - right),
        Operator::Times => Some(left * right),
        Operator::Over => Some(left / right),
        _ => None,
    }
}

fn scaled(ticks: i64, operator: Operator, by: f64) -> Result<Value, String> {
    let product = if operator == Operator::Times { ticks as f64 * by } else { ticks as f64 / by };
    if product.is_finite() { Ok(Value::Interval(product.round() as i64)) } else { Err("The interval is not finite.".to_owned()) }
}

fn compared<T: PartialOrd>(operator: Operator, left: &T, right: &T) -> Option<Value> {
    let holds = match operator {
        Operator::Less => left < right,
        Operator::LessOrEqual => left <= right,
        Operator::Equal => left == right,
        Operator::MoreOrEqual => left >= right,
        Operator::More => left > right,
        Operator::Different => left != right,
        _ => return None,
    };
    Some(Value::flag(holds))
}

fn sign(operator: Operator) -> &'static str {
    match operator {
        Operator::Or => "||",
        Operator::And => "&&",
        Operator::Equal => "==",
        Operator::Different => "!=",
        Operator::Less => "<",
        Operator::LessOrEqual => "<=",
        Operator::More => ">",
        Operator::MoreOrEqual => ">=",
        Operator::Plus => "+",
        Operator::Minus => "-",
        Operator::Times => "*",
        Operator::Over => "/",
    }
}

/// Applies an operator to two values. `&&` and `||` are evaluated by the caller, and metrics are numbers already.
pub(super) fn binary(operator: Operator, left: Value, right: Value) -> Result<Value, String> {
    use Operator::{Minus, Over, Plus, Times};
    use Value::{Interval, Number, Text, Time, Vector};
    let (left_kind, right_kind) = (left.kind(), right.kind());
    let wrong = || format!("'{}' cannot be applied to {left_kind} and {right_kind}.", sign(operator));
    let found = match (left, right) {
        (Number(a), Number(b)) => arithmetic(operator, a, b).map(Number).or_else(|| compared(operator, &a, &b)),
        (Number(by), Interval(ticks)) if operator == Times => return scaled(ticks, operator, by),
        (Interval(ticks), Number(by)) if matches!(operator, Times | Over) => return scaled(ticks, operator, by),
        (Vector(items), Number(b)) => items.into_iter().map(|a| arithmetic(operator, a, b)).collect::<Option<_>>().map(Vector),
        (Vector(a), Vector(b)) if a.len() == b.len() => {
            a.into_iter().zip(b).map(|(a, b)| arithmetic(operator, a, b)).collect::<Option<_>>().map(Vector)
        }
        (Vector(a), Vector(b)) => return Err(format!("The vectors have {} and {} values.", a.len(), b.len())),
        (Interval(a), Interval(b)) => match operator {
            Plus => Some(Interval(a.saturating_add(b))),
            Minus => Some(Interval(a.saturating_sub(b))),
            _ => compared(operator, &a, &b),
        },
        (Interval(a), Time(b)) | (Time(b), Interval(a)) if operator == Plus => Some(Time(b.saturating_add(a))),
        (Time(a), Time(b)) if operator == Minus => Some(Interval(a.saturating_sub(b))),
        (Time(a), Time(b)) => compared(operator, &a, &b),
        (Text(a), Text(b)) => compared(operator, &a, &b),
        _ => None,
    };
    found.ok_or_else(wrong)
}

/// Applies the sign `-`.
pub(super) fn negated(value: Value) -> Result<Value, String> {
    match value {
        Value::Number(number) => Ok(Value::Number(-number)),
        Value::Interval(ticks) => Ok(Value::Interval(ticks.saturating_neg())),
        other => Err(format!("'-' cannot be applied to {}.", other.kind())),
    }
}

/// A part of a timestamp, in UTC.
pub(super) fn member(value: &Value, member: Member) -> Result<Value, String> {
    let Value::Time(ticks) = value else { return Err(format!("Only a timestamp has such a member, not {}.", value.kind())) };
    let at = timestamp(*ticks);
    if member == Member::Weekday {
        // 1970-01-01 was a Thursday, and Monday is 1.
        let days = at.0.div_euclid(86_400_000);
        return Ok(Value::Number(((days + 3).rem_euclid(7) + 1) as f64));
    }
    let text = at.iso();
    let part = match member {
        Member::Year => text.get(..text.len().saturating_sub(20)),
        Member::Month => part(&text, 19, 2),
        Member::Day => part(&text, 16, 2),
        Member::Hour => part(&text, 13, 2),
        Member::Minute => part(&text, 10, 2),
        Member::Second => part(&text, 7, 2),
        Member::Weekday => None,
    };
    part.and_then(|digits| digits.parse().ok()).map(Value::Number).ok_or_else(|| "The timestamp is out of range.".to_owned())
}

/// `length` characters, `from_end` before the end of `…-MM-DDTHH:MM:SS.mmmZ`.
fn part(text: &str, from_end: usize, length: usize) -> Option<&str> {
    let start = text.len().checked_sub(from_end)?;
    text.get(start..start + length)
}
