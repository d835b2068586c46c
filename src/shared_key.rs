//! Signs requests with the account's key exactly as the Azure Batch clients do.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use broker_config::settings::Secret;
use hmac::{Hmac, KeyInit, Mac};
use percent_encoding::percent_decode_str;
use sha2::Sha256;

/// An account's name and one of its keys.
#[derive(Clone)]
pub(crate) struct SharedKey {
    account: String,
    bytes: Vec<u8>,
}

/// The parts of a request that are signed; texts are empty where the header is absent.
#[derive(Debug, Clone, Default)]
pub(crate) struct Signed<'a> {
    pub(crate) method: &'a str,
    pub(crate) content_length: &'a str,
    pub(crate) content_type: &'a str,
    pub(crate) if_match: &'a str,
    /// Lower-case names that start with `ocp-`, in order.
    pub(crate) ocp: &'a [(&'a str, &'a str)],
    /// As on the wire, still percent-encoded.
    pub(crate) path: &'a str,
    /// As on the wire, without the question mark.
    pub(crate) query: &'a str,
}

impl fmt::Debug for SharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedKey of {}", self.account)
    }
}

impl SharedKey {
    /// Reads a key in base64; nothing when it is not.
    pub(crate) fn parse(account: &str, key: &Secret) -> Option<SharedKey> {
        let bytes = STANDARD.decode(key.expose().trim()).ok().filter(|bytes| !bytes.is_empty())?;
        Some(SharedKey { account: account.to_owned(), bytes })
    }

    pub(crate) fn account(&self) -> &str {
        &self.account
    }

    /// The `Authorization` header of a request.
    pub(crate) fn authorization(&self, request: &Signed<'_>) -> String {
        let text = self.string_to_sign(request);
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.bytes).expect("HMAC takes keys of any length");
        mac.update(text.as_bytes());
        format!("SharedKey {}:{}", self.account, STANDARD.encode(mac.finalize().into_bytes()))
    }

    fn string_to_sign(&self, request: &Signed<'_>) -> String {
        let Signed { method, content_length, content_type, if_match, .. } = request;
        let mut text = format!("{method}\n\n\n{content_length}\n\n{content_type}\n\n\n{if_match}\n\n\n\n");
        for (name, value) in request.ocp {
            text.push_str(&format!("{name}:{value}\n"));
        }
        text.push_str(&format!("/{}{}", self.account, request.path));
        let mut query: Vec<(String, String)> = request.query.split('&').filter_map(parameter).collect();
        query.sort_by(|(a, _), (b, _)| a.cmp(b));
        query.dedup_by(|(later, _), (first, _)| later == first);
        for (name, value) in query {
            text.push_str(&format!("\n{name}:{value}"));
        }
        text
    }
}

fn parameter(text: &str) -> Option<(String, String)> {
    let (name, value) = text.split_once('=').filter(|(_, value)| !value.is_empty())?;
    let decode = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
    Some((decode(name), decode(value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(account: &str, key: &str, request: Signed<'_>, signature: &str) {
        let key = SharedKey::parse(account, &Secret::new(key)).unwrap();
        assert_eq!(key.authorization(&request), format!("SharedKey {account}:{signature}"), "{request:?}");
    }

    #[test]
    fn signatures_equal_those_of_the_python_clients() {
        let (key, classic) = ("a2V5a2V5a2V5a2V5", [("ocp-date", "Mon, 23 Nov 2026 19:00:11 GMT")]);
        let list = Signed {
            method: "GET",
            ocp: &classic,
            path: "/jobs/job%201/tasks",
            query: "api-version=2024-02-01.19.0&%24filter=state%20eq%20%27completed%27%20and%20id%20gt%20%27a%27\
                    &$select=id,state&maxresults=10&timeout=20",
            ..Signed::default()
        };
        check("acct", key, list, "QyzUZFnYZ44aa7YpOP389eiUvPx6WD0uIggJyqJtW0M=");
        let post = Signed {
            method: "POST",
            content_length: "183",
            content_type: "application/json; odata=minimalmetadata; charset=utf-8",
            ocp: &classic,
            path: "/jobs/j1/tasks",
            query: "api-version=2024-02-01.19.0",
            ..Signed::default()
        };
        check("acct", key, post, "B86HLOvJNQONEtwVtHj0qmlhRKf/8gbHtb+HqrDHM3Y=");
        let enable = Signed {
            method: "POST",
            content_length: "0",
            if_match: "\"0x8D\"",
            ocp: &classic,
            path: "/jobs/j1/enable",
            query: "api-version=2024-02-01.19.0&timeout=30",
            ..Signed::default()
        };
        check("acct", key, enable, "unMRkCG9DYk+frTSN7sTFlZ0Be+WEUhDDX2WtbeC2zE=");
        let delete = Signed {
            method: "DELETE",
            content_length: "0",
            ocp: &classic,
            path: "/jobs/j1",
            query: "api-version=2024-02-01.19.0",
            ..Signed::default()
        };
        check("acct", key, delete, "fncHJXrSY8vqv6cB3ydtkIKsr2C3iWzLHsJR6sMAorQ=");
        let range = Signed {
            method: "GET",
            ocp: &[("ocp-date", "Mon, 23 Nov 2026 19:00:15 GMT"), ("ocp-range", "bytes=0-9")],
            path: "/jobs/j1/tasks/t1/files/wd%2Fa%20b.txt",
            query: "api-version=2025-06-01",
            ..Signed::default()
        };
        check("acct", key, range, "kId5o871ouJoIE6bYJ7/23IHPS40O1On/poasFkofTk=");
    }

    #[test]
    fn signatures_equal_the_worked_examples_of_the_wire() {
        let (key, date) = ("MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=", [("ocp-date", "Mon, 23 Nov 2026 19:00:00 GMT")]);
        let list = Signed { method: "GET", ocp: &date, path: "/jobs", query: "api-version=2024-02-01.19.0", ..Signed::default() };
        check("myaccount", key, list, "7PKCVoryrXbu1IA7RZNAvYpSd9xuwFGLkM7D0kVj4Ww=");
        let delete = Signed {
            method: "DELETE",
            content_length: "0",
            if_match: "0x8D4",
            ocp: &date,
            path: "/jobs/j",
            query: "api-version=2024-02-01.19.0",
            ..Signed::default()
        };
        check("myaccount", key, delete, "bl0xsSlE8GhJ8l2UoAs8/cpSyULGeBYTH1NJS2ecsO8=");
    }
}
