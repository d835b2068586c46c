//! Publishes messages in the order in which they were sent, a window at a time.

use std::sync::Arc;

use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{
    channels::{self, ConfirmChannel},
    connection::Connection,
    error::AmqpError,
    limits::{CONFIRM_TIMEOUT, IN_FLIGHT_MAX, SEND_QUEUE_MAX},
    outgoing::Outgoing,
    window,
};

/// The pending result of one message that was sent.
#[derive(Debug)]
pub struct Confirm {
    result: oneshot::Receiver<Result<(), AmqpError>>,
}

impl Confirm {
    /// `Ok` once the broker has stored the message in a queue, or needs no queue for it.
    pub async fn wait(self) -> Result<(), AmqpError> {
        self.result.await.unwrap_or(Err(AmqpError::Closed))
    }
}

struct Message {
    outgoing: Outgoing,
    result: oneshot::Sender<Result<(), AmqpError>>,
}

/// Queues messages for the publishing task, which ends when this is dropped and all messages are sent.
pub(super) struct OrderedPublisher {
    messages: mpsc::Sender<Message>,
}

impl OrderedPublisher {
    pub(super) fn start(connection: Arc<Connection>) -> OrderedPublisher {
        let (messages, queue) = mpsc::channel(SEND_QUEUE_MAX);
        tokio::spawn(run(connection, queue));
        OrderedPublisher { messages }
    }

    pub(super) async fn send(&self, outgoing: Outgoing) -> Result<Confirm, AmqpError> {
        let (result, confirm) = oneshot::channel();
        match timeout(CONFIRM_TIMEOUT, self.messages.send(Message { outgoing, result })).await {
            Ok(Ok(())) => Ok(Confirm { result: confirm }),
            Ok(Err(_)) => Err(AmqpError::Closed),
            Err(_) => Err(AmqpError::Timeout { what: "space in the send queue" }),
        }
    }
}

async fn run(connection: Arc<Connection>, mut queue: mpsc::Receiver<Message>) {
    let mut held: Option<ConfirmChannel> = None;
    let mut messages = Vec::with_capacity(IN_FLIGHT_MAX);
    while queue.recv_many(&mut messages, IN_FLIGHT_MAX).await > 0 {
        let results = match channel(&connection, &mut held).await {
            Ok(taken) => window::publish(taken, messages.iter().map(|message| &message.outgoing)).await,
            Err(error) => {
                tracing::debug!(%error, "no channel to publish on; the callers of these messages get an error");
                let is_closed = matches!(error, AmqpError::Closed);
                messages.iter().map(|_| Err(if is_closed { AmqpError::Closed } else { AmqpError::Disconnected })).collect()
            }
        };
        for (message, result) in messages.drain(..).zip(results) {
            // The caller may have dropped its `Confirm`.
            let _unheard = message.result.send(result);
        }
    }
}

async fn channel<'a>(connection: &Connection, held: &'a mut Option<ConfirmChannel>) -> Result<&'a mut ConfirmChannel, AmqpError> {
    let is_usable = held.as_ref().is_some_and(|held| !held.is_dirty && held.channel.status().connected());
    if !is_usable {
        *held = None;
    }
    match held {
        Some(taken) => Ok(taken),
        None => Ok(held.insert(channels::open(connection).await?)),
    }
}
