//! Converts refusals to Azure Batch's error body, which every unsuccessful answer has.

use std::fmt;

use contract::time::Timestamp;
use model::refusal::{Code, Refusal};
use serde::Serialize;
use store::StoreError;

use crate::{answer::Answer, left_out::advice};

/// A request's id, in answers, logs and error messages.
#[derive(Debug, Clone, Copy)]
pub struct RequestId(u128);

impl RequestId {
    /// A new random one.
    pub fn random() -> RequestId {
        RequestId(contract::ids::RunId::random().0)
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = format!("{:032x}", self.0);
        write!(f, "{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    }
}

#[derive(Serialize)]
struct Message {
    lang: &'static str,
    value: String,
}

#[derive(Serialize)]
struct Detail<'a> {
    key: &'a str,
    value: &'a str,
}

const NOT_IN_THIS_STATE: &str = "The specified operation is not valid for the current state of the resource.";

/// The error body; also used for a single task of a collection.
#[derive(Serialize)]
pub struct ErrorBody<'a> {
    #[serde(rename = "odata.metadata", skip_serializing_if = "Option::is_none")]
    metadata: Option<String>,
    code: &'static str,
    message: Message,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    values: Vec<Detail<'a>>,
}

impl<'a> ErrorBody<'a> {
    /// `base` is given when the body is the whole answer.
    pub fn new(refusal: &'a Refusal, base: Option<&str>, request: RequestId) -> ErrorBody<'a> {
        let now = Timestamp::now().iso();
        // Programs for Azure look for Azure's sentence; our own text becomes a detail.
        let (message, reason) = match refusal.code {
            Code::OperationInvalidForCurrentState => (NOT_IN_THIS_STATE, Some(refusal.message.as_str())),
            _ => (refusal.message.as_str(), None),
        };
        let reason = reason.map(|value| Detail { key: "Reason", value });
        ErrorBody {
            metadata: base.map(|base| format!("{base}/$metadata#Microsoft.Azure.Batch.Protocol.Entities.Container.errors/@Element")),
            code: refusal.code.as_str(),
            message: Message { lang: "en-US", value: format!("{message}\nRequestId:{request}\nTime:{now}") },
            values: refusal.values.iter().map(|(key, value)| Detail { key, value }).chain(reason).collect(),
        }
    }
}

/// The answer that tells the refusal.
pub fn answer(refusal: &Refusal, base: &str, request: RequestId) -> Answer {
    let body = serde_json::to_vec(&ErrorBody::new(refusal, Some(base), request)).expect("an error has a JSON form");
    let mut answer = Answer::json(body);
    answer.status = Answer::empty(refusal.code.status()).status;
    match refusal.code {
        Code::ServerBusy => answer.with(http::header::RETRY_AFTER, "1"),
        Code::Unauthorized => answer.with(http::header::WWW_AUTHENTICATE, "SharedKey, Bearer"),
        _ => answer,
    }
}

/// The refusal for a failure of the store; the log has the details.
pub fn store_failed(error: StoreError) -> Refusal {
    if let StoreError::Corrupt { table, column } = error {
        tracing::error!(table, column, advice = advice(table), "a row that was asked for cannot be read");
        return Refusal::new(Code::InternalError, "The resource is stored in a form that the server cannot read.")
            .with("Table", table)
            .with("Column", column)
            .hint(&format!("`piecework doctor` names the row. What to do: {}.", advice(table)));
    }
    tracing::error!(%error, "the store failed a read");
    Refusal::new(Code::InternalError, "Server encountered an internal error. Please try again after some time.")
        .hint("The dispatcher's log names the cause; look for this request's id.")
}

/// The refusal for a resource that does not exist.
pub fn not_found(code: Code, id: impl fmt::Display) -> Refusal {
    let what = match code {
        Code::PoolNotFound => "pool",
        Code::NodeNotFound => "node",
        Code::JobNotFound => "job",
        Code::TaskNotFound => "task",
        Code::FileNotFound => "file",
        _ => "resource",
    };
    Refusal::new(code, format!("The specified {what} does not exist.")).with("Id", id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_has_code_message_and_values_at_the_top() {
        let refusal = not_found(Code::PoolNotFound, "p").hint("Create it.");
        let text = serde_json::to_value(ErrorBody::new(&refusal, Some("http://h"), RequestId(0xabc))).unwrap();
        assert_eq!(text["code"], "PoolNotFound");
        let message = text["message"]["value"].as_str().unwrap();
        assert!(message.starts_with("The specified pool does not exist.\nRequestId:00000000-0000-0000-0000-000000000abc\nTime:"));
        assert_eq!(text["values"][1]["key"], "Hint");
    }
}
