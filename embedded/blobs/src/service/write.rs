//! Writes objects: put, copy, delete, tags.
//! Called by the S3 trait; bytes are received by `upload.rs`, rows are in `objects.rs`.

use std::collections::BTreeMap;

use s3s::dto::*;
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};

use super::Service;
use super::read::{Opened, OpenedBytes};
use super::refuse::{refuse_extras, unsupported, version};
use crate::attributes::{Attributes, attributes_of, checked_tags, timestamp};
use crate::conditions::{ReadConditions, WriteConditions};
use crate::digest::{Algorithm, Claims, put_sums, sums_of};
use crate::events::Creation;
use crate::files::Files;
use crate::objects::{self, NewBytes, NewObject, bucket_id};
use crate::reaper::Reaper;
use crate::upload::{INLINE_BYTES_MAX, Place, blocking};

const DELETES_MAX: usize = 1000;

/// Parses the conditions on a copy's source.
macro_rules! source_conditions {
    ($input:expr) => {
        $crate::conditions::ReadConditions {
            if_match: $input.copy_source_if_match.clone(),
            if_none_match: $input.copy_source_if_none_match.clone(),
            if_modified_since: $input.copy_source_if_modified_since.clone(),
            if_unmodified_since: $input.copy_source_if_unmodified_since.clone(),
        }
    };
}

pub(super) use source_conditions;

impl Service {
    pub(super) async fn put(&self, request: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let trailers = request.trailing_headers;
        let mut input = request.input;
        refuse_extras!(input);
        unsupported(input.write_offset_bytes.is_some(), "Appending")?;
        let attributes = attributes_of!(input)?;
        let announced = announced(input.content_length)?;
        // Refused early, so that a large body is not received for a missing bucket.
        if announced.is_none_or(|bytes| bytes > INLINE_BYTES_MAX as u64) {
            self.must_exist(input.bucket.clone()).await?;
        }
        let algorithm = input.checksum_algorithm.as_ref().map(Algorithm::parse).transpose()?;
        let claims = Claims::new(input.content_md5.as_deref(), sums_of!(input), algorithm, trailers)?;
        let body = input.body.take().unwrap_or_else(|| crate::download::whole(bytes::Bytes::new()));
        let arrived = self.intake.receive(body, announced, &claims, INLINE_BYTES_MAX).await?;
        let etag = arrived.digests.etag();
        let sums = arrived.digests.sums.clone();
        let object = NewObject {
            how: Creation::Put,
            bucket: input.bucket,
            key: input.key,
            number: self.fresh_number(),
            size: arrived.size,
            etag: etag.clone(),
            attributes: Attributes { sums: sums.clone(), ..attributes },
            bytes: match arrived.place {
                Place::Inline(bytes) => NewBytes::Inline(bytes),
                Place::File(fresh) => NewBytes::Files(vec![(fresh, arrived.size)]),
            },
            conditions: WriteConditions { if_match: input.if_match, if_none_match: input.if_none_match },
        };
        self.writer.run(move |connection, after| objects::write(connection, after, object)).await?;
        let mut output = PutObjectOutput { e_tag: Some(ETag::Strong(etag)), ..Default::default() };
        if !sums.is_empty() {
            output.checksum_type = Some(ChecksumType::from_static(ChecksumType::FULL_OBJECT));
        }
        put_sums!(output, &sums);
        Ok(S3Response::new(output))
    }

    pub(super) async fn copy(&self, request: S3Request<CopyObjectInput>) -> S3Result<S3Response<CopyObjectOutput>> {
        let input = request.input;
        refuse_extras!(input);
        let opened = self.open_source(&input.copy_source, source_conditions!(input)).await?;
        let source = &opened.row;
        let is_replaced = input.metadata_directive.as_ref().is_some_and(|directive| directive.as_str() == MetadataDirective::REPLACE);
        let is_retagged = input.tagging_directive.as_ref().is_some_and(|directive| directive.as_str() == TaggingDirective::REPLACE);
        let (from_bucket, from_key) = source_of(&input.copy_source)?;
        if !is_replaced && !is_retagged && from_bucket == input.bucket && from_key == input.key {
            return Err(s3_error!(
                InvalidRequest,
                "This copy request is illegal because it is trying to copy an object to itself without changing \
                 the object's metadata, storage class, website redirect location or encryption attributes."
            ));
        }
        let given = attributes_of!(input)?;
        let mut attributes = source.attributes.clone();
        attributes.upload = None;
        if is_replaced {
            (attributes.headers, attributes.metadata) = (given.headers, given.metadata);
        }
        if is_retagged {
            attributes.tags = given.tags;
        }
        let (size, etag, sums) = (source.size, source.etag.clone(), attributes.sums.clone());
        if size > self.limits.put_bytes_max {
            return Err(s3_error!(InvalidRequest, "The specified copy source is larger than the maximum allowable size."));
        }
        let (files, reaper) = (self.files.clone(), self.reaper.clone());
        let object = NewObject {
            how: Creation::Copy,
            bucket: input.bucket,
            key: input.key,
            number: self.fresh_number(),
            size,
            etag: etag.clone(),
            attributes,
            bytes: blocking(move || duplicate(opened, &files, &reaper)).await?,
            conditions: WriteConditions::default(),
        };
        let modified_ms = self.writer.run(move |connection, after| objects::write(connection, after, object)).await?;
        let mut result =
            CopyObjectResult { e_tag: Some(ETag::Strong(etag)), last_modified: Some(timestamp(modified_ms)), ..Default::default() };
        put_sums!(result, &sums);
        Ok(S3Response::new(CopyObjectOutput { copy_object_result: Some(result), ..Default::default() }))
    }

