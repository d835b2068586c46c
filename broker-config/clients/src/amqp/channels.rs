//! A pool of channels in confirm mode, because opening one costs two round trips.

use std::sync::Arc;

use deadpool::managed::{Manager, Metrics, Object, Pool, PoolError, QueueMode, RecycleError, RecycleResult, Timeouts};
use lapin::{Channel, options::ConfirmSelectOptions};
use tokio::time::timeout;

use super::{
    connection::{Connection, Present},
    declare::{bounded, release},
    error::AmqpError,
    limits::{CHANNELS_MAX, CONFIRM_TIMEOUT, OPERATION_TIMEOUT, RECONNECT_WAIT},
    live::Live,
};

/// A channel in confirm mode.
pub(super) struct ConfirmChannel {
    pub(super) channel: Channel,
    pub(super) live: Live,
    /// Set while confirms are outstanding. A caller that gives up meanwhile leaves a channel whose next
    /// confirms and returns would be attributed to another caller's message.
    pub(super) is_dirty: bool,
}

impl Drop for ConfirmChannel {
    /// The client library would close at once, before it has written all messages, which ends the whole connection.
    fn drop(&mut self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if !self.is_dirty || !self.channel.status().connected() {
            return;
        }
        let channel = self.channel.clone();
        runtime.spawn(async move {
            match timeout(CONFIRM_TIMEOUT, channel.wait_for_confirms()).await {
                Ok(Ok(_)) => release(channel).await,
                Ok(Err(error)) => tracing::debug!(%error, "a publishing channel was closed before its confirms arrived"),
                Err(_) => tracing::debug!("an abandoned publishing channel got no confirms in time"),
            }
        });
    }
}

/// Makes confirm channels on the publishing connection.
pub(super) struct Channels {
    connection: Arc<Connection>,
}

/// The pool of confirm channels.
pub(super) type ChannelPool = Pool<Channels>;
/// A channel taken from the pool; it goes back when dropped.
pub(super) type Taken = Object<Channels>;

impl Manager for Channels {
    type Type = ConfirmChannel;
    type Error = AmqpError;

    async fn create(&self) -> Result<ConfirmChannel, AmqpError> {
        open(&self.connection).await
    }

    async fn recycle(&self, taken: &mut ConfirmChannel, _: &Metrics) -> RecycleResult<AmqpError> {
        let is_present = matches!(&*self.connection.watch().borrow(), Present::Up(live) if live.generation == taken.live.generation);
        if taken.is_dirty || !is_present || !taken.channel.status().connected() {
            return Err(RecycleError::message("the channel is spent"));
        }
        Ok(())
    }
}

/// Opens a new channel in confirm mode.
pub(super) async fn open(connection: &Connection) -> Result<ConfirmChannel, AmqpError> {
    let live = connection.live().await?;
    if live.is_blocked() {
        // The broker reads nothing from this connection: opening a channel would time out and end the connection.
        return Err(AmqpError::Blocked);
    }
    let channel = live.channel().await?;
    bounded("asking for confirms", channel.confirm_select(ConfirmSelectOptions::default())).await?;
    Ok(ConfirmChannel { channel, live, is_dirty: false })
}

/// Makes a pool of channels on a connection.
pub(super) fn pool(connection: Arc<Connection>) -> ChannelPool {
    let timeouts =
        Timeouts { wait: Some(CONFIRM_TIMEOUT), create: Some(RECONNECT_WAIT + 2 * OPERATION_TIMEOUT), recycle: Some(OPERATION_TIMEOUT) };
    Pool::builder(Channels { connection })
        .max_size(CHANNELS_MAX)
        // The most recently used channel is the least likely to be closed.
        .queue_mode(QueueMode::Lifo)
        .timeouts(timeouts)
        .runtime(deadpool::Runtime::Tokio1)
        .build()
        .expect("building a pool fails only without a runtime, and one is given")
}

/// Takes a channel, waiting for one when all are taken.
pub(super) async fn take(pool: &ChannelPool) -> Result<Taken, AmqpError> {
    pool.get().await.map_err(failure)
}

/// Takes a channel if one is free or may be opened at once.
pub(super) async fn try_take(pool: &ChannelPool) -> Result<Option<Taken>, AmqpError> {
    let timeouts = Timeouts { wait: Some(std::time::Duration::ZERO), ..pool.timeouts() };
    match pool.timeout_get(&timeouts).await {
        Ok(taken) => Ok(Some(taken)),
        Err(PoolError::Timeout(deadpool::managed::TimeoutType::Wait)) => Ok(None),
        Err(error) => Err(failure(error)),
    }
}

fn failure(error: PoolError<AmqpError>) -> AmqpError {
    match error {
        PoolError::Backend(error) => error,
        PoolError::Timeout(_) => AmqpError::Timeout { what: "a free channel" },
        PoolError::Closed => AmqpError::Closed,
        other => {
            tracing::warn!(error = %other, "the pool of publishing channels failed; the message counts as not sent");
            AmqpError::Disconnected
        }
    }
}
