//! Automatic scaling of pools: enable, disable, evaluate.

use engine::command::{Command, Done};
use model::refusal::{Code, Refusal};

use crate::{
    answer::{Answer, Fields},
    call::Call,
    pools::{scale_run::shown, scaling_body},
    state::ApiState,
};

/// Enables autoscaling, or changes its formula or interval.
pub async fn enable(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let pool = call.pool()?;
    let (formula, interval) = scaling_body::enable(&call.optional_json()?.root())?;
    let url = super::url(&call.base, &pool);
    let command = Command::EnableScaling { pool, formula, interval, condition: call.condition.clone() };
    let (version, at) = api.change(command).await?;
    Ok(Answer::empty(200).changed(version, at).about(&url))
}

/// Disables autoscaling; the pool keeps its size.
pub async fn disable(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let pool = call.pool()?;
    let url = super::url(&call.base, &pool);
    let (version, at) = api.change(Command::DisableScaling(pool)).await?;
    Ok(Answer::empty(200).changed(version, at).about(&url))
}

/// Evaluates a formula without applying the result.
pub async fn evaluate(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let pool = call.pool()?;
    let body = call.json()?;
    let formula = scaling_body::formula(&body.root())?.ok_or_else(|| body.root().missing("autoScaleFormula"))?;
    let Done::Scaled(run) = api.engine.call(Command::EvaluateScaling(pool, Box::new(formula))).await? else {
        return Err(Refusal::new(Code::InternalError, "The engine answered another question."));
    };
    let kind = format!("{}/$metadata#Microsoft.Azure.Batch.Protocol.Entities.AutoScaleRun", call.base);
    let run = shown(&run);
    let fields = Fields::new(None, &[]).always("odata.metadata", &kind).add("timestamp", &run.timestamp).add("results", run.results);
    Ok(Answer::json(fields.add_some("error", run.error.as_ref()).finish()))
}
