//! The result of a formula's evaluation, as pools and `evaluateautoscale` show it.

use model::auto_scale::ScaleRun;
use serde::Serialize;

use crate::answer::{Iso, NameValue, details};

/// Why an evaluation failed.
#[derive(Serialize)]
pub struct ShownFault<'a> {
    code: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    values: Vec<NameValue<'a>>,
}

/// `autoScaleRun`, the last evaluation of a formula.
#[derive(Serialize)]
pub struct ShownRun<'a> {
    pub timestamp: Iso,
    pub results: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<ShownFault<'a>>,
}

/// The API's form of an evaluation.
pub fn shown(run: &ScaleRun) -> ShownRun<'_> {
    let fault = run.fault.as_ref();
    let error = fault.map(|fault| ShownFault { code: &fault.code, message: &fault.message, values: details(&fault.details) });
    ShownRun { timestamp: Iso(run.at), results: &run.results, error }
}
