//! Takes messages that submit tasks: each is acknowledged once its tasks are stored, or once its refusal is told.
//!
//! What passes by itself (a store that takes no changes, a full disk) keeps the message in hand, and with it the queue waits.

use std::time::Duration;

use api::submissions::{
    read::{self, Message},
    show,
};
use broker_config::{
    metrics::{Counter, SUBMISSIONS},
    topology,
};
use clients::amqp::{Acker, AmqpError, Consumer, Delivery, Publisher, Reason};
use contract::time::Timestamp;
use model::refusal::{Code, Refusal};
use tokio::{sync::watch, task::JoinSet};
use tracing::{debug, warn};

use crate::submissions::{answers, parts::Parts};

/// Before a message that could not be stored is tried again; doubled with each try.
const PAUSE: Duration = Duration::from_millis(100);
/// Before it is tried again at most.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Tries of one message, about ten minutes together; then it is refused, for it may be the message that the store cannot take.
const TRIES_MAX: u32 = 24;
/// Tries to tell a refusal; then the message goes back to its queue.
const TELLS_MAX: u32 = 8;
/// Between two looks whether there is room again.
const ROOM_INTERVAL: Duration = Duration::from_secs(1);
/// How long messages in hand may take at the end; the others are delivered again.
const END_MAX: Duration = Duration::from_secs(5);

/// Takes messages until `stop`, as many at a time as the prefetch allows.
pub(super) async fn run(mut consumer: Consumer, parts: Parts, mut stop: watch::Receiver<bool>) {
    let intake = Intake { publisher: parts.link.publisher(), acker: consumer.acker(), parts, counts: Counts::new(), stop: stop.clone() };
    let mut in_hand: JoinSet<()> = JoinSet::new();
    loop {
        tokio::select! {
            delivery = consumer.next() => {
                let Some(delivery) = delivery else { break };
                let intake = intake.clone();
                in_hand.spawn(async move { intake.take(delivery).await });
            }
            Some(_) = in_hand.join_next() => {}
            _ = stop.wait_for(|stop| *stop) => break,
        }
    }
    let rest = async { while in_hand.join_next().await.is_some() {} };
    if tokio::time::timeout(END_MAX, rest).await.is_err() {
        warn!("submissions were still in hand at the end; the broker delivers them again");
    }
}

#[derive(Clone)]
struct Counts {
    accepted: Counter,
    repeated: Counter,
    refused: Counter,
}

impl Counts {
    fn new() -> Counts {
        let of = |result: &'static str| SUBMISSIONS.of([result]);
        Counts { accepted: of("accepted"), repeated: of("repeated"), refused: of("refused") }
    }
}

#[derive(Clone)]
struct Intake {
    publisher: Publisher,
    acker: Acker,
    parts: Parts,
    counts: Counts,
    stop: watch::Receiver<bool>,
}

/// What the API reads of a delivery; headers are given apart, for they are read from a table.
fn message<'a>(delivery: &'a Delivery, (wait, traceparent): (Option<&'a str>, Option<&'a str>)) -> Message<'a> {
    Message {
        key: &delivery.routing_key,
        body: &delivery.body,
        content_type: delivery.content_type(),
        message_id: delivery.message_id.as_deref(),
        reply_to: delivery.reply_to.as_deref(),
        correlation_id: delivery.correlation_id.as_deref(),
        priority: delivery.priority(),
        wait,
        traceparent,
    }
}

/// Whether a refusal says nothing of the message itself.
fn may_pass(refusal: &Refusal) -> bool {
    refusal.code.status() >= 500 && refusal.code != Code::NotImplemented
}

/// Whether the job that a submission would go to is on its way out, and another one of its name can be made then.
fn comes_back(refusal: &Refusal, names_job: bool) -> bool {
    !names_job && refusal.code == Code::JobBeingDeleted
}

