//! Exchanges and queues as data, valid from RabbitMQ 3.10 to 4.3.
//!
//! Everything is durable; limits and times to live, which may change later, are policies and not arguments.
//! Parts declare what they need through `amqp::Link::declare`; declaring the same again is harmless.

use contract::{
    ids::{NodeId, PoolId},
    message::HEARTBEAT_TTL_MS,
};

/// Only the dispatcher publishes here; the routing key is the pool.
pub const TASKS: &str = "piecework.tasks";
/// Anybody publishes function invocations here; the routing key is the pool.
pub const INVOKE: &str = "piecework.invoke";
/// Events; routing keys `node.<pool>.<node>`, `task.…`, `pool.…`.
pub const EVENTS: &str = "piecework.events";
/// Heartbeats of agents.
pub const HEARTBEATS: &str = "piecework.beats";
/// Control messages to agents; routing keys `node.<pool>.<node>` and `pool.<pool>`.
pub const CONTROL: &str = "piecework.control";
/// Requests to the dispatcher; routing key `asks` or `scale`.
pub const REQUESTS: &str = "piecework.requests";
/// Events of buckets of the embedded blob store; the routing key is the bucket.
pub const BLOBS: &str = "piecework.blobs";
/// Anybody publishes tasks to be added here; the routing key is the pool.
pub const SUBMIT: &str = "piecework.submit";
/// Takes every submission, whatever its key: no queue is bound to [`SUBMIT`] itself, whose alternate exchange this is. So a
/// submission for a pool that does not exist reaches the dispatcher, too, and is answered.
pub const SUBMIT_ANY: &str = "piecework.submit.any";
/// Rejected messages.
pub const DEAD: &str = "piecework.dead";

/// The dispatcher's queue of events.
pub const EVENT_QUEUE: &str = "piecework.events.0";
/// The dispatcher's queue of heartbeats.
pub const HEARTBEAT_QUEUE: &str = "piecework.beats";
/// The dispatcher's queue of agents' requests.
pub const ASK_QUEUE: &str = "piecework.asks";
/// The dispatcher's queue of the autoscaler's requests.
pub const SCALE_QUEUE: &str = "piecework.scale";
/// The dispatcher's queue of submissions, of all pools. What expires in it goes to [`DEAD`].
pub const SUBMIT_QUEUE: &str = "piecework.submit";
/// Rejected messages, which the dispatcher can list and publish again.
pub const DEAD_QUEUE: &str = "piecework.dead";

/// Heartbeats in the queue at most.
pub const HEARTBEATS_MAX: u32 = 100_000;
/// Far above any regular number of redeliveries; retries are counted elsewhere.
pub const DELIVERY_LIMIT: u32 = 1_000;

/// Longest waits of a failed invocation before its first, second and later retries. Each has a queue of its own, because
/// a queue lets messages expire only at its head.
pub const RETRY_PAUSES_MS: [u32; 3] = [1_000, 10_000, 60_000];

/// The kind of an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExchangeKind {
    /// Compares the whole key.
    Direct,
    /// Copies to every bound queue.
    Fanout,
    /// Matches the key with patterns.
    Topic,
}

/// A durable exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    pub name: &'static str,
    pub kind: ExchangeKind,
    /// The exchange that gets what no queue is bound for.
    pub alternate: Option<&'static str>,
}

/// The value of a queue argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Argument {
    Number(u32),
    Text(String),
}

/// A durable queue and its bindings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    pub name: String,
    pub arguments: Vec<(&'static str, Argument)>,
    /// Exchanges and routing keys.
    pub bindings: Vec<(&'static str, String)>,
}

/// The exchanges and queues that a part declares before it starts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Topology {
    /// Declared first.
    pub exchanges: Vec<Exchange>,
    /// Declared with their bindings.
    pub queues: Vec<Queue>,
}

/// The kind of a pool's queue, chosen when the pool is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QueueKind {
    /// For a single broker.
    #[default]
    Classic,
    /// For a cluster.
    Quorum,
}

