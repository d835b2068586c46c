//! The broker's queues, shown alike for every broker: list, get, peek, purge.
//!
//! Each pool has two queues, each trigger one; those of the dispatcher itself are only counted.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use broker_config::topology;
use clients::amqp::{PEEKED_MAX, Peeked};
use contract::{body::Format, ids::PoolId};
use futures::{StreamExt, TryStreamExt, stream};
use model::{
    refusal::{Code, Refusal},
    trigger::TriggerRow,
};
use serde::Serialize;
use serde_json::Value;
use store::read::Page;

use crate::{
    answer::Answer,
    call::Call,
    error::store_failed,
    lists::{Paging, ROWS_MAX, list},
    state::ApiState,
};

/// Pools per page; each has two queues.
const POOLS_MAX: usize = 100;
/// Queues that are queried at the same time.
const ASKED_MAX: usize = 8;
/// Messages that peek returns by default.
const PEEKED_DEFAULT: i64 = 10;

/// The purpose of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
enum Role {
    /// Tasks of one slot.
    Tasks,
    /// Tasks of several slots.
    WideTasks,
    /// Events of a trigger.
    Events,
    /// Dead-lettered messages.
    Dead,
    /// Used by the dispatcher itself.
    Internal,
}

/// A queue that is expected to exist.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Named {
    name: String,
    role: Role,
    pool: Option<PoolId>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct View<'a> {
    name: &'a str,
    role: Role,
    #[serde(skip_serializing_if = "Option::is_none")]
    pool_id: Option<&'a str>,
    /// False while the broker does not have it; the dispatcher declares it again.
    exists: bool,
    messages: u32,
    consumers: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Purged {
    purged: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Message<'a> {
    position: usize,
    exchange: &'a str,
    routing_key: &'a str,
    redelivered: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply_to: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expiration: Option<&'a str>,
    bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_base64: Option<String>,
}

/// The dispatcher's queues, in the order of the list.
fn base() -> Vec<Named> {
    let role = |name: &str| if name == topology::DEAD_QUEUE { Role::Dead } else { Role::Internal };
    topology::base().queues.into_iter().map(|queue| Named { role: role(&queue.name), name: queue.name, pool: None }).collect()
}

/// The queues of a pool.
fn of_pool(pool: &PoolId) -> [Named; 2] {
    let named = |name, role| Named { name, role, pool: Some(pool.clone()) };
    [named(topology::pool_queue(pool), Role::Tasks), named(topology::wide_queue(pool), Role::WideTasks)]
}

fn of_trigger(row: &TriggerRow) -> Named {
    Named { name: row.queue(), role: Role::Events, pool: None }
}

fn json<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("views have a JSON form")
}

fn answer(text: Vec<u8>) -> Answer {
    Answer::own_json(200, text)
}

async fn look(api: &ApiState, queue: Named) -> Result<Vec<u8>, Refusal> {
    let depth = api.queues.depth(&queue.name).await?;
    Ok(json(&View {
        name: &queue.name,
        role: queue.role,
        pool_id: queue.pool.as_ref().map(PoolId::as_str),
        exists: depth.is_some(),
        messages: depth.map_or(0, |depth| depth.ready),
        consumers: depth.map_or(0, |depth| depth.consumers),
    }))
}

fn unknown(name: &str) -> Refusal {
    Refusal::new(Code::ResourceNotFound, "There is no such queue.")
        .with("Queue", name.chars().take(255).collect::<String>())
        .hint("GET /piecework/queues lists all.")
}

/// The queue in the path, if it is one of Piecework's.
async fn find(api: &ApiState, call: &Call) -> Result<Named, Refusal> {
    let name = call.queue();
    if let Some(queue) = base().into_iter().find(|queue| queue.name == name) {
        return Ok(queue);
    }
    for pool in topology::pools_of_queue(name) {
        if let Some(row) = api.read.pool(&pool).await.map_err(store_failed)?
            && let Some(queue) = of_pool(&row.id).into_iter().find(|queue| queue.name == name)
        {
            return Ok(queue);
        }
    }
    if let Some(id) = TriggerRow::of_queue(name)
        && let Some(row) = api.read.trigger(&id).await.map_err(store_failed)?
        && row.queue() == name
    {
        return Ok(of_trigger(&row));
    }
    Err(unknown(name))
}

/// Refuses the dispatcher's own queues: taking messages from them, even for a moment, changes what the dispatcher
/// receives.
fn only_for_people(queue: &Named) -> Result<(), Refusal> {
    match queue.role {
        Role::Tasks | Role::WideTasks | Role::Events | Role::Dead => Ok(()),
        Role::Internal => Err(Refusal::new(Code::OperationInvalidForCurrentState, "This queue belongs to the dispatcher.")
            .with("Queue", &queue.name)
            .hint("Its messages can be counted, but neither read nor purged; queues of pools and the dead queue can.")),
    }
}

