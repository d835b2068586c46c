//! Reads formulas and evaluation intervals, in new pools and in the three autoscale operations.

use contract::period::Period;
use model::refusal::{Code, Refusal};
use scaling::formula::{CHARS_MAX, Formula};

use crate::body::Object;

/// Time between evaluations when the request gives none.
const INTERVAL_DEFAULT: Period = Period::from_secs(15 * 60);

fn settings(reason: &str) -> Refusal {
    Refusal::new(Code::InvalidAutoScalingSettings, "The specified automatic scaling settings are not valid.").with("Reason", reason)
}

/// A formula that could be parsed.
pub fn formula(body: &Object<'_>) -> Result<Option<Formula>, Refusal> {
    let Some(text) = body.text("autoScaleFormula") else { return Ok(None) };
    if text.chars().count() > CHARS_MAX {
        return Err(Refusal::new(Code::AutoScaleFormulaTooLong, "The specified autoscale formula is too long.").with("MaxLimit", CHARS_MAX));
    }
    Formula::parse(text).map(Some).map_err(|error| {
        Refusal::new(Code::AutoScalingFormulaSyntaxError, "The specified autoscale formula has a syntax error.")
            .with("Message", error)
            .hint("An example: $TargetDedicatedNodes = min(10, $PendingTasks);")
    })
}

fn interval(body: &Object<'_>) -> Option<Period> {
    body.period("autoScaleEvaluationInterval")
}

/// Autoscaling of a new pool; `None` when its size is set by hand.
pub fn new(body: &Object<'_>) -> Result<Option<(String, Period)>, Refusal> {
    let is_scaled = body.flag("enableAutoScale").unwrap_or(false);
    let (formula, interval) = (formula(body)?, interval(body));
    match (is_scaled, formula) {
        (true, Some(formula)) => Ok(Some((formula.text().to_owned(), interval.unwrap_or(INTERVAL_DEFAULT)))),
        (true, None) => Err(settings("enableAutoScale needs an autoScaleFormula.")),
        (false, None) if interval.is_none() => Ok(None),
        (false, _) => Err(settings("A formula and its interval need enableAutoScale.")),
    }
}

/// The formula and interval of an enable request.
pub fn enable(body: &Object<'_>) -> Result<(Option<String>, Option<Period>), Refusal> {
    let (formula, interval) = (formula(body)?, interval(body));
    Ok((formula.map(|formula| formula.text().to_owned()), interval))
}
