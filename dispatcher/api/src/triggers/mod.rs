//! Triggers: add, list, get, change, pause, resume, run, delete; and the rules by which events become messages.
//!
//! ```text
//! event ─ event.rs, message.rs ─► values, payload ─ template.rs, start.rs ─► message
//! ```

mod body;
pub mod cron;
pub mod event;
mod hooks;
pub mod message;
mod path;
pub mod start;
mod template;

pub use hooks::take as hook;

use std::time::Duration;

use clients::blobs::BlobError;
use contract::{ids::TriggerId, time::Timestamp};
use engine::command::Command;
use model::{
    condition::etag,
    refusal::{Code, Refusal},
    trigger::{NewTrigger, Source, TriggerChange, TriggerRow},
};
use serde_json::{Map, Value, json};

use crate::{
    answer::{Answer, Iso},
    call::Call,
    error::{not_found, store_failed},
    lists::{Paging, ROWS_MAX},
    state::ApiState,
    triggers::cron::Cron,
};

/// How long the blob store may take for one question.
const BLOB_TIMEOUT: Duration = Duration::from_secs(20);

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

/// `waiting` is the number of messages in its queue, where that was asked.
fn view(row: &TriggerRow, waiting: Option<u32>) -> Vec<u8> {
    let time = |at| serde_json::to_value(Iso(at)).unwrap_or_default();
    let progress = &row.progress;
    let mut fields = object(json!({
        "id": row.id, "eTag": etag(row.version), "creationTime": time(row.created_at), "lastModified": time(row.modified_at),
        "state": if row.is_paused { "paused" } else { "active" }, "queue": row.queue(),
        "eventsFired": progress.fired, "eventsRepeated": progress.repeated, "eventsFailed": progress.failed, "eventsListed": progress.listed,
    }));
    fields.extend(object(serde_json::to_value(&row.spec).unwrap_or_default()));
    if let Some(Value::Object(webhook)) = fields.get_mut("webhook") {
        webhook.remove("secret");
    }
    let times = [("lastEventTime", progress.last_event), ("lastListingTime", progress.last_listing)];
    fields.extend(times.into_iter().filter_map(|(name, at)| Some((name.to_owned(), time(at?)))));
    if let Some(lag_ms) = progress.last_lag_ms {
        fields.insert("lastLagMilliseconds".to_owned(), lag_ms.into());
    }
    if let Some(fault) = &progress.last_error {
        fields.insert("lastError".to_owned(), json!({"time": time(fault.time), "message": fault.message}));
    }
    if let Some(next) = next(row) {
        fields.insert("nextRunTime".to_owned(), time(next));
    }
    if let Some(waiting) = waiting {
        fields.insert("messagesWaiting".to_owned(), waiting.into());
    }
    Value::Object(fields).to_string().into_bytes()
}

/// When the schedule of a trigger is due next.
fn next(row: &TriggerRow) -> Option<Timestamp> {
    let Source::Schedule(schedule) = &row.spec.source else { return None };
    let cron = Cron::parse(&schedule.expression, &schedule.time_zone).ok().filter(|_| !row.is_paused)?;
    cron.next(Timestamp::now().max(row.progress.last_due.unwrap_or_default()))
}

fn answer(status: u16, row: &TriggerRow, waiting: Option<u32>) -> Answer {
    Answer::own_json(status, view(row, waiting)).changed(row.version, row.modified_at)
}

async fn find(api: &ApiState, id: &TriggerId) -> Result<TriggerRow, Refusal> {
    let row = api.read.trigger(id).await.map_err(store_failed)?;
    row.ok_or_else(|| not_found(Code::TriggerNotFound, id))
}

/// Refuses a source that is not there.
async fn check_source(api: &ApiState, trigger: &NewTrigger) -> Result<(), Refusal> {
    let exchange = match &trigger.spec.source {
        Source::Schedule(_) | Source::Webhook(_) => return Ok(()),
        Source::Exchange(source) => &source.name,
        Source::Bucket(source) => {
            match tokio::time::timeout(BLOB_TIMEOUT, api.blobs.list(&source.name, "", None, 1)).await {
                Ok(Ok(_)) => {}
                Ok(Err(BlobError::NotFound { .. } | BlobError::NoBucket { .. })) => {
                    return Err(Refusal::new(Code::InvalidPropertyValue, "The bucket does not exist.")
                        .with("PropertyName", "bucket.name")
                        .with("PropertyValue", &source.name)
                        .hint("Create it first."));
                }
                Ok(Err(error)) => {
                    return Err(Refusal::new(Code::ServerBusy, "The bucket cannot be listed.")
                        .with("Bucket", &source.name)
                        .with("Reason", error));
                }
                Err(_) => return Err(Refusal::new(Code::OperationTimedOut, "The blob store did not answer in time.")),
            }
            &source.exchange
        }
    };
    if api.queues.has_exchange(exchange).await? {
        return Ok(());
    }
    Err(Refusal::new(Code::InvalidPropertyValue, "The broker has no such exchange.")
        .with("PropertyName", "exchange")
        .with("PropertyValue", exchange)
        .hint("Declare it first, durable."))
}

