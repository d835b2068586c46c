//! Conditional headers: at most one per request; compared here for reads, and by the engine for writes.

use contract::time::Timestamp;
use http::{HeaderMap, HeaderName, header};
use model::{
    condition::Condition,
    refusal::{Code, Refusal},
};

use crate::answer::Answer;

/// The conditional headers that an operation supports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Honours {
    /// None.
    Nothing,
    /// The two about modification times.
    Times,
    /// All four.
    All,
}

const HEADERS: [HeaderName; 4] = [header::IF_MATCH, header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE, header::IF_UNMODIFIED_SINCE];

/// Reads the condition; refuses headers that the operation does not support.
pub fn read(headers: &HeaderMap, honours: Honours) -> Result<Condition, Refusal> {
    let mut condition = Condition::default();
    let mut given = 0;
    for name in HEADERS {
        for value in headers.get_all(&name) {
            let text = value.to_str().map(str::trim).map_err(|_| wrong(&name, "(not ASCII)", "The value is not ASCII."))?;
            if text.is_empty() {
                continue;
            }
            given += 1;
            let is_time = name == header::IF_MODIFIED_SINCE || name == header::IF_UNMODIFIED_SINCE;
            if honours == Honours::Nothing || (honours == Honours::Times && !is_time) {
                return Err(Refusal::new(Code::UnsupportedHeader, "One of the headers specified in the request is not supported.")
                    .with("HeaderName", &name)
                    .hint("Repeat the request without it: this operation cannot be made conditional that way."));
            }
            let time = || {
                httpdate::parse_http_date(text)
                    .ok()
                    .and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok())
                    .and_then(|since| i64::try_from(since.as_millis()).ok())
                    .map(Timestamp)
                    .ok_or_else(|| wrong(&name, text, "The value is not an RFC 1123 date."))
            };
            match name.as_str() {
                "if-match" => condition.if_match = Some(text.to_owned()),
                "if-none-match" => condition.if_none_match = Some(text.to_owned()),
                "if-modified-since" => condition.if_modified_since = Some(time()?),
                _ => condition.if_unmodified_since = Some(time()?),
            }
        }
    }
    if given > 1 {
        return Err(Refusal::new(Code::MultipleConditionHeadersNotSupported, "Multiple condition headers are not supported."));
    }
    Ok(condition)
}

fn wrong(name: &HeaderName, value: &str, reason: &str) -> Refusal {
    Refusal::new(Code::InvalidHeaderValue, "The value provided for one of the HTTP headers was not in the correct format.")
        .with("HeaderName", name)
        .with("HeaderValue", value)
        .with("Reason", reason)
}

/// For reads: `None` when the resource is to be shown, or the answer 304. A failed precondition is refused.
pub fn unchanged(condition: &Condition, version: u64, modified_at: Timestamp) -> Result<Option<Answer>, Refusal> {
    if condition.is_met(version, modified_at) {
        return Ok(None);
    }
    if condition.if_none_match.is_some() || condition.if_modified_since.is_some() {
        return Ok(Some(Answer::empty(304).changed(version, modified_at)));
    }
    condition.check(version, modified_at).map(|()| None)
}

#[cfg(test)]
mod tests {
    use model::condition::etag;

    use super::*;

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    #[test]
    fn several_conditions_are_refused() {
        let two = headers(&[(header::IF_MATCH, "*"), (header::IF_NONE_MATCH, "0x1")]);
        assert_eq!(read(&two, Honours::All).unwrap_err().code, Code::MultipleConditionHeadersNotSupported);
        let one = headers(&[(header::IF_MATCH, "*")]);
        assert_eq!(read(&one, Honours::Times).unwrap_err().code, Code::UnsupportedHeader);
        let bad = headers(&[(header::IF_MODIFIED_SINCE, "yesterday")]);
        assert_eq!(read(&bad, Honours::All).unwrap_err().code, Code::InvalidHeaderValue);
    }

    #[test]
    fn a_read_of_what_is_known_is_304_and_a_failed_precondition_412() {
        let at = Timestamp(5_000);
        let known = Condition { if_none_match: Some(etag(7)), ..Default::default() };
        assert_eq!(unchanged(&known, 7, at).unwrap().unwrap().status.as_u16(), 304);
        assert!(unchanged(&known, 8, at).unwrap().is_none());
        let old = Condition { if_match: Some(etag(6)), ..Default::default() };
        assert_eq!(unchanged(&old, 7, at).unwrap_err().code, Code::ConditionNotMet);
    }
}
