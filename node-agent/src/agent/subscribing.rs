//! Consumes the pool's queues from the moment the node may take tasks; tries again while the broker is away.

use std::{future::Future, time::Duration};

use broker_config::topology;
use clients::amqp::{AmqpError, PRIORITY_LEVELS_MAX, SlotConsumer, Subscription};
use contract::spec::FillType;
use tokio::time::sleep;

use crate::agent::{Agent, Consuming, Subscribed};

/// Pause between two tries, at first and at most; each try also waits for the connection.
const PAUSE_FIRST: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(5);

impl Agent {
    /// Begins to consume in the background.
    pub(super) fn consume(&mut self) {
        let slots = self.capacity.total();
        // Each level of priority costs the broker memory and time, so there are few.
        let consumers = match self.joined.fill {
            FillType::Spread => SlotConsumer::spread(slots),
            FillType::Pack => {
                let priority = Some(-(self.joined.rank.min(PRIORITY_LEVELS_MAX - 1) as i32));
                (0..slots).map(|slot| SlotConsumer { slot, priority }).collect()
            }
        };
        let mut narrow = Subscription::plain(topology::pool_queue(&self.settings.pool), 1);
        narrow.slots = consumers;
        narrow.buffer = slots as usize + 1;
        let wide = Subscription::plain(topology::wide_queue(&self.settings.pool), 1);
        let link = self.link.clone();
        let subscribe = move || {
            let (link, narrow, wide) = (link.clone(), narrow.clone(), wide.clone());
            async move { Ok((link.subscribe(narrow).await?, link.subscribe(wide).await?)) }
        };
        self.subscribing.push(Box::pin(retry(PAUSE_FIRST, subscribe)));
    }

    /// Takes tasks from now on.
    pub(super) fn on_subscribed(&mut self, (tasks, wide): Subscribed) {
        self.generation = *tasks.generation().borrow();
        self.tasks = Some(Consuming::new(tasks, self.capacity.total()));
        self.wide_tasks = Some(Consuming::new(wide, 1));
        self.apply_order(self.order);
    }
}

/// Tries until it succeeds. A permanent error is returned, for example when the queue does not exist.
async fn retry<T, F>(mut pause: Duration, mut subscribe: impl FnMut() -> F) -> Result<T, AmqpError>
where
    F: Future<Output = Result<T, AmqpError>>,
{
    loop {
        match subscribe().await {
            Err(error) if error.is_transient() => {
                tracing::warn!(%error, "cannot consume the pool's queues yet; trying again");
                sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_broker_that_is_away_is_waited_for_and_a_queue_that_is_not_there_is_an_error() {
        let mut left = 20;
        let subscribed = retry(Duration::ZERO, || {
            left -= 1;
            std::future::ready(match left {
                0 => Ok("consumer"),
                even if even % 2 == 0 => Err(AmqpError::Disconnected),
                _ => Err(AmqpError::Timeout { what: "a connection" }),
            })
        });
        assert_eq!(subscribed.await.unwrap(), "consumer");
        let mut tries = 0;
        let refused: Result<(), AmqpError> = retry(Duration::ZERO, || {
            tries += 1;
            std::future::ready(Err(AmqpError::Refused { code: 404, text: "no queue".into() }))
        })
        .await;
        assert!(matches!(refused, Err(AmqpError::Refused { code: 404, .. })) && tries == 1);
    }
}
