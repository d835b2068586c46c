//! Both versions of ListObjects.
//! Called by the S3 trait; the walk over the keys is in `listing.rs`.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as TOKEN;
use s3s::dto::*;
use s3s::{S3Request, S3Response, S3Result, s3_error};

use super::Service;
use crate::attributes::timestamp;
use crate::listing::{self, ENTRIES_MAX, Page, Question, encoded};

impl Service {
    pub(super) async fn list_v1(&self, request: S3Request<ListObjectsInput>) -> S3Result<S3Response<ListObjectsOutput>> {
        let input = request.input;
        let is_encoded = is_encoded(input.encoding_type.as_ref())?;
        let question = Question {
            bucket: input.bucket.clone(),
            prefix: input.prefix.clone().unwrap_or_default(),
            delimiter: input.delimiter.clone().unwrap_or_default(),
            after: input.marker.clone().unwrap_or_default(),
            entries_max: entries_max(input.max_keys)?,
        };
        let entries_max = question.entries_max;
        let page = self.page(question).await?;
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
            encoding_type: input.encoding_type,
            common_prefixes: Some(prefixes(&page, is_encoded)),
            contents: Some(objects(page, is_encoded, true)),
            request_charged: None,
        }))
    }

    pub(super) async fn list_v2(&self, request: S3Request<ListObjectsV2Input>) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = request.input;
        let is_encoded = is_encoded(input.encoding_type.as_ref())?;
        let resumed = input.continuation_token.as_deref().map(read_token).transpose()?;
        let question = Question {
            bucket: input.bucket.clone(),
            prefix: input.prefix.clone().unwrap_or_default(),
            delimiter: input.delimiter.clone().unwrap_or_default(),
            after: resumed.or_else(|| input.start_after.clone()).unwrap_or_default(),
            entries_max: entries_max(input.max_keys)?,
        };
        let entries_max = question.entries_max;
        let page = self.page(question).await?;
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
            encoding_type: input.encoding_type,
            common_prefixes: Some(prefixes(&page, is_encoded)),
            contents: Some(objects(page, is_encoded, input.fetch_owner == Some(true))),
            request_charged: None,
        }))
    }

    async fn page(&self, question: Question) -> S3Result<Page> {
        Ok(self.readers.run(move |connection| listing::list(connection, &question)).await?)
    }
}

/// Reads `max-keys` and its relatives.
pub(super) fn entries_max(wanted: Option<i32>) -> S3Result<usize> {
    let wanted = usize::try_from(wanted.unwrap_or(ENTRIES_MAX as i32))
        .map_err(|_| s3_error!(InvalidArgument, "The number of entries must not be negative."))?;
    Ok(wanted.min(ENTRIES_MAX))
}

/// Reads `encoding-type`.
pub(super) fn is_encoded(encoding: Option<&EncodingType>) -> S3Result<bool> {
    match encoding {
        None => Ok(false),
        Some(encoding) if encoding.as_str() == EncodingType::URL => Ok(true),
        Some(_) => Err(s3_error!(InvalidArgument, "Invalid Encoding Method specified in Request")),
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
