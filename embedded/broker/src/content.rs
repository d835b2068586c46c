//! Parses the parts of a content header that routing and queues need; headers tables are parsed only when present.

use amq_protocol::{
    protocol::basic::AMQPProperties,
    types::{AMQPValue, FieldTable},
};

use crate::{
    codec::{Cursor, parse_properties, write_properties},
    message::Message,
    refusal::{Outcome, Refusal},
    replyto::REPLY_QUEUE,
};

/// Longest expiration, in milliseconds: 100 years keep sums far from overflow.
pub(crate) const EXPIRATION_MAX_MS: u64 = 100 * 365 * 24 * 3_600_000;

const PERSISTENT: u8 = 2;

/// The parts of a content header.
pub(crate) struct Header {
    pub body_bytes: u64,
    pub properties: Box<[u8]>,
    pub is_persistent: bool,
    pub priority: u8,
    pub expiration_ms: Option<u64>,
    /// True when replies go to the channel's direct reply consumer.
    pub asks_reply: bool,
    /// Further routing keys from the headers `CC` and `BCC`.
    pub more_keys: Vec<String>,
}

/// Parses a content header frame's payload. `user` is the only user id that a message may claim.
pub(crate) fn read_header(payload: &[u8], user: &str) -> Outcome<Header> {
    let mut cursor = Cursor(payload);
    if cursor.short()? != 60 {
        return Err(Refusal::frame_error("content header of an unknown class"));
    }
    cursor.short()?;
    let body_bytes = cursor.long_long()?;
    let bytes = cursor.0;
    let mut header = Header {
        body_bytes,
        properties: bytes.into(),
        is_persistent: false,
        priority: 0,
        expiration_ms: None,
        asks_reply: false,
        more_keys: Vec::new(),
    };
    let flags = cursor.short()?;
    if flags & 0b11 != 0 {
        return Err(Refusal::syntax_error("unknown property flags"));
    }
    let has = |bit: u16| flags & (1 << bit) != 0;
    for bit in [15, 14] {
        if has(bit) {
            cursor.short_string()?;
        }
    }
    if has(13) {
        take_extra_keys(&mut header, parse_properties(bytes)?)?;
        let length = cursor.long()? as usize;
        cursor.take(length)?;
    }
    if has(12) {
        header.is_persistent = cursor.octet()? == PERSISTENT;
    }
    if has(11) {
        header.priority = cursor.octet()?;
    }
    if has(10) {
        cursor.short_string()?;
    }
    if has(9) {
        header.asks_reply = cursor.short_string()? == REPLY_QUEUE;
    }
    if has(8) {
        header.expiration_ms = Some(parse_expiration(cursor.short_string()?)?);
    }
    if has(7) {
        cursor.short_string()?;
    }
    if has(6) {
        cursor.long_long()?;
    }
    if has(5) {
        cursor.short_string()?;
    }
    if has(4) {
        let claimed = cursor.short_string()?;
        if claimed != user {
            return Err(Refusal::precondition_failed(format!("user_id property set to '{claimed}' but authenticated user was '{user}'")));
        }
    }
    for bit in [3, 2] {
        if has(bit) {
            cursor.short_string()?;
        }
    }
    if !cursor.0.is_empty() {
        return Err(Refusal::syntax_error("content header is longer than its properties"));
    }
    Ok(header)
}

fn parse_expiration(text: &str) -> Outcome<u64> {
    text.parse()
        .ok()
        .filter(|ms| *ms <= EXPIRATION_MAX_MS)
        .ok_or_else(|| Refusal::precondition_failed(format!("invalid expiration '{text}'")))
}

/// Moves `CC` and `BCC` into the routing keys; `BCC` is also removed from the headers.
fn take_extra_keys(header: &mut Header, properties: AMQPProperties) -> Outcome {
    let Some(headers) = properties.headers() else { return Ok(()) };
    for name in ["CC", "BCC"] {
        let keys = match headers.inner().get(name) {
            None => continue,
            Some(AMQPValue::FieldArray(keys)) => keys,
            Some(_) => {
                return Err(Refusal::precondition_failed(format!("header '{name}' is no array")));
            }
        };
        for key in keys.as_slice() {
            match key {
                AMQPValue::LongString(key) => header.more_keys.push(key.to_string()),
                _ => {
                    return Err(Refusal::precondition_failed(format!("header '{name}' holds something that is no string")));
                }
            }
        }
    }
    if headers.contains_key("BCC") {
        let mut kept = headers.inner().clone();
        kept.remove("BCC");
        header.properties = write_properties(&properties.with_headers(FieldTable::from(kept)));
    }
    Ok(())
}

/// The properties of a stored message; they were valid when it was published.
pub(crate) fn properties_of(message: &Message) -> AMQPProperties {
    parse_properties(&message.properties).unwrap_or_default()
}

/// The headers of a stored message, empty when it has none.
pub(crate) fn headers_of(message: &Message) -> FieldTable {
    properties_of(message).headers().clone().unwrap_or_default()
}
