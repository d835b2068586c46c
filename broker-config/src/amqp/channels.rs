//! Confirm channels, pooled: opening one costs two round trips.

use std::sync::Arc;

use deadpool::managed::{Manager, Metrics, Object, Pool, PoolError, QueueMode, RecycleError, RecycleResult, Timeouts};
use lapin::{Channel, options::ConfirmSelectOptions};
use tokio::time::timeout;

use super::{
    AmqpError, CHANNELS_MAX, CONFIRM_TIMEOUT, MENDING_WAIT, OPERATION_TIMEOUT,
    declare::{bounded, release},
    line::{Line, Live, Present},
};

/// A channel in confirm mode.
pub(super) struct ConfirmChannel {
    pub(super) channel: Channel,
    pub(super) live: Live,
    /// Set while confirms are outstanding: somebody who gives up meanwhile leaves a channel
    /// whose next confirms and returns would be mistaken for another message's.
    pub(super) is_dirty: bool,
}

impl Drop for ConfirmChannel {
    /// The client would close at once, ahead of messages it has not written yet, which ends the whole connection.
    fn drop(&mut self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if !self.is_dirty || !self.channel.status().connected() {
            return;
        }
        let channel = self.channel.clone();
        runtime.spawn(async move {
            match timeout(CONFIRM_TIMEOUT, channel.wait_for_confirms()).await {
                Ok(Ok(_)) => release(channel).await,
                Ok(Err(error)) => tracing::debug!(%error, "a channel ended before its confirms came"),
                Err(_) => tracing::debug!("a channel that was given up got no confirms"),
            }
        });
    }
}

/// Makes confirm channels on the publishing connection.
pub(super) struct Channels {
    line: Arc<Line>,
}

/// The pool of them.
pub(super) type ChannelPool = Pool<Channels>;
/// One of them, taken.
pub(super) type Taken = Object<Channels>;

impl Manager for Channels {
    type Type = ConfirmChannel;
    type Error = AmqpError;

    async fn create(&self) -> Result<ConfirmChannel, AmqpError> {
        open(&self.line).await
    }

    async fn recycle(&self, taken: &mut ConfirmChannel, _: &Metrics) -> RecycleResult<AmqpError> {
        let is_present = matches!(&*self.line.watch().borrow(), Present::Up(live) if live.generation == taken.live.generation);
        if taken.is_dirty || !is_present || !taken.channel.status().connected() {
            return Err(RecycleError::message("the channel is spent"));
        }
        Ok(())
    }
}

/// A new channel in confirm mode.
pub(super) async fn open(line: &Line) -> Result<ConfirmChannel, AmqpError> {
    let live = line.live().await?;
    let channel = live.channel().await?;
    bounded("asking for confirms", channel.confirm_select(ConfirmSelectOptions::default())).await?;
    Ok(ConfirmChannel { channel, live, is_dirty: false })
}

/// A pool on a line.
pub(super) fn pool(line: Arc<Line>) -> ChannelPool {
    let timeouts =
        Timeouts { wait: Some(CONFIRM_TIMEOUT), create: Some(MENDING_WAIT + 2 * OPERATION_TIMEOUT), recycle: Some(OPERATION_TIMEOUT) };
    Pool::builder(Channels { line })
        .max_size(CHANNELS_MAX)
        // The one used last is the one most surely alive.
        .queue_mode(QueueMode::Lifo)
        .timeouts(timeouts)
        .runtime(deadpool::Runtime::Tokio1)
        .build()
        .expect("a runtime is given, which is all that building can lack")
}

/// Takes a channel, waiting for one when all are taken.
pub(super) async fn take(pool: &ChannelPool) -> Result<Taken, AmqpError> {
    pool.get().await.map_err(failure)
}

/// Takes a channel if one may be had without waiting for others.
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
            tracing::warn!(error = %other, "the channel pool failed");
            AmqpError::Disconnected
        }
    }
}
