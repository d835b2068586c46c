//! Azure Batch's shared-key signature, computed over the request exactly as it was sent.
//!
//! Path and parameter names are taken before any decoding. All keys are compared in constant time. A request is valid
//! for fifteen minutes around its date.

use std::time::{Duration, SystemTime};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, Method, header};
use model::refusal::{Code, Refusal};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::{auth::refusals, query::Query};

/// Largest difference between a request's date and the dispatcher's clock.
pub const CLOCK_WINDOW: Duration = Duration::from_secs(15 * 60);

/// The headers whose values are signed, in this order; content-length is special.
const SIGNED: [&str; 11] = [
    "content-encoding",
    "content-language",
    "content-length",
    "content-md5",
    "content-type",
    "date",
    "if-modified-since",
    "if-match",
    "if-none-match",
    "if-unmodified-since",
    "range",
];

/// A decoded key of the account.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(Vec<u8>);

impl Key {
    /// Decodes base64; `None` when the text is not base64 or is empty.
    pub fn parse(text: &str) -> Option<Key> {
        STANDARD.decode(text.trim()).ok().filter(|bytes| !bytes.is_empty()).map(Key)
    }

    fn sign(&self, text: &[u8]) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of every length");
        mac.update(text);
        STANDARD.encode(mac.finalize().into_bytes())
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(secret)")
    }
}

/// The parts of a request that the signature covers.
pub struct Signed<'a> {
    pub method: &'a Method,
    /// The path as it is on the wire.
    pub path: &'a str,
    pub query: &'a Query,
    pub headers: &'a HeaderMap,
}

/// Verifies the signature; returns a short form of it, and the request's date.
pub fn check(account: &str, keys: &[Key], request: &Signed<'_>, now: SystemTime) -> Result<(u64, SystemTime), Refusal> {
    let given = request.headers.get(header::AUTHORIZATION).ok_or_else(|| {
        Refusal::new(Code::Unauthorized, "The request has no Authorization header.")
            .hint("Sign it with the account's key: Authorization: SharedKey ACCOUNT:SIGNATURE.")
    })?;
    let (given_account, signature) = given
        .to_str()
        .ok()
        .and_then(|text| text.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("SharedKey"))
        .and_then(|(_, credentials)| credentials.trim().split_once(':'))
        .ok_or_else(|| {
            Refusal::new(Code::InvalidAuthenticationInfo, "The Authorization header is not provided in the correct format.")
                .with("Reason", "Only the forms 'SharedKey ACCOUNT:SIGNATURE' and 'Bearer TOKEN' are accepted.")
        })?;
    let date = check_date(request.headers, now)?;
    let mut is_good = subtle::Choice::from(0);
    for variant in Variant::all(request) {
        let text = string_to_sign(account, request, &variant);
        for key in keys {
            is_good |= key.sign(&text).as_bytes().ct_eq(signature.as_bytes());
        }
    }
    is_good &= given_account.as_bytes().ct_eq(account.as_bytes());
    if bool::from(is_good) {
        return Ok((short(signature), date));
    }
    let text = string_to_sign(account, request, &Variant::as_sent(request));
    let text = String::from_utf8_lossy(&text).into_owned();
    Err(failed(format!(
        "The MAC signature found in the HTTP request is not the same as any computed signature. Server used following string to sign: '{text}'."
    )))
}

/// Eight bytes of a valid signature, enough to recognise it again.
fn short(signature: &str) -> u64 {
    let bytes = STANDARD.decode(signature).unwrap_or_default();
    bytes.first_chunk::<8>().map_or(0, |first| u64::from_be_bytes(*first))
}

fn failed(detail: String) -> Refusal {
    refusals::failed(Code::AuthenticationFailed, detail)
}

