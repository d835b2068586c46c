//! Functions over numbers and vectors.

use contract::time::Timestamp;

use super::{
    names::Function,
    value::{Value, ticks},
};

/// Applies a function that makes one number of many.
pub(super) fn of_many(function: Function, numbers: &[f64]) -> Result<f64, String> {
    let count = numbers.len() as f64;
    let least = || numbers.iter().copied().fold(f64::INFINITY, f64::min);
    let most = || numbers.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum = || numbers.iter().sum::<f64>();
    if numbers.is_empty() && !matches!(function, Function::Sum | Function::Len | Function::Norm) {
        return Err("The function has no values to work on; are there samples yet?".to_owned());
    }
    Ok(match function {
        Function::Avg => sum() / count,
        Function::Max => most(),
        Function::Min => least(),
        Function::Sum => sum(),
        Function::Range => most() - least(),
        Function::Std if numbers.len() == 1 => 0.0,
        Function::Std => {
            let mean = sum() / count;
            (numbers.iter().map(|number| (number - mean).powi(2)).sum::<f64>() / (count - 1.0)).sqrt()
        }
        Function::Norm => numbers.iter().map(|number| number * number).sum::<f64>().sqrt(),
        Function::Len => count,
        _ => return Err("The function takes other arguments.".to_owned()),
    })
}

/// The smallest value that at least `percent` of all values do not exceed (nearest rank).
pub(super) fn percentile(numbers: &[f64], percent: f64) -> Result<f64, String> {
    if !(0.0..=100.0).contains(&percent) {
        return Err("A percentile is from 0 to 100.".to_owned());
    }
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (percent / 100.0 * sorted.len() as f64).ceil().max(1.0) as usize;
    sorted.get(rank - 1).copied().ok_or_else(|| "The vector has no values.".to_owned())
}

/// Applies a function of one number, to each value of a vector.
pub(super) fn of_each(function: Function, value: Value) -> Result<Value, String> {
    let apply = |number: f64| match function {
        Function::Lg => number.log2(),
        Function::Ln => number.ln(),
        Function::Log => number.log10(),
        Function::Ceil => number.ceil(),
        Function::Floor => number.floor(),
        _ => number.round(),
    };
    match value {
        Value::Number(number) => Ok(Value::Number(apply(number))),
        Value::Vector(numbers) => Ok(Value::Vector(numbers.into_iter().map(apply).collect())),
        other => Err(format!("A double or a doubleVec is expected, not {}.", other.kind())),
    }
}

/// Parses a time in W3C-DTF or RFC 1123; without a zone it is UTC.
pub(super) fn time(text: &str) -> Result<Value, String> {
    let text = text.trim();
    let rfc1123 = || {
        let since = httpdate::parse_http_date(text).ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
        i64::try_from(since.as_millis()).ok().map(Timestamp)
    };
    let completed = || match text.len() {
        4 => Timestamp::parse(&format!("{text}-01-01T00:00:00Z")),
        7 => Timestamp::parse(&format!("{text}-01T00:00:00Z")),
        10 => Timestamp::parse(&format!("{text}T00:00:00Z")),
        _ => Timestamp::parse(&format!("{text}Z")),
    };
    let found = Timestamp::parse(text).or_else(completed).or_else(rfc1123);
    found.map(|at| Value::Time(ticks(at))).ok_or_else(|| format!("'{text}' is not a time such as 2026-11-23T19:00:00Z."))
}
