//! Automatic scaling of pools: enable, disable, evaluate.

use serde::Serialize;

use crate::{
    command::{Command, Done},
    http::{
        answer::{Answer, Fields, Iso},
        call::Call,
        entrance::Door,
        pools::{NameValue, details},
        scaling_body,
        validate::Object,
    },
    refusal::{Code, Refusal},
    store::scaling::ScaleRun,
};

#[derive(Serialize)]
struct ShownFault<'a> {
    code: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    values: Vec<NameValue<'a>>,
}

/// An evaluation as people see it.
#[derive(Serialize)]
pub struct ShownRun<'a> {
    timestamp: Iso,
    results: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ShownFault<'a>>,
}

/// Shapes an evaluation.
pub fn shown(run: &ScaleRun) -> ShownRun<'_> {
    let fault = run.fault.as_ref();
    let error = fault.map(|fault| ShownFault { code: &fault.code, message: &fault.message, values: details(&fault.details) });
    ShownRun { timestamp: Iso(run.at), results: &run.results, error }
}

/// Lets a formula decide, or changes it.
pub async fn enable(door: &Door, call: &Call) -> Result<Answer, Refusal> {
    let pool = call.pool()?;
    let (formula, interval) = scaling_body::enable(&Object::root(&call.optional_json()?))?;
    let url = format!("{}/pools/{pool}", call.base);
    let command = Command::EnableScaling { pool, formula, interval, condition: call.condition.clone() };
    let (version, at) = door.change(command).await?;
    Ok(Answer::empty(200).changed(version, at).about(&url))
}

/// Keeps the size as it is.
pub async fn disable(door: &Door, call: &Call) -> Result<Answer, Refusal> {
    let pool = call.pool()?;
    let url = format!("{}/pools/{pool}", call.base);
    let (version, at) = door.change(Command::DisableScaling(pool)).await?;
    Ok(Answer::empty(200).changed(version, at).about(&url))
}

/// Works a formula out without changing anything.
pub async fn evaluate(door: &Door, call: &Call) -> Result<Answer, Refusal> {
    let pool = call.pool()?;
    let body = call.json()?;
    let body = Object::root(&body);
    let formula = scaling_body::formula(&body)?.ok_or_else(|| body.missing("autoScaleFormula"))?;
    let Done::Scaled(run) = door.engine.call(Command::EvaluateScaling(pool, Box::new(formula))).await? else {
        return Err(Refusal::new(Code::InternalError, "The engine answered another question."));
    };
    let kind = format!("{}/$metadata#Microsoft.Azure.Batch.Protocol.Entities.AutoScaleRun", call.base);
    let run = shown(&run);
    let fields = Fields::new(None).always("odata.metadata", &kind).add("timestamp", &run.timestamp).add("results", run.results);
    Ok(Answer::json(fields.add_some("error", run.error.as_ref()).finish()))
}