fn check_date(headers: &HeaderMap, now: SystemTime) -> Result<SystemTime, Refusal> {
    let text = headers.get("ocp-date").or_else(|| headers.get(header::DATE)).and_then(|value| value.to_str().ok());
    let Some(text) = text else {
        return Err(failed("The request has neither an ocp-date nor a Date header.".to_owned()));
    };
    let date = httpdate::parse_http_date(text).map_err(|_| failed(format!("The date '{text}' is not an RFC 1123 date.")))?;
    let distance = now.duration_since(date).unwrap_or_else(|ahead| ahead.duration());
    if distance <= CLOCK_WINDOW {
        return Ok(date);
    }
    let clock = httpdate::fmt_http_date(now);
    Err(failed(format!("The request's date '{text}' is more than 15 minutes away from the server's clock, '{clock}'.")))
}

/// An interpretation of the signing rules. Clients differ in details, so several are tried.
struct Variant<'a> {
    length: &'a [u8],
    lowers_names: bool,
    keeps_empty: bool,
}

impl<'a> Variant<'a> {
    fn as_sent(request: &'a Signed<'_>) -> Variant<'a> {
        let length = request.headers.get(header::CONTENT_LENGTH).map_or(&b""[..], |value| value.as_bytes());
        let is_read = request.method == Method::GET || request.method == Method::HEAD;
        Variant { length: if is_read && length == b"0" { b"" } else { length }, lowers_names: false, keeps_empty: false }
    }

    /// The interpretations that give different strings for this request.
    fn all(request: &'a Signed<'_>) -> Vec<Variant<'a>> {
        let first = Variant::as_sent(request).length;
        let mut lengths = vec![first];
        if first.is_empty() || first == b"0" {
            lengths.push(if first.is_empty() { b"0" } else { b"" });
        }
        let has_upper = request.query.firsts().any(|(name, _)| name.iter().any(u8::is_ascii_uppercase));
        let has_empty = request.query.firsts().any(|(_, value)| value.is_empty());
        let choices = |matters: bool| if matters { &[false, true][..] } else { &[false][..] };
        let mut all = Vec::new();
        for length in lengths {
            for &lowers_names in choices(has_upper) {
                for &keeps_empty in choices(has_empty) {
                    all.push(Variant { length, lowers_names, keeps_empty });
                }
            }
        }
        all
    }
}

