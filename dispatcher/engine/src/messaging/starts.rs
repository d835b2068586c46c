//! Publishes what triggers start, and tells the engine once the broker has it.

use broker_config::topology;
use clients::amqp::{AmqpError, Outgoing, Publisher};
use contract::{body::Format, function::header, time::Timestamp};
use model::trigger::Start;
use store::errands::Place;
use tracing::{debug, warn};

use crate::{Engine, messages::Input};

/// The header that names the trigger of a message.
const TRIGGER: &str = "piecework-trigger";
/// Why an invocation of a pool that is gone is a dead letter.
const POOL_GONE: &str = "PoolNotFound";

/// Publishes these, and reports each to the engine.
pub(super) async fn run(publisher: Publisher, engine: Engine, starts: Vec<(u64, Start)>) {
    let messages = starts.iter().map(|(_, start)| outgoing(start)).collect();
    let sent = publisher.publish_all(messages).await;
    let pools = engine.pools();
    let mut results = Vec::with_capacity(starts.len());
    for ((id, start), sent) in starts.into_iter().zip(sent) {
        let is_done = match sent {
            Ok(()) => true,
            // An invocation has nowhere to go; with submissions it is the dispatcher that says so.
            Err(AmqpError::Returned { .. }) if !pools.contains(&start.pool) => publisher.publish(dead(&start)).await.is_ok(),
            Err(error) if error.is_transient() || matches!(error, AmqpError::Closed) => {
                debug!(trigger = %start.trigger, %error, "what a trigger starts was not published yet; it is tried again");
                false
            }
            Err(error) => {
                warn!(trigger = %start.trigger, %error, "what a trigger starts cannot be published and is dropped");
                true
            }
        };
        results.push((Place::Starts, id, is_done));
    }
    if engine.put(Input::Errands(results)).await.is_err() {
        debug!("the engine stopped before it learnt what was published; it is published again after the next start");
    }
}

fn outgoing(start: &Start) -> Outgoing {
    let exchange = if start.function.is_some() { topology::INVOKE } else { topology::SUBMIT };
    let mut outgoing = Outgoing::raw(exchange, topology::pool_key(&start.pool), start.body.clone().into(), Format::Json)
        .id(&start.message_id)
        .header(TRIGGER, start.trigger.as_str());
    outgoing.content_type = Some(start.content_type.clone());
    outgoing.kind = start.function.as_ref().map(|function| function.as_str().to_owned());
    match &start.traceparent {
        Some(traceparent) => outgoing.header("traceparent", traceparent),
        None => outgoing,
    }
}

fn dead(start: &Start) -> Outgoing {
    let outgoing = Outgoing { exchange: topology::DEAD, key: String::new(), ..outgoing(start) };
    let text = format!("The pool {} of trigger {} does not exist.", start.pool, start.trigger);
    outgoing
        .header(header::REASON, POOL_GONE)
        .header(header::MESSAGE, &text)
        .header(header::POOL, start.pool.as_str())
        .header("piecework-time", &Timestamp::now().iso())
}
