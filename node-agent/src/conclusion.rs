//! What becomes of an invocation's message: an answer, a later try, or the dead letters.
//!
//! ```text
//! answered ──► reply_to        failed ──retries left──► retry queue ──expires──► pool's queue
//!                                     └── none left ──► reply_to and piecework.dead
//! ```
//! Everything is confirmed by the broker before the delivery is acknowledged; what cannot be published goes back to its
//! queue, and the invocation runs again.

use std::time::Duration;

use broker_config::{publisher::takes_answers, topology};
use bytes::Bytes;
use clients::{
    amqp::{AmqpError, Delivery, Outgoing, Publisher, Reason},
    blobs::Blobs,
};
use contract::{
    body::Format,
    function::{ANSWER_INLINE_BYTES_MAX, Function, header},
    ids::{PoolId, RunId},
    time::Timestamp,
};
use rand::RngExt;
use serde::Serialize;
use tokio::time::sleep;

use crate::warm::{Answered, Failure};

/// Tries to publish one message; with their pauses and the client's own waits they last some minutes.
const TRIES_MAX: u32 = 5;
const PAUSE: Duration = Duration::from_secs(1);
/// How long the URL of a large answer is valid; its blob is removed after that.
const URL_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// Blobs below this are removed after a day.
const LARGE_ANSWERS: &str = "transfer/answers/";
/// Bytes of a failure's text in a header.
const REASON_BYTES_MAX: usize = 1_024;
const JSON: &str = "application/json";

/// The result of an invocation.
#[derive(Debug)]
pub enum Conclusion {
    Answered(Answered),
    Failed(Failure),
    /// The node may not run it now; it comes back soon, and no try is counted.
    Postponed,
}

/// Publishes conclusions.
pub struct Concluder {
    pub publisher: Publisher,
    pub blobs: Option<Blobs>,
    pub pool: PoolId,
}

/// An error as AWS Lambda's clients write it.
#[derive(Serialize)]
struct ErrorBody<'a> {
    #[serde(rename = "errorType")]
    kind: &'a str,
    #[serde(rename = "errorMessage")]
    message: &'a str,
}

impl Concluder {
    /// Publishes what follows; returns whether the delivery may be acknowledged.
    pub async fn conclude(&self, delivery: &Delivery, function: Option<&Function>, conclusion: Conclusion) -> bool {
        let failed: u32 = delivery.header_as_text(header::FAILED).and_then(|text| text.parse().ok()).unwrap_or(0);
        match conclusion {
            Conclusion::Answered(answered) => match Box::pin(self.answer(delivery, function, answered)).await {
                Ok(()) => true,
                Err(failure) => self.bury(delivery, function, failed + 1, failure).await,
            },
            Conclusion::Postponed => match self.again(delivery, failed, 1).await {
                Some(true) => true,
                Some(false) => {
                    let text = "the node runs as many of the function's programs as it may, and the broker has no queue to wait in";
                    self.bury(delivery, function, failed, Failure::lasting("FunctionBusy", text.to_owned())).await
                }
                None => false,
            },
            Conclusion::Failed(failure) => {
                let retries_max = function.map_or(0, |function| function.spec.max_retry_count);
                if failure.may_retry && failed < retries_max {
                    tracing::debug!(
                        message_id = delivery.message_id,
                        code = failure.code,
                        failed,
                        "an invocation failed; trying it again later"
                    );
                    match self.again(delivery, failed + 1, failed + 1).await {
                        Some(true) => return true,
                        Some(false) => {}
                        None => return false,
                    }
                }
                self.bury(delivery, function, failed + 1, failure).await
            }
        }
    }

    /// Sends the message to a retry queue: `Some(false)` when there is none, `None` when the broker does not take it now.
    async fn again(&self, delivery: &Delivery, failed: u32, pause: u32) -> Option<bool> {
        if !delivery.headers_fit() {
            tracing::warn!(pool = %self.pool, message_id = delivery.message_id, "an invocation's headers are too large for another try; it counts as failed for good");
            return Some(false);
        }
        let (queue, pause_ms) = topology::retry_after(&self.pool, pause);
        let mut outgoing = Outgoing::again("", queue, delivery);
        if failed > 0 {
            outgoing = outgoing.header_number(header::FAILED, failed.into());
        }
        // Random, so that what failed together does not come back together.
        outgoing.expiration_ms = Some(rand::rng().random_range(pause_ms / 2..=pause_ms));
        match self.publish(outgoing).await {
            Ok(()) => Some(true),
            Err(error) if error.is_transient() && !matches!(error, AmqpError::Returned { .. }) => None,
            Err(error) => {
                tracing::warn!(%error, pool = %self.pool, "an invocation cannot wait for its next try; it counts as failed for good");
                Some(false)
            }
        }
    }

    async fn answer(&self, delivery: &Delivery, function: Option<&Function>, answered: Answered) -> Result<(), Failure> {
        let Some(mut outgoing) = self.reply(delivery, function, "ok", answered.duration) else { return Ok(()) };
        let length = answered.body.len();
        outgoing.content_type = Some(Some(answered.content_type));
        if length <= ANSWER_INLINE_BYTES_MAX {
            outgoing.body = answered.body;
        } else {
            let url = self.upload(answered.body).await?;
            outgoing = outgoing.header(header::BLOB_URL, &url).header_number(header::BLOB_BYTES, length as i64);
        }
        self.send_reply(outgoing).await
    }