fn string_to_sign(account: &str, request: &Signed<'_>, variant: &Variant<'_>) -> Vec<u8> {
    let mut text = Vec::with_capacity(512);
    text.extend_from_slice(request.method.as_str().as_bytes());
    let has_own_date = request.headers.contains_key("ocp-date");
    for name in SIGNED {
        text.push(b'\n');
        match name {
            "content-length" => text.extend_from_slice(variant.length),
            "date" if has_own_date => {}
            _ => text.extend_from_slice(request.headers.get(name).map_or(b"", |value| value.as_bytes())),
        }
    }
    text.push(b'\n');
    let mut own: Vec<_> = request.headers.iter().filter(|(name, _)| name.as_str().starts_with("ocp-")).collect();
    own.sort_by_key(|(name, _)| name.as_str());
    for (name, value) in own {
        text.extend_from_slice(name.as_str().as_bytes());
        text.push(b':');
        text.extend_from_slice(value.as_bytes());
        text.push(b'\n');
    }
    text.push(b'/');
    text.extend_from_slice(account.as_bytes());
    text.extend_from_slice(request.path.as_bytes());
    let name_of = |name: &[u8]| if variant.lowers_names { name.to_ascii_lowercase() } else { name.to_vec() };
    let mut parameters: Vec<_> = request.query.firsts().map(|(name, value)| (name_of(name), value)).collect();
    parameters.sort();
    for (name, value) in parameters.iter().filter(|(_, value)| variant.keeps_empty || !value.is_empty()) {
        text.push(b'\n');
        text.extend_from_slice(name);
        text.push(b':');
        text.extend_from_slice(value);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY_A: &str = "a2V5a2V5a2V5a2V5";
    const KEY_B: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

    struct Case {
        key: &'static str,
        account: &'static str,
        method: Method,
        path: &'static str,
        query: &'static str,
        headers: &'static [(&'static str, &'static str)],
        signature: &'static str,
    }

    fn headers(pairs: &[(&'static str, &str)], account: &str, signature: &str) -> HeaderMap {
        let mut headers: HeaderMap =
            pairs.iter().map(|(name, value)| (header::HeaderName::from_static(name), value.parse().unwrap())).collect();
        headers.insert(header::AUTHORIZATION, format!("SharedKey {account}:{signature}").parse().unwrap());
        headers
    }

    fn run(case: &Case, keys: &[Key], now: &str) -> Result<(u64, SystemTime), Refusal> {
        let headers = headers(case.headers, case.account, case.signature);
        let query = Query::parse(Some(case.query));
        let request = Signed { method: &case.method, path: case.path, query: &query, headers: &headers };
        check(case.account, keys, &request, httpdate::parse_http_date(now).unwrap())
    }

    const T11: (&str, &str) = ("ocp-date", "Mon, 23 Nov 2026 19:00:11 GMT");
    const T15: (&str, &str) = ("ocp-date", "Mon, 23 Nov 2026 19:00:15 GMT");
    const T00: (&str, &str) = ("ocp-date", "Mon, 23 Nov 2026 19:00:00 GMT");
    const V19: &str = "api-version=2024-02-01.19.0";

    #[rustfmt::skip]
    fn vectors() -> Vec<Case> {
        let a = |method, path, query, headers, signature| Case { key: KEY_A, account: "acct", method, path, query, headers, signature };
        let b = |method, path, query, headers, signature| Case { key: KEY_B, account: "myaccount", method, path, query, headers, signature };
        vec![
            a(Method::GET, "/jobs/job%201/tasks", "api-version=2024-02-01.19.0&%24filter=state%20eq%20%27completed%27%20and%20id%20gt%20%27a%27&%24select=id%2Cstate&maxresults=10&timeout=20", &[T11], "QyzUZFnYZ44aa7YpOP389eiUvPx6WD0uIggJyqJtW0M="),
            a(Method::POST, "/jobs/j1/tasks", V19, &[("content-length", "183"), ("content-type", "application/json; odata=minimalmetadata; charset=utf-8"), T11], "B86HLOvJNQONEtwVtHj0qmlhRKf/8gbHtb+HqrDHM3Y="),
            a(Method::POST, "/jobs/j1/enable", "api-version=2024-02-01.19.0&timeout=30", &[("content-length", "0"), ("if-match", "\"0x8D\""), T11], "unMRkCG9DYk+frTSN7sTFlZ0Be+WEUhDDX2WtbeC2zE="),
            a(Method::DELETE, "/jobs/j1", V19, &[("content-length", "0"), T11], "fncHJXrSY8vqv6cB3ydtkIKsr2C3iWzLHsJR6sMAorQ="),
            a(Method::GET, "/jobs/j1/tasks/t1/files/wd%2Fa%20b.txt", "api-version=2025-06-01", &[T15, ("ocp-range", "bytes=0-9")], "kId5o871ouJoIE6bYJ7/23IHPS40O1On/poasFkofTk="),
            a(Method::GET, "/poolusagemetrics", "startTime=2026-01-01T00%3A00%3A00.000Z&api-version=2025-06-01", &[T15], "WR9S+dSf63hJ0Roox/ATbvgxrgs8GXDfvhIYyUx07Ik="),
            b(Method::GET, "/jobs", V19, &[T00], "7PKCVoryrXbu1IA7RZNAvYpSd9xuwFGLkM7D0kVj4Ww="),
            b(Method::DELETE, "/jobs/j", V19, &[T00, ("content-length", "0"), ("if-match", "0x8D4")], "bl0xsSlE8GhJ8l2UoAs8/cpSyULGeBYTH1NJS2ecsO8="),
            b(Method::GET, "/jobs/j/tasks/t/files/wd%2Fa.txt", V19, &[T00, ("ocp-range", "bytes=0-4")], "bUeZbQN0XrTOX5u0KIAsPvrdw0WR6Wh0HlPDGkNi6Hg="),
        ]
    }

    #[test]
    fn recorded_requests_of_official_clients_are_let_in_with_either_key() {
        for case in vectors() {
            let other = Key::parse("b3RoZXI=").unwrap();
            let keys = [other, Key::parse(case.key).unwrap()];
            run(&case, &keys, "Mon, 23 Nov 2026 19:05:00 GMT").unwrap_or_else(|refusal| panic!("{}: {refusal:?}", case.path));
        }
    }

    #[test]
    fn another_key_is_refused_with_the_servers_string_to_sign() {
        let case = &vectors()[0];
        let refusal = run(case, &[Key::parse("b3RoZXI=").unwrap()], "Mon, 23 Nov 2026 19:05:00 GMT").unwrap_err();
        assert_eq!(refusal.code, Code::AuthenticationFailed);
        assert!(refusal.values[0].1.contains("/acct/jobs/job%201/tasks\n$filter:state eq 'completed' and id gt 'a'\n$select:id,state\n"));
    }

    #[test]
    fn an_old_or_early_date_is_refused_although_its_signature_is_right() {
        let keys = [Key::parse(KEY_A).unwrap()];
        for (now, is_let_in) in [
            ("Mon, 23 Nov 2026 19:15:11 GMT", true),
            ("Mon, 23 Nov 2026 19:15:12 GMT", false),
            ("Mon, 23 Nov 2026 18:45:11 GMT", true),
            ("Mon, 23 Nov 2026 18:45:10 GMT", false),
        ] {
            assert_eq!(run(&vectors()[0], &keys, now).is_ok(), is_let_in, "{now}");
        }
    }

    #[test]
    fn every_habit_of_content_length_is_let_in() {
        let key = Key::parse(KEY_A).unwrap();
        let query = Query::parse(Some(V19));
        for (sent, signed) in [(None, ""), (None, "0"), (Some("0"), "0"), (Some("0"), "")] {
            let text = format!("DELETE\n\n\n{signed}\n\n\n\n\n\n\n\n\nocp-date:{}\n/acct/jobs/j1\n{}", T11.1, V19.replace('=', ":"));
            let signature = key.sign(text.as_bytes());
            let mut pairs = vec![T11];
            pairs.extend(sent.map(|length| ("content-length", length)));
            let headers = headers(&pairs, "acct", &signature);
            let request = Signed { method: &Method::DELETE, path: "/jobs/j1", query: &query, headers: &headers };
            check("acct", std::slice::from_ref(&key), &request, httpdate::parse_http_date(T11.1).unwrap()).unwrap();
        }
    }

    #[test]
    fn missing_garbled_and_foreign_credentials_have_their_own_codes() {
        let query = Query::parse(None);
        for (value, code) in [
            (None, Code::Unauthorized),
            (Some("Bearer abc"), Code::InvalidAuthenticationInfo),
            (Some("SharedKey nocolon"), Code::InvalidAuthenticationInfo),
            (Some("SharedKey"), Code::InvalidAuthenticationInfo),
            (Some("SharedKey other:AAAA"), Code::AuthenticationFailed),
        ] {
            let mut headers = HeaderMap::from_iter([(header::HeaderName::from_static("ocp-date"), T11.1.parse().unwrap())]);
            if let Some(value) = value {
                headers.insert(header::AUTHORIZATION, value.parse().unwrap());
            }
            let request = Signed { method: &Method::GET, path: "/jobs", query: &query, headers: &headers };
            let now = httpdate::parse_http_date(T11.1).unwrap();
            assert_eq!(check("acct", &[Key::parse(KEY_A).unwrap()], &request, now).unwrap_err().code, code, "{value:?}");
        }
    }
}
