//! Attributes of an object besides its bytes: headers, user metadata, checksums, tags.
//! Stored as JSON in the object's row; missing fields of an older row get their defaults, unknown ones are ignored.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use s3s::dto::Timestamp;
use s3s::{S3Result, s3_error};
use serde::{Deserialize, Serialize};

use crate::digest::{Algorithm, Sums};

const METADATA_BYTES_MAX: usize = 2 * 1024;
const TAGS_MAX: usize = 10;
const TAG_KEY_CHARS_MAX: usize = 128;
const TAG_VALUE_CHARS_MAX: usize = 256;

/// Attributes of an object, apart from its bytes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Attributes {
    #[serde(flatten)]
    pub(crate) headers: Headers,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) metadata: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) tags: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Sums::is_empty")]
    pub(crate) sums: Sums,
    /// The checksum algorithm chosen when the upload was created.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) algorithm: Option<Algorithm>,
    /// True when the checksum of an upload covers its parts as one object, rather than their checksums.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) is_sum_of_whole: bool,
    /// The upload that created the object, so that completing it again gives the same answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) upload: Option<String>,
    /// Number of parts, for completed uploads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) parts: Option<u32>,
}

/// HTTP headers that are returned as they were given.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Headers {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) content_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cache_control: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) content_disposition: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) content_encoding: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) content_language: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) expires: Option<Timestamp>,
}

/// Parses the header and metadata fields that put, copy and create-upload share.
macro_rules! attributes_of {
    ($input:expr) => {{
        let headers = $crate::attributes::Headers {
            content_type: $input.content_type.clone(),
            cache_control: $input.cache_control.clone(),
            content_disposition: $input.content_disposition.clone(),
            content_encoding: $crate::attributes::without_chunking($input.content_encoding.as_deref()),
            content_language: $input.content_language.clone(),
            expires: $input.expires.clone(),
        };
        $crate::attributes::Attributes::new(headers, $input.metadata.as_ref(), $input.tagging.as_deref())
    }};
}

/// Fills the header and metadata fields that get and head share.
macro_rules! put_attributes {
    ($output:expr, $attributes:expr) => {{
        let attributes = $attributes;
        let headers = &attributes.headers;
        $output.content_type = Some(headers.content_type.clone().unwrap_or_else(|| "binary/octet-stream".to_owned()));
        $output.cache_control = headers.cache_control.clone();
        $output.content_disposition = headers.content_disposition.clone();
        $output.content_encoding = headers.content_encoding.clone();
        $output.content_language = headers.content_language.clone();
        $output.expires = headers.expires.clone();
        $output.metadata = Some(attributes.metadata.clone().into_iter().collect());
    }};
}

pub(crate) use {attributes_of, put_attributes};

impl Attributes {
    /// Checks the headers and metadata of a request.
    pub(crate) fn new(headers: Headers, metadata: Option<&HashMap<String, String>>, tagging: Option<&str>) -> S3Result<Self> {
        let metadata: BTreeMap<_, _> = metadata.into_iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
        let bytes: usize = metadata.iter().map(|(key, value)| key.len() + value.len()).sum();
        if bytes > METADATA_BYTES_MAX {
            return Err(s3_error!(
                MetadataTooLarge,
                "Your metadata headers exceed the maximum allowed metadata size of {METADATA_BYTES_MAX} bytes."
            ));
        }
        let tags = tagging.map(parse_tags).transpose()?.unwrap_or_default();
        Ok(Self { headers, metadata, tags, ..Self::default() })
    }
}

/// Checks a set of tags.
pub(crate) fn checked_tags(pairs: impl IntoIterator<Item = (String, String)>) -> S3Result<BTreeMap<String, String>> {
    let mut tags = BTreeMap::new();
    for (key, value) in pairs {
        let is_long = key.chars().count() > TAG_KEY_CHARS_MAX || value.chars().count() > TAG_VALUE_CHARS_MAX;
        if key.is_empty() || is_long {
            return Err(s3_error!(InvalidTag, "The tag key or value is empty or too long."));
        }
        if tags.insert(key, value).is_some() {
            return Err(s3_error!(InvalidTag, "Cannot provide multiple tags with the same key."));
        }
    }
    if tags.len() > TAGS_MAX {
        return Err(s3_error!(InvalidTag, "Object tags cannot be greater than {TAGS_MAX}."));
    }
    Ok(tags)
}

/// The content encoding without `aws-chunked`, which describes the transfer only.
pub(crate) fn without_chunking(encoding: Option<&str>) -> Option<String> {
    let kept: Vec<_> = encoding?.split(',').map(str::trim).filter(|one| *one != "aws-chunked").collect();
    (!kept.is_empty()).then(|| kept.join(","))
}

/// The current time in milliseconds since 1970.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// A stored time in the form S3 answers use.
pub(crate) fn timestamp(ms: i64) -> Timestamp {
    Timestamp::from(UNIX_EPOCH + Duration::from_millis(u64::try_from(ms).unwrap_or(0)))
}

fn parse_tags(header: &str) -> S3Result<BTreeMap<String, String>> {
    let decode = |text: &str| {
        let spaced = text.replace('+', " ");
        percent_encoding::percent_decode_str(&spaced)
            .decode_utf8()
            .map(|text| text.into_owned())
            .map_err(|_| s3_error!(InvalidArgument, "The header 'x-amz-tagging' shall be encoded as UTF-8."))
    };
    let pairs: S3Result<Vec<_>> = header
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(key)?, decode(value)?))
        })
        .collect();
    checked_tags(pairs?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunking_is_not_an_encoding_of_the_object() {
        assert_eq!(without_chunking(Some("aws-chunked")), None);
        assert_eq!(without_chunking(Some("aws-chunked,gzip")).as_deref(), Some("gzip"));
    }

    #[test]
    fn attributes_read_back_as_written_and_unknown_fields_are_ignored() {
        let mut attributes = Attributes::default();
        attributes.headers.content_type = Some("text/plain".to_owned());
        attributes.sums.set(Algorithm::Crc64Nvme, Some("x".to_owned()));
        let text = serde_json::to_string(&attributes).unwrap();
        assert_eq!(serde_json::from_str::<Attributes>(&text).unwrap(), attributes);
        assert!(serde_json::from_str::<Attributes>(r#"{"later": 1}"#).is_ok());
    }

    #[test]
    fn tags_are_decoded_and_bounded() {
        assert_eq!(parse_tags("a=b+c&d%2B=").unwrap().get("d+").map(String::as_str), Some(""));
        assert!(parse_tags("a=1&a=2").is_err());
    }
}
