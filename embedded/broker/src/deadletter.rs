//! Messages that leave a queue without an ack go to the queue's dead letter exchange, with `x-death` as their history.

use std::sync::Arc;

use amq_protocol::{
    protocol::basic::AMQPProperties,
    types::{AMQPValue, FieldArray, FieldTable, LongString},
};

use crate::{
    codec::{short, write_properties},
    content::properties_of,
    core::Core,
    exchange::integer,
    ids::QueueId,
    message::{Entry, Message, wall_ms},
};

/// The reason for a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    Rejected,
    Expired,
    TooLong,
    DeliveryLimit,
}

impl Reason {
    fn name(self) -> &'static str {
        match self {
            Reason::Rejected => "rejected",
            Reason::Expired => "expired",
            Reason::TooLong => "maxlen",
            Reason::DeliveryLimit => "delivery_limit",
        }
    }
}

impl Core {
    /// Removes an entry from its queue, publishing a copy where the queue has a dead letter exchange.
    pub(crate) fn dead_letter(&mut self, queue: QueueId, entry: Entry, reason: Reason) {
        let rules = self.queues.get(&queue).map(|queue| &queue.rules).filter(|rules| rules.dead_letter_exchange.is_some());
        let must_arrive = rules.is_some_and(|rules| rules.keeps_dead_letters);
        let sends_on = rules.is_some();
        if sends_on && let Some(message) = self.content(&entry) {
            let was_taken = self.dead_letter_copy(queue, &message, reason);
            if must_arrive && !was_taken {
                return self.hold_dead_letter(queue, entry, reason);
            }
        }
        self.retire(queue, &entry);
    }

    /// Publishes a copy to the dead letter exchange, if there is one and no cycle; returns true when every target
    /// queue accepted it.
    pub(crate) fn dead_letter_copy(&mut self, id: QueueId, message: &Arc<Message>, reason: Reason) -> bool {
        let Some(queue) = self.queues.get(&id) else { return false };
        let must_arrive = queue.rules.keeps_dead_letters;
        let Some(name) = &queue.rules.dead_letter_exchange else { return false };
        let Some((exchange, _)) = self.exchanges.get_key_value(name.as_str()) else {
            tracing::debug!(exchange = name, "the dead letter exchange does not exist; the message is not sent there");
            return false;
        };
        let properties = properties_of(message);
        let deaths = with_death(&properties, &queue.name, message, reason);
        let mut headers = properties.headers().clone().unwrap_or_default();
        for (name, value) in
            [("x-first-death-queue", &*queue.name), ("x-first-death-reason", reason.name()), ("x-first-death-exchange", &*message.exchange)]
        {
            if !headers.contains_key(name) {
                headers.insert(short(name), text(value));
            }
        }
        headers.insert(short("x-death"), AMQPValue::FieldArray(FieldArray::from(deaths.clone())));
        let new_key = queue.rules.dead_letter_key.as_deref();
        let more_keys = if new_key.is_none() { copied_keys(&headers) } else { Vec::new() };
        let copy = Arc::new(Message {
            exchange: exchange.clone(),
            routing_key: new_key.map_or_else(|| message.routing_key.clone(), Into::into),
            properties: write_properties(&without_expiration(properties, headers)),
            body: message.body.clone(),
            is_persistent: message.is_persistent,
            priority: message.priority,
        });
        let mut routed = Vec::new();
        self.route(&copy, &more_keys, &mut routed);
        routed.retain(|target| self.queues.get(target).is_some_and(|queue| !is_circle(&deaths, &queue.name)));
        let is_refused = |target| self.queues.get(target).is_some_and(|queue| queue.refuses(copy.body.len() as u64));
        // If one queue refuses, each retry would add another copy to the queues that accept.
        if routed.is_empty() || must_arrive && routed.iter().any(is_refused) {
            return false;
        }
        self.enqueue(&routed, &copy, None, None);
        true
    }
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(LongString::from(value))
}

/// Routing keys of the `CC` header stay valid unless the queue sets its own key.
fn copied_keys(headers: &FieldTable) -> Vec<String> {
    match headers.inner().get("CC") {
        Some(AMQPValue::FieldArray(keys)) => keys
            .as_slice()
            .iter()
            .filter_map(|key| match key {
                AMQPValue::LongString(key) => Some(key.to_string()),
                _ => None,
            })
            .collect(),
        _ => Vec::new(),
    }
}

/// A dead letter must not expire again; the property builder cannot remove a property, so the set is built anew.
fn without_expiration(old: AMQPProperties, headers: FieldTable) -> AMQPProperties {
    let mut new = AMQPProperties::default().with_headers(headers);
    macro_rules! keep {
        ($($get:ident => $with:ident),*) => {
            $(if let Some(value) = old.$get().clone() { new = new.$with(value); })*
        };
    }
    keep!(
        content_type => with_content_type, content_encoding => with_content_encoding,
        delivery_mode => with_delivery_mode, priority => with_priority,
        correlation_id => with_correlation_id, reply_to => with_reply_to,
        message_id => with_message_id, timestamp => with_timestamp, kind => with_type,
        user_id => with_user_id, app_id => with_app_id, cluster_id => with_cluster_id
    );
    new
}

/// The message's deaths including this one; the latest is first.
fn with_death(properties: &AMQPProperties, queue: &str, message: &Message, reason: Reason) -> Vec<AMQPValue> {
    let mut deaths = match properties.headers().as_ref().and_then(|h| h.inner().get("x-death")) {
        Some(AMQPValue::FieldArray(deaths)) => deaths.as_slice().to_vec(),
        _ => Vec::new(),
    };
    let earlier =
        deaths.iter().position(|death| field(death, "queue") == Some(text(queue)) && field(death, "reason") == Some(text(reason.name())));
    let death = match earlier {
        Some(index) => {
            let AMQPValue::FieldTable(mut death) = deaths.remove(index) else { return deaths };
            let count = death.inner().get("count").and_then(integer).unwrap_or(0);
            death.insert(short("count"), AMQPValue::LongLongInt(count + 1));
            death
        }
        None => {
            let mut death = FieldTable::default();
            let keys = vec![text(&message.routing_key)];
            death.insert(short("count"), AMQPValue::LongLongInt(1));
            death.insert(short("reason"), text(reason.name()));
            death.insert(short("queue"), text(queue));
            death.insert(short("time"), AMQPValue::Timestamp(wall_ms() / 1_000));
            death.insert(short("exchange"), text(&message.exchange));
            death.insert(short("routing-keys"), AMQPValue::FieldArray(FieldArray::from(keys)));
            if let Some(expiration) = properties.expiration() {
                death.insert(short("original-expiration"), text(expiration.as_str()));
            }
            death
        }
    };
    deaths.insert(0, AMQPValue::FieldTable(death));
    deaths
}

fn field(death: &AMQPValue, name: &str) -> Option<AMQPValue> {
    match death {
        AMQPValue::FieldTable(death) => death.inner().get(name).cloned(),
        _ => None,
    }
}

/// True when a message was in `queue` before and returned without a rejection on the way.
fn is_circle(deaths: &[AMQPValue], queue: &str) -> bool {
    deaths
        .iter()
        .position(|death| field(death, "queue") == Some(text(queue)))
        .is_some_and(|last| deaths[..=last].iter().all(|death| field(death, "reason") != Some(text(Reason::Rejected.name()))))
}
