//! The task of a consumer: subscribes, forwards deliveries, and subscribes again after any error.
//!
//! ```text
//! connection up ─► channel, queue, one AMQP consumer for each slot ─► deliveries ─► buffer ─► Consumer::next
//!    ▲                                                                   │
//!    └───── backoff ◄── channel error, cancelled, watchdog, connection down
//! ```

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Instant,
};

use futures::{FutureExt, Stream, StreamExt, stream, stream::SelectAll};
use lapin::{
    Channel,
    options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable, ShortString},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::MissedTickBehavior,
};

use super::{
    acks::Ledger,
    backoff::Backoff,
    connection::{Connection, Present},
    declare::{self, bounded},
    error::AmqpError,
    limits::{OPERATION_TIMEOUT, RECONNECT_WAIT, SILENCE_MAX, WATCHDOG_PERIOD},
    live::Live,
    subscription::{Delivery, QueueTarget, SlotConsumer, Subscription},
};

/// Deliveries forwarded in one go before other events are handled.
const BATCH_MAX: usize = 64;

/// A command of the consumer's owner to its task.
pub(super) enum Order {
    Pause(u32, oneshot::Sender<Result<(), AmqpError>>),
    Resume(u32, oneshot::Sender<Result<(), AmqpError>>),
    Check(oneshot::Sender<bool>),
}

pub(super) struct ConsumerTask {
    pub(super) connection: Arc<Connection>,
    pub(super) plan: Subscription,
    pub(super) out: mpsc::Sender<Delivery>,
    pub(super) orders: mpsc::Receiver<Order>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) queue_name: watch::Sender<Option<String>>,
    pub(super) generation: watch::Sender<u64>,
    /// Each slot and whether it is paused; survives reconnects.
    pub(super) slots: BTreeMap<u32, Slot>,
    /// Dropped with the task, so that a closing link can wait for it.
    pub(super) _alive: mpsc::Sender<()>,
}

pub(super) struct Slot {
    priority: Option<i32>,
    is_paused: bool,
}

impl Slot {
    pub(super) fn new(consumer: &SlotConsumer) -> Slot {
        Slot { priority: consumer.priority, is_paused: false }
    }
}

type Arrival = (u32, u64, Option<lapin::Result<lapin::message::Delivery>>);
type Arrivals = SelectAll<stream::BoxStream<'static, Arrival>>;

struct Session {
    live: Live,
    channel: Channel,
    generation: u64,
    queue: String,
    arrivals: Arrivals,
    /// Active AMQP consumers: slot to (incarnation, tag).
    consumers: BTreeMap<u32, (u64, ShortString)>,
    incarnations: u64,
    last_arrival: Instant,
}

enum End {
    /// The consumer was dropped or the link is closed.
    Over,
    /// The task subscribes again.
    Broken(&'static str),
}

impl ConsumerTask {
    /// Runs until the consumer is dropped; reports the result of the first subscription to `first` and ends if it failed.
    pub(super) async fn run(mut self, first: oneshot::Sender<Result<(), AmqpError>>) {
        let mut first = Some(first);
        let mut backoff = Backoff::new();
        let connection = self.connection.clone();
        while let Some(live) = connection.live_at_last().await {
            let generation = *self.generation.borrow() + 1;
            match self.subscribe(live.clone(), generation).await {
                Ok(session) => {
                    if first.take().is_some_and(|first| first.send(Ok(())).is_err()) {
                        return;
                    }
                    backoff = Backoff::new();
                    match self.serve(session).await {
                        End::Over => return,
                        End::Broken(reason) => live.discard(reason),
                    }
                }
                Err(error) => {
                    if let Some(first) = first.take() {
                        // The subscriber may have given up already.
                        let _unheard = first.send(Err(error));
                        return;
                    }
                    // A missing queue is no fault of the connection, which others use.
                    if !matches!(error, AmqpError::Refused { .. }) {
                        live.discard("subscribing failed");
                    }
                    tracing::warn!(%error, queue = ?self.plan.queue, "cannot consume from a queue, trying again");
                }
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.next()) => {}
                () = self.out.closed() => return,
                () = connection.finishing() => return,
            }
        }
        if let Some(first) = first {
            let _unheard = first.send(Err(AmqpError::Closed));
        }
    }

