//! Presigned URLs of signature version 2, which boto3 makes by default.
//! Verified before `s3s` is called: in constant time, and a repeated query parameter is refused,
//! because `s3s` leaves repeated ones out of the signed text and still applies them.

use std::borrow::Cow;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::{HeaderMap, HeaderName, Method, Request};
use s3s::crypto::{Checksum as _, Sha1};
use s3s::{S3Result, s3_error};
use subtle::ConstantTimeEq;

use crate::query::Query;

const HMAC_BLOCK_BYTES: usize = 64;
/// Query parameters that select the operation and are therefore signed. Sorted.
const SIGNED: [&str; 35] = [
    "accelerate",
    "acl",
    "analytics",
    "cors",
    "defaultObjectAcl",
    "delete",
    "inventory",
    "lifecycle",
    "location",
    "logging",
    "metrics",
    "notification",
    "object-lock",
    "partNumber",
    "policy",
    "replication",
    "requestPayment",
    "response-cache-control",
    "response-content-disposition",
    "response-content-encoding",
    "response-content-language",
    "response-content-type",
    "response-expires",
    "restore",
    "select",
    "select-type",
    "storageClass",
    "tagging",
    "torrent",
    "uploadId",
    "uploads",
    "versionId",
    "versioning",
    "versions",
    "website",
];

/// True when a request has a signature of this version in its URL.
pub(crate) fn is_claimed(query: &Query<'_>) -> bool {
    query.get("Signature").is_some()
}

/// Refuses a request unless the one key signed it and it has not expired.
pub(crate) fn check<B>(request: &Request<B>, query: &Query<'_>, key: (&str, &str), now_secs: i64) -> S3Result<()> {
    let (access_key, secret_key) = key;
    let (Some(named), Some(signature), Some(expires)) = (query.get("AWSAccessKeyId"), query.get("Signature"), query.get("Expires")) else {
        return Err(s3_error!(AccessDenied, "Query-string authentication requires the Signature, Expires and AWSAccessKeyId parameters"));
    };
    if let Some(name) = query.repeated() {
        return Err(s3_error!(InvalidArgument, "The query names {name} more than once."));
    }
    let until: i64 = expires.parse().map_err(|_| s3_error!(AccessDenied, "Invalid date (should be seconds since epoch): {expires}"))?;
    if until < now_secs {
        return Err(s3_error!(AccessDenied, "Request has expired"));
    }
    if named != access_key {
        return Err(s3_error!(InvalidAccessKeyId, "The AWS Access Key Id you provided does not exist in our records."));
    }
    let wanted = BASE64.encode(hmac(secret_key.as_bytes(), signed_text(request, query, &expires).as_bytes()));
    if !bool::from(wanted.as_bytes().ct_eq(signature.as_bytes())) {
        return Err(s3_error!(
            SignatureDoesNotMatch,
            "The request signature we calculated does not match the signature you provided. Check your key and signing method."
        ));
    }
    Ok(())
}

fn signed_text<B>(request: &Request<B>, query: &Query<'_>, expires: &str) -> String {
    let headers = request.headers();
    let method: &Method = request.method();
    let mut text = format!("{method}\n{}\n{}\n{expires}\n", joined(headers, "content-md5"), joined(headers, "content-type"));
    let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).filter(|name| name.starts_with("x-amz-")).collect();
    names.sort_unstable();
    for name in names {
        writeln!(text, "{name}:{}", joined(headers, name)).expect("writing to a string cannot fail");
    }
    text.push_str(request.uri().path());
    let mut separator = '?';
    for name in SIGNED {
        let Some(value) = query.get(name) else { continue };
        text.push(separator);
        text.push_str(name);
        if !value.is_empty() {
            text.push('=');
            text.push_str(&value);
        }
        separator = '&';
    }
    text
}

fn joined(headers: &HeaderMap, name: &str) -> String {
    let values: Vec<Cow<'_, str>> = headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
    values.iter().map(|value| value.trim()).collect::<Vec<_>>().join(",")
}

fn hmac(key: &[u8], text: &[u8]) -> [u8; 20] {
    let mut block = [0; HMAC_BLOCK_BYTES];
    if key.len() > HMAC_BLOCK_BYTES {
        block[..20].copy_from_slice(&Sha1::checksum(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let keyed = |pad: u8, message: &[u8]| {
        let mut hash = Sha1::new();
        hash.update(&block.map(|byte| byte ^ pad));
        hash.update(message);
        hash.finalize()
    };
    keyed(0x5c, &keyed(0x36, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: (&str, &str) = ("a", "b");
    /// A URL that boto3 1.44 presigned.
    const OF_BOTO3: &str = "/bkt/a%20b%2B%C3%BC/x%3Fy?AWSAccessKeyId=a&Signature=TcL6AGAs94BkrTEsf0Xltqza1BA%3D&Expires=1795483437";

    fn code_of(method: &str, uri: &str, header: Option<(&str, &str)>, now_secs: i64) -> Option<String> {
        let mut request = Request::builder().method(method).uri(uri);
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        let request = request.body(()).unwrap();
        let query = Query(request.uri().query().unwrap_or_default());
        check(&request, &query, KEY, now_secs).err().map(|error| error.code().as_str().to_owned())
    }

    #[test]
    fn the_mac_is_that_of_the_standard() {
        // RFC 2202, cases 2 and 6.
        assert_eq!(hmac(b"Jefe", b"what do ya want for nothing?")[..4], [0xef, 0xfc, 0xdf, 0x6a]);
        let long = hmac(&[0xaa; 80], b"Test Using Larger Than Block-Size Key - Hash Key First");
        assert_eq!(long[..4], [0xaa, 0x4a, 0xe5, 0xe1]);
    }

    #[test]
    fn a_url_of_boto3_is_let_in_until_its_time_is_over() {
        assert_eq!(code_of("GET", OF_BOTO3, None, 1_795_483_437), None);
        assert_eq!(code_of("GET", OF_BOTO3, None, 1_795_483_438).as_deref(), Some("AccessDenied"));
    }

    #[test]
    fn nothing_that_matters_may_be_changed_or_added() {
        let wrong = Some("SignatureDoesNotMatch".to_owned());
        assert_eq!(code_of("PUT", OF_BOTO3, None, 0), wrong);
        assert_eq!(code_of("GET", &OF_BOTO3.replace("/bkt/", "/other/"), None, 0), wrong);
        assert_eq!(code_of("GET", &OF_BOTO3.replace("Expires=17", "Expires=18"), None, 0), wrong);
        assert_eq!(code_of("GET", &format!("{OF_BOTO3}&tagging"), None, 0), wrong);
        assert_eq!(code_of("GET", OF_BOTO3, Some(("x-amz-copy-source", "/b/k")), 0), wrong);
        assert_eq!(code_of("GET", &format!("{OF_BOTO3}&tagging&tagging"), None, 0).as_deref(), Some("InvalidArgument"));
    }

    #[test]
    fn the_signed_parts_are_sorted() {
        assert!(SIGNED.is_sorted());
    }
}
