//! Takes a published message to its queues: route, limits, journal, confirm.

use std::sync::Arc;

use amq_protocol::protocol::{AMQPClass, basic};

use crate::{
    arguments::Overflow,
    codec::short,
    content::headers_of,
    core::Core,
    deadletter::Reason,
    encode,
    exchange::Target,
    ids::{ChannelId, ConnectionId, Name, QueueId},
    journal,
    message::{ConfirmKey, Entry, Message, Stored, now_ms},
    permissions::Right,
    refusal::{Outcome, Refusal},
    replyto::REPLY_PREFIX,
};

const NO_ROUTE: u16 = 312;

impl Core {
    /// The shared name of an exchange that clients may publish to.
    pub(crate) fn intern_exchange(&self, name: &str) -> Outcome<Name> {
        let Some((name, exchange)) = self.exchanges.get_key_value(name) else {
            return Err(Refusal::not_found(format!("no exchange '{name}' in vhost '/'")));
        };
        if exchange.is_internal {
            return Err(Refusal::access_refused(format!("cannot publish to internal exchange '{name}' in vhost '/'")));
        }
        Ok(name.clone())
    }

    /// Handles a complete publish.
    pub(crate) fn on_content(&mut self, id: ConnectionId, number: ChannelId) -> Outcome {
        let channel = self.connections.channel_mut(id, number)?;
        let Some(incoming) = channel.incoming.take() else { return Ok(()) };
        let Some(mut header) = incoming.header else { return Ok(()) };
        if header.asks_reply {
            header.properties = self.rewrite_reply_to(id, number, &header.properties)?;
        }
        for key in &header.more_keys {
            self.check_key(id, Right::Write, &incoming.exchange, key)?;
        }
        let channel = self.connections.channel_mut(id, number)?;
        let incarnation = channel.incarnation;
        let confirm = channel.confirms.as_mut().map(|confirms| ConfirmKey {
            connection: id,
            channel: number,
            incarnation,
            sequence: confirms.next(),
        });
        let mut body = incoming.body;
        body.shrink_to_fit();
        let message = Arc::new(Message {
            exchange: incoming.exchange,
            routing_key: incoming.routing_key,
            properties: header.properties,
            body: body.into_boxed_slice(),
            is_persistent: header.is_persistent,
            priority: header.priority,
        });
        if message.exchange.is_empty() && message.routing_key.starts_with(REPLY_PREFIX) {
            let was_delivered = self.deliver_reply(&message);
            if !was_delivered && incoming.is_mandatory {
                self.return_message(id, number, &message);
            }
            if let Some(key) = confirm {
                self.confirm(key, true);
            }
            return Ok(());
        }
        let mut routed = std::mem::take(&mut self.routed);
        routed.clear();
        self.route(&message, &header.more_keys, &mut routed);
        if routed.is_empty() {
            if incoming.is_mandatory {
                self.return_message(id, number, &message);
            }
            if let Some(key) = confirm {
                self.confirm(key, true);
            }
        } else {
            self.enqueue(&routed, &message, header.expiration_ms, confirm);
            self.slow_down(id);
        }
        self.routed = routed;
        Ok(())
    }

    /// Stops reading from a publisher while the journal is behind, so that memory does not grow with the publisher's speed.
    fn slow_down(&mut self, id: ConnectionId) {
        if self.journal.is_behind()
            && let Some(connection) = self.connections.get_mut(id)
            && !std::mem::replace(&mut connection.is_slowed, true)
        {
            self.slowed.push(id);
        }
    }

    fn return_message(&mut self, id: ConnectionId, number: ChannelId, message: &Message) {
        let method = basic::AMQPMethod::Return(basic::Return {
            reply_code: NO_ROUTE,
            reply_text: short("NO_ROUTE"),
            exchange: short(&message.exchange),
            routing_key: short(&message.routing_key),
        });
        self.send(id, number, AMQPClass::Basic(method));
        if let Some(connection) = self.connections.get_mut(id) {
            let frame_max = connection.frame_max;
            encode::content(&mut connection.outbox.bytes, number, message, frame_max);
        }
    }