/// Lets events come into the trigger's queue.
async fn prepare(api: &ApiState, row: &TriggerRow) -> Result<(), Refusal> {
    api.queues.follow(row).await.map_err(|error| {
        tracing::warn!(trigger = %row.id, %error, "the queue of a trigger cannot be bound");
        Refusal::new(Code::ServerBusy, "The queue of the trigger cannot be bound.").with("Reason", error).hint("Try again.")
    })?;
    let Source::Bucket(bucket) = &row.spec.source else { return Ok(()) };
    if bucket.exchange != broker_config::topology::BLOBS {
        return Ok(());
    }
    let error = match tokio::time::timeout(BLOB_TIMEOUT, api.blobs.notify(&bucket.name)).await {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "no answer in time".to_owned(),
    };
    // Other stores name the targets of their events otherwise.
    tracing::warn!(trigger = %row.id, bucket = bucket.name, error, "a bucket's events cannot be turned on; its listings find what is new");
    let text = format!("The bucket's store was not told to send events ({error}); until it does, listings alone find objects.");
    let step = model::trigger::Advance { error: Some(text), ..Default::default() };
    api.change(Command::AdvanceTrigger(row.id.clone(), row.uid, Box::new(step))).await.map(drop)
}

/// Adds a trigger.
pub async fn add(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let trigger = body::new(call.json()?.root())?;
    check_source(api, &trigger).await?;
    let id = trigger.id.clone();
    api.change(Command::CreateTrigger(Box::new(trigger))).await?;
    let row = find(api, &id).await?;
    // Who reads the answer may count on every event from now on.
    if let Err(refusal) = prepare(api, &row).await {
        let any = model::condition::Condition::default();
        api.change(Command::DeleteTrigger(id, any)).await?;
        return Err(refusal);
    }
    let row = find(api, &row.id).await?;
    let Source::Webhook(hook) = &row.spec.source else { return Ok(answer(201, &row, None)) };
    // The only answer that shows the secret.
    let mut shown = object(serde_json::from_slice(&view(&row, None)).unwrap_or_default());
    if let Some(Value::Object(webhook)) = shown.get_mut("webhook") {
        webhook.insert("secret".to_owned(), hook.secret.0.as_str().into());
        webhook.insert("url".to_owned(), format!("{}/piecework/hooks/{}", call.base, row.id).into());
    }
    Ok(Answer::own_json(201, Value::Object(shown).to_string().into_bytes()).changed(row.version, row.modified_at))
}

/// A page of triggers.
pub async fn list(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let paging = Paging::read(call, ROWS_MAX)?;
    let rows = api.read.triggers(paging.all()).await.map_err(store_failed)?;
    Ok(paging.answer(call, "piecework/triggers", &rows, |row| row.id.as_str(), |row| view(row, None)))
}

/// One trigger.
pub async fn get(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let row = find(api, &call.trigger()?).await?;
    // A broker that does not answer hides nothing else.
    let depth = api.queues.depth(&row.queue()).await.ok().flatten();
    Ok(answer(200, &row, depth.map(|depth| depth.ready)))
}

/// Changes what a trigger starts.
pub async fn patch(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let row = find(api, &call.trigger()?).await?;
    let change = body::change(call.json()?.root(), &row)?;
    changed(api, call, change).await
}

/// Leaves events where they wait until the trigger is resumed.
pub async fn pause(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    changed(api, call, TriggerChange::Pause).await
}

/// Ends a pause.
pub async fn resume(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    changed(api, call, TriggerChange::Resume).await
}

/// Lists the trigger's bucket now.
pub async fn run(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    changed(api, call, TriggerChange::Run).await
}

async fn changed(api: &ApiState, call: &Call, change: TriggerChange) -> Result<Answer, Refusal> {
    api.change(Command::ChangeTrigger(call.trigger()?, Box::new(change), call.condition.clone())).await?;
    get(api, call).await
}

/// Removes a trigger with the events that wait.
pub async fn delete(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    api.change(Command::DeleteTrigger(call.trigger()?, call.condition.clone())).await?;
    Ok(Answer::empty(204))
}
