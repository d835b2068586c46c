//! Queue methods: declare, bind, unbind, purge, delete.

use amq_protocol::{
    protocol::{AMQPClass, queue},
    types::FieldTable,
};

use crate::{
    arguments::QueueArguments,
    codec::short,
    core::Core,
    equivalence::{locked, require_same_queue},
    exchange::{Binding, Target},
    ids::{ChannelId, ConnectionId, Name, QueueId},
    journal::Op,
    message::now_ms,
    permissions::Right,
    queue::Queue,
    refusal::{NOT_FOUND, Outcome, Refusal},
    replyto::{REPLY_PREFIX, REPLY_QUEUE},
};

impl Core {
    pub(crate) fn on_queue_method(&mut self, id: ConnectionId, number: ChannelId, method: queue::AMQPMethod) -> Outcome {
        use queue::AMQPMethod as Method;
        let (reply, nowait) = match method {
            Method::Declare(declare) => {
                let nowait = declare.nowait;
                (Method::DeclareOk(self.declare_queue(id, number, declare)?), nowait)
            }
            Method::Bind(bind) => {
                let name = self.queue_name(id, number, bind.queue.as_str())?;
                self.check_queue(id, Right::Write, &name)?;
                self.check_source(id, bind.exchange.as_str(), bind.routing_key.as_str())?;
                let queue = self.find_queue(id, &name)?;
                self.bind(id, bind.exchange.as_str(), bind.routing_key.as_str(), Target::Queue(queue), bind.arguments)?;
                (Method::BindOk(queue::BindOk {}), bind.nowait)
            }
            Method::Unbind(unbind) => {
                let name = self.queue_name(id, number, unbind.queue.as_str())?;
                self.check_queue(id, Right::Write, &name)?;
                self.check_source(id, unbind.exchange.as_str(), unbind.routing_key.as_str())?;
                match self.find_queue(id, &name) {
                    Ok(queue) => {
                        self.unbind(id, unbind.exchange.as_str(), unbind.routing_key.as_str(), &Target::Queue(queue), &unbind.arguments)?
                    }
                    // A missing queue has no binding, so there is nothing to do.
                    Err(refusal) if refusal.code == NOT_FOUND && !unbind.queue.as_str().is_empty() => {}
                    Err(refusal) => return Err(refusal),
                }
                (Method::UnbindOk(queue::UnbindOk {}), false)
            }
            Method::Purge(purge) => {
                let queue = self.permitted_queue(id, number, purge.queue.as_str(), Right::Read)?;
                let message_count = self.purge(queue) as u32;
                (Method::PurgeOk(queue::PurgeOk { message_count }), purge.nowait)
            }
            Method::Delete(delete) => {
                let message_count = self.on_delete_queue(id, number, &delete)?;
                (Method::DeleteOk(queue::DeleteOk { message_count }), delete.nowait)
            }
            _ => return Err(Refusal::command_invalid("queue method that only a server sends")),
        };
        if !nowait {
            self.send(id, number, AMQPClass::Queue(reply));
        }
        Ok(())
    }

    /// The name of a method's queue; an empty one means the queue last declared on the channel.
    fn queue_name(&mut self, id: ConnectionId, number: ChannelId, name: &str) -> Outcome<Name> {
        let last = self.connections.channel_mut(id, number)?.last_queue.clone();
        if name.is_empty() { last.ok_or_else(|| Refusal::not_found("no previously declared queue")) } else { Ok(name.into()) }
    }

    /// Finds the queue of a method that needs a right to it.
    pub(crate) fn permitted_queue(&mut self, id: ConnectionId, number: ChannelId, name: &str, right: Right) -> Outcome<QueueId> {
        let name = self.queue_name(id, number, name)?;
        self.check_queue(id, right, &name)?;
        self.find_queue(id, &name)
    }

    /// Finds a queue that no other connection has for itself.
    fn find_queue(&mut self, id: ConnectionId, name: &str) -> Outcome<QueueId> {
        let Some(queue_id) = self.queue_names.get(name) else {
            return Err(Refusal::not_found(format!("no queue '{name}' in vhost '/'")));
        };
        let queue = &self.queues[queue_id];
        if queue.owner.is_some_and(|owner| owner != id) {
            return Err(locked(name));
        }
        Ok(*queue_id)
    }

