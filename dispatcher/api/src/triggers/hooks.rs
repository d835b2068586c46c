//! Webhooks: requests that start what a trigger says, signed with the trigger's own secret instead of the account's key.
//!
//! Two signatures are known: that of GitHub (`X-Hub-Signature-256`), and one with a time
//! (`Piecework-Signature: t=SECONDS,v1=HEX`, over `SECONDS.BODY`), which is good for five minutes.

use contract::time::Timestamp;
use engine::command::Command;
use hmac::{Hmac, KeyInit, Mac};
use http::HeaderMap;
use model::{
    refusal::{Code, Refusal},
    trigger::{Advance, Source},
};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::{
    answer::Answer,
    call::Call,
    digest::hex,
    error::store_failed,
    state::ApiState,
    triggers::{
        message::{self, Message},
        start,
    },
};

/// How far the time of a signature may be from ours, in seconds.
const WINDOW_S: i64 = 300;
const HUB: &str = "x-hub-signature-256";
const OURS: &str = "piecework-signature";
/// A secret that no trigger has, so that a missing trigger takes as long as a wrong signature.
const NO_SECRET: &str = "none";

fn header<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let is_hex = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hex.then(|| (0..64).step_by(2).filter_map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect())
}

/// Whether a request was signed with the secret; compared in constant time.
fn is_signed(secret: &str, headers: &HeaderMap, body: &[u8], now: Timestamp) -> bool {
    let (time, signature) = match (header(headers, OURS), header(headers, HUB)) {
        (Some(ours), _) => {
            let part = |name: &str| ours.split(',').find_map(|part| part.trim().strip_prefix(name));
            (part("t="), part("v1="))
        }
        (None, Some(hub)) => (None, hub.strip_prefix("sha256=")),
        (None, None) => return false,
    };
    let is_timed = headers.contains_key(OURS);
    let is_fresh = match time {
        Some(time) => time.parse::<i64>().is_ok_and(|time| (now.0 / 1000).abs_diff(time) <= WINDOW_S.unsigned_abs()),
        None => !is_timed,
    };
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else { return false };
    if let Some(time) = time.filter(|_| is_timed) {
        mac.update(time.as_bytes());
        mac.update(b".");
    }
    mac.update(body);
    signature.and_then(unhex).is_some_and(|signature| mac.verify_slice(&signature).is_ok()) && is_fresh
}

/// Starts what a trigger says; answered once that is stored.
pub async fn take(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let now = Timestamp::now();
    let row = api.read.trigger(&call.trigger()?).await.map_err(store_failed)?;
    let hook = row.as_ref().and_then(|row| match &row.spec.source {
        Source::Webhook(hook) => Some((row, hook)),
        _ => None,
    });
    let secret = hook.map_or(NO_SECRET, |(_, hook)| hook.secret.0.as_str());
    let (is_right, found) = (is_signed(secret, &call.headers, &call.body, now), hook);
    let (Some((row, hook)), true) = (found, is_right) else {
        let refusal =
            Refusal::new(Code::AuthenticationFailed, "There is no such webhook, or the request's signature is not that of its secret.");
        return Err(refusal.hint("Sign the body as docs/triggers.md says; a signature with a time is good for five minutes."));
    };
    if row.is_paused {
        return Err(Refusal::new(Code::OperationInvalidForCurrentState, "The trigger is paused.").with("TriggerId", &row.id));
    }
    // A request that is sent again has the same signature.
    let signature = header(&call.headers, OURS).or_else(|| header(&call.headers, HUB)).unwrap_or_default();
    let id = hex(&Sha256::digest(signature));
    let text = |name: &http::HeaderName, value: &http::HeaderValue| Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()));
    let message = Message {
        routing_key: "",
        body: &call.body,
        content_type: header(&call.headers, "content-type"),
        message_id: Some(&id),
        kind: header(&call.headers, "x-github-event"),
        headers: call.headers.iter().filter_map(|(name, value)| text(name, value)).collect(),
    };
    let events = message::events(&message, row.id.as_str(), &hook.values)
        .map_err(|reason| Refusal::new(Code::InvalidRequestBody, "The trigger cannot read the request.").with("Reason", reason))?;
    let event_at = events.iter().filter_map(|event| event.at).min();
    let starts = start::starts(row, events)?;
    let ids: Vec<String> = starts.iter().map(|(start, _)| start.message_id.clone()).collect();
    let step = Advance { starts, event_at, ..Advance::default() };
    api.change(Command::AdvanceTrigger(row.id.clone(), row.uid, Box::new(step))).await?;
    Ok(Answer::own_json(202, json!({"messageId": ids.first()}).to_string().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed(secret: &str, text: &[u8]) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
        mac.update(text);
        mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn is_taken(name: &'static str, value: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        is_signed("secret", &headers, b"body", Timestamp(1_000_000_000))
    }

    #[test]
    fn a_signature_fits_its_secret_its_body_and_its_time() {
        assert!(is_taken(HUB, &format!("sha256={}", signed("secret", b"body"))));
        assert!(!is_taken(HUB, &format!("sha256={}", signed("other", b"body"))));
        assert!(!is_taken(HUB, &format!("sha256={}", signed("secret", b"bodY"))));
        assert!(!is_taken(HUB, &signed("secret", b"body")));
        assert!(!is_taken("x-other", "1"));
        let timed = |time: i64, text: String| is_taken(OURS, &format!("t={time},v1={}", signed("secret", text.as_bytes())));
        assert!(timed(1_000_000, "1000000.body".into()) && timed(1_000_299, "1000299.body".into()) && timed(999_701, "999701.body".into()));
        assert!(!timed(1_000_301, "1000301.body".into()) && !timed(999_699, "999699.body".into()));
        assert!(!timed(1_000_000, "1000001.body".into()) && !timed(1_000_000, "body".into()));
        assert!(!is_taken(OURS, &format!("v1={}", signed("secret", b"body"))), "without a time");
        for wrong in ["", "sha256=", "sha256=zz", "sha256=é", &format!("sha256={}", "g".repeat(64))] {
            let mut headers = HeaderMap::new();
            headers.insert(HUB, http::HeaderValue::from_bytes(wrong.as_bytes()).unwrap());
            assert!(!is_signed("secret", &headers, b"body", Timestamp(0)), "{wrong}");
        }
    }
}