    pub(super) async fn delete(&self, request: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        let input = request.input;
        version(input.version_id.as_deref())?;
        let is_conditional = input.if_match_size.is_some() || input.if_match_last_modified_time.is_some();
        unsupported(is_conditional, "Deleting by size or time")?;
        let conditions = WriteConditions { if_match: input.if_match, if_none_match: None };
        let (bucket, key) = (input.bucket, input.key);
        self.writer
            .run(move |connection, after| {
                let bucket = bucket_id(connection, &bucket)?;
                objects::delete(connection, after, bucket, &key, &conditions)
            })
            .await?;
        Ok(S3Response::new(DeleteObjectOutput { version_id: input.version_id, ..Default::default() }))
    }

    pub(crate) async fn delete_many(&self, request: S3Request<DeleteObjectsInput>) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let input = request.input;
        let is_quiet = input.delete.quiet == Some(true);
        let wanted = input.delete.objects;
        if wanted.is_empty() || wanted.len() > DELETES_MAX {
            return Err(s3_error!(MalformedXML, "Name between 1 and {DELETES_MAX} objects."));
        }
        for object in &wanted {
            unsupported(object.size.is_some() || object.last_modified_time.is_some(), "Deleting by size or time")?;
        }
        let bucket = input.bucket;
        let outcomes = self
            .writer
            .run(move |connection, after| {
                let bucket = bucket_id(connection, &bucket)?;
                let mut outcomes = Vec::with_capacity(wanted.len());
                for object in wanted {
                    let conditions = WriteConditions { if_match: object.e_tag.map(ETagCondition::ETag), if_none_match: None };
                    let outcome = match version(object.version_id.as_deref()) {
                        Ok(()) => objects::delete(connection, after, bucket, &object.key, &conditions),
                        Err(refusal) => Err(refusal.into()),
                    };
                    let name = (object.key, object.version_id);
                    match outcome {
                        Ok(_) => outcomes.push((name, None)),
                        Err(crate::Error::Refused(refusal)) => outcomes.push((name, Some(refusal))),
                        Err(failure) => return Err(failure),
                    }
                }
                Ok(outcomes)
            })
            .await?;
        let (failed, done): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(|(_, refusal)| refusal.is_some());
        let done = done.into_iter().map(|((key, version_id), _)| DeletedObject { key: Some(key), version_id, ..Default::default() });
        let failed = failed.into_iter().filter_map(|((key, version_id), refusal)| {
            let refusal = refusal?;
            Some(Error {
                code: Some(refusal.code().as_str().to_owned()),
                key: Some(key),
                message: refusal.message().map(str::to_owned),
                version_id,
            })
        });
        Ok(S3Response::new(DeleteObjectsOutput {
            deleted: (!is_quiet).then(|| done.collect()),
            errors: Some(failed.collect()),
            request_charged: None,
        }))
    }

    pub(super) async fn set_tags(&self, request: S3Request<PutObjectTaggingInput>) -> S3Result<S3Response<PutObjectTaggingOutput>> {
        let input = request.input;
        version(input.version_id.as_deref())?;
        let pairs = input.tagging.tag_set.into_iter();
        let tags = checked_tags(pairs.map(|tag| (tag.key.unwrap_or_default(), tag.value.unwrap_or_default())))?;
        self.store_tags(input.bucket, input.key, tags).await?;
        Ok(S3Response::new(PutObjectTaggingOutput { version_id: input.version_id }))
    }

    pub(super) async fn remove_tags(
        &self,
        request: S3Request<DeleteObjectTaggingInput>,
    ) -> S3Result<S3Response<DeleteObjectTaggingOutput>> {
        let input = request.input;
        version(input.version_id.as_deref())?;
        self.store_tags(input.bucket, input.key, BTreeMap::new()).await?;
        Ok(S3Response::new(DeleteObjectTaggingOutput { version_id: input.version_id }))
    }

    async fn store_tags(&self, bucket: String, key: String, tags: BTreeMap<String, String>) -> S3Result<()> {
        self.writer
            .run(move |connection, _| objects::change_attributes(connection, &bucket, &key, |attributes| attributes.tags = tags))
            .await?;
        Ok(())
    }

    /// Opens the source of a copy.
    pub(super) async fn open_source(&self, source: &CopySource, conditions: ReadConditions) -> S3Result<Opened> {
        let (bucket, key) = source_of(source)?;
        let opened = self.open(bucket.to_owned(), key.to_owned(), ReadConditions::default()).await?;
        conditions.check_source(&opened.row)?;
        Ok(opened)
    }
}

/// The announced length of a body.
pub(super) fn announced(length: Option<i64>) -> S3Result<Option<u64>> {
    length.map(|length| u64::try_from(length).map_err(|_| S3Error::new(S3ErrorCode::InvalidRequest))).transpose()
}

fn source_of(source: &CopySource) -> S3Result<(&str, &str)> {
    match source {
        CopySource::Bucket { bucket, key, version_id } => {
            version(version_id.as_deref())?;
            Ok((bucket, key))
        }
        _ => Err(s3_error!(NotImplemented, "Only sources of the form bucket/key are supported.")),
    }
}

fn duplicate(opened: Opened, files: &Files, reaper: &Reaper) -> std::io::Result<NewBytes> {
    match opened.bytes {
        OpenedBytes::Inline(bytes) => Ok(NewBytes::Inline(bytes)),
        OpenedBytes::Files(pieces, _pin) => {
            let twins: std::io::Result<Vec<_>> =
                pieces.iter().map(|piece| Ok((files.duplicate(&piece.file, reaper)?, piece.size))).collect();
            Ok(NewBytes::Files(twins?))
        }
    }
}
