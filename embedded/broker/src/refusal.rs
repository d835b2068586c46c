//! The protocol's errors: a reply code with a text, closing a channel or the whole connection.

/// Result of a handler that may refuse a client's request.
pub(crate) type Outcome<T = ()> = Result<T, Refusal>;

/// The reply code for a missing queue, exchange or vhost.
pub(crate) const NOT_FOUND: u16 = 404;

/// An answer that closes the channel or, for hard codes, the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub code: u16,
    pub text: String,
}

impl Refusal {
    fn new(code: u16, name: &str, text: impl AsRef<str>) -> Refusal {
        Refusal { code, text: format!("{name} - {}", text.as_ref()) }
    }
    pub fn connection_forced(text: impl AsRef<str>) -> Refusal {
        Refusal::new(320, "CONNECTION_FORCED", text)
    }
    pub fn access_refused(text: impl AsRef<str>) -> Refusal {
        Refusal::new(403, "ACCESS_REFUSED", text)
    }
    pub fn not_found(text: impl AsRef<str>) -> Refusal {
        Refusal::new(NOT_FOUND, "NOT_FOUND", text)
    }
    pub fn resource_locked(text: impl AsRef<str>) -> Refusal {
        Refusal::new(405, "RESOURCE_LOCKED", text)
    }
    pub fn precondition_failed(text: impl AsRef<str>) -> Refusal {
        Refusal::new(406, "PRECONDITION_FAILED", text)
    }
    pub fn frame_error(text: impl AsRef<str>) -> Refusal {
        Refusal::new(501, "FRAME_ERROR", text)
    }
    pub fn syntax_error(text: impl AsRef<str>) -> Refusal {
        Refusal::new(502, "SYNTAX_ERROR", text)
    }
    pub fn command_invalid(text: impl AsRef<str>) -> Refusal {
        Refusal::new(503, "COMMAND_INVALID", text)
    }
    pub fn channel_error(text: impl AsRef<str>) -> Refusal {
        Refusal::new(504, "CHANNEL_ERROR", text)
    }
    pub fn unexpected_frame(text: impl AsRef<str>) -> Refusal {
        Refusal::new(505, "UNEXPECTED_FRAME", text)
    }
    pub fn not_allowed(text: impl AsRef<str>) -> Refusal {
        Refusal::new(530, "NOT_ALLOWED", text)
    }
    pub fn not_implemented(text: impl AsRef<str>) -> Refusal {
        Refusal::new(540, "NOT_IMPLEMENTED", text)
    }

    /// True when the whole connection must close.
    pub fn closes_connection(&self) -> bool {
        matches!(self.code, 320 | 402 | 501..=506 | 530 | 540 | 541)
    }
}
