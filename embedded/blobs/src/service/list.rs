//! Both versions of ListObjects, and ListObjectVersions, where every object is its own null version.
//! Called by the S3 trait; `listing.rs` reads the keys.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as TOKEN;
use s3s::dto::*;
use s3s::{S3Request, S3Response, S3Result, s3_error};

use super::Service;
use super::refuse::NULL_VERSION;
use crate::attributes::timestamp;
use crate::listing::{self, ENTRIES_MAX, ListQuery, Page, encoded};
use crate::wellformed::is_beyond_xml;

impl Service {
    pub(super) async fn list_v1(&self, request: S3Request<ListObjectsInput>) -> S3Result<S3Response<ListObjectsOutput>> {
        let input = request.input;
        let wants_encoding = is_encoded(input.encoding_type.as_ref())?;
        let query = ListQuery {
            bucket: input.bucket.clone(),
            prefix: input.prefix.clone().unwrap_or_default(),
            delimiter: input.delimiter.clone().unwrap_or_default(),
            after: input.marker.clone().unwrap_or_default(),
            entries_max: entries_max(input.max_keys)?,
        };
        let entries_max = query.entries_max;
        let page = self.page(query).await?;
        let is_encoded = wants_encoding || must_encode(&page, [&input.prefix, &input.marker, &input.delimiter]);
        let show = |name: String| encoded(&name, is_encoded);
        let has_delimiter = input.delimiter.as_ref().is_some_and(|delimiter| !delimiter.is_empty());
        Ok(S3Response::new(ListObjectsOutput {
            name: Some(input.bucket),
            prefix: Some(input.prefix.map(show).unwrap_or_default()),
            marker: Some(input.marker.map(show).unwrap_or_default()),
            delimiter: input.delimiter.map(show),
            max_keys: Some(entries_max as i32),
            is_truncated: Some(page.next_after.is_some()),
            next_marker: page.next_after.clone().filter(|_| has_delimiter).map(show),
            encoding_type: encoding(is_encoded),
            common_prefixes: Some(prefixes(&page, is_encoded)),
            contents: Some(objects(page, is_encoded, true)),
            request_charged: None,
        }))
    }

    pub(super) async fn list_v2(&self, request: S3Request<ListObjectsV2Input>) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = request.input;
        let wants_encoding = is_encoded(input.encoding_type.as_ref())?;
        let resumed = input.continuation_token.as_deref().map(read_token).transpose()?;
        let query = ListQuery {
            bucket: input.bucket.clone(),
            prefix: input.prefix.clone().unwrap_or_default(),
            delimiter: input.delimiter.clone().unwrap_or_default(),
            after: resumed.or_else(|| input.start_after.clone()).unwrap_or_default(),
            entries_max: entries_max(input.max_keys)?,
        };
        let entries_max = query.entries_max;
        let page = self.page(query).await?;
        let is_encoded = wants_encoding || must_encode(&page, [&input.prefix, &input.start_after, &input.delimiter]);
        let show = |name: String| encoded(&name, is_encoded);
        Ok(S3Response::new(ListObjectsV2Output {
            name: Some(input.bucket),
            prefix: Some(input.prefix.map(show).unwrap_or_default()),
            delimiter: input.delimiter.map(show),
            max_keys: Some(entries_max as i32),
            key_count: Some(page.len() as i32),
            continuation_token: input.continuation_token,
            start_after: input.start_after.map(show),
            is_truncated: Some(page.next_after.is_some()),
            next_continuation_token: page.next_after.as_ref().map(|after| TOKEN.encode(after)),
            encoding_type: encoding(is_encoded),
            common_prefixes: Some(prefixes(&page, is_encoded)),
            contents: Some(objects(page, is_encoded, input.fetch_owner == Some(true))),
            request_charged: None,
        }))
    }

    pub(super) async fn list_versions(
        &self,
        request: S3Request<ListObjectVersionsInput>,
    ) -> S3Result<S3Response<ListObjectVersionsOutput>> {
        let input = request.input;
        let wants_encoding = is_encoded(input.encoding_type.as_ref())?;
        let names_version = input.version_id_marker.as_ref().is_some_and(|marker| !marker.is_empty());
        if names_version && input.key_marker.as_ref().is_none_or(String::is_empty) {
            return Err(s3_error!(InvalidArgument, "A version-id marker cannot be specified without a key marker."));
        }
        let query = ListQuery {
            bucket: input.bucket.clone(),
            prefix: input.prefix.clone().unwrap_or_default(),
            delimiter: input.delimiter.clone().unwrap_or_default(),
            // A key has one version, so everything after a version of it is after the key.
            after: input.key_marker.clone().unwrap_or_default(),
            entries_max: entries_max(input.max_keys)?,
        };
        let entries_max = query.entries_max;
        let page = self.page(query).await?;
        let is_encoded = wants_encoding || must_encode(&page, [&input.prefix, &input.key_marker, &input.delimiter]);
        let show = |name: String| encoded(&name, is_encoded);
        Ok(S3Response::new(ListObjectVersionsOutput {
            name: Some(input.bucket),
            prefix: Some(input.prefix.map(show).unwrap_or_default()),
            key_marker: Some(input.key_marker.map(show).unwrap_or_default()),
            version_id_marker: Some(input.version_id_marker.unwrap_or_default()),
            delimiter: input.delimiter.map(show),
            max_keys: Some(entries_max as i32),
            is_truncated: Some(page.next_after.is_some()),
            next_version_id_marker: page.next_after.as_ref().map(|_| NULL_VERSION.to_owned()),
            next_key_marker: page.next_after.clone().map(show),
            encoding_type: encoding(is_encoded),
            common_prefixes: Some(prefixes(&page, is_encoded)),
            versions: Some(objects(page, is_encoded, true).into_iter().map(null_version).collect()),
            delete_markers: None,
            request_charged: None,
        }))
    }

    async fn page(&self, query: ListQuery) -> S3Result<Page> {
        Ok(self.readers.run(move |connection| listing::list(connection, &query)).await?)
    }
}

