//! What goes into the engine and what comes out of it.

use std::collections::HashMap;

use clients::amqp::Tag;
use contract::{
    ids::{AttemptKey, PoolId},
    message::{Control, EventBatch, Heartbeat, HeartbeatReply, ReplyMessage, RequestKind, TaskMessage},
};
use model::refusal::Refusal;
use store::errands::{Errand, Place};
use tokio::sync::oneshot;

use crate::{
    command::{Command, Done},
    figures::Figures,
};

/// Where an answer goes.
#[derive(Debug, Clone)]
pub struct ReplyTo {
    /// The asker's queue.
    pub reply_to: String,
    /// The asker's number for the question.
    pub correlation_id: Option<String>,
}

/// What the engine takes in.
#[derive(Debug)]
pub enum Input {
    /// A change that people ask for.
    Command {
        /// The change.
        command: Command,
        /// Its answer.
        reply: oneshot::Sender<Result<Done, Refusal>>,
    },
    /// What agents tell.
    Events {
        /// The events.
        batch: EventBatch,
        /// Acknowledged after the commit.
        tag: Tag,
    },
    /// A sign of life.
    Heartbeat(Box<Heartbeat>, Option<ReplyTo>),
    /// A question of an agent or the autoscaler.
    Request(RequestKind, ReplyTo),
    /// How errands went.
    Errands(Vec<(Place, u64, bool)>),
    /// How publishes went.
    Published(Vec<(PoolId, AttemptKey, bool)>),
    /// Time passes.
    Tick {
        /// Events wait unread.
        events_behind: bool,
        /// Messages ready, by pool, when just measured.
        depths: HashMap<PoolId, u32>,
    },
    /// Somebody wants to know what there is; answered after the commit.
    Measure(oneshot::Sender<Figures>),
    /// End after this batch.
    Stop,
}

/// A task on its way to the broker.
#[derive(Debug, Clone)]
pub struct TaskPublish {
    /// The pool.
    pub pool: PoolId,
    /// Whether it takes several slots.
    pub is_wide: bool,
    /// The message.
    pub message: TaskMessage,
}

/// What leaves after a commit.
#[derive(Debug)]
pub enum Output {
    /// Publish these, in order.
    Publish(Vec<TaskPublish>),
    /// Answer a question.
    Reply(ReplyTo, Box<ReplyMessage>),
    /// Answer a heartbeat.
    HeartbeatAnswered(ReplyTo, Box<HeartbeatReply>),
    /// Tell agents.
    Control {
        /// The routing key: a node or a pool.
        key: String,
        /// What.
        control: Control,
    },
    /// Declare a pool's queues, then answer the API.
    Declare(PoolId, Option<(oneshot::Sender<Result<Done, Refusal>>, Done)>),
    /// What must happen outside, and is told when it has.
    Errands(Vec<(u64, Errand)>),
}

/// What becomes of a delivery of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// Its events are committed.
    Done(Tag),
    /// The store can never hold its events.
    Dead(Tag),
}
