//! Parses JSON bodies with bounded depth. Of a repeated key the last value counts.

use model::refusal::{Code, Refusal};
use serde_json::{Map, Value};

/// Size limit of a body.
pub const BODY_BYTES_MAX: usize = 1024 * 1024;
/// Nesting of objects and lists at most.
pub const DEPTH_MAX: usize = 64;

fn refused(reason: String) -> Refusal {
    Refusal::new(Code::InvalidRequestBody, "The specified Request Body is not syntactically valid.").with("Reason", reason)
}

fn depth(body: &[u8]) -> usize {
    let (mut now, mut most, mut in_text, mut is_escaped) = (0usize, 0, false, false);
    for byte in body {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if in_text => is_escaped = true,
            b'"' => in_text = !in_text,
            b'{' | b'[' if !in_text => {
                now += 1;
                most = most.max(now);
            }
            b'}' | b']' if !in_text => now = now.saturating_sub(1),
            _ => {}
        }
    }
    most
}

/// The body as an object.
pub fn object(body: &[u8]) -> Result<Map<String, Value>, Refusal> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err(refused("The body is empty; a JSON object is expected.".to_owned()));
    }
    if depth(body) > DEPTH_MAX {
        return Err(refused(format!("The body is nested deeper than {DEPTH_MAX} levels.")));
    }
    match serde_json::from_slice(body) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(refused("The body is JSON but not an object.".to_owned())),
        Err(error) => Err(refused(format!("The body is not JSON: {error}."))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_objects_of_bounded_depth_are_read() {
        assert!(object(br#"{"a":1}"#).is_ok());
        let deep = |levels: usize| format!("{{\"a\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
        assert!(object(deep(63).as_bytes()).is_ok());
        for body in [&b""[..], b" ", b"[]", b"5", b"{", b"{\"a\":\"\xff\"}", deep(64).as_bytes(), deep(100_000).as_bytes()] {
            assert_eq!(object(body).unwrap_err().code, Code::InvalidRequestBody);
        }
    }

    #[test]
    fn brackets_in_texts_are_no_depth_and_the_last_of_equal_keys_counts() {
        let text = format!(r#"{{"a":"{}","a":"\"{}"}}"#, "[".repeat(100), "{".repeat(100));
        assert!(object(text.as_bytes()).unwrap()["a"].as_str().unwrap().starts_with('"'));
    }
}