    async fn subscribe(&mut self, live: Live, generation: u64) -> Result<Session, AmqpError> {
        let channel = live.channel().await?;
        let queue = match &self.plan.queue {
            QueueTarget::Named(name) => name.clone(),
            QueueTarget::Private { bindings } => {
                let options = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
                let declared = channel.queue_declare("".into(), options, FieldTable::default());
                let name = bounded("declaring a private queue", declared).await?.name().to_string();
                declare::bind(&channel, &name, bindings).await?;
                name
            }
        };
        if self.plan.prefetch > 0 {
            bounded("setting the prefetch", channel.basic_qos(self.plan.prefetch, BasicQosOptions { global: false })).await?;
        }
        let mut session = Session {
            live,
            channel,
            generation,
            queue,
            arrivals: SelectAll::new(),
            consumers: BTreeMap::new(),
            incarnations: 0,
            last_arrival: Instant::now(),
        };
        for (&number, slot) in self.slots.iter().filter(|(_, slot)| !slot.is_paused) {
            session.consume(number, slot.priority, self.plan.no_ack).await?;
        }
        Ok(session)
    }

    async fn serve(&mut self, mut session: Session) -> End {
        self.ledger.begin(session.generation);
        self.generation.send_replace(session.generation);
        self.queue_name.send_replace(Some(session.queue.clone()));
        let end = self.forward(&mut session).await;
        self.queue_name.send_replace(None);
        if let End::Over = end {
            if let Err(error) = self.ledger.flush(session.generation, &session.channel).await {
                tracing::warn!(%error, "the last acks were not sent; the broker delivers those messages again");
            }
            declare::release(session.channel).await;
        }
        end
    }

    async fn forward(&mut self, session: &mut Session) -> End {
        let connection = self.connection.clone();
        let ledger = self.ledger.clone();
        let acks_channel = session.channel.clone();
        let writing = ledger.keep_writing(session.generation, &acks_channel);
        tokio::pin!(writing);
        let mut watchdog = tokio::time::interval(WATCHDOG_PERIOD);
        watchdog.set_missed_tick_behavior(MissedTickBehavior::Delay);
        watchdog.reset();
        let mut present = connection.watch();
        // Deliveries that found the buffer full; while there are any, no more are read.
        let mut stash: VecDeque<Delivery> = VecDeque::new();
        let over = connection.finishing();
        tokio::pin!(over);
        let out = self.out.clone();
        loop {
            tokio::select! {
                arrival = session.arrivals.next(), if stash.is_empty() && !session.arrivals.is_empty() => {
                    let mut next = arrival;
                    let mut moved = 0;
                    while let Some(arrival) = next {
                        moved += 1;
                        match session.receive(arrival) {
                            Ok(Some(delivery)) => {
                                if !self.plan.no_ack {
                                    ledger.delivered(delivery.tag.number);
                                }
                                match out.try_send(delivery) {
                                    Ok(()) => {}
                                    Err(mpsc::error::TrySendError::Full(delivery)) => {
                                        stash.push_back(delivery);
                                        break;
                                    }
                                    Err(mpsc::error::TrySendError::Closed(_)) => return End::Over,
                                }
                            }
                            Ok(None) => {}
                            Err(reason) => return End::Broken(reason),
                        }
                        if moved == BATCH_MAX {
                            break;
                        }
                        next = session.arrivals.next().now_or_never().flatten();
                    }
                }
                permit = out.reserve(), if !stash.is_empty() => match permit {
                    Ok(permit) => {
                        if let Some(delivery) = stash.pop_front() {
                            permit.send(delivery);
                        }
                    }
                    Err(_) => return End::Over,
                },
                written = &mut writing => return match written {
                    Ok(()) => End::Broken("the acks belong to an older channel"),
                    Err(error) => {
                        tracing::warn!(%error, "acks could not be sent; the broker delivers those messages again");
                        End::Broken("acks could not be sent")
                    }
                },
                Some(order) = self.orders.recv() => {
                    if let Err(reason) = self.carry_out(order, session).await {
                        return End::Broken(reason);
                    }
                }
                _ = watchdog.tick() => {
                    if let Err(reason) = self.check(session).await {
                        return End::Broken(reason);
                    }
                }
                changed = present.changed() => {
                    let is_ours =
                        matches!(&*present.borrow_and_update(), Present::Up(live) if live.generation == session.live.generation);
                    if changed.is_err() || !is_ours {
                        return End::Broken("the connection is gone");
                    }
                }
                () = out.closed() => return End::Over,
                () = &mut over => return End::Over,
            }
        }
    }

