//! Files of a live node, requested over the broker.

use model::refusal::Refusal;

use crate::{
    answer::Answer,
    call::Call,
    file_answer::{self, Wanted},
    nodes::place::Place,
    state::ApiState,
};

async fn root(api: &ApiState, call: &Call) -> Result<Place, Refusal> {
    let row = api.node(&call.pool()?, &call.node()?).await?;
    Ok(Place { pool: row.pool, node: row.id, directory: String::new() })
}

/// Entries below a node's root.
pub async fn list(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let wanted = Wanted::read(call)?;
    let (entries, has_more) = root(api, call).await?.entries(api, &wanted).await?.unwrap_or_default();
    Ok(file_answer::list(call, &wanted, &entries, has_more))
}

/// Bytes of a node's file.
pub async fn get(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let path = file_answer::path(call.value(2))?;
    root(api, call).await?.content(api, call, path).await
}

/// Properties of a node's file.
pub async fn head(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let path = file_answer::path(call.value(2))?;
    root(api, call).await?.properties(api, call, path).await
}

/// Removes a node's file.
pub async fn delete(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let path = file_answer::path(call.value(2))?;
    root(api, call).await?.remove(api, call, path).await
}
