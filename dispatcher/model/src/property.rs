//! Refusals that name a property of a request body by its path.

use std::fmt;

use contract::url::user_of;
use serde_json::Value;

use crate::refusal::{Code, Refusal};

/// Characters of a refused value that are repeated in the error.
const SHOWN_MAX: usize = 256;
/// Properties whose values are never repeated in an error.
const SECRETS: &[&str] = &["password", "accountKey", "sasKey", "sshPrivateKey", "data", "value"];

/// A refused text as the error may repeat it: without secrets and signatures.
fn shown(path: &str, text: &str) -> String {
    let name = path.rsplit('.').next().unwrap_or(path);
    if SECRETS.contains(&name) {
        return "(not shown)".to_owned();
    }
    // The part before `@` of a URL may hold a password.
    let text = &match user_of(text) {
        Some(user) => format!("{}…{}", &text[..user.start], &text[user.end - 1..]),
        None => text.to_owned(),
    };
    let query = text.find(['?', '#']).filter(|at| text[*at..].contains(['=', '%']));
    let signature = text.to_ascii_lowercase().find("sig");
    let signature = signature.filter(|at| text[*at..].contains(['=', '%']));
    match query.into_iter().chain(signature).min() {
        Some(at) => text[..at].chars().take(SHOWN_MAX).chain("…".chars()).collect(),
        None => text.chars().take(SHOWN_MAX).collect(),
    }
}

/// Refusal for an invalid value of the property at `path`.
pub fn invalid(path: impl fmt::Display, value: &Value, reason: impl fmt::Display) -> Refusal {
    let path = path.to_string();
    let shown = match value {
        Value::String(text) => shown(&path, text),
        Value::Array(_) => "(a list)".to_owned(),
        Value::Object(_) => "(an object)".to_owned(),
        other => other.to_string(),
    };
    Refusal::new(Code::InvalidPropertyValue, "The value provided for one of the properties in the request body is invalid.")
        .with("PropertyName", path)
        .with("PropertyValue", shown)
        .with("Reason", reason)
}

/// Refusal for a missing property.
pub fn missing(path: impl fmt::Display) -> Refusal {
    Refusal::new(Code::MissingRequiredProperty, "A required property was not specified in the request body.").with("PropertyName", path)
}

/// Refusal for a value that Piecework does not support.
pub fn not_served(path: impl fmt::Display, hint: &str) -> Refusal {
    Refusal::new(Code::UnsupportedProperty, "One of the properties specified in the request body is not supported.")
        .with("PropertyName", path)
        .hint(hint)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_refusal_repeats_neither_signatures_nor_secrets() {
        for (path, text) in [
            ("a.containerUrl", "https://h/c?sv=1&sig=hush"),
            ("a.containerUrl", "HTTPS://h/c?SIG=hush"),
            ("a.containerUrl", "https://h/c%3Fsig%3Dhush"),
            ("a.containerUrl", "https://h/c#sig=hush"),
            ("a.containerUrl", "sv=1&sig=hush"),
            ("a.containerUrl", "http://me:hush@h/c"),
            ("a.containerUrl", "https://me:a@hush@h?x"),
            ("a.httpUrl", "s3+http://h/b?X-Amz-Signature=hush"),
            ("userAccounts[0].password", "hush"),
            ("environmentSettings[3].value", "hush"),
        ] {
            let refusal = invalid(path, &json!(text), "wrong");
            assert!(!format!("{refusal} {refusal:?}").contains("hush"), "{refusal:?}");
            assert_eq!(refusal.values[0].1, path);
        }
        assert_eq!(invalid("displayName", &json!("why not?"), "wrong").values[1].1, "why not?");
        assert_eq!(invalid("path", &json!("design/x"), "wrong").values[1].1, "design/x");
    }
}
