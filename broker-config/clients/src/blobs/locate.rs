//! Parses container URLs.
//!
//! `s3://bucket/prefix`, or the configured store's own `http(s)://endpoint/bucket/prefix`. Piecework's own bucket is refused.
//! The dispatcher applies the same rule, so it refuses early what nodes could not use later.

use percent_encoding::percent_decode_str;

use super::error::BlobError;

const BUCKET_LENGTH: std::ops::RangeInclusive<usize> = 3..=63;
/// Longest key in bytes; S3's limit.
pub const KEY_BYTES_MAX: usize = 1024;

/// A container of the store, or a prefix in one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    pub bucket: String,
    /// Common prefix of the keys; may be empty.
    pub prefix: String,
}

/// The containers of one store that its users may name.
#[derive(Debug, Clone, Copy)]
pub struct Places<'a> {
    /// `http(s)://host:port` of the store.
    pub endpoint: &'a str,
    /// Piecework's own bucket, which users may not name.
    pub own_bucket: &'a str,
}

impl Places<'_> {
    /// Parses a container URL; anything outside this store and its users' buckets is refused.
    pub fn locate(&self, url: &str) -> Result<Location, BlobError> {
        locate(self.endpoint, self.own_bucket, url)
    }
}

/// True for `http(s)://host[:port]`.
pub(super) fn is_endpoint(text: &str) -> bool {
    origin(text).is_some_and(|(_, path)| path.is_empty() || path == "/")
}

fn locate(endpoint: &str, own_bucket: &str, url: &str) -> Result<Location, BlobError> {
    let shown = url.split(['?', '#']).next().unwrap_or_default();
    let refuse = |why| BlobError::Url { url: shown.to_owned(), why };
    if shown.len() != url.len() {
        return Err(refuse("a query or fragment has no meaning here: nodes use the blob store's own credentials, not those of a URL"));
    }
    const S3: &str = "s3://";
    let (path, is_encoded) = if url.get(..S3.len()).is_some_and(|scheme| scheme.eq_ignore_ascii_case(S3)) {
        (&url[S3.len()..], false)
    } else {
        let (here, _) = origin(endpoint).ok_or_else(|| refuse("the store has no endpoint"))?;
        let (there, path) = origin(url).ok_or_else(|| refuse("it is neither s3://bucket/prefix nor http(s)://endpoint/bucket/prefix"))?;
        if here != there {
            return Err(refuse("it is not in the configured blob store"));
        }
        (path.trim_start_matches('/'), true)
    };
    let (bucket, prefix) = path.split_once('/').unwrap_or((path, ""));
    if !is_bucket(bucket) {
        return Err(refuse("it names no bucket"));
    }
    if bucket == own_bucket {
        return Err(refuse("that bucket is Piecework's own"));
    }
    let prefix = if is_encoded {
        percent_decode_str(prefix).decode_utf8().map_err(|_| refuse("its prefix is not UTF-8"))?.into_owned()
    } else {
        prefix.to_owned()
    };
    let prefix = prefix.trim_end_matches('/');
    match prefix {
        _ if prefix.len() >= KEY_BYTES_MAX => Err(refuse("its prefix is as long as a whole key may be, 1024 bytes")),
        _ if prefix.contains(char::is_control) => Err(refuse("its prefix holds control characters")),
        _ if prefix.split('/').any(|part| matches!(part, "." | "..")) => Err(refuse("its prefix holds '.' or '..'")),
        _ => Ok(Location { bucket: bucket.to_owned(), prefix: prefix.to_owned() }),
    }
}

/// True for a bucket name that every store accepts.
fn is_bucket(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = name.as_bytes();
    BUCKET_LENGTH.contains(&bytes.len())
        && bytes.iter().all(|byte| is_plain(*byte) || b".-".contains(byte))
        && is_plain(bytes[0])
        && is_plain(bytes[bytes.len() - 1])
        && !name.contains("..")
        && name.parse::<std::net::Ipv4Addr>().is_err()
}

/// Splits a URL into scheme, host and port, and the rest.
fn origin(url: &str) -> Option<((bool, String, u16), &str)> {
    let (is_secure, rest) = match url.split_once("://")? {
        (scheme, rest) if scheme.eq_ignore_ascii_case("http") => (false, rest),
        (scheme, rest) if scheme.eq_ignore_ascii_case("https") => (true, rest),
        _ => return None,
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let default = if is_secure { 443 } else { 80 };
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
        _ => (authority, default),
    };
    if host.is_empty() || host.contains('@') {
        return None;
    }
    Some(((is_secure, host.to_ascii_lowercase(), port), path))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDPOINT: &str = "http://127.0.0.1:9000";

    fn at(url: &str) -> Result<Location, BlobError> {
        locate(ENDPOINT, "piecework-own", url)
    }

    #[test]
    fn both_forms_name_the_same_place() {
        let place = Location { bucket: "in".to_owned() + "put", prefix: "a b/c".to_owned() };
        assert_eq!(at("s3://input/a b/c").unwrap(), place);
        assert_eq!(at("http://127.0.0.1:9000/input/a%20b/c/").unwrap(), place);
        assert_eq!(at("HTTP://127.0.0.1:9000/input").unwrap().prefix, "");
        assert_eq!(at("S3://input/x").unwrap().prefix, "x");
        assert_eq!(locate("https://s3.example.org/", "own", "https://S3.Example.org:443/input/x").unwrap().prefix, "x");
    }

    #[test]
    fn anything_else_is_refused_with_a_reason() {
        for (url, part) in [
            ("http://127.0.0.1:9001/input", "not in the configured"),
            ("https://127.0.0.1:9000/input", "not in the configured"),
            ("https://account.blob.core.windows.net/c", "not in the configured"),
            ("http://user@127.0.0.1:9000/input", "neither"),
            ("ftp://127.0.0.1:9000/input", "neither"),
            ("/input", "neither"),
            ("", "neither"),
            ("s3://", "names no bucket"),
            ("s3:///x", "names no bucket"),
            ("s3://In/x", "names no bucket"),
            ("http://127.0.0.1:9000/", "names no bucket"),
            ("s3://piecework-own/x", "own"),
            ("http://127.0.0.1:9000/piecework-own", "own"),
            ("s3://input/x?sig=secret", "query"),
            ("s3://input/x#sig=secret", "query"),
            ("s3://-input/x", "names no bucket"),
            ("s3://in..put/x", "names no bucket"),
            ("s3://10.0.0.1/x", "names no bucket"),
            ("s3://input/a/../b", "'..'"),
            ("http://127.0.0.1:9000/input/%2e%2e", "'..'"),
            ("http://127.0.0.1:9000/input/a%0db", "control"),
            (&format!("s3://input/{}", "x".repeat(1024)), "1024"),
            ("http://127.0.0.1:9000/input/%ff", "UTF-8"),
        ] {
            let error = at(url).unwrap_err().to_string();
            assert!(error.contains(part) && !error.contains("secret"), "{url}: {error}");
        }
    }

    #[test]
    fn an_endpoint_has_no_path() {
        assert!(is_endpoint("http://localhost:9000/") && is_endpoint("https://s3.example.org"));
        assert!(!is_endpoint("localhost:9000") && !is_endpoint("http://x/y") && !is_endpoint("http://:1"));
    }
}
