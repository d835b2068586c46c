//! The road: one AMQP client that every part uses, on RabbitMQ and on the embedded broker alike.
//!
//! A [`Link`] holds two connections, one to publish and one to consume, and mends each by itself.
//! A connection with any error is thrown away and built anew, with its topology and subscriptions;
//! deliveries in hand then belong to an older generation, and settling them does nothing.

mod acks;
mod backoff;
mod board;
mod caller;
mod channels;
mod consumer;
mod declare;
mod error;
mod lane;
mod line;
mod link;
mod outgoing;
mod peek;
mod publisher;
mod pump;
mod subscription;
mod window;

use std::time::Duration;

pub use self::{
    acks::Acker,
    board::LinkState,
    caller::Caller,
    consumer::{Consumer, SlotControl},
    declare::Depth,
    error::AmqpError,
    lane::Confirm,
    link::Link,
    outgoing::Outgoing,
    peek::{PEEKED_BYTES_MAX, PEEKED_MAX, Peeked},
    publisher::Publisher,
    subscription::{Delivery, QueueTarget, SlotConsumer, Subscription, Tag},
};

/// A connection that is not open by then has failed.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A publish that is not confirmed by then has failed, and its connection with it.
pub const CONFIRM_TIMEOUT: Duration = Duration::from_secs(30);
/// Any other exchange with the broker.
pub const OPERATION_TIMEOUT: Duration = Duration::from_secs(10);
/// What most questions to another part may take.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an operation waits for a connection that is being mended.
pub const MENDING_WAIT: Duration = Duration::from_secs(10);
/// Farewells of one connection or channel.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Both sides notice a silent peer after about twice this.
pub const HEARTBEAT_SECONDS: u16 = 10;
/// Between two checks that a consumer still consumes.
pub const WATCHDOG_PERIOD: Duration = Duration::from_secs(30);
/// Messages wait, slots are free, and nothing came for this long: the consumer is rebuilt.
pub const SILENCE_MAX: Duration = Duration::from_secs(120);
/// Published and not yet confirmed, on one channel.
pub const IN_FLIGHT_MAX: usize = 256;
/// Confirm channels of one link.
pub const CHANNELS_MAX: usize = 8;
/// Messages handed to [`Publisher::send`] and not yet written.
pub const SEND_QUEUE_MAX: usize = 4096;
/// Questions of one [`Caller`] without an answer.
pub const CALLS_MAX: usize = 1024;
/// Consumer priorities in use on one queue.
pub const PRIORITY_LEVELS_MAX: u32 = 8;