    fn declare_queue(&mut self, id: ConnectionId, number: ChannelId, declare: queue::Declare) -> Outcome<queue::DeclareOk> {
        let wanted = declare.queue.as_str();
        if wanted == REPLY_QUEUE || (wanted.starts_with(REPLY_PREFIX) && self.reply_addresses.contains(wanted)) {
            return Ok(declare_ok(wanted, 0, 0));
        }
        let name = if wanted.is_empty() && !declare.passive {
            self.random_name("amq.gen-")
        } else if wanted.is_empty() {
            let last = self.connections.channel_mut(id, number)?.last_queue.clone();
            last.ok_or_else(|| Refusal::not_found("no previously declared queue"))?.to_string()
        } else {
            wanted.to_owned()
        };
        if wanted.starts_with("amq.") && !declare.passive {
            return Err(Refusal::access_refused(format!("queue name '{wanted}' contains reserved prefix 'amq.*'")));
        }
        if !declare.passive {
            self.check_queue(id, Right::Configure, &name)?;
        }
        if declare.passive || self.queue_names.contains_key(name.as_str()) {
            let queue_id = self.find_queue(id, &name)?;
            let queue = self.queues.get_mut(&queue_id).expect("named queues exist");
            if !declare.passive {
                require_same_queue(queue, &declare, id)?;
            }
            queue.used_ms = now_ms();
            let ok = declare_ok(&queue.name, queue.ready, queue.consumers.len());
            let name = queue.name.clone();
            self.connections.channel_mut(id, number)?.last_queue = Some(name);
            return Ok(ok);
        }
        let rules = QueueArguments::parse(&name, &declare.arguments)?;
        if rules.is_quorum {
            check_quorum(&name, &declare)?;
        }
        if let Some(exchange) = &rules.dead_letter_exchange {
            self.check_queue(id, Right::Read, &name)?;
            self.check_exchange(id, Right::Write, exchange)?;
            // Dead letters must not go where their queue's owner could not publish.
            self.check_key(id, Right::Write, exchange, rules.dead_letter_key.as_deref().unwrap_or(&name))?;
        }
        let shared: Name = name.as_str().into();
        let expires = rules.expires_ms;
        let mut queue = Queue::new(shared.clone(), declare.durable, declare.arguments, rules);
        queue.is_auto_delete = declare.auto_delete;
        queue.is_kept = declare.durable && !declare.exclusive;
        queue.used_ms = now_ms();
        if declare.exclusive {
            queue.owner = Some(id);
        }
        self.last_queue_id += 1;
        let queue_id = self.last_queue_id;
        if queue.is_kept {
            self.journal.topology(Op::declare_queue(queue_id, &queue));
            self.hold_replies(id);
        }
        self.queues.insert(queue_id, queue);
        self.queue_names.insert(shared.clone(), queue_id);
        if let Some(connection) = self.connections.get_mut(id)
            && declare.exclusive
        {
            connection.exclusive_queues.push(queue_id);
        }
        if expires.is_some() {
            self.schedule_queue_expiry(queue_id);
        }
        self.connections.channel_mut(id, number)?.last_queue = Some(shared);
        Ok(declare_ok(&name, 0, 0))
    }

    /// Adds a binding from an exchange.
    pub(crate) fn bind(&mut self, id: ConnectionId, source: &str, key: &str, target: Target, arguments: FieldTable) -> Outcome {
        let source = self.bindable(source)?;
        let is_durable = self.exchanges[&source].is_durable
            && match &target {
                Target::Queue(queue) => self.queues.get(queue).is_some_and(|queue| queue.is_kept),
                Target::Exchange(name) => self.exchanges.get(name).is_some_and(|one| one.is_durable),
            };
        let key: Name = key.into();
        if let Target::Queue(queue) = &target
            && let Some(queue) = self.queues.get_mut(queue)
        {
            queue.bound.insert((source.clone(), key.clone()));
        }
        let binding = Binding { target, arguments, is_durable };
        let exchange = self.exchanges.get_mut(&source).expect("bindable exchanges exist");
        if exchange.bind(key.clone(), binding.clone()) && is_durable {
            self.journal.topology(Op::Bind { source, key, binding });
            self.hold_replies(id);
        }
        Ok(())
    }

