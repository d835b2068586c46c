//! Exchanges and queues as data, valid from RabbitMQ 3.10 to 4.3.
//!
//! Everything is durable; what may change later (limits, times to live) is a policy, not an argument.
//! Parts declare what they need through `amqp::Link::declare`; redeclaring equal things is harmless.

use crate::ids::{NodeId, PoolId};

/// The dispatcher alone publishes here; key = pool.
pub const TASKS: &str = "piecework.tasks";
/// Anybody publishes function invocations here; key = pool.
pub const INVOKE: &str = "piecework.invoke";
/// What happened: `node.<pool>.<node>`, `task.…`, `pool.…`.
pub const EVENTS: &str = "piecework.events";
/// Heartbeats.
pub const BEATS: &str = "piecework.beats";
/// Orders to agents: `node.<pool>.<node>` and `pool.<pool>`.
pub const CONTROL: &str = "piecework.control";
/// Questions to the dispatcher; key = `asks` or `scale`.
pub const REQUESTS: &str = "piecework.requests";
/// What happens in buckets of the embedded blob store; key = bucket.
pub const BLOBS: &str = "piecework.blobs";
/// What was refused.
pub const DEAD: &str = "piecework.dead";

/// The dispatcher's event queue.
pub const EVENT_QUEUE: &str = "piecework.events.0";
/// The dispatcher's queue of beats.
pub const BEAT_QUEUE: &str = "piecework.beats";
/// The dispatcher's queue of agents' questions.
pub const ASK_QUEUE: &str = "piecework.asks";
/// The dispatcher's queue of the autoscaler's questions.
pub const SCALE_QUEUE: &str = "piecework.scale";
/// What was refused, for the dispatcher to list and replay.
pub const DEAD_QUEUE: &str = "piecework.dead";

/// Beats older than this are worthless.
pub const BEAT_TTL_MS: u32 = 15_000;
/// Beats waiting at most.
pub const BEATS_MAX: u32 = 100_000;
/// A backstop far above any honest count, never the retry policy.
pub const DELIVERY_LIMIT: u32 = 1_000;

/// How an exchange routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExchangeKind {
    /// By equal key.
    Direct,
    /// To every queue.
    Fanout,
    /// By pattern.
    Topic,
}

/// A durable exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// Its name.
    pub name: &'static str,
    /// How it routes.
    pub kind: ExchangeKind,
}

/// A queue argument's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Argument {
    /// A number.
    Number(u32),
    /// A text.
    Text(String),
}

/// A durable queue and what is bound to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    /// Its name.
    pub name: String,
    /// Declaration arguments.
    pub arguments: Vec<(&'static str, Argument)>,
    /// Exchanges and keys.
    pub bindings: Vec<(&'static str, String)>,
}

/// What a part declares before it starts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Topology {
    /// Exchanges first.
    pub exchanges: Vec<Exchange>,
    /// Then queues with their bindings.
    pub queues: Vec<Queue>,
}

/// The kind of a pool's queue, chosen when the pool is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QueueKind {
    /// A single broker.
    #[default]
    Classic,
    /// A cluster.
    Quorum,
}

/// Every exchange, and the dispatcher's own queues.
pub fn base() -> Topology {
    let exchange = |name, kind| Exchange { name, kind };
    let queue =
        |name: &str, exchange, key: &str| Queue { name: name.to_owned(), arguments: vec![], bindings: vec![(exchange, key.to_owned())] };
    let mut beats = queue(BEAT_QUEUE, BEATS, "beat");
    beats.arguments = vec![("x-message-ttl", Argument::Number(BEAT_TTL_MS)), ("x-max-length", Argument::Number(BEATS_MAX))];
    Topology {
        exchanges: vec![
            exchange(TASKS, ExchangeKind::Direct),
            exchange(INVOKE, ExchangeKind::Direct),
            exchange(EVENTS, ExchangeKind::Topic),
            exchange(BEATS, ExchangeKind::Direct),
            exchange(CONTROL, ExchangeKind::Topic),
            exchange(REQUESTS, ExchangeKind::Direct),
            exchange(BLOBS, ExchangeKind::Topic),
            exchange(DEAD, ExchangeKind::Fanout),
        ],
        queues: vec![
            queue(EVENT_QUEUE, EVENTS, "node.#"),
            beats,
            queue(ASK_QUEUE, REQUESTS, "asks"),
            queue(SCALE_QUEUE, REQUESTS, "scale"),
            queue(DEAD_QUEUE, DEAD, ""),
        ],
    }
}

