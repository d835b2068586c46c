//! The AMQP client of all parts, for RabbitMQ and the embedded broker alike.
//!
//! A [`Link`] holds two connections, one to publish and one to consume, and each reconnects by itself.
//! A connection with any error is dropped and opened anew, with its topology and subscriptions;
//! unsettled deliveries then belong to an older generation, and settling them does nothing.

mod acks;
mod backoff;
mod browser;
mod caller;
mod channels;
mod connection;
mod connections;
mod consumer;
mod consumer_task;
mod dead_letter;
mod declare;
mod error;
mod limits;
mod link;
mod live;
mod ordered;
mod outgoing;
mod peek;
mod publisher;
mod refused;
mod status;
mod subscription;
mod window;

pub use self::{
    acks::Acker,
    browser::Browser,
    caller::Caller,
    consumer::{Consumer, SlotControl},
    dead_letter::Burial,
    declare::Depth,
    error::AmqpError,
    limits::{
        CALL_TIMEOUT, CALLS_MAX, CHANNELS_MAX, CLOSE_TIMEOUT, CONFIRM_TIMEOUT, CONNECT_TIMEOUT, HEARTBEAT_SECONDS, IN_FLIGHT_MAX,
        OPERATION_TIMEOUT, PRIORITY_LEVELS_MAX, RECONNECT_WAIT, SEND_QUEUE_MAX, SILENCE_MAX, WATCHDOG_PERIOD,
    },
    link::Link,
    ordered::Confirm,
    outgoing::Outgoing,
    peek::{PEEKED_BYTES_MAX, PEEKED_MAX, Peeked},
    publisher::Publisher,
    refused::Reason,
    status::LinkState,
    subscription::{Delivery, QueueTarget, SlotConsumer, Subscription, Tag},
};