/// All queues with their depths.
pub async fn all(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let paging = Paging::read(call, POOLS_MAX)?;
    let pools = api.read.pools(paging.all()).await.map_err(store_failed)?;
    let (shown, last) = paging.shown(&pools);
    let mut queues = Vec::new();
    if paging.after.is_none() {
        let triggers = Page { rows_max: ROWS_MAX, left_out: call.left_out.clone(), ..Page::default() };
        let triggers = api.read.triggers(triggers).await.map_err(store_failed)?;
        queues = base();
        queues.extend(triggers.iter().map(of_trigger));
    }
    queues.extend(shown.iter().flat_map(|pool| of_pool(&pool.id)));
    let views: Vec<Vec<u8>> = stream::iter(queues.into_iter().map(|queue| look(api, queue))).buffered(ASKED_MAX).try_collect().await?;
    Ok(list(call, "piecework/queues", views.into_iter(), last.map(|pool| pool.id.as_str())))
}

/// Handles the `GET` of one queue.
pub async fn get(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let queue = find(api, call).await?;
    Ok(answer(look(api, queue).await?))
}

/// Empties a queue. The dispatcher releases its tasks again; messages of others are lost.
pub async fn purge(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let queue = find(api, call).await?;
    only_for_people(&queue)?;
    if api.queues.depth(&queue.name).await?.is_none() {
        return Err(unknown(&queue.name));
    }
    Ok(answer(json(&Purged { purged: api.queues.purge(&queue.name).await? })))
}

fn show(position: usize, message: &Peeked) -> Vec<u8> {
    let format = Format::of(message.content_type.as_deref());
    // Any text begins with what could be a MessagePack number, so only maps count as MessagePack.
    let read = format.read::<Value>(&message.body).ok().filter(|value| format == Format::Json || value.is_object());
    let body = read.or_else(|| std::str::from_utf8(&message.body).ok().map(Value::from));
    let body_base64 = if body.is_none() { Some(BASE64.encode(&message.body)) } else { None };
    json(&Message {
        position,
        exchange: &message.exchange,
        routing_key: &message.routing_key,
        redelivered: message.redelivered,
        message_id: message.message_id.as_deref(),
        content_type: message.content_type.as_deref(),
        reply_to: message.reply_to.as_deref(),
        correlation_id: message.correlation_id.as_deref(),
        priority: message.priority,
        expiration: message.expiration.as_deref(),
        bytes: message.body.len(),
        body,
        body_base64,
    })
}

/// The first messages of a queue, without removing them.
pub async fn peek(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let count = call.query.number("count", 1, PEEKED_MAX as i64)?.unwrap_or(PEEKED_DEFAULT);
    let queue = find(api, call).await?;
    only_for_people(&queue)?;
    let seen = api.queues.peek(&queue.name, count as usize).await?.ok_or_else(|| unknown(&queue.name))?;
    Ok(list(call, "piecework/queues/messages", seen.iter().enumerate().map(|(index, message)| show(index, message)), None))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(content_type: Option<&str>, body: &[u8]) -> Value {
        let message = Peeked {
            exchange: "e".into(),
            routing_key: "k".into(),
            redelivered: false,
            content_type: content_type.map(str::to_owned),
            message_id: None,
            reply_to: None,
            correlation_id: None,
            priority: None,
            expiration: None,
            body: body.to_vec(),
        };
        serde_json::from_slice(&show(3, &message)).unwrap()
    }

    #[test]
    fn bodies_are_shown_as_values_else_as_text_else_as_base64() {
        assert_eq!(message(None, &[0x81, 0xa1, b'v', 0x01])["body"], serde_json::json!({"v": 1}));
        assert_eq!(message(Some("application/json"), b"{\"v\": 2}")["body"], serde_json::json!({"v": 2}));
        assert_eq!(message(Some("application/json"), b"not json")["body"], "not json");
        assert_eq!(message(None, b"text")["body"], "text");
        let raw = message(None, &[0xff, 0xfe]);
        assert_eq!((raw.get("body"), &raw["bodyBase64"], &raw["position"]), (None, &Value::from("//4="), &Value::from(3)));
    }

    #[test]
    fn only_the_dead_queue_of_the_dispatchers_own_is_open() {
        let open: Vec<_> = base().into_iter().filter(|queue| only_for_people(queue).is_ok()).map(|queue| queue.name).collect();
        assert_eq!(open, [topology::DEAD_QUEUE]);
    }
}