impl Intake {
    async fn take(mut self, delivery: Delivery) {
        let wait = delivery.has_header("piecework-wait").then(|| delivery.header("piecework-wait").unwrap_or_default());
        let traceparent = delivery.header("traceparent");
        let message = message(&delivery, (wait.as_deref(), traceparent.as_deref()));
        // Who may publish to the default exchange alone may not submit.
        if delivery.exchange != topology::SUBMIT {
            let text = "Tasks are submitted by the exchange piecework.submit.";
            return self.refuse(&delivery, &message, &Refusal::new(Code::InvalidInput, text)).await;
        }
        let mut tries = 0;
        let refusal = loop {
            while self.parts.engine.shortage().is_some() {
                if self.pause(ROOM_INTERVAL).await.is_err() {
                    return;
                }
            }
            let submission = match read::read(&message, self.parts.blobs.places()) {
                Ok(submission) => submission,
                Err(refusal) => break refusal,
            };
            let names_job = matches!(submission.job, model::submission::Target::Named(_));
            match self.parts.engine.submit(submission).await {
                Ok(is_repeated) => {
                    if is_repeated { &self.counts.repeated } else { &self.counts.accepted }.increment(1);
                    self.acker.ack(delivery.tag);
                    return;
                }
                // What became of it is not known: only its queue can tell whether it comes again.
                Err(refusal) if refusal.code == Code::OperationTimedOut => {
                    warn!(key = delivery.routing_key, "a submission was not stored in time; it goes back to its queue");
                    self.acker.nack(delivery.tag, true);
                    return;
                }
                Err(refusal) if tries < TRIES_MAX && (may_pass(&refusal) || comes_back(&refusal, names_job)) => {
                    debug!(key = delivery.routing_key, %refusal, "a submission waits until it can be stored");
                    if self.pause(PAUSE_MAX.min(PAUSE * 2u32.pow(tries.min(16)))).await.is_err() {
                        return;
                    }
                    tries += 1;
                }
                Err(refusal) => break refusal,
            }
        };
        self.refuse(&delivery, &message, &refusal).await;
    }

    /// Waits, unless the dispatcher stops meanwhile.
    async fn pause(&mut self, time: Duration) -> Result<(), Stopped> {
        tokio::select! {
            () = tokio::time::sleep(time) => Ok(()),
            _ = self.stop.wait_for(|stop| *stop) => Err(Stopped),
        }
    }

    /// Tells a refusal to who waits for an answer, or else to whoever looks at the dead letters.
    async fn refuse(mut self, delivery: &Delivery, message: &Message<'_>, refusal: &Refusal) {
        debug!(key = delivery.routing_key, %refusal, "a submission is refused");
        for tries in 0..TELLS_MAX {
            match self.tell(delivery, message, refusal).await {
                Ok(()) => {
                    self.counts.refused.increment(1);
                    self.acker.ack(delivery.tag);
                    return;
                }
                Err(error) if error.is_transient() => debug!(%error, "a refusal was not told yet; it is tried again"),
                Err(error) => {
                    warn!(key = delivery.routing_key, %error, "a refused submission goes to the dead letters without its reason");
                    self.counts.refused.increment(1);
                    self.acker.reject_to_dead(delivery.tag);
                    return;
                }
            }
            if self.pause(PAUSE_MAX.min(PAUSE * 2u32.pow(tries))).await.is_err() {
                return;
            }
        }
        warn!(key = delivery.routing_key, "the broker takes no answers; a refused submission goes back to its queue");
        self.acker.nack(delivery.tag, true);
    }

    async fn tell(&self, delivery: &Delivery, message: &Message<'_>, refusal: &Refusal) -> Result<(), AmqpError> {
        if let Ok(Some(reply)) = read::reply(message) {
            let body = show::refused(&self.parts.base, refusal);
            match self.publisher.publish(answers::outgoing(&reply, "refused", &body)?).await {
                Err(AmqpError::Returned { .. }) => debug!(queue = reply.queue, "nobody waits for a refusal; its message is kept"),
                told => return told,
            }
        }
        let facts: String = refusal.values.iter().map(|(name, value)| format!(" {name}: {value};")).collect();
        let reason = Reason { code: refusal.code.as_str().to_owned(), message: refusal.message.clone() + facts.trim_end_matches(';') };
        match delivery.refused(&reason, Timestamp::now()) {
            Some(copy) => self.publisher.publish(copy).await,
            None => {
                // The broker itself moves it, with all its headers.
                self.acker.reject_to_dead(delivery.tag);
                Ok(())
            }
        }
    }
}

/// The dispatcher stops: what is in hand is delivered to the next one.
struct Stopped;