    /// Finds the target queues of a message, each once.
    pub(crate) fn route(&self, message: &Message, more_keys: &[String], found: &mut Vec<QueueId>) {
        self.route_key(message, &message.routing_key, found);
        for key in more_keys {
            self.route_key(message, key, found);
        }
        // A search for each target would be quadratic in wide fanouts.
        found.sort_unstable();
        found.dedup();
    }

    fn route_key(&self, message: &Message, key: &str, found: &mut Vec<QueueId>) {
        if message.exchange.is_empty() {
            found.extend(self.queue_names.get(key));
            return;
        }
        let mut waiting = vec![message.exchange.clone()];
        let mut visited = 0;
        while let Some(name) = waiting.get(visited).cloned() {
            visited += 1;
            let Some(exchange) = self.exchanges.get(&name) else { continue };
            let mut was_taken = false;
            exchange.choose(
                key,
                || headers_of(message),
                |target| {
                    was_taken = true;
                    match target {
                        Target::Queue(id) => found.push(*id),
                        Target::Exchange(next) if !waiting.contains(next) => waiting.push(next.clone()),
                        _ => {}
                    }
                },
            );
            if !was_taken
                && let Some(alternate) = &exchange.alternate
                && !waiting.contains(alternate)
            {
                waiting.push(alternate.clone());
            }
        }
    }

    /// Adds a message to queues and registers the confirm: at once, with the journal, or not at all.
    pub(crate) fn enqueue(&mut self, queues: &[QueueId], message: &Arc<Message>, expiration_ms: Option<u64>, confirm: Option<ConfirmKey>) {
        let mut targets: Vec<journal::Target> = Vec::new();
        let mut accepted: Vec<(QueueId, u64, u64, bool)> = Vec::with_capacity(queues.len());
        let mut is_refused = false;
        for id in queues {
            let Some(queue) = self.queues.get_mut(id) else { continue };
            let rules = &queue.rules;
            if queue.refuses(message.body.len() as u64) {
                is_refused = true;
                if rules.overflow == Overflow::RejectPublishDlx {
                    self.dead_letter_copy(*id, message, Reason::TooLong);
                }
                continue;
            }
            let ttl = match (expiration_ms, rules.message_ttl_ms) {
                (Some(own), Some(of_queue)) => Some(own.min(of_queue)),
                (own, of_queue) => own.or(of_queue),
            };
            let expires_ms = ttl.map_or(0, |ttl| now_ms() + ttl);
            let position = queue.next_position;
            queue.next_position += 1;
            let is_stored = message.is_persistent && queue.is_kept;
            if is_stored {
                targets.push(journal::Target { queue: *id, position, expires_ms, is_redelivered: false });
            }
            accepted.push((*id, position, expires_ms, is_stored));
        }
        let is_waiting = !targets.is_empty() && !is_refused;
        let stored = match targets.is_empty() {
            true => Stored::default(),
            false => self.journal.publish(message.clone(), targets, confirm.filter(|_| is_waiting)),
        };
        if let Some(key) = confirm.filter(|_| !is_waiting) {
            self.confirm(key, !is_refused);
        }
        for (id, position, expires_ms, is_stored) in accepted {
            let stored = if is_stored { stored } else { Stored::default() };
            let entry = Entry::new(message.clone(), position, expires_ms, stored);
            self.held_bytes += entry.cost();
            self.drop_expired(id);
            let Some(queue) = self.queues.get_mut(&id) else { continue };
            queue.insert(entry);
            self.serve(id);
            self.trim(id);
            self.drop_expired(id);
            if !is_stored {
                self.spill_new(id, message.priority, position);
            }
        }
        self.turn.notify_one();
    }

    /// Drops messages from the head while a queue is too long.
    fn trim(&mut self, id: QueueId) {
        while let Some(queue) = self.queues.get_mut(&id)
            && queue.is_too_long()
            && let Some(entry) = queue.pop()
        {
            self.dead_letter(id, entry, Reason::TooLong);
        }
    }
}
