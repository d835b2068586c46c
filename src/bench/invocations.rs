//! Invocations of functions that do nothing: message, queue, agent, answer.

use std::time::{Duration, Instant};

use broker_config::{settings::BrokerSettings, topology};
use clients::amqp::{AmqpError, Caller, Delivery, Link, Outgoing};
use contract::{
    body::Format,
    function::{Runtime, header},
    ids::PoolId,
    spec::NOTHING,
};
use futures::{StreamExt, stream};
use serde_json::json;

use crate::{
    bench::figures::Figures,
    client::{Client, path},
    exit_codes::{FAILED, Failure},
    percentiles::Percentiles,
};

/// Invocations without an answer at the same time.
const OPEN_MAX: usize = 512;
/// An answer is there after this long, or there is none.
const ANSWER_MAX: Duration = Duration::from_secs(60);
/// What is sent.
const EVENT: &[u8] = b"{}";

/// The functions that are measured: the agent answers the first one itself, `cat` the second one.
pub(super) const FUNCTIONS: [(&str, Runtime, &str); 2] = [("nothing", Runtime::Exec, NOTHING), ("cat", Runtime::Lines, "cat")];

/// A publisher of invocations.
pub(super) struct Invoker {
    link: Link,
    caller: Caller,
    pool: PoolId,
}

impl Invoker {
    pub(super) async fn open(broker: BrokerSettings, pool: &PoolId) -> anyhow::Result<Invoker> {
        let link = Link::open(broker).await?;
        let caller = link.caller().await?;
        Ok(Invoker { link, caller, pool: pool.clone() })
    }

    pub(super) async fn close(self) {
        self.link.close().await;
    }

    /// Invokes as many at the same time as the broker takes well.
    pub(super) async fn many(&self, function: &str, count: u32) -> anyhow::Result<Figures> {
        let started = Instant::now();
        let mut answers = stream::iter(0..count).map(|_| self.timed(function)).buffer_unordered(OPEN_MAX);
        let mut waits = Vec::with_capacity(count as usize);
        while let Some(wait) = answers.next().await {
            waits.push(wait?);
        }
        let per_second = f64::from(count) / started.elapsed().as_secs_f64().max(1e-9);
        Ok(Figures { per_second, submitted_per_second: per_second, waits: Percentiles::of(waits) })
    }

    /// Milliseconds from the publish of each invocation to its answer.
    pub(super) async fn singles(&self, function: &str, count: u32) -> anyhow::Result<Percentiles> {
        let mut waits = Vec::with_capacity(count as usize);
        for _ in 0..count {
            waits.push(self.timed(function).await?);
        }
        Ok(Percentiles::of(waits))
    }

    async fn timed(&self, function: &str) -> anyhow::Result<f64> {
        let sent = Instant::now();
        let answer = self.invoke(function).await?;
        let status = answer.header_as_text(header::STATUS);
        if status.as_deref() != Some("ok") {
            let what = answer.header_as_text(header::MESSAGE).unwrap_or_default();
            return Err(Failure::new(FAILED, format!("the function {function} failed: {what}"), "").into());
        }
        Ok(sent.elapsed().as_secs_f64() * 1_000.0)
    }

    async fn invoke(&self, function: &str) -> Result<Delivery, AmqpError> {
        let mut event = Outgoing::raw(topology::INVOKE, topology::pool_key(&self.pool), EVENT.to_vec(), Format::Json).of_kind(function);
        event.content_type = Some(Some("application/json".to_owned()));
        self.caller.call_raw(event, ANSWER_MAX).await
    }
}

/// Adds the functions to a pool; they go with it.
pub(super) async fn deploy(client: &Client, pool: &PoolId) -> anyhow::Result<()> {
    for (name, runtime, command) in FUNCTIONS {
        let body = json!({"id": name, "runtime": runtime, "commandLine": command, "maxRetryCount": 0});
        client.post(&path(&["piecework", "pools", pool.as_str(), "functions"]), Some(&body)).await?;
    }
    Ok(())
}
