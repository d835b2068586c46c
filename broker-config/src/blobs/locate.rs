//! Container URLs, parsed once at the edge.
//!
//! `s3://bucket/prefix`, or the configured store's own `http(s)://endpoint/bucket/prefix`. Piecework's own bucket is no target.

use percent_encoding::percent_decode_str;

use super::{BlobError, Blobs};

const BUCKET_LENGTH: std::ops::RangeInclusive<usize> = 3..=63;

/// A place for blobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// The bucket.
    pub bucket: String,
    /// What all keys there begin with; may be empty.
    pub prefix: String,
}

impl Blobs {
    /// Reads a container URL; anything outside this store and its users' buckets is refused.
    pub fn locate(&self, url: &str) -> Result<Location, BlobError> {
        locate(&self.settings().endpoint, &self.settings().own_bucket, url)
    }
}

/// Whether a text is `http(s)://host[:port]`.
pub(super) fn is_endpoint(text: &str) -> bool {
    origin(text).is_some_and(|(_, path)| path.is_empty() || path == "/")
}

fn locate(endpoint: &str, own_bucket: &str, url: &str) -> Result<Location, BlobError> {
    let shown = url.split(['?', '#']).next().unwrap_or_default();
    let refuse = |why| BlobError::Url { url: shown.to_owned(), why };
    if shown.len() != url.len() {
        return Err(refuse("a query or fragment has no meaning here"));
    }
    let (path, is_encoded) = if let Some(path) = url.strip_prefix("s3://") {
        (path, false)
    } else {
        let (here, _) = origin(endpoint).ok_or_else(|| refuse("the store has no endpoint"))?;
        let (there, path) = origin(url).ok_or_else(|| refuse("it is neither s3://bucket/prefix nor http(s)://endpoint/bucket/prefix"))?;
        if here != there {
            return Err(refuse("it is not in the configured blob store"));
        }
        (path.trim_start_matches('/'), true)
    };
    let (bucket, prefix) = path.split_once('/').unwrap_or((path, ""));
    let is_name = BUCKET_LENGTH.contains(&bucket.len())
        && bucket.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte));
    if !is_name {
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
    Ok(Location { bucket: bucket.to_owned(), prefix: prefix.trim_end_matches('/').to_owned() })
}

/// Scheme, host and port, and what follows them.
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
