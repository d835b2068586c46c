//! Inputs and outputs of the engine.

use std::collections::HashMap;

use clients::amqp::Tag;
use contract::{
    ids::{AttemptKey, PoolId},
    message::{Control, EventBatch, Heartbeat, HeartbeatReply, ReplyMessage, RequestKind, TaskMessage},
};
use model::{node::NodeActivity, refusal::Refusal};
use store::errands::{Errand, Place};
use tokio::sync::oneshot;

use crate::{
    command::{Command, Done},
    figures::Figures,
};

/// Address of an answer over the broker.
#[derive(Debug, Clone)]
pub struct ReplyTo {
    /// The reply queue of the agent that asks.
    pub reply_to: String,
    /// The asker's id of its question, sent back with the answer.
    pub correlation_id: Option<String>,
}

/// By pool, the nodes whose rows are behind.
pub type Activity = HashMap<PoolId, Vec<NodeActivity>>;

/// An input of the engine.
#[derive(Debug)]
pub enum Input {
    /// A change that a client requests.
    Command {
        command: Command,
        reply: oneshot::Sender<Result<Done, Refusal>>,
    },
    /// Events of agents.
    Events {
        batch: EventBatch,
        /// Acknowledged after the commit that holds the events.
        tag: Tag,
    },
    Heartbeat(Box<Heartbeat>, Option<ReplyTo>),
    /// A question of an agent or the autoscaler.
    Request(RequestKind, ReplyTo),
    /// Results of errands: place, number, success.
    Errands(Vec<(Place, u64, bool)>),
    /// Results of publishes: true when the broker has confirmed.
    Published(Vec<(PoolId, AttemptKey, bool)>),
    /// The regular tick.
    Tick {
        /// Whether events may be waiting unread, so that no node may be counted as lost.
        events_behind: bool,
        /// Ready messages by pool, when they were measured for this tick.
        depths: HashMap<PoolId, u32>,
    },
    /// Asks for the present totals; answered after the commit.
    Measure(oneshot::Sender<Figures>),
    /// Asks for what the rows of these pools' nodes do not show yet; answered after the commit.
    NodeActivity(Vec<PoolId>, oneshot::Sender<Activity>),
    /// Ends the thread after this batch.
    Stop,
}

/// A task message for the broker.
#[derive(Debug, Clone)]
pub struct TaskPublish {
    pub pool: PoolId,
    /// Whether it goes to the queue for tasks of several slots.
    pub is_wide: bool,
    pub message: TaskMessage,
}

/// An output, sent after the commit.
#[derive(Debug)]
pub enum Output {
    /// Publishes task messages, in this order.
    Publish(Vec<TaskPublish>),
    Reply(ReplyTo, Box<ReplyMessage>),
    HeartbeatAnswered(ReplyTo, Box<HeartbeatReply>),
    /// Sends a control message to agents.
    Control {
        /// Routing key of a node or of a pool.
        key: String,
        control: Control,
    },
    /// Declares a pool's queues, then answers the API request.
    Declare(PoolId, Option<(oneshot::Sender<Result<Done, Refusal>>, Done)>),
    /// Runs errands and reports their results.
    Errands(Vec<(u64, Errand)>),
}

/// The result of an event delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// The delivery's events are stored: acknowledge it.
    Done(Tag),
    /// The store can never accept the delivery's events: dead-letter it.
    Dead(Tag),
}
