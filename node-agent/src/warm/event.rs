//! An event on its way to a function, and what comes of it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Answers are refused beyond this.
pub const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// An event for a function.
#[derive(Debug, Clone)]
pub struct Event {
    /// Names the invocation to its function.
    pub id: String,
    /// As its publisher gave it, where it fits into a header.
    pub message_id: Option<String>,
    pub body: Vec<u8>,
    /// As its publisher gave it, where it fits into a header.
    pub content_type: Option<String>,
    /// The W3C trace context.
    pub traceparent: Option<String>,
}

impl Event {
    /// The trace id in the form that AWS's clients read.
    pub fn trace_id(&self) -> Option<String> {
        let mut parts = self.traceparent.as_deref()?.split('-');
        let (_, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let is_hex = |text: &str, length| text.len() == length && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let sampled = u8::from_str_radix(flags, 16).ok()? & 1;
        (is_hex(trace, 32) && is_hex(parent, 16))
            .then(|| format!("Root=1-{}-{};Parent={parent};Sampled={sampled}", &trace[..8], &trace[8..]))
    }
}

/// The wall clock in this long, in milliseconds since 1970.
pub fn epoch_ms_in(time: Duration) -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_add(time).as_millis()
}

/// What a function answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    pub body: Vec<u8>,
    pub content_type: String,
    /// Time in the function.
    pub duration: Duration,
    /// Whether a program was started for it.
    pub is_cold: bool,
}

/// Why an invocation has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// `Function…`, or the code of a fault of the node.
    pub code: &'static str,
    /// For people; it may hold what the program wrote last.
    pub message: String,
    /// The error as the function gave it.
    pub body: Option<Vec<u8>>,
    /// Whether a further try may end otherwise.
    pub may_retry: bool,
    /// Time in the function.
    pub duration: Duration,
}

impl Failure {
    /// A failure that a further try may mend.
    pub fn new(code: &'static str, message: String) -> Failure {
        Failure { code, message, body: None, may_retry: true, duration: Duration::ZERO }
    }

    /// A failure that comes again with every try.
    pub fn lasting(code: &'static str, message: String) -> Failure {
        Failure { may_retry: false, ..Failure::new(code, message) }
    }
}

/// What a program's protocol says of one event.
pub enum Said {
    Answer {
        body: Vec<u8>,
        content_type: String,
    },
    /// The function's own error; its program goes on.
    Error {
        message: String,
        body: Vec<u8>,
    },
    /// The program closed its output; its end says why.
    Gone,
    /// The event is none for this runtime; the program did not get it.
    Refused(Failure),
    /// The program broke the protocol and cannot be used any more.
    Broken(Failure),
}

/// The failure of a function whose answer is too large.
pub fn too_large() -> Failure {
    Failure::lasting("FunctionAnswerTooLarge", format!("the function's answer has more than {ANSWER_BYTES_MAX} bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_context_is_translated_and_a_broken_one_is_left_out() {
        let event = |traceparent: &str| Event {
            id: "i".into(),
            message_id: None,
            body: vec![],
            content_type: None,
            traceparent: Some(traceparent.into()),
        };
        assert_eq!(
            event("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").trace_id().as_deref(),
            Some("Root=1-4bf92f35-77b34da6a3ce929d0e0e4736;Parent=00f067aa0ba902b7;Sampled=1")
        );
        for broken in ["", "00", "00-é-00f067aa0ba902b7-01", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-zz"] {
            assert_eq!(event(broken).trace_id(), None, "{broken}");
        }
    }
}