/// The two queues of a pool.
pub fn pool(pool: &PoolId, kind: QueueKind) -> Topology {
    let queue = |name: String, key: String, invoke: bool| {
        let mut arguments = vec![("x-dead-letter-exchange", Argument::Text(DEAD.to_owned()))];
        if kind == QueueKind::Quorum {
            arguments.push(("x-queue-type", Argument::Text("quorum".to_owned())));
            arguments.push(("x-delivery-limit", Argument::Number(DELIVERY_LIMIT)));
        }
        let mut bindings = vec![(TASKS, key.clone())];
        if invoke {
            bindings.push((INVOKE, key));
        }
        Queue { name, arguments, bindings }
    };
    Topology {
        exchanges: vec![],
        queues: vec![queue(pool_queue(pool), pool_key(pool), true), queue(wide_queue(pool), wide_key(pool), false)],
    }
}

/// The queue of tasks that take one slot.
pub fn pool_queue(pool: &PoolId) -> String {
    format!("piecework.pool.{}", pool_key(pool))
}

/// The queue of tasks that take several slots of a node.
pub fn wide_queue(pool: &PoolId) -> String {
    format!("{}.wide", pool_queue(pool))
}

/// The pools that a queue of this name may belong to: a pool may be called like another's wide queue.
pub fn pools_of_queue(name: &str) -> impl Iterator<Item = PoolId> {
    let key = name.strip_prefix("piecework.pool.");
    let wide = key.and_then(|key| key.strip_suffix(".wide"));
    [wide, key].into_iter().flatten().filter_map(|pool| pool.parse().ok())
}

/// The routing key of a pool's tasks.
pub fn pool_key(pool: &PoolId) -> String {
    pool.as_str().to_ascii_lowercase()
}

/// The routing key of a pool's wide tasks.
pub fn wide_key(pool: &PoolId) -> String {
    format!("{}.wide", pool_key(pool))
}

/// The routing key of a node's events, and of orders to it.
pub fn node_key(pool: &PoolId, node: &NodeId) -> String {
    format!("node.{}.{}", pool_key(pool), node.as_str().to_ascii_lowercase())
}

/// The routing key of orders to all nodes of a pool.
pub fn pool_control_key(pool: &PoolId) -> String {
    format!("pool.{}", pool_key(pool))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_has_one_queue_whatever_the_case_of_its_name() {
        let (a, b): (PoolId, PoolId) = ("Pool".parse().unwrap(), "pool".parse().unwrap());
        assert_eq!(pool(&a, QueueKind::Classic), pool(&b, QueueKind::Classic));
    }

    #[test]
    fn a_queue_tells_its_pool() {
        let pools = |name: &str| pools_of_queue(name).map(|pool| pool.to_string()).collect::<Vec<_>>();
        let pool: PoolId = "Some-Pool".parse().unwrap();
        assert_eq!(pools(&pool_queue(&pool)), ["some-pool"]);
        assert_eq!(pools(&wide_queue(&pool)), ["some-pool"], "a pool's name has no dot");
        assert_eq!(pools(EVENT_QUEUE), [] as [&str; 0]);
        assert_eq!(pools("piecework.pool."), [] as [&str; 0]);
    }

    #[test]
    fn only_task_and_invoke_exchanges_reach_a_pool_queue() {
        let topology = pool(&"p".parse().unwrap(), QueueKind::Quorum);
        let sources: Vec<_> =
            topology.queues.iter().map(|queue| queue.bindings.iter().map(|(exchange, _)| *exchange).collect::<Vec<_>>()).collect();
        assert_eq!(sources, vec![vec![TASKS, INVOKE], vec![TASKS]]);
    }
}