    async fn carry_out(&mut self, order: Order, session: &mut Session) -> Result<(), &'static str> {
        let (done, result) = match order {
            Order::Pause(number, done) => {
                let Some(slot) = self.slots.get_mut(&number) else { return Ok(()) };
                slot.is_paused = true;
                (done, session.cancel(number).await)
            }
            Order::Resume(number, done) => {
                let Some(slot) = self.slots.get_mut(&number) else { return Ok(()) };
                slot.is_paused = false;
                let is_consuming = session.consumers.contains_key(&number);
                (done, if is_consuming { Ok(()) } else { session.consume(number, slot.priority, self.plan.no_ack).await })
            }
            Order::Check(done) => {
                let verdict = self.check(session).await;
                let _unheard = done.send(verdict.is_ok());
                return verdict;
            }
        };
        // The setting is kept and applies after the next reconnect, so the caller gets `Ok`.
        let verdict = result.map_err(|error| {
            tracing::warn!(%error, "a slot could not be paused or resumed; the consumer subscribes again with the new setting");
            "a slot could not be changed"
        });
        let _unheard = done.send(Ok(()));
        verdict
    }

    /// Asks the broker whether the slots still consume, since an open connection does not prove it.
    async fn check(&self, session: &mut Session) -> Result<(), &'static str> {
        let wanted = self.slots.iter().filter(|(_, slot)| !slot.is_paused).count();
        if !session.channel.status().connected() || session.consumers.len() != wanted {
            return Err("a consumer is gone");
        }
        let depth = declare::depth(&session.live, &session.queue).await.map_err(|error| {
            tracing::warn!(%error, "the broker did not report the queue's depth; the consumer subscribes again");
            "the depth of the queue could not be read"
        })?;
        let Some(depth) = depth else { return Err("the queue is gone") };
        if wanted > 0 && depth.consumers == 0 {
            return Err("the broker has no consumer on the queue");
        }
        let room = wanted as u64 * u64::from(self.plan.prefetch);
        let is_free = self.plan.no_ack || self.plan.prefetch == 0 || self.ledger.unsettled() < room;
        if wanted > 0 && depth.ready > 0 && is_free && session.last_arrival.elapsed() > SILENCE_MAX {
            return Err("messages wait in the queue and none is delivered");
        }
        Ok(())
    }
}

impl Session {
    async fn consume(&mut self, slot: u32, priority: Option<i32>, no_ack: bool) -> Result<(), AmqpError> {
        let mut arguments = FieldTable::default();
        if let Some(priority) = priority {
            arguments.insert("x-priority".into(), AMQPValue::LongInt(priority));
        }
        let options = BasicConsumeOptions { no_ack, ..BasicConsumeOptions::default() };
        let consumed = self.channel.basic_consume(self.queue.as_str().into(), "".into(), options, arguments);
        let consumer = bounded("subscribing", consumed).await?;
        self.incarnations += 1;
        let incarnation = self.incarnations;
        self.consumers.insert(slot, (incarnation, consumer.tag()));
        self.arrivals.push(arrivals(slot, incarnation, consumer).boxed());
        Ok(())
    }

    async fn cancel(&mut self, slot: u32) -> Result<(), AmqpError> {
        match self.consumers.remove(&slot) {
            Some((_, tag)) => bounded("pausing a slot", self.channel.basic_cancel(tag, BasicCancelOptions::default())).await,
            None => Ok(()),
        }
    }

    fn receive(&mut self, (slot, incarnation, arrival): Arrival) -> Result<Option<Delivery>, &'static str> {
        match arrival {
            Some(Ok(raw)) => {
                self.last_arrival = Instant::now();
                Ok(Some(Delivery::new(self.generation, slot, raw)))
            }
            Some(Err(error)) => {
                tracing::warn!(%error, "a consumer got an error from the broker; it subscribes again");
                Err("a consumer got an error from the broker")
            }
            None if self.consumers.get(&slot).is_some_and(|(present, _)| *present == incarnation) => Err("the broker cancelled a consumer"),
            None => Ok(None),
        }
    }
}

fn arrivals(slot: u32, incarnation: u64, consumer: lapin::Consumer) -> impl Stream<Item = Arrival> + Send + 'static {
    consumer.map(move |arrival| (slot, incarnation, Some(arrival))).chain(stream::iter([(slot, incarnation, None)]))
}

/// Longest wait for a command: the connection may be reconnecting.
pub(super) const ORDER_WAIT: std::time::Duration = RECONNECT_WAIT.saturating_add(OPERATION_TIMEOUT);
