//! Multipart uploads: create, put and copy parts, list, complete, abort.
//! Called by the S3 trait; rows are in `multipart.rs`, bytes are received by the crate's `upload.rs`.

use futures::Stream;
use s3s::dto::*;
use s3s::{S3Request, S3Response, S3Result, StdError, s3_error};

use super::Service;
use super::list::{encoding, entries_max, is_encoded};
use super::refuse::{refuse_extras, unsupported};
use super::write::{announced, source_conditions};
use crate::attributes::{attributes_of, timestamp};
use crate::conditions::WriteConditions;
use crate::crc;
use crate::digest::{Algorithm, Claims, Digests, put_sums, sums_of};
use crate::files::fresh_id;
use crate::listing::encoded;
use crate::multipart::{self, Completion, NamedPart, PARTS_MAX, Upload};
use crate::wellformed::is_beyond_xml;

impl Service {
    pub(super) async fn create_upload(
        &self,
        request: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let input = request.input;
        refuse_extras!(input);
        let algorithm = input.checksum_algorithm.as_ref().map(Algorithm::parse).transpose()?;
        let mut attributes = attributes_of!(input)?;
        attributes.is_sum_of_whole = is_sum_of_whole(algorithm, input.checksum_type.as_ref())?;
        attributes.algorithm = algorithm;
        let checksum_type = algorithm.map(|_| checksum_type(attributes.is_sum_of_whole));
        let name = fresh_id();
        let (bucket, key, upload) = (input.bucket.clone(), input.key.clone(), name.clone());
        self.writer.run(move |connection, _| multipart::create(connection, &bucket, &key, &upload, &attributes)).await?;
        Ok(S3Response::new(CreateMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(name),
            checksum_type,
            checksum_algorithm: input.checksum_algorithm,
            ..Default::default()
        }))
    }

    pub(super) async fn put_part(&self, request: S3Request<UploadPartInput>) -> S3Result<S3Response<UploadPartOutput>> {
        let trailers = request.trailing_headers;
        let mut input = request.input;
        unsupported(input.sse_customer_algorithm.is_some(), "Server-side encryption")?;
        let upload = self.upload(&input.bucket, &input.key, &input.upload_id).await?;
        let named = input.checksum_algorithm.as_ref().map(Algorithm::parse).transpose()?;
        let algorithm = upload.attributes.algorithm.or(named);
        if let Some(named) = named.filter(|named| Some(*named) != algorithm) {
            return Err(s3_error!(InvalidRequest, "Checksum Type mismatch occurred, expected another algorithm than {}.", named.name()));
        }
        let claims = Claims::new(input.content_md5.as_deref(), sums_of!(input), algorithm, trailers)?;
        let body = input.body.take().unwrap_or_else(|| crate::download::whole(bytes::Bytes::new()));
        let length = announced(input.content_length)?;
        let (digests, _) = self.store_part(&upload, input.part_number, body, length, &claims).await?;
        let mut output = UploadPartOutput { e_tag: Some(ETag::Strong(digests.etag())), ..Default::default() };
        put_sums!(output, &digests.sums);
        Ok(S3Response::new(output))
    }

    pub(super) async fn copy_part(&self, request: S3Request<UploadPartCopyInput>) -> S3Result<S3Response<UploadPartCopyOutput>> {
        let input = request.input;
        let upload = self.upload(&input.bucket, &input.key, &input.upload_id).await?;
        let opened = self.open_source(&input.copy_source, source_conditions!(input)).await?;
        let size = opened.row.size;
        let range = match input.copy_source_range.as_deref() {
            None => 0..size,
            Some(text) => match Range::parse(text) {
                Ok(Range::Int { first, last: Some(last) }) if last < size => first..last + 1,
                _ => {
                    return Err(s3_error!(
                        InvalidArgument,
                        "The x-amz-copy-source-range value must be of the form bytes=first-last and lie within the source."
                    ));
                }
            },
        };
        let length = range.end - range.start;
        let claims = Claims::new(None, Default::default(), upload.attributes.algorithm, None)?;
        let body = opened.stream(&self.files, range)?;
        let (digests, modified_ms) = self.store_part(&upload, input.part_number, body, Some(length), &claims).await?;
        let mut result =
            CopyPartResult { e_tag: Some(ETag::Strong(digests.etag())), last_modified: Some(timestamp(modified_ms)), ..Default::default() };
        put_sums!(result, &digests.sums);
        Ok(S3Response::new(UploadPartCopyOutput { copy_part_result: Some(result), ..Default::default() }))
    }

    pub(super) async fn parts(&self, request: S3Request<ListPartsInput>) -> S3Result<S3Response<ListPartsOutput>> {
        let input = request.input;
        let upload = self.upload(&input.bucket, &input.key, &input.upload_id).await?;
        let parts_max = entries_max(input.max_parts)?;
        let after = input.part_number_marker.unwrap_or(0);
        let mut parts = self.readers.run(move |connection| multipart::parts(connection, upload.id, after, parts_max as i64 + 1)).await?;
        let is_truncated = parts.len() > parts_max;
        parts.truncate(parts_max);
        let next = parts.last().map(|part| part.number);
        let algorithm = upload.attributes.algorithm;
        let parts = parts
            .into_iter()
            .map(|part| {
                let mut shown = Part {
                    part_number: Some(part.number),
                    size: Some(part.size.cast_signed()),
                    e_tag: Some(ETag::Strong(part.etag)),
                    last_modified: Some(timestamp(part.modified_ms)),
                    ..Default::default()
                };
                put_sums!(shown, &part.sums);
                shown
            })
            .collect();
        Ok(S3Response::new(ListPartsOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(input.upload_id),
            part_number_marker: Some(after),
            next_part_number_marker: next,
            max_parts: Some(parts_max as i32),
            is_truncated: Some(is_truncated),
            parts: Some(parts),
            checksum_type: algorithm.map(|_| checksum_type(upload.attributes.is_sum_of_whole)),
            checksum_algorithm: algorithm.map(|algorithm| ChecksumAlgorithm::from_static(algorithm.name())),
            storage_class: Some(StorageClass::from_static(StorageClass::STANDARD)),
            ..Default::default()
        }))
    }

    pub(super) async fn uploads(&self, request: S3Request<ListMultipartUploadsInput>) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        let input = request.input;
        let has_delimiter = input.delimiter.as_ref().is_some_and(|delimiter| !delimiter.is_empty());
        unsupported(has_delimiter, "A delimiter in a listing of uploads")?;
        let wants_encoding = is_encoded(input.encoding_type.as_ref())?;
        let uploads_max = entries_max(input.max_uploads)?;
        let (bucket, prefix) = (input.bucket.clone(), input.prefix.clone().unwrap_or_default());
        let marker = (input.key_marker.clone().unwrap_or_default(), input.upload_id_marker.clone().unwrap_or_default());
        let mut uploads = self
            .readers
            .run(move |connection| {
                let marker = (marker.0.as_str(), marker.1.as_str());
                multipart::list(connection, &bucket, &prefix, marker, uploads_max as i64 + 1)
            })
            .await?;
        let is_truncated = uploads.len() > uploads_max;
        uploads.truncate(uploads_max);
        let last = uploads.last().filter(|_| is_truncated).cloned();
        let mut names = uploads.iter().map(|upload| &upload.key).chain(&input.prefix).chain(&input.key_marker);
        let is_encoded = wants_encoding || names.any(|name| is_beyond_xml(name));
        let uploads = uploads
            .into_iter()
            .map(|upload| MultipartUpload {
                key: Some(encoded(&upload.key, is_encoded)),
                upload_id: Some(upload.name),
                initiated: Some(timestamp(upload.initiated_ms)),
                storage_class: Some(StorageClass::from_static(StorageClass::STANDARD)),
                ..Default::default()
            })
            .collect();
        Ok(S3Response::new(ListMultipartUploadsOutput {
            bucket: Some(input.bucket),
            prefix: input.prefix.map(|prefix| encoded(&prefix, is_encoded)),
            key_marker: Some(encoded(&input.key_marker.unwrap_or_default(), is_encoded)),
            upload_id_marker: Some(input.upload_id_marker.unwrap_or_default()),
            next_key_marker: last.as_ref().map(|upload| encoded(&upload.key, is_encoded)),
            next_upload_id_marker: last.map(|upload| upload.name),
            max_uploads: Some(uploads_max as i32),
            is_truncated: Some(is_truncated),
            encoding_type: encoding(is_encoded),
            uploads: Some(uploads),
            ..Default::default()
        }))
    }

    pub(super) async fn complete_upload(
        &self,
        request: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let input = request.input;
        let sums = sums_of!(input);
        let named = input.multipart_upload.and_then(|upload| upload.parts).unwrap_or_default();
        let parts: S3Result<Vec<_>> = named
            .into_iter()
            .map(|part| {
                let sums = sums_of!(part);
                let missing = || s3_error!(MalformedXML, "A part has no number or no entity tag.");
                Ok(NamedPart { number: part.part_number.ok_or_else(missing)?, etag: part.e_tag.ok_or_else(missing)?.into_value(), sums })
            })
            .collect();
        let completion = Completion {
            bucket: input.bucket.clone(),
            key: input.key.clone(),
            upload: input.upload_id,
            parts: parts?,
            sums,
            is_sum_of_whole: input.checksum_type.as_ref().map(|kind| kind.as_str() == ChecksumType::FULL_OBJECT),
            size: announced(input.mpu_object_size)?,
            conditions: WriteConditions { if_match: input.if_match, if_none_match: input.if_none_match },
            number: self.fresh_number(),
            part_bytes_min: self.limits.part_bytes_min,
            object_bytes_max: self.limits.object_bytes_max,
        };
        let completed = self.writer.run(move |connection, after| multipart::complete(connection, after, completion)).await?;
        let mut output = CompleteMultipartUploadOutput {
            location: Some(format!("/{}/{}", input.bucket, encoded(&input.key, true))),
            bucket: Some(input.bucket),
            key: Some(input.key),
            e_tag: Some(ETag::Strong(completed.etag)),
            ..Default::default()
        };
        if !completed.sums.is_empty() {
            output.checksum_type = Some(checksum_type(completed.is_sum_of_whole));
        }
        put_sums!(output, &completed.sums);
        Ok(S3Response::new(output))
    }

    pub(super) async fn abort_upload(
        &self,
        request: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        let input = request.input;
        self.writer
            .run(move |connection, after| {
                let upload = multipart::find(connection, &input.bucket, &input.key, &input.upload_id)?;
                multipart::abort(connection, after, upload.id)
            })
            .await?;
        Ok(S3Response::new(AbortMultipartUploadOutput::default()))
    }

    async fn upload(&self, bucket: &str, key: &str, name: &str) -> S3Result<Upload> {
        let (bucket, key, name) = (bucket.to_owned(), key.to_owned(), name.to_owned());
        Ok(self.readers.run(move |connection| multipart::find(connection, &bucket, &key, &name)).await?)
    }

    async fn store_part<B>(&self, upload: &Upload, number: i32, body: B, length: Option<u64>, claims: &Claims) -> S3Result<(Digests, i64)>
    where
        B: Stream<Item = Result<bytes::Bytes, StdError>> + Unpin,
    {
        if !(1..=PARTS_MAX).contains(&number) {
            return Err(s3_error!(InvalidArgument, "Part number must be an integer between 1 and {PARTS_MAX}, inclusive"));
        }
        let arrived = self.intake.receive_to_file(body, length, claims).await?;
        let (id, digests) = (upload.id, arrived.digests.clone());
        let part = (arrived.place, arrived.size, arrived.digests);
        let modified_ms = self.writer.run(move |connection, after| multipart::put_part(connection, after, id, number, part)).await?;
        Ok((digests, modified_ms))
    }
}