/// Checks `max-keys` and similar parameters.
pub(super) fn entries_max(wanted: Option<i32>) -> S3Result<usize> {
    let wanted = usize::try_from(wanted.unwrap_or(ENTRIES_MAX as i32))
        .map_err(|_| s3_error!(InvalidArgument, "The number of entries must not be negative."))?;
    Ok(wanted.min(ENTRIES_MAX))
}

/// Parses `encoding-type`.
pub(super) fn is_encoded(encoding: Option<&EncodingType>) -> S3Result<bool> {
    match encoding {
        None => Ok(false),
        Some(encoding) if encoding.as_str() == EncodingType::URL => Ok(true),
        Some(_) => Err(s3_error!(InvalidArgument, "Invalid Encoding Method specified in Request")),
    }
}

/// True when names must be encoded unasked because XML cannot contain one of them; the answer says so.
fn must_encode<const N: usize>(page: &Page, given: [&Option<String>; N]) -> bool {
    let keys = page.objects.iter().map(|object| &object.key);
    keys.chain(&page.prefixes).chain(given.into_iter().flatten()).any(|name| is_beyond_xml(name))
}

/// The `EncodingType` of an answer.
pub(super) fn encoding(is_encoded: bool) -> Option<EncodingType> {
    is_encoded.then(|| EncodingType::from_static(EncodingType::URL))
}

/// The only version of an object.
fn null_version(object: Object) -> ObjectVersion {
    ObjectVersion {
        key: object.key,
        version_id: Some(NULL_VERSION.to_owned()),
        is_latest: Some(true),
        size: object.size,
        e_tag: object.e_tag,
        last_modified: object.last_modified,
        storage_class: Some(ObjectVersionStorageClass::from_static(ObjectVersionStorageClass::STANDARD)),
        owner: object.owner,
        ..Default::default()
    }
}

fn read_token(token: &str) -> S3Result<String> {
    TOKEN
        .decode(token)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(|| s3_error!(InvalidArgument, "The continuation token provided is incorrect"))
}

fn prefixes(page: &Page, is_encoded: bool) -> Vec<CommonPrefix> {
    page.prefixes.iter().map(|prefix| CommonPrefix { prefix: Some(encoded(prefix, is_encoded)) }).collect()
}

fn objects(page: Page, is_encoded: bool, with_owner: bool) -> Vec<Object> {
    let owner = Owner { display_name: Some("piecework".to_owned()), id: Some("piecework".to_owned()) };
    let object = |listed: listing::Listed| Object {
        key: Some(encoded(&listed.key, is_encoded)),
        size: Some(listed.size.cast_signed()),
        e_tag: Some(ETag::Strong(listed.etag)),
        last_modified: Some(timestamp(listed.modified_ms)),
        storage_class: Some(ObjectStorageClass::from_static(ObjectStorageClass::STANDARD)),
        owner: with_owner.then(|| owner.clone()),
        ..Default::default()
    };
    page.objects.into_iter().map(object).collect()
}
