//! Declares and deletes the queues of pools, beside everything else: in order for each pool, pools beside each other.

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

/// How long a declaration or deletion may take.
const DECLARE_TIMEOUT: Duration = Duration::from_secs(10);
/// Orders waiting at most.
const ORDERS_MAX: usize = 1_024;
/// Pools at the same time.
const POOLS_MAX: usize = 8;

/// Whom to tell when a pool's queues are there, and what.
pub(super) type Then = (oneshot::Sender<Result<Done, Refusal>>, Done);

/// What shall become of a pool's queues.
pub(super) enum Order {
    /// They shall be there.
    Declare(Option<Then>),
    /// They shall go: an errand's number.
    Undeclare(u64),
}

/// Where orders are put.
#[derive(Clone)]
pub(super) struct Declarer {
    orders: mpsc::Sender<(PoolId, Order)>,
}

impl Declarer {
    /// Orders, and the loop that carries them out.
    pub(super) fn new(link: Link, engine: Engine) -> (Declarer, impl Future<Output = ()> + Send) {
        let (orders, waiting) = mpsc::channel(ORDERS_MAX);
        (Declarer { orders }, run(link, engine, waiting))
    }

    /// Puts one in line. One that finds no room is answered as it is: a missing queue is declared with the first
    /// publish that finds none, and an errand is told to wait.
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
        // Who has given up needs no answer.
        let _ = reply.send(Ok(done));
    }
}

async fn tell(engine: &Engine, id: u64, is_done: bool) {
    if engine.put(Input::Errands(vec![(Place::Broker, id, is_done)])).await.is_err() {
        debug!("the engine stopped before it learnt of an errand; it runs again");
    }
}

/// Declares a pool's queues.
pub(super) async fn declare(link: &Link, pool: &PoolId) -> Result<(), AmqpError> {
    match tokio::time::timeout(DECLARE_TIMEOUT, link.declare(&topology::pool(pool, QueueKind::Classic))).await {
        Ok(result) => result,
        Err(_) => Err(AmqpError::Timeout { what: "declaring a pool's queues" }),
    }
}
