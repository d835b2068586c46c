//! Refuses messages of `piecework.invoke`, for this build runs no functions: the sender gets an error on `reply_to`.

use std::time::Duration;

use clients::amqp::{Delivery, Outgoing};
use contract::{
    body::{BodyError, Format},
    message::{Reply, ReplyMessage, VERSION},
    outcome::Fault,
};
use tokio::time::timeout;

use crate::agent::{ANSWERS_MAX, Agent, Settlement};

const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

impl Agent {
    /// Sends the refusal and returns how to settle the delivery: without a `reply_to` it goes to the dead letters.
    pub(super) fn refuse_invocation(&mut self, delivery: &Delivery) -> Settlement {
        let (exchange, function) = (delivery.exchange.as_str(), delivery.kind.as_deref().unwrap_or_default());
        let Some(reply_to) = delivery.reply_to.clone() else {
            tracing::warn!(
                exchange,
                function,
                message_id = delivery.message_id.as_deref(),
                "put an invocation aside: this build serves no functions, and the message has no reply_to"
            );
            return Settlement::Dead;
        };
        let Ok(context) = self.answers.clone().try_acquire_owned() else {
            tracing::warn!(
                exchange,
                function,
                reply_to,
                "moved an invocation to the dead letters: {ANSWERS_MAX} refusals are being sent already"
            );
            return Settlement::Dead;
        };
        let outgoing = match refusal(function, &reply_to, delivery.correlation_id.clone()) {
            Ok(outgoing) => outgoing,
            Err(error) => {
                tracing::error!(%error, reply_to, "moved an invocation to the dead letters: its refusal cannot be serialized");
                return Settlement::Dead;
            }
        };
        tracing::debug!(exchange, function, reply_to, "refusing an invocation: this build serves no functions");
        let publisher = self.publisher.clone();
        tokio::spawn(async move {
            let _room = context;
            match timeout(ANSWER_TIMEOUT, publisher.publish(outgoing)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, reply_to, "the refusal of an invocation was lost; its sender gets no reply"),
                Err(_) => {
                    tracing::warn!(reply_to, "the broker did not confirm the refusal of an invocation in time; its sender may get no reply")
                }
            }
        });
        Settlement::Done
    }
}

fn refusal(function: &str, reply_to: &str, correlation: Option<String>) -> Result<Outgoing, BodyError> {
    let fault = Fault {
        code: "FunctionsNotServed".to_owned(),
        message: "this build of the node agent serves no functions; add a task instead".to_owned(),
        details: vec![("Function".to_owned(), function.chars().take(256).collect())],
    };
    let body = Format::Json.write(&ReplyMessage { v: VERSION, what: Reply::Refused(fault) })?;
    let outgoing = Outgoing::raw("", reply_to, body, Format::Json).transient().optional();
    Ok(match correlation {
        Some(correlation) => outgoing.correlation(correlation),
        None => outgoing,
    })
}
