//! The results of an evaluation as one text, as Azure shows them.

use std::fmt::Write;

use contract::{period::Period, state::DeallocationOption};

use super::{
    names::TICKS_PER_MS,
    samples::History,
    value::{Value, timestamp},
};

/// Values of one vector that are shown at most.
const SHOWN_MAX: usize = 100;
/// Bytes of the whole text at most.
const BYTES_MAX: usize = 32 * 1024;

fn number(number: f64) -> String {
    let size = number.abs();
    if number.is_finite() && number != 0.0 && !(1e-5..1e15).contains(&size) { format!("{number:E}") } else { format!("{number}") }
}

fn value(value: &Value, history: &History) -> String {
    match value {
        Value::Number(value) => number(*value),
        Value::Vector(values) => {
            let shown: Vec<String> = values.iter().take(SHOWN_MAX).map(|value| number(*value)).collect();
            format!("[{}{}]", shown.join(","), if values.len() > SHOWN_MAX { ",..." } else { "" })
        }
        Value::Text(text) => text.clone(),
        Value::Time(ticks) => timestamp(*ticks).iso(),
        Value::Interval(ticks) => {
            let sign = if *ticks < 0 { "-" } else { "" };
            format!("{sign}{}", Period::from_ms(ticks.unsigned_abs() / TICKS_PER_MS.unsigned_abs()))
        }
        Value::Metric(metric) => history.latest(*metric).map_or_else(String::new, number),
    }
}

/// Targets and option, then the formula's own variables in order of their names.
pub(super) fn results(
    (dedicated, low_priority, option): (u32, u32, DeallocationOption),
    names: &[String],
    values: &[Option<Value>],
    history: &History,
) -> String {
    let mut text = format!("$TargetDedicatedNodes={dedicated};$TargetLowPriorityNodes={low_priority};$NodeDeallocationOption={option}");
    let mut own: Vec<(&String, &Value)> = names.iter().zip(values).filter_map(|(name, value)| Some((name, value.as_ref()?))).collect();
    own.sort_by_key(|(name, _)| *name);
    for (name, found) in own {
        let shown = value(found, history);
        if text.len() + name.len() + shown.len() > BYTES_MAX {
            text.push_str(";...");
            break;
        }
        // Writing into a `String` cannot fail.
        let _ = write!(text, ";{name}={shown}");
    }
    text
}
