//! Declares and deletes pools' queues: in order for each pool, several pools at the same time.

use std::{collections::BTreeMap, time::Duration};

use broker_config::topology::{self, QueueKind};
use clients::amqp::{AmqpError, Link};
use contract::ids::PoolId;
use futures::StreamExt;
use model::refusal::Refusal;
use store::errands::Place;
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, warn};

use crate::{Engine, command::Done, messages::Input};

/// Time limit of one declaration or deletion.
const DECLARE_TIMEOUT: Duration = Duration::from_secs(10);
/// Orders in the queue at most.
const ORDERS_MAX: usize = 1_024;
/// Pools that are worked on at the same time.
const POOLS_MAX: usize = 8;

/// The API request that is answered once the queues exist, and its answer.
pub(super) type Then = (oneshot::Sender<Result<Done, Refusal>>, Done);

pub(super) enum Order {
    /// Declare the queues.
    Declare(Option<Then>),
    /// Delete the queues; with the number of the errand.
    Undeclare(u64),
}

/// Sending side of the order queue.
#[derive(Clone)]
pub(super) struct Declarer {
    orders: mpsc::Sender<(PoolId, Order)>,
}

impl Declarer {
    /// The order queue, and the future that carries orders out.
    pub(super) fn new(link: Link, engine: Engine) -> (Declarer, impl Future<Output = ()> + Send) {
        let (orders, waiting) = mpsc::channel(ORDERS_MAX);
        (Declarer { orders }, run(link, engine, waiting))
    }

    /// Queues an order. When the queue is full, the API request is answered at once (the first publish declares missing
    /// queues), and the errand is reported as failed.
    pub(super) async fn put(&self, engine: &Engine, pool: PoolId, order: Order) {
        if let Err(error) = self.orders.try_send((pool, order)) {
            let (pool, order) = match error {
                mpsc::error::TrySendError::Full(order) | mpsc::error::TrySendError::Closed(order) => order,
            };
            warn!(%pool, "the broker is slow to declare queues; this pool's are declared when they are needed");
            match order {
                Order::Declare(then) => answer(then),
                Order::Undeclare(id) => tell(engine, id, false).await,
            }
        }
    }
}

async fn run(link: Link, engine: Engine, mut waiting: mpsc::Receiver<(PoolId, Order)>) {
    let mut orders = Vec::new();
    while waiting.recv_many(&mut orders, ORDERS_MAX).await > 0 {
        let mut by_pool: BTreeMap<PoolId, Vec<Order>> = BTreeMap::new();
        for (pool, order) in orders.drain(..) {
            by_pool.entry(pool).or_default().push(order);
        }
        let all: Vec<_> = by_pool.into_iter().map(|(pool, orders)| carry_out(link.clone(), engine.clone(), pool, orders)).collect();
        futures::stream::iter(all).buffer_unordered(POOLS_MAX).collect::<()>().await;
    }
}

async fn carry_out(link: Link, engine: Engine, pool: PoolId, orders: Vec<Order>) {
    for order in orders {
        match order {
            Order::Declare(then) => {
                if let Err(error) = declare(&link, &pool).await {
                    warn!(%pool, %error, "the pool's queues cannot be declared yet");
                }
                answer(then);
            }
            Order::Undeclare(id) => {
                let deleted = tokio::time::timeout(DECLARE_TIMEOUT, link.undeclare_pool(&pool)).await;
                let is_done = match deleted {
                    Ok(Ok(())) => true,
                    Ok(Err(error)) => {
                        warn!(%pool, %error, "the queues of a deleted pool cannot be deleted yet; it is tried again");
                        false
                    }
                    Err(_) => {
                        warn!(%pool, "the queues of a deleted pool cannot be deleted yet: no answer in time; it is tried again");
                        false
                    }
                };
                tell(&engine, id, is_done).await;
            }
        }
    }
}

fn answer(then: Option<Then>) {
    if let Some((reply, done)) = then {
        // The receiver is gone when the API handler has timed out.
        let _ = reply.send(Ok(done));
    }
}

async fn tell(engine: &Engine, id: u64, is_done: bool) {
    if engine.put(Input::Errands(vec![(Place::Broker, id, is_done)])).await.is_err() {
        debug!("the engine stopped before it got the result of an errand; the errand runs again after the next start");
    }
}

/// Declares a pool's queues.
pub(super) async fn declare(link: &Link, pool: &PoolId) -> Result<(), AmqpError> {
    match tokio::time::timeout(DECLARE_TIMEOUT, link.declare(&topology::pool(pool, QueueKind::Classic))).await {
        Ok(result) => result,
        Err(_) => Err(AmqpError::Timeout { what: "declaring a pool's queues" }),
    }
}
