//! One ordered way out: messages leave as they were sent, a window at a time.

use std::sync::Arc;

use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{
    AmqpError, CONFIRM_TIMEOUT, IN_FLIGHT_MAX, Outgoing, SEND_QUEUE_MAX,
    channels::{self, ConfirmChannel},
    line::Line,
    window,
};

/// What became of one message that was sent.
#[derive(Debug)]
pub struct Confirm {
    result: oneshot::Receiver<Result<(), AmqpError>>,
}

impl Confirm {
    /// `Ok` once the broker has the message in a queue, or needs no queue for it.
    pub async fn wait(self) -> Result<(), AmqpError> {
        self.result.await.unwrap_or(Err(AmqpError::Closed))
    }
}

struct Parcel {
    outgoing: Outgoing,
    result: oneshot::Sender<Result<(), AmqpError>>,
}

/// The entrance; the task behind it ends with the last of them, when all is sent.
pub(super) struct Lane {
    parcels: mpsc::Sender<Parcel>,
}

impl Lane {
    pub(super) fn start(line: Arc<Line>) -> Lane {
        let (parcels, queue) = mpsc::channel(SEND_QUEUE_MAX);
        tokio::spawn(run(line, queue));
        Lane { parcels }
    }

    pub(super) async fn send(&self, outgoing: Outgoing) -> Result<Confirm, AmqpError> {
        let (result, confirm) = oneshot::channel();
        match timeout(CONFIRM_TIMEOUT, self.parcels.send(Parcel { outgoing, result })).await {
            Ok(Ok(())) => Ok(Confirm { result: confirm }),
            Ok(Err(_)) => Err(AmqpError::Closed),
            Err(_) => Err(AmqpError::Timeout { what: "room to send" }),
        }
    }
}

async fn run(line: Arc<Line>, mut queue: mpsc::Receiver<Parcel>) {
    let mut held: Option<ConfirmChannel> = None;
    let mut parcels = Vec::with_capacity(IN_FLIGHT_MAX);
    while queue.recv_many(&mut parcels, IN_FLIGHT_MAX).await > 0 {
        let results = match channel(&line, &mut held).await {
            Ok(taken) => window::publish(taken, parcels.iter().map(|parcel| &parcel.outgoing)).await,
            Err(error) => {
                tracing::debug!(%error, "no channel to send on");
                let is_closed = matches!(error, AmqpError::Closed);
                parcels.iter().map(|_| Err(if is_closed { AmqpError::Closed } else { AmqpError::Disconnected })).collect()
            }
        };
        for (parcel, result) in parcels.drain(..).zip(results) {
            // Nobody has to wait for a confirm.
            let _unheard = parcel.result.send(result);
        }
    }
}

async fn channel<'a>(line: &Line, held: &'a mut Option<ConfirmChannel>) -> Result<&'a mut ConfirmChannel, AmqpError> {
    let is_usable = held.as_ref().is_some_and(|held| !held.is_dirty && held.channel.status().connected());
    if !is_usable {
        *held = None;
    }
    match held {
        Some(taken) => Ok(taken),
        None => Ok(held.insert(channels::open(line).await?)),
    }
}
