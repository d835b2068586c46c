//! Exchange methods: declare, delete, bind and unbind between exchanges.

use amq_protocol::protocol::{AMQPClass, exchange};

use crate::{
    arguments::alternate_exchange,
    core::Core,
    equivalence::require_same_exchange,
    exchange::{Exchange, Kind, Target},
    ids::{ChannelId, ConnectionId, Name},
    journal::Op,
    permissions::Right,
    refusal::{NOT_FOUND, Outcome, Refusal},
};

impl Core {
    pub(crate) fn on_exchange_method(&mut self, id: ConnectionId, number: ChannelId, method: exchange::AMQPMethod) -> Outcome {
        use exchange::AMQPMethod as Method;
        let (reply, nowait) = match method {
            Method::Declare(declare) => {
                let nowait = declare.nowait;
                self.declare_exchange(id, declare)?;
                (Method::DeclareOk(exchange::DeclareOk {}), nowait)
            }
            Method::Delete(delete) => {
                self.on_delete_exchange(id, &delete)?;
                (Method::DeleteOk(exchange::DeleteOk {}), delete.nowait)
            }
            Method::Bind(bind) => {
                self.check_exchange(id, Right::Write, bind.destination.as_str())?;
                self.check_source(id, bind.source.as_str(), bind.routing_key.as_str())?;
                let target = self.target_exchange(bind.destination.as_str())?;
                self.bind(id, bind.source.as_str(), bind.routing_key.as_str(), target, bind.arguments)?;
                (Method::BindOk(exchange::BindOk {}), bind.nowait)
            }
            Method::Unbind(unbind) => {
                self.check_exchange(id, Right::Write, unbind.destination.as_str())?;
                self.check_source(id, unbind.source.as_str(), unbind.routing_key.as_str())?;
                match self.target_exchange(unbind.destination.as_str()) {
                    Ok(target) => self.unbind(id, unbind.source.as_str(), unbind.routing_key.as_str(), &target, &unbind.arguments)?,
                    Err(refusal) if refusal.code == NOT_FOUND => {}
                    Err(refusal) => return Err(refusal),
                }
                (Method::UnbindOk(exchange::UnbindOk {}), unbind.nowait)
            }
            _ => return Err(Refusal::command_invalid("exchange method that only a server sends")),
        };
        if !nowait {
            self.send(id, number, AMQPClass::Exchange(reply));
        }
        Ok(())
    }

    fn target_exchange(&self, name: &str) -> Outcome<Target> {
        match self.exchanges.get_key_value(name) {
            Some((name, _)) if !name.is_empty() => Ok(Target::Exchange(name.clone())),
            Some(_) => Err(Refusal::access_refused("operation not permitted on the default exchange")),
            None => Err(Refusal::not_found(format!("no exchange '{name}' in vhost '/'"))),
        }
    }

    fn declare_exchange(&mut self, id: ConnectionId, declare: exchange::Declare) -> Outcome {
        let name = declare.exchange.as_str();
        if name.is_empty() {
            return Err(Refusal::access_refused("operation not permitted on the default exchange"));
        }
        if declare.passive {
            return match self.exchanges.contains_key(name) {
                true => Ok(()),
                false => Err(Refusal::not_found(format!("no exchange '{name}' in vhost '/'"))),
            };
        }
        let Some(kind) = Kind::parse(declare.kind.as_str()) else {
            return Err(Refusal::command_invalid(format!("unknown exchange type '{}'", declare.kind)));
        };
        self.check_exchange(id, Right::Configure, name)?;
        if let Some(old) = self.exchanges.get(name) {
            return require_same_exchange(old, &declare);
        }
        if name.starts_with("amq.") {
            return Err(Refusal::access_refused(format!("exchange name '{name}' contains reserved prefix 'amq.*'")));
        }
        let mut new = Exchange::new(kind, declare.durable);
        new.is_auto_delete = declare.auto_delete;
        new.is_internal = declare.internal;
        new.alternate = alternate_exchange(&declare.arguments)?.map(Name::from);
        if let Some(alternate) = &new.alternate {
            self.check_exchange(id, Right::Read, name)?;
            self.check_exchange(id, Right::Write, alternate)?;
        }
        new.arguments = declare.arguments;
        let name: Name = name.into();
        if new.is_durable {
            self.journal.topology(Op::declare_exchange(&name, &new));
            self.hold_replies(id);
        }
        self.exchanges.insert(name, new);
        Ok(())
    }

    fn on_delete_exchange(&mut self, id: ConnectionId, delete: &exchange::Delete) -> Outcome {
        let name = delete.exchange.as_str();
        if name.is_empty() || name.starts_with("amq.") {
            return Err(Refusal::access_refused(format!("exchange '{name}' cannot be deleted")));
        }
        self.check_exchange(id, Right::Configure, name)?;
        let Some(exchange) = self.exchanges.get(name) else { return Ok(()) };
        if delete.if_unused && !exchange.bindings.is_empty() {
            return Err(Refusal::precondition_failed(format!("exchange '{name}' in vhost '/' in use")));
        }
        if exchange.is_durable {
            self.hold_replies(id);
        }
        self.delete_exchange(name);
        Ok(())
    }

    /// Deletes an exchange with the bindings from and to it.
    fn delete_exchange(&mut self, name: &str) {
        let Some((name, exchange)) = self.exchanges.remove_entry(name) else { return };
        for (key, bindings) in exchange.bindings {
            for binding in bindings {
                if let Target::Queue(queue) = binding.target
                    && let Some(queue) = self.queues.get_mut(&queue)
                {
                    queue.bound.remove(&(name.clone(), key.clone()));
                }
            }
        }
        let target = Target::Exchange(name.clone());
        let mut emptied = Vec::new();
        for (source, other) in &mut self.exchanges {
            let keys: Vec<Name> = other
                .bindings
                .iter()
                .filter(|(_, bindings)| bindings.iter().any(|binding| binding.target == target))
                .map(|(key, _)| key.clone())
                .collect();
            for key in &keys {
                other.unbind_target(key, &target);
            }
            if !keys.is_empty() {
                emptied.push(source.clone());
            }
        }
        if exchange.is_durable {
            self.journal.topology(Op::DeleteExchange { name });
        }
        for source in emptied {
            self.drop_unused_exchange(&source);
        }
    }

    /// Deletes an auto-delete exchange without bindings.
    pub(crate) fn drop_unused_exchange(&mut self, name: &str) {
        if self.exchanges.get(name).is_some_and(|exchange| exchange.is_auto_delete && exchange.bindings.is_empty()) {
            self.delete_exchange(name);
        }
    }
}
