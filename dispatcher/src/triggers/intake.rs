//! Takes deliveries of a trigger's queue: each is acknowledged once what it starts is stored, or once it is a dead letter.

use std::{collections::HashSet, time::Duration};

use api::triggers::{
    event::{self, Event},
    message::{self, MESSAGE_BYTES_MAX, Message},
    start,
};
use clients::amqp::{Acker, Delivery, Publisher, Reason, Tag};
use contract::time::Timestamp;
use model::trigger::{Advance, SeenKey, Source, TriggerRow};
use tokio::{sync::watch, time::Instant};
use tracing::{debug, warn};

use crate::{
    submissions::Parts,
    triggers::{
        progress::{Ended, Progress},
        repeats::Repeats,
        waits::pause,
    },
};

/// Events in hand after which no more deliveries are taken.
const EVENTS_MAX: usize = 256;
/// Events of one transaction at most.
const STEP_EVENTS_MAX: usize = 200;
/// Before a dead letter that was not published is tried again; doubled with each try.
const PAUSE: Duration = Duration::from_millis(100);
/// Tries to publish one; then its message goes back to its queue.
const TRIES_MAX: u32 = 8;
/// Why a message is a dead letter.
const UNREADABLE: &str = "EventInvalid";

/// Events that wait to be acted on, and the deliveries that brought them.
#[derive(Default)]
pub(super) struct Hand {
    events: Vec<Event>,
    tags: Vec<Tag>,
    failed: u64,
    fault: Option<String>,
    since: Option<Instant>,
    repeats: Repeats,
}

impl Hand {
    /// Whether nothing more is taken for now.
    pub(super) fn is_full(&self) -> bool {
        self.events.len() >= EVENTS_MAX || self.tags.len() >= EVENTS_MAX
    }

    /// When what is in hand is acted on: at once where it fills a batch.
    pub(super) fn due(&self, row: &TriggerRow) -> Option<Instant> {
        let since = self.since?;
        let is_whole = self.events.len() >= row.spec.batch_size as usize || self.events.is_empty() || self.is_full();
        Some(if is_whole { since } else { since + row.spec.batch_time.limit().unwrap_or_default() })
    }
}

/// Takes deliveries and acts on events.
pub(super) struct Intake {
    parts: Parts,
    publisher: Publisher,
    acker: Acker,
    stop: watch::Receiver<bool>,
}

/// The events of a delivery that the trigger is meant for; an error says what is wrong with it.
fn read(row: &TriggerRow, delivery: &Delivery, endpoint: &str) -> Result<Vec<Event>, String> {
    let id = row.id.as_str();
    match &row.spec.source {
        Source::Bucket(bucket) => {
            if delivery.body.len() > MESSAGE_BYTES_MAX {
                return Err(format!("The message has {} bytes, more than {MESSAGE_BYTES_MAX}.", delivery.body.len()));
            }
            let objects = event::objects(&delivery.body)?;
            let meant = objects.into_iter().filter(|object| object.bucket == bucket.name && bucket.takes(&object.key, object.bytes));
            Ok(meant.map(|object| object.event(id, endpoint)).collect())
        }
        Source::Schedule(_) | Source::Webhook(_) => Ok(Vec::new()),
        Source::Exchange(exchange) => {
            let names = delivery.headers.inner().keys().map(|name| name.as_str().to_owned());
            let headers = names.filter_map(|name| delivery.header_as_text(&name).map(|value| (name, value))).collect();
            let message = Message {
                routing_key: &delivery.routing_key,
                body: &delivery.body,
                content_type: delivery.content_type(),
                message_id: delivery.message_id.as_deref(),
                kind: delivery.kind.as_deref(),
                headers,
            };
            message::events(&message, id, &exchange.values)
        }
    }
}

impl Intake {
    pub(super) fn new(parts: Parts, acker: Acker, stop: watch::Receiver<bool>) -> Intake {
        Intake { publisher: parts.link.publisher(), parts, acker, stop }
    }

    /// Reads a delivery; one that cannot be read becomes a dead letter.
    pub(super) async fn take(&self, row: &TriggerRow, delivery: Delivery, hand: &mut Hand) {
        let endpoint = &self.parts.blobs.settings().endpoint;
        match read(row, &delivery, endpoint) {
            Ok(events) => {
                hand.events.extend(events);
                hand.tags.push(delivery.tag);
            }
            Err(reason) => {
                debug!(trigger = %row.id, reason, "a trigger cannot read an event");
                self.bury(row, &delivery, &reason).await;
                hand.failed += 1;
                hand.fault = Some(reason);
            }
        }
        hand.since.get_or_insert_with(Instant::now);
    }

