//! Invokes functions for people who have HTTP and no AMQP client: as any other publisher does.

use std::time::Duration;

use broker_config::topology;
use clients::amqp::{AmqpError, Caller, Delivery, Link, Outgoing, Publisher};
use contract::{
    body::Format,
    ids::{FunctionId, PoolId, RunId},
};
use model::refusal::{Code, Refusal};

/// An event for a function.
pub struct Invocation {
    pub pool: PoolId,
    pub function: FunctionId,
    pub body: Vec<u8>,
    pub content_type: Option<String>,
    /// The W3C trace context.
    pub traceparent: Option<String>,
}

/// Publishes invocations.
#[derive(Clone)]
pub struct Invocations {
    caller: Caller,
    publisher: Publisher,
}

impl Invocations {
    /// Opens the way for answers.
    pub async fn open(link: &Link) -> Result<Invocations, AmqpError> {
        Ok(Invocations { caller: link.caller().await?, publisher: link.publisher() })
    }

    /// Invokes a function and waits for its answer. The event expires with the wait, unless it has begun by then.
    pub async fn invoke(&self, invocation: Invocation, wait: Duration) -> Result<Delivery, Refusal> {
        let function = invocation.function.clone();
        let mut outgoing = outgoing(invocation).transient();
        outgoing.expiration_ms = u32::try_from(wait.as_millis()).ok();
        self.caller.call_raw(outgoing, wait).await.map_err(|error| match error {
            AmqpError::Timeout { .. } => Refusal::new(Code::OperationTimedOut, "The function did not answer in time.")
                .with("FunctionId", function)
                .hint("Nodes may be busy or missing, or it failed and is tried again; invoke-async does not wait."),
            other => failed(other),
        })
    }

    /// Publishes an invocation without an answer; returns its message id.
    pub async fn send(&self, invocation: Invocation) -> Result<String, Refusal> {
        let id = RunId::random().to_string();
        self.publisher.publish(outgoing(invocation).id(&id)).await.map_err(failed)?;
        Ok(id)
    }
}

fn outgoing(invocation: Invocation) -> Outgoing {
    let Invocation { pool, function, body, content_type, traceparent } = invocation;
    let mut outgoing = Outgoing::raw(topology::INVOKE, topology::pool_key(&pool), body, Format::Json).of_kind(function.as_str());
    outgoing.content_type = Some(content_type);
    match traceparent {
        Some(traceparent) => outgoing.header("traceparent", &traceparent),
        None => outgoing,
    }
}

fn failed(error: AmqpError) -> Refusal {
    tracing::warn!(%error, "the broker did not take an invocation");
    Refusal::new(Code::ServerBusy, "The broker did not take the invocation.")
        .with("Reason", error)
        .hint("Try again; /piecework/health names what is wrong.")
}