    /// Removes a binding; a missing one is no error.
    pub(crate) fn unbind(&mut self, id: ConnectionId, source: &str, key: &str, target: &Target, arguments: &FieldTable) -> Outcome {
        let source = match self.bindable(source) {
            Err(refusal) if refusal.code == NOT_FOUND => return Ok(()),
            found => found?,
        };
        let exchange = self.exchanges.get_mut(&source).expect("bindable exchanges exist");
        let Some(binding) = exchange.unbind(key, target, arguments) else { return Ok(()) };
        let leads_on = exchange.bindings.get(key).is_some_and(|bindings| bindings.iter().any(|other| other.target == *target));
        let key: Name = key.into();
        if let Target::Queue(queue) = target
            && !leads_on
            && let Some(queue) = self.queues.get_mut(queue)
        {
            queue.bound.remove(&(source.clone(), key.clone()));
        }
        if binding.is_durable {
            self.journal.topology(Op::Unbind { source: source.clone(), key, binding });
            self.hold_replies(id);
        }
        self.drop_unused_exchange(&source);
        Ok(())
    }

    fn bindable(&self, name: &str) -> Outcome<Name> {
        if name.is_empty() {
            return Err(Refusal::access_refused("operation not permitted on the default exchange"));
        }
        match self.exchanges.get_key_value(name) {
            Some((name, _)) => Ok(name.clone()),
            None => Err(Refusal::not_found(format!("no exchange '{name}' in vhost '/'"))),
        }
    }

    /// Drops all ready messages; returns their number.
    fn purge(&mut self, id: QueueId) -> u64 {
        let mut count = 0;
        while let Some(entry) = self.queues.get_mut(&id).and_then(Queue::pop) {
            self.retire(id, &entry);
            count += 1;
        }
        count
    }

    fn on_delete_queue(&mut self, id: ConnectionId, number: ChannelId, delete: &queue::Delete) -> Outcome<u32> {
        // Deleting a missing queue is no error, as in RabbitMQ.
        let name = self.queue_name(id, number, delete.queue.as_str())?;
        self.check_queue(id, Right::Configure, &name)?;
        if !delete.queue.as_str().is_empty() && !self.queue_names.contains_key(delete.queue.as_str()) {
            return Ok(0);
        }
        let queue_id = self.find_queue(id, &name)?;
        let queue = &self.queues[&queue_id];
        if delete.if_unused && !queue.consumers.is_empty() {
            return Err(Refusal::precondition_failed(format!("queue '{}' in vhost '/' in use", queue.name)));
        }
        if delete.if_empty && queue.ready > 0 {
            return Err(Refusal::precondition_failed(format!("queue '{}' in vhost '/' is not empty", queue.name)));
        }
        let count = queue.ready as u32;
        let is_kept = queue.is_kept;
        self.delete_queue(queue_id);
        if is_kept {
            self.hold_replies(id);
        }
        Ok(count)
    }

    /// Deletes a queue with its messages, bindings and consumers.
    pub(crate) fn delete_queue(&mut self, id: QueueId) {
        self.purge(id);
        self.drop_held(id);
        let Some(queue) = self.queues.remove(&id) else { return };
        self.queue_names.remove(&queue.name);
        for (source, key) in &queue.bound {
            if let Some(exchange) = self.exchanges.get_mut(source) {
                exchange.unbind_target(key, &Target::Queue(id));
            }
            self.drop_unused_exchange(source);
        }
        for consumer in queue.consumers.values() {
            self.notify_cancelled(*consumer);
        }
        if queue.is_kept {
            self.journal.topology(Op::DeleteQueue { id });
        }
        self.turn.notify_one();
    }
}

fn declare_ok(name: &str, ready: u64, consumers: usize) -> queue::DeclareOk {
    queue::DeclareOk { queue: short(name), message_count: ready as u32, consumer_count: consumers as u32 }
}

/// Refuses a quorum queue that is not durable, or is exclusive, auto-delete or without a name.
fn check_quorum(name: &str, declare: &queue::Declare) -> Outcome {
    if declare.queue.as_str().is_empty() {
        return Err(Refusal::precondition_failed("Cannot declare a server-named queue for type rabbit_quorum_queue"));
    }
    let property = match (declare.auto_delete, declare.exclusive, declare.durable) {
        (true, _, _) => "auto-delete",
        (_, true, _) => "exclusive-owner",
        (_, _, false) => "non-durable",
        _ => return Ok(()),
    };
    Err(Refusal::precondition_failed(format!("invalid property '{property}' for queue '{name}' in vhost '/'")))
}