    /// Puts a message among the dead letters, with the reason.
    async fn bury(&self, row: &TriggerRow, delivery: &Delivery, reason: &str) {
        let reason = Reason { code: UNREADABLE.to_owned(), message: format!("The trigger {} cannot read this event. {reason}", row.id) };
        let Some(copy) = delivery.refused(&reason, Timestamp::now()) else {
            // The broker itself moves it, with all its headers.
            return self.acker.reject_to_dead(delivery.tag);
        };
        let mut stop = self.stop.clone();
        for tries in 0..TRIES_MAX {
            match self.publisher.publish(copy.clone()).await {
                Ok(()) => return self.acker.ack(delivery.tag),
                Err(error) if error.is_transient() => debug!(%error, "a dead letter was not published yet; it is tried again"),
                Err(error) => {
                    warn!(trigger = %row.id, %error, "an event goes to the dead letters without its reason");
                    return self.acker.reject_to_dead(delivery.tag);
                }
            }
            if !pause(PAUSE * 2u32.pow(tries), &mut stop).await {
                return;
            }
        }
        self.acker.nack(delivery.tag, true);
    }

    /// Acts on what is in hand, and acknowledges its deliveries.
    pub(super) async fn flush(&self, row: &TriggerRow, hand: &mut Hand, progress: &mut Progress) -> Result<(), Ended> {
        hand.since = None;
        let (events, tags) = (std::mem::take(&mut hand.events), std::mem::take(&mut hand.tags));
        let (mut failed, mut fault) = (std::mem::take(&mut hand.failed), hand.fault.take());
        let (fresh, mut repeated) = self.fresh(row, events, progress).await?;
        let now = Instant::now();
        let keys = fresh.iter().filter_map(|event| event.seen.as_ref());
        let is_bucket = matches!(row.spec.source, Source::Bucket(_));
        let circle = keys.filter(|_| is_bucket).filter_map(|seen| hand.repeats.count(&seen.key, now)).last();
        let step = (row.spec.batch_size as usize).max(1) * (STEP_EVENTS_MAX / row.spec.batch_size.max(1) as usize).max(1);
        let mut rest = fresh.into_iter().peekable();
        loop {
            let events: Vec<Event> = rest.by_ref().take(step).collect();
            let is_last = rest.peek().is_none();
            let event_at = events.iter().filter_map(|event| event.at).min();
            let mut advance = Advance { event_at, ..Advance::default() };
            match start::starts(row, events) {
                Ok(starts) => advance.starts = starts,
                Err(refusal) => {
                    // The template was tried when the trigger was made, so this is no fault of one event.
                    warn!(trigger = %row.id, %refusal, "a trigger's template cannot be filled");
                    return progress.halt(format!("The template cannot be filled: {refusal}.")).await;
                }
            }
            (advance.repeated, repeated) = (repeated, 0);
            (advance.failed, failed) = (failed, 0);
            advance.error = fault.take();
            progress.store(advance).await?;
            if is_last {
                break;
            }
        }
        tags.into_iter().for_each(|tag| self.acker.ack(tag));
        match circle {
            Some(reason) => progress.halt(reason).await,
            None => Ok(()),
        }
    }

    /// The events that were not acted on before, and how many were.
    async fn fresh(&self, row: &TriggerRow, events: Vec<Event>, progress: &mut Progress) -> Result<(Vec<Event>, u64), Ended> {
        let keys: Vec<SeenKey> = events.iter().filter_map(|event| event.seen.clone()).collect();
        let mut tries = 0;
        let mut known: HashSet<SeenKey> = loop {
            match self.parts.read.seen_of(row.uid, keys.clone()).await {
                Ok(known) => break known.into_iter().collect(),
                Err(error) => {
                    progress.fault(format!("The store cannot be read: {error}.")).await?;
                    let mut stop = self.stop.clone();
                    if !pause(PAUSE * 2u32.pow(tries), &mut stop).await {
                        return Err(Ended);
                    }
                    tries = (tries + 1).min(TRIES_MAX);
                }
            }
        };
        let mut repeated = 0;
        let mut fresh = Vec::with_capacity(events.len());
        for event in events {
            if event.seen.as_ref().is_some_and(|seen| !known.insert(seen.clone())) {
                repeated += 1;
            } else {
                fresh.push(event);
            }
        }
        Ok((fresh, repeated))
    }
}
