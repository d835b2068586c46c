//! Publishes a few messages in order and waits for all of their confirms.
//!
//! The client library hands a returned message to the next confirm that completes, which need not be its own.
//! So a window is written and awaited as a whole, and only then are returns matched to messages by their content.

use std::time::Instant;

use broker_config::metrics::{CONFIRM_SECONDS, NO_LABELS, PUBLISHED};
use futures::{StreamExt, stream::FuturesOrdered};
use lapin::{Confirmation, message::BasicReturnMessage};
use tokio::time::timeout;

use super::{channels::ConfirmChannel, error::AmqpError, limits::CONFIRM_TIMEOUT, outgoing::Outgoing};

/// Results of the messages, in their order.
pub(super) type Results = Vec<Result<(), AmqpError>>;

/// Publishes at most [`super::IN_FLIGHT_MAX`] messages; the channel is spent afterwards if it is still dirty.
pub(super) async fn publish<'a>(taken: &mut ConfirmChannel, batch: impl ExactSizeIterator<Item = &'a Outgoing> + Clone) -> Results {
    let count = batch.len();
    if taken.live.is_blocked() {
        let results: Results = (0..count).map(|_| Err(AmqpError::Blocked)).collect();
        record(&results);
        return results;
    }
    let began = Instant::now();
    taken.is_dirty = true;
    let channel = &taken.channel;
    let mut confirms: FuturesOrdered<_> = batch
        .clone()
        .map(|outgoing| async move {
            outgoing.check()?;
            Ok::<_, AmqpError>(outgoing.write(channel).await?.await?)
        })
        .collect();
    let mut results: Results = Vec::with_capacity(count);
    let mut returned = Vec::new();
    let collect = async {
        while let Some(confirm) = confirms.next().await {
            results.push(match confirm {
                Ok(Confirmation::Ack(message)) => {
                    returned.extend(message);
                    Ok(())
                }
                Ok(Confirmation::Nack(message)) => {
                    returned.extend(message);
                    Err(AmqpError::Nacked)
                }
                Ok(Confirmation::NotRequested) => Err(AmqpError::Disconnected),
                Err(error) => Err(error),
            });
        }
    };
    let in_time = timeout(CONFIRM_TIMEOUT, collect).await.is_ok();
    drop(confirms);
    if in_time {
        CONFIRM_SECONDS.of(NO_LABELS).record(began.elapsed());
        attribute(returned, batch, &mut results);
        taken.is_dirty = !taken.channel.status().connected();
        if taken.is_dirty {
            taken.live.discard("a publishing channel was closed");
        }
    } else {
        let is_blocked = taken.live.is_blocked();
        if !is_blocked {
            taken.live.discard("confirms did not come in time");
        }
        let late = || if is_blocked { AmqpError::Blocked } else { AmqpError::Timeout { what: "a confirm" } };
        results.resize_with(count, || Err(late()));
    }
    record(&results);
    results
}

fn record(results: &Results) {
    let mut counts = [("confirmed", 0), ("returned", 0), ("refused", 0), ("failed", 0)];
    for result in results {
        let place = match result {
            Ok(()) => 0,
            Err(AmqpError::Returned { .. }) => 1,
            Err(AmqpError::Nacked) => 2,
            Err(_) => 3,
        };
        counts[place].1 += 1;
    }
    for (result, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
        PUBLISHED.of([result]).increment(count);
    }
}

/// Turns each returned message's result into an error; equal messages are interchangeable.
fn attribute<'a>(returned: Vec<BasicReturnMessage>, batch: impl Iterator<Item = &'a Outgoing> + Clone, results: &mut Results) {
    for message in returned {
        let same = |outgoing: &Outgoing| {
            outgoing.mandatory
                && outgoing.exchange == message.exchange.as_str()
                && outgoing.key == message.routing_key.as_str()
                && outgoing.message_id.as_deref() == message.properties.message_id().as_ref().map(|id| id.as_str())
                && outgoing.correlation_id.as_deref() == message.properties.correlation_id().as_ref().map(|id| id.as_str())
                && outgoing.body == message.data
        };
        let place = batch.clone().zip(results.iter()).position(|(outgoing, result)| result.is_ok() && same(outgoing));
        let error = || AmqpError::Returned { exchange: message.exchange.to_string(), key: message.routing_key.to_string() };
        match place {
            Some(place) => results[place] = Err(error()),
            None => {
                // Without a match any of the mandatory messages may be the returned one, so all of them fail.
                tracing::error!(key = %message.routing_key, "the broker returned a message that matches none of this batch; all mandatory messages of the batch count as not sent");
                for (outgoing, result) in batch.clone().zip(results.iter_mut()) {
                    if outgoing.mandatory && result.is_ok() {
                        *result = Err(error());
                    }
                }
            }
        }
    }
}
