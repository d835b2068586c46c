//! Checks request headers, and defines Piecework's own.

use http::{HeaderMap, HeaderName, HeaderValue, header, request::Parts};
use model::refusal::{Code, Refusal};

use crate::listen::HEADER_BYTES_MAX;

/// In answers: the properties of the request's body that were ignored as unknown.
pub const IGNORED: HeaderName = HeaderName::from_static("piecework-ignored");
/// In answers to lists: the rows that they lack because they cannot be read.
pub const UNREADABLE: HeaderName = HeaderName::from_static("piecework-unreadable");
/// In requests: `true` refuses unknown properties.
const STRICT: HeaderName = HeaderName::from_static("piecework-strict");

/// Whether the client wants unknown properties refused.
pub fn strict(headers: &HeaderMap) -> Result<bool, Refusal> {
    match headers.get(STRICT).map(HeaderValue::as_bytes) {
        None => Ok(false),
        Some(value) if value.eq_ignore_ascii_case(b"true") => Ok(true),
        Some(value) if value.eq_ignore_ascii_case(b"false") => Ok(false),
        Some(_) => {
            Err(Refusal::new(Code::InvalidHeaderValue, "The value provided for one of the HTTP headers was not in the correct format.")
                .with("HeaderName", STRICT)
                .with("Reason", "true or false is expected."))
        }
    }
}

/// Headers that may appear once only; a proxy and this server could read repeated ones differently.
const SINGLE: [HeaderName; 5] = [header::HOST, header::AUTHORIZATION, header::CONTENT_LENGTH, header::CONTENT_TYPE, header::DATE];

/// Refuses headers that are too long, missing or repeated.
pub fn check(parts: &Parts) -> Result<(), Refusal> {
    // The HTTP library limits the size, but accepts what had arrived before it checked.
    let bytes: usize = parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if bytes > HEADER_BYTES_MAX {
        return Err(
            Refusal::new(Code::InvalidHeaderValue, "The request's headers are too many or too long.").with("MaxLimit", HEADER_BYTES_MAX)
        );
    }
    let repeated = SINGLE.iter().find(|name| parts.headers.get_all(*name).iter().nth(1).is_some());
    if let Some(name) = repeated {
        return Err(Refusal::new(
            Code::InvalidHeaderValue,
            "The value provided for one of the HTTP headers was not in the correct format.",
        )
        .with("HeaderName", name)
        .with("Reason", "The header is there more than once."));
    }
    if parts.version == http::Version::HTTP_11 && !parts.headers.contains_key(header::HOST) {
        return Err(Refusal::new(Code::MissingRequiredHeader, "An HTTP header that's mandatory for this request is not specified.")
            .with("HeaderName", "Host"));
    }
    Ok(())
}
