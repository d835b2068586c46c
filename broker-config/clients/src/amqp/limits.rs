//! Time limits and size limits between a part and its broker.

use std::time::Duration;

/// Opening a connection fails after this long.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A publish without a confirm fails after this long, and its connection is discarded.
pub const CONFIRM_TIMEOUT: Duration = Duration::from_secs(30);
/// Any other operation at the broker fails after this long.
pub const OPERATION_TIMEOUT: Duration = Duration::from_secs(10);
/// The usual time limit of a request to another part.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait of an operation for a connection that reconnects.
pub const RECONNECT_WAIT: Duration = Duration::from_secs(10);
/// Time limit for closing one connection or channel.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes of a frame; the client library's buffers hold 32 of them each way.
pub(super) const FRAME_BYTES_MAX: u32 = 32 * 1024;
/// Bytes of a frame between the broker and a part that takes messages of any publisher: as many as RabbitMQ and the embedded
/// broker let publishers send. All headers of a message are one frame, and a larger one than was agreed ends the connection
/// with each delivery.
pub(super) const FRAME_BYTES_MAX_OF_ANY: u32 = 128 * 1024;
/// Both sides notice a dead peer after about twice this.
pub const HEARTBEAT_SECONDS: u16 = 10;
/// Interval between checks that a consumer still consumes.
pub const WATCHDOG_PERIOD: Duration = Duration::from_secs(30);
/// When messages wait, slots are free and nothing arrives for this long, the consumer subscribes again.
pub const SILENCE_MAX: Duration = Duration::from_secs(120);
/// Published and unconfirmed messages on one channel.
pub const IN_FLIGHT_MAX: usize = 256;
/// Confirm channels of one link.
pub const CHANNELS_MAX: usize = 8;
/// Messages handed to [`Publisher::send`](super::Publisher::send) and not yet written.
pub const SEND_QUEUE_MAX: usize = 4096;
/// Requests of one [`Caller`](super::Caller) without a reply.
pub const CALLS_MAX: usize = 1024;
/// Different consumer priorities in use on one queue.
pub const PRIORITY_LEVELS_MAX: u32 = 8;