/// True when an upload's checksum covers the whole object; always so for CRC64NVME, never for hashes.
fn is_sum_of_whole(algorithm: Option<Algorithm>, kind: Option<&ChecksumType>) -> S3Result<bool> {
    let wanted = match kind.map(ChecksumType::as_str) {
        None => algorithm == Some(Algorithm::Crc64Nvme),
        Some(ChecksumType::FULL_OBJECT) => true,
        Some(ChecksumType::COMPOSITE) => false,
        Some(_) => return Err(s3_error!(InvalidRequest, "Value for x-amz-checksum-type header is invalid.")),
    };
    match algorithm {
        None if kind.is_some() => Err(s3_error!(InvalidRequest, "The x-amz-checksum-type header needs x-amz-checksum-algorithm.")),
        Some(algorithm) if wanted && !crc::can_join(algorithm) => {
            Err(s3_error!(InvalidRequest, "The FULL_OBJECT checksum type cannot be used with the {} checksum algorithm.", algorithm.name()))
        }
        Some(Algorithm::Crc64Nvme) if !wanted => {
            Err(s3_error!(InvalidRequest, "The COMPOSITE checksum type cannot be used with the CRC64NVME checksum algorithm."))
        }
        _ => Ok(wanted),
    }
}

/// The kind of a completed upload's checksum.
pub(super) fn checksum_type(is_sum_of_whole: bool) -> ChecksumType {
    ChecksumType::from_static(if is_sum_of_whole { ChecksumType::FULL_OBJECT } else { ChecksumType::COMPOSITE })
}