    async fn upload(&self, body: Vec<u8>) -> Result<String, Failure> {
        let lost = |reason: String| {
            Failure::new("FunctionAnswerLost", format!("the answer is too large for a message and cannot be uploaded: {reason}"))
        };
        let blobs = self.blobs.as_ref().ok_or_else(|| lost("the node has no blob store".to_owned()))?;
        let (bucket, key) = (&blobs.settings().own_bucket, format!("{LARGE_ANSWERS}{}", RunId::random()));
        Box::pin(blobs.put(bucket, &key, Bytes::from(body))).await.map_err(|error| lost(error.to_string()))?;
        Box::pin(blobs.presign_get(bucket, &key, URL_LIFETIME)).await.map_err(|error| lost(error.to_string()))
    }

    /// Tells the publisher that its invocation failed for good, and keeps the message as a dead letter.
    async fn bury(&self, delivery: &Delivery, function: Option<&Function>, failed: u32, failure: Failure) -> bool {
        let message = cut(&failure.message);
        let reason = Reason { code: failure.code.to_owned(), message: message.to_owned() };
        let now = Timestamp::now();
        let dead = delivery
            .refused(&reason, now)
            .unwrap_or_else(|| delivery.refused_without_headers(&reason, now))
            .header(header::POOL, self.pool.as_str())
            .header_number(header::FAILED, failed.into());
        tracing::info!(
            function = delivery.kind,
            message_id = delivery.message_id,
            code = failure.code,
            text = message,
            failed,
            "an invocation failed for good; it is a dead letter now"
        );
        if let Err(error) = self.publish(dead).await {
            tracing::warn!(%error, "the broker did not take a dead letter; the invocation goes back to its queue");
            return false;
        }
        self.refuse(delivery, function, failure).await
    }

    /// Tells the publisher, if it waits for an answer, why there is none.
    async fn refuse(&self, delivery: &Delivery, function: Option<&Function>, failure: Failure) -> bool {
        let Some(outgoing) = self.reply(delivery, function, "error", failure.duration) else { return true };
        let plain = || serde_json::to_vec(&ErrorBody { kind: failure.code, message: &failure.message }).unwrap_or_default();
        let body = failure.body.as_ref().filter(|body| body.len() <= ANSWER_INLINE_BYTES_MAX).cloned().unwrap_or_else(plain);
        let mut outgoing = outgoing.header(header::ERROR, failure.code).header(header::MESSAGE, cut(&failure.message));
        (outgoing.body, outgoing.content_type) = (body, Some(Some(JSON.to_owned())));
        self.send_reply(outgoing).await.is_ok()
    }

    /// An empty reply; absent when nobody waits for one, or where it would go to one of Piecework's own queues.
    fn reply(&self, delivery: &Delivery, function: Option<&Function>, status: &str, duration: Duration) -> Option<Outgoing> {
        let queue = delivery.reply_to.as_deref()?;
        if !takes_answers(queue) {
            tracing::warn!(
                queue,
                function = delivery.kind,
                "an invocation asks for its answer in one of Piecework's own queues; it gets none"
            );
            return None;
        }
        let mut outgoing = Outgoing::raw("", queue, Vec::new(), Format::Json).optional().header(header::STATUS, status);
        outgoing = outgoing.header_number(header::DURATION, duration.as_millis() as i64);
        if let Some(function) = function {
            outgoing = outgoing.header_number(header::VERSION, function.version.into()).of_kind(function.name.as_str());
        }
        // As with remote calls, the message's own id serves where no other was given.
        outgoing.correlation_id = delivery.correlation_id.clone().or_else(|| delivery.message_id.clone());
        Some(outgoing)
    }

    async fn send_reply(&self, outgoing: Outgoing) -> Result<(), Failure> {
        match self.publish(outgoing).await {
            Ok(()) => Ok(()),
            Err(error) if error.is_transient() => Err(Failure::new("FunctionAnswerLost", error.to_string())),
            Err(error) => {
                tracing::warn!(%error, "the broker refuses an answer; its publisher gets none");
                Ok(())
            }
        }
    }

    async fn publish(&self, outgoing: Outgoing) -> Result<(), AmqpError> {
        let mut tries = 0;
        loop {
            tries += 1;
            match Box::pin(self.publisher.publish(outgoing.clone())).await {
                Err(AmqpError::Returned { exchange, key }) => return Err(AmqpError::Returned { exchange, key }),
                Err(error) if error.is_transient() && tries < TRIES_MAX => {
                    tracing::debug!(%error, tries, "the broker did not confirm what follows an invocation; publishing it again");
                    sleep(PAUSE).await;
                }
                other => return other,
            }
        }
    }
}

/// The start of a text, as much as goes into a header.
fn cut(text: &str) -> &str {
    let mut end = text.len().min(REASON_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        assert_eq!(cut("short"), "short");
        let long = "é".repeat(REASON_BYTES_MAX);
        assert_eq!(cut(&long).len(), REASON_BYTES_MAX);
        assert_eq!(cut(&format!("a{long}")).len(), REASON_BYTES_MAX - 1);
    }
}
