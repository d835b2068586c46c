//! A stream of deliveries that outlives connections, and the control of its slots.

use std::{collections::BTreeMap, sync::Arc};

use tokio::{
    sync::{mpsc, oneshot, watch},
    time::timeout,
};

use super::{
    acks::{Acker, Ledger},
    connections::Connections,
    consumer_task::{ConsumerTask, ORDER_WAIT, Order, Slot},
    error::AmqpError,
    subscription::{Delivery, SlotConsumer, Subscription},
};

/// Commands to a consumer task that it has not read yet.
const ORDERS_MAX: usize = 64;

/// Deliveries of one subscription; dropping it returns the unsettled ones to the queue.
pub struct Consumer {
    deliveries: mpsc::Receiver<Delivery>,
    no_ack: bool,
    acker: Acker,
    queue_name: watch::Receiver<Option<String>>,
    generation: watch::Receiver<u64>,
    slots: SlotControl,
    _connections: Arc<Connections>,
}

impl Consumer {
    pub(super) async fn start(
        connections: Arc<Connections>,
        mut plan: Subscription,
        alive: mpsc::Sender<()>,
    ) -> Result<Consumer, AmqpError> {
        if plan.slots.is_empty() {
            plan.slots.push(SlotConsumer { slot: 0, priority: None });
        }
        let (out, deliveries) = mpsc::channel(plan.buffer.max(1));
        let (orders, orders_in) = mpsc::channel(ORDERS_MAX);
        let (queue_name, generation) = (watch::Sender::new(None), watch::Sender::new(0));
        let ledger = Ledger::new();
        let consumer = Consumer {
            deliveries,
            no_ack: plan.no_ack,
            acker: Acker::new(ledger.clone()),
            queue_name: queue_name.subscribe(),
            generation: generation.subscribe(),
            slots: SlotControl { orders },
            _connections: connections.clone(),
        };
        let slots: BTreeMap<u32, Slot> = plan.slots.iter().map(|slot| (slot.slot, Slot::new(slot))).collect();
        let task = ConsumerTask {
            connection: connections.consuming.clone(),
            plan,
            out,
            orders: orders_in,
            ledger,
            queue_name,
            generation,
            slots,
            _alive: alive,
        };
        let (first, started) = oneshot::channel();
        tokio::spawn(task.run(first));
        match timeout(ORDER_WAIT, started).await {
            Ok(Ok(result)) => result.map(|()| consumer),
            Ok(Err(_)) => Err(AmqpError::Closed),
            Err(_) => Err(AmqpError::Timeout { what: "subscribing" }),
        }
    }

    /// The next delivery, across any number of reconnects; nothing once the link is closed.
    pub async fn next(&mut self) -> Option<Delivery> {
        loop {
            let delivery = self.deliveries.recv().await?;
            if self.is_fresh(&delivery) {
                return Some(delivery);
            }
        }
    }

    /// The next delivery that has already arrived.
    pub fn try_next(&mut self) -> Option<Delivery> {
        loop {
            let delivery = self.deliveries.try_recv().ok()?;
            if self.is_fresh(&delivery) {
                return Some(delivery);
            }
        }
    }

    /// Settles deliveries; stays valid across reconnects.
    pub fn acker(&self) -> Acker {
        self.acker.clone()
    }

    /// The queue's current name; nothing while not consuming.
    pub fn queue_name(&self) -> watch::Receiver<Option<String>> {
        self.queue_name.clone()
    }

    /// Pauses and resumes slots.
    pub fn slots(&self) -> SlotControl {
        self.slots.clone()
    }

    /// Changes when the channel was opened anew: all tags of older generations are void.
    pub fn generation(&self) -> watch::Receiver<u64> {
        self.generation.clone()
    }

    /// False for deliveries of an older channel, which the broker delivers again anyway.
    fn is_fresh(&self, delivery: &Delivery) -> bool {
        self.no_ack || delivery.tag.generation == *self.generation.borrow()
    }
}

/// Pauses and resumes slots of one consumer.
#[derive(Clone)]
pub struct SlotControl {
    orders: mpsc::Sender<Order>,
}

impl SlotControl {
    /// When this returns the slot gets nothing new except what was on its way; the pause survives reconnects.
    pub async fn pause(&self, slot: u32) -> Result<(), AmqpError> {
        self.order(|done| Order::Pause(slot, done)).await?
    }

    /// The slot gets deliveries again.
    pub async fn resume(&self, slot: u32) -> Result<(), AmqpError> {
        self.order(|done| Order::Resume(slot, done)).await?
    }

    /// Asks the broker now whether all unpaused slots still consume; if not, they subscribe again.
    pub async fn check(&self) -> Result<bool, AmqpError> {
        self.order(Order::Check).await
    }

    async fn order<T>(&self, order: impl FnOnce(oneshot::Sender<T>) -> Order) -> Result<T, AmqpError> {
        let (done, answer) = oneshot::channel();
        let asked = async {
            self.orders.send(order(done)).await.map_err(|_| AmqpError::Closed)?;
            answer.await.map_err(|_| AmqpError::Disconnected)
        };
        timeout(ORDER_WAIT, asked).await.unwrap_or(Err(AmqpError::Timeout { what: "changing a slot" }))
    }
}
