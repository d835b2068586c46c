//! A queue or an exchange may be declared again only with equal properties. Differences are reported in RabbitMQ's words.

use amq_protocol::{
    protocol::{exchange, queue},
    types::{AMQPValue, FieldTable},
};

use crate::{
    arguments::queue_argument_names,
    exchange::{Exchange, values_equal},
    ids::ConnectionId,
    queue::Queue,
    refusal::{Outcome, Refusal},
    terms::{shown, type_name},
};

/// Refuses when `declare` differs from the queue. Arguments without effect on its type are not compared.
pub(crate) fn require_same_queue(queue: &Queue, declare: &queue::Declare, id: ConnectionId) -> Outcome {
    if (queue.owner == Some(id)) != declare.exclusive {
        return Err(locked(&queue.name));
    }
    let owner = format!("queue '{}' in vhost '/'", queue.name);
    require_same_flag("durable", queue.is_durable, declare.durable, &owner)?;
    require_same_flag("auto_delete", queue.is_auto_delete, declare.auto_delete, &owner)?;
    queue_argument_names(queue.rules.is_quorum)
        .try_for_each(|name| require_same_argument(name, &queue.arguments, &declare.arguments, &owner))
}

/// Refuses when `declare` differs from the exchange.
pub(crate) fn require_same_exchange(old: &Exchange, declare: &exchange::Declare) -> Outcome {
    let owner = format!("exchange '{}' in vhost '/'", declare.exchange);
    if old.kind.name() != declare.kind.as_str() {
        return Err(differs("type", &owner, &quoted(declare.kind.as_str()), &quoted(old.kind.name())));
    }
    require_same_flag("durable", old.is_durable, declare.durable, &owner)?;
    require_same_flag("auto_delete", old.is_auto_delete, declare.auto_delete, &owner)?;
    require_same_flag("internal", old.is_internal, declare.internal, &owner)?;
    require_same_argument("alternate-exchange", &old.arguments, &declare.arguments, &owner)
}

/// The refusal for another connection's exclusive queue, or for a difference in `exclusive`.
pub(crate) fn locked(queue: &str) -> Refusal {
    Refusal::resource_locked(format!(
        "cannot obtain exclusive access to locked queue '{queue}' in vhost '/'. It could be originally declared on another \
         connection or the exclusive property value does not match that of the original declaration."
    ))
}

fn require_same_flag(name: &str, old: bool, new: bool, owner: &str) -> Outcome {
    if old == new {
        return Ok(());
    }
    Err(differs(name, owner, &quoted(&new.to_string()), &quoted(&old.to_string())))
}

fn require_same_argument(name: &str, old: &FieldTable, new: &FieldTable, owner: &str) -> Outcome {
    let (received, current) = match (new.inner().get(name), old.inner().get(name)) {
        (None, None) => return Ok(()),
        (Some(new), Some(old)) if values_equal(new, old) => return Ok(()),
        (Some(new), Some(old)) => (quoted(&shown(new)), quoted(&shown(old))),
        // Classic is the default type.
        (Some(only), None) | (None, Some(only)) if name == "x-queue-type" && shown(only) == "classic" => return Ok(()),
        (new, old) => (described(new), described(old)),
    };
    Err(differs(name, owner, &received, &current))
}

fn differs(name: &str, owner: &str, received: &str, current: &str) -> Refusal {
    Refusal::precondition_failed(format!("inequivalent arg '{name}' for {owner}: received {received} but current is {current}"))
}

fn quoted(text: &str) -> String {
    format!("'{text}'")
}

/// The text of a value in a comparison, `none` when it is absent.
fn described(value: Option<&AMQPValue>) -> String {
    value.map_or_else(|| "none".to_owned(), |value| format!("the value '{}' of type '{}'", shown(value), type_name(value)))
}