/// All exchanges, and the dispatcher's own queues.
pub fn base() -> Topology {
    let exchange = |name, kind| Exchange { name, kind, alternate: None };
    let queue =
        |name: &str, exchange, key: &str| Queue { name: name.to_owned(), arguments: vec![], bindings: vec![(exchange, key.to_owned())] };
    let mut heartbeats = queue(HEARTBEAT_QUEUE, HEARTBEATS, "beat");
    heartbeats.arguments = vec![("x-message-ttl", Argument::Number(HEARTBEAT_TTL_MS)), ("x-max-length", Argument::Number(HEARTBEATS_MAX))];
    let mut submissions = queue(SUBMIT_QUEUE, SUBMIT_ANY, "");
    submissions.arguments = vec![("x-dead-letter-exchange", Argument::Text(DEAD.to_owned()))];
    Topology {
        exchanges: vec![
            exchange(TASKS, ExchangeKind::Direct),
            exchange(INVOKE, ExchangeKind::Direct),
            exchange(EVENTS, ExchangeKind::Topic),
            exchange(HEARTBEATS, ExchangeKind::Direct),
            exchange(CONTROL, ExchangeKind::Topic),
            exchange(REQUESTS, ExchangeKind::Direct),
            exchange(BLOBS, ExchangeKind::Topic),
            exchange(DEAD, ExchangeKind::Fanout),
            exchange(SUBMIT_ANY, ExchangeKind::Fanout),
            Exchange { alternate: Some(SUBMIT_ANY), ..exchange(SUBMIT, ExchangeKind::Direct) },
        ],
        queues: vec![
            queue(EVENT_QUEUE, EVENTS, "node.#"),
            heartbeats,
            queue(ASK_QUEUE, REQUESTS, "asks"),
            queue(SCALE_QUEUE, REQUESTS, "scale"),
            queue(DEAD_QUEUE, DEAD, ""),
            submissions,
        ],
    }
}

/// The two queues of a pool, and those in which its failed invocations wait.
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
    let mut queues = vec![queue(pool_queue(pool), pool_key(pool), true), queue(wide_queue(pool), wide_key(pool), false)];
    queues.extend(RETRY_PAUSES_MS.iter().map(|pause_ms| retry(pool, kind, *pause_ms)));
    Topology { exchanges: vec![], queues }
}

/// A queue that nobody consumes: what expires in it comes back to the pool's queue as an invocation.
fn retry(pool: &PoolId, kind: QueueKind, pause_ms: u32) -> Queue {
    let text = |text: &str| Argument::Text(text.to_owned());
    let mut arguments = vec![("x-dead-letter-exchange", text(INVOKE)), ("x-dead-letter-routing-key", Argument::Text(pool_key(pool)))];
    if kind == QueueKind::Quorum {
        arguments.push(("x-queue-type", text("quorum")));
        arguments.push(("x-dead-letter-strategy", text("at-least-once")));
        arguments.push(("x-overflow", text("reject-publish")));
    }
    Queue { name: retry_queue(pool, pause_ms), arguments, bindings: vec![] }
}

/// The queue in which the events of a trigger wait; it is bound apart, as the exchange may be anybody's.
pub fn trigger(queue: String) -> Topology {
    let arguments = vec![("x-dead-letter-exchange", Argument::Text(DEAD.to_owned()))];
    Topology { exchanges: vec![], queues: vec![Queue { name: queue, arguments, bindings: vec![] }] }
}

/// The queue in which failed invocations wait for at most this long; a message's own expiration says how long.
pub fn retry_queue(pool: &PoolId, pause_ms: u32) -> String {
    format!("{}.retry.{}s", pool_queue(pool), pause_ms / 1000)
}

/// The queue for an invocation that failed `failed` times, from 1, and the time that it waits there at most.
pub fn retry_after(pool: &PoolId, failed: u32) -> (String, u32) {
    let at = (failed.max(1) as usize - 1).min(RETRY_PAUSES_MS.len() - 1);
    (retry_queue(pool, RETRY_PAUSES_MS[at]), RETRY_PAUSES_MS[at])
}

/// The queue for tasks of one slot.
pub fn pool_queue(pool: &PoolId) -> String {
    format!("piecework.pool.{}", pool_key(pool))
}

/// The queue for tasks of several slots of a node.
pub fn wide_queue(pool: &PoolId) -> String {
    format!("{}.wide", pool_queue(pool))
}

/// The pools to which a queue of this name may belong: a pool's name may equal that of another pool's wide queue.
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

/// The routing key of a node's events, and of control messages to it.
pub fn node_key(pool: &PoolId, node: &NodeId) -> String {
    format!("node.{}.{}", pool_key(pool), node.as_str().to_ascii_lowercase())
}

/// The routing key of control messages to all nodes of a pool.
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
        assert_eq!(pools(&retry_queue(&pool, RETRY_PAUSES_MS[0])), [] as [&str; 0]);
        assert_eq!(pools(EVENT_QUEUE), [] as [&str; 0]);
        assert_eq!(pools("piecework.pool."), [] as [&str; 0]);
    }

    #[test]
    fn only_task_and_invoke_exchanges_reach_a_pool_queue() {
        let topology = pool(&"p".parse().unwrap(), QueueKind::Quorum);
        let sources: Vec<_> =
            topology.queues.iter().map(|queue| queue.bindings.iter().map(|(exchange, _)| *exchange).collect::<Vec<_>>()).collect();
        assert_eq!(sources, vec![vec![TASKS, INVOKE], vec![TASKS], vec![], vec![], vec![]]);
    }
}
