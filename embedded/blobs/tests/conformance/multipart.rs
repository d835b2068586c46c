//! Multipart uploads.

use aws_sdk_s3::operation::complete_multipart_upload::CompleteMultipartUploadOutput;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumAlgorithm, ChecksumMode, ChecksumType, CompletedMultipartUpload, CompletedPart};

use crate::store::{Store, noise, refusal, with_store};

const PART: usize = 5 * 1024 * 1024;

async fn create(store: &Store, key: &str) -> String {
    let output = store.client.create_multipart_upload().bucket(&store.bucket).key(key).send().await.unwrap();
    output.upload_id().unwrap().to_owned()
}

/// Uploads a part and names it by number and ETag only, like clients that chose no algorithm for the upload.
async fn put_part(store: &Store, upload: &str, number: i32, body: Vec<u8>) -> CompletedPart {
    let part = put_part_with_sum(store, upload, number, body).await;
    CompletedPart::builder().part_number(number).set_e_tag(part.e_tag).build()
}

/// Uploads a part and names it with the SDK's checksum, too.
async fn put_part_with_sum(store: &Store, upload: &str, number: i32, body: Vec<u8>) -> CompletedPart {
    let put = store.client.upload_part().bucket(&store.bucket).key("object").upload_id(upload).part_number(number);
    let output = put.body(ByteStream::from(body)).send().await.unwrap();
    CompletedPart::builder().part_number(number).set_e_tag(output.e_tag).set_checksum_crc32(output.checksum_crc32).build()
}

macro_rules! complete {
    ($store:expr, $upload:expr, $parts:expr) => {
        $store
            .client
            .complete_multipart_upload()
            .bucket(&$store.bucket)
            .key("object")
            .upload_id($upload)
            .multipart_upload(CompletedMultipartUpload::builder().set_parts(Some($parts)).build())
    };
}

async fn upload(store: &Store, sizes: &[usize]) -> CompleteMultipartUploadOutput {
    let id = create(store, "object").await;
    let mut parts = Vec::new();
    for (at, size) in sizes.iter().enumerate() {
        parts.push(put_part(store, &id, at as i32 + 1, noise(*size)).await);
    }
    complete!(store, &id, parts).send().await.unwrap()
}

#[tokio::test]
async fn parts_become_one_object() {
    with_store(async |store| {
        let output = upload(&store, &[PART, PART + 7, 100]).await;
        assert!(output.e_tag().unwrap().ends_with("-3\""));
        let wanted = [noise(PART), noise(PART + 7), noise(100)].concat();
        assert!(store.get("object").await == wanted);
        let head = store.client.head_object().bucket(&store.bucket).key("object").send().await.unwrap();
        assert_eq!(head.e_tag(), output.e_tag());
        assert_eq!(head.content_length(), Some(wanted.len() as i64));
    })
    .await;
}

#[tokio::test]
async fn ranges_cross_the_borders_of_parts() {
    with_store(async |store| {
        upload(&store, &[PART, PART, 100]).await;
        let whole = [noise(PART), noise(PART), noise(100)].concat();
        for (start, end) in [(PART - 5, PART + 5), (PART, PART + 1), (2 * PART - 1, 2 * PART + 100), (0, whole.len())] {
            let get = store.client.get_object().bucket(&store.bucket).key("object");
            let output = get.range(format!("bytes={start}-{}", end - 1)).send().await.unwrap();
            assert!(output.body.collect().await.unwrap().to_vec() == whole[start..end], "{start}..{end}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_part_can_be_read_by_number() {
    with_store(async |store| {
        upload(&store, &[PART, 100]).await;
        let get = store.client.get_object().bucket(&store.bucket).key("object").part_number(2).send().await.unwrap();
        assert_eq!(get.parts_count(), Some(2));
        assert!(get.body.collect().await.unwrap().to_vec() == noise(100));
    })
    .await;
}

#[tokio::test]
async fn the_object_appears_only_when_it_is_complete() {
    with_store(async |store| {
        store.put("object", "before").await;
        let id = create(&store, "object").await;
        let part = put_part(&store, &id, 1, noise(100)).await;
        assert_eq!(store.get("object").await, b"before");
        complete!(store, &id, vec![part]).send().await.unwrap();
        assert!(store.get("object").await == noise(100));
    })
    .await;
}

#[tokio::test]
async fn part_numbers_may_have_gaps_and_parts_may_be_left_out() {
    with_store(async |store| {
        let id = create(&store, "object").await;
        let first = put_part(&store, &id, 3, noise(PART)).await;
        put_part(&store, &id, 5, noise(10)).await;
        let last = put_part(&store, &id, 9, noise(20)).await;
        complete!(store, &id, vec![first, last]).send().await.unwrap();
        assert!(store.get("object").await == [noise(PART), noise(20)].concat());
    })
    .await;
}

#[tokio::test]
async fn a_part_put_twice_counts_as_the_last() {
    with_store(async |store| {
        let id = create(&store, "object").await;
        let old = put_part(&store, &id, 1, noise(10)).await;
        let new = put_part(&store, &id, 1, noise(20)).await;
        assert_eq!(refusal(complete!(store, &id, vec![old]).send().await), ("InvalidPart".to_owned(), 400));
        complete!(store, &id, vec![new]).send().await.unwrap();
        assert!(store.get("object").await == noise(20));
    })
    .await;
}

#[tokio::test]
async fn wrong_lists_of_parts_are_refused_and_the_upload_lives_on() {
    with_store(async |store| {
        let id = create(&store, "object").await;
        let one = put_part(&store, &id, 1, noise(PART)).await;
        let two = put_part(&store, &id, 2, noise(10)).await;
        let outcome = complete!(store, &id, vec![two.clone(), one.clone()]).send().await;
        assert_eq!(refusal(outcome), ("InvalidPartOrder".to_owned(), 400));
        let missing = CompletedPart::builder().part_number(7).e_tag(two.e_tag().unwrap()).build();
        let outcome = complete!(store, &id, vec![one.clone(), missing]).send().await;
        assert_eq!(refusal(outcome), ("InvalidPart".to_owned(), 400));
        let outcome = complete!(store, &id, Vec::new()).send().await;
        assert_eq!(refusal(outcome).1, 400);
        complete!(store, &id, vec![one, two]).send().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn small_parts_are_refused_except_the_last() {
    with_store(async |store| {
        let id = create(&store, "object").await;
        let one = put_part(&store, &id, 1, noise(100)).await;
        let two = put_part(&store, &id, 2, noise(100)).await;
        let outcome = complete!(store, &id, vec![one, two]).send().await;
        assert_eq!(refusal(outcome), ("EntityTooSmall".to_owned(), 400));
    })
    .await;
}

#[tokio::test]
async fn an_aborted_upload_is_gone() {
    with_store(async |store| {
        let id = create(&store, "object").await;
        let part = put_part(&store, &id, 1, noise(10)).await;
        let abort = || store.client.abort_multipart_upload().bucket(&store.bucket).key("object").upload_id(&id);
        abort().send().await.unwrap();
        assert_eq!(refusal(complete!(store, &id, vec![part]).send().await), ("NoSuchUpload".to_owned(), 404));
        let put = store.client.upload_part().bucket(&store.bucket).key("object").upload_id(&id).part_number(1);
        assert_eq!(refusal(put.send().await), ("NoSuchUpload".to_owned(), 404));
        assert!(store.keys().await.is_empty());
    })
    .await;
}

#[tokio::test]
async fn an_unknown_upload_is_no_such_upload() {
    with_store(async |store| {
        let abort = store.client.abort_multipart_upload().bucket(&store.bucket).key("object").upload_id("nothing");
        assert_eq!(refusal(abort.send().await), ("NoSuchUpload".to_owned(), 404));
        let parts = store.client.list_parts().bucket(&store.bucket).key("object").upload_id("nothing");
        assert_eq!(refusal(parts.send().await), ("NoSuchUpload".to_owned(), 404));
        let id = create(&store, "object").await;
        let other = store.client.abort_multipart_upload().bucket(&store.bucket).key("other").upload_id(id);
        assert_eq!(refusal(other.send().await), ("NoSuchUpload".to_owned(), 404));
    })
    .await;
}

#[tokio::test]
async fn completing_twice_gives_the_same_answer() {
    with_store(async |store| {
        let id = create(&store, "object").await;
        let part = put_part(&store, &id, 1, noise(10)).await;
        let first = complete!(store, &id, vec![part.clone()]).send().await.unwrap();
        let second = complete!(store, &id, vec![part]).send().await.unwrap();
        assert_eq!(first.e_tag(), second.e_tag());
    })
    .await;
}

#[tokio::test]
async fn parts_are_listed_in_pages() {
    with_store(async |store| {
        let id = create(&store, "object").await;
        for number in 1..=5 {
            put_part(&store, &id, number, noise(number as usize)).await;
        }
        let list = || store.client.list_parts().bucket(&store.bucket).key("object").upload_id(&id).max_parts(2);
        let first = list().send().await.unwrap();
        assert_eq!(first.is_truncated(), Some(true));
        assert_eq!(first.parts().iter().map(|part| part.size().unwrap()).collect::<Vec<_>>(), [1, 2]);
        let last = list().part_number_marker("4").send().await.unwrap();
        assert_eq!(last.is_truncated(), Some(false));
        assert_eq!(last.parts()[0].part_number(), Some(5));
    })
    .await;
}

#[tokio::test]
async fn uploads_are_listed_in_pages_by_key() {
    with_store(async |store| {
        for key in ["b", "a", "b", "c/d"] {
            create(&store, key).await;
        }
        let mut found = Vec::new();
        let mut marker = (None, None);
        loop {
            let list = store.client.list_multipart_uploads().bucket(&store.bucket).max_uploads(1);
            let output = list.set_key_marker(marker.0).set_upload_id_marker(marker.1).send().await.unwrap();
            found.extend(output.uploads().iter().map(|upload| upload.key().unwrap().to_owned()));
            if output.is_truncated() != Some(true) {
                break;
            }
            marker = (output.next_key_marker().map(str::to_owned), output.next_upload_id_marker().map(str::to_owned));
        }
        assert_eq!(found, ["a", "b", "b", "c/d"]);
        let only = store.client.list_multipart_uploads().bucket(&store.bucket).prefix("c/").send().await.unwrap();
        assert_eq!(only.uploads().len(), 1);
    })
    .await;
}

#[tokio::test]
async fn part_numbers_are_bounded() {
    with_store(async |store| {
        let id = create(&store, "object").await;
        for number in [0, 10_001] {
            let put = store.client.upload_part().bucket(&store.bucket).key("object").upload_id(&id);
            assert_eq!(refusal(put.part_number(number).send().await), ("InvalidArgument".to_owned(), 400));
        }
    })
    .await;
}

#[tokio::test]
async fn parts_can_be_copied_from_objects() {
    with_store(async |store| {
        store.put("from", noise(PART + 1000)).await;
        let id = create(&store, "object").await;
        let copy = |number: i32, range: String| {
            let copy = store.client.upload_part_copy().bucket(&store.bucket).key("object").upload_id(&id);
            let source = format!("{}/from", store.bucket);
            copy.part_number(number).copy_source(source).copy_source_range(range).send()
        };
        let mut parts = Vec::new();
        for (number, range) in [(1, format!("bytes=0-{}", PART - 1)), (2, format!("bytes={PART}-{}", PART + 999))] {
            let output = copy(number, range).await.unwrap();
            let etag = output.copy_part_result().unwrap().e_tag().unwrap().to_owned();
            parts.push(CompletedPart::builder().part_number(number).e_tag(etag).build());
        }
        assert_eq!(refusal(copy(3, "bytes=0-99999999".to_owned()).await), ("InvalidArgument".to_owned(), 400));
        complete!(store, &id, parts).send().await.unwrap();
        assert!(store.get("object").await == noise(PART + 1000));
    })
    .await;
}

#[tokio::test]
async fn a_checksum_named_at_creation_is_kept_for_the_whole() {
    with_store(async |store| {
        let create = store.client.create_multipart_upload().bucket(&store.bucket).key("object");
        let output = create.checksum_algorithm(ChecksumAlgorithm::Crc32).send().await.unwrap();
        let id = output.upload_id().unwrap();
        let parts = vec![put_part_with_sum(&store, id, 1, noise(PART)).await, put_part_with_sum(&store, id, 2, noise(9)).await];
        assert!(parts[0].checksum_crc32().is_some());
        let done = complete!(store, id, parts).send().await.unwrap();
        assert!(done.checksum_crc32().unwrap().ends_with("-2"));
        let head = store.client.head_object().bucket(&store.bucket).key("object");
        let head = head.checksum_mode(ChecksumMode::Enabled).send().await.unwrap();
        assert_eq!(head.checksum_crc32(), done.checksum_crc32());
    })
    .await;
}

#[tokio::test]
async fn a_part_with_a_wrong_checksum_is_not_stored() {
    with_store(async |store| {
        let id = create(&store, "object").await;
        let put = store.client.upload_part().bucket(&store.bucket).key("object").upload_id(&id).part_number(1);
        let outcome = put.checksum_crc32("AAAAAA==").body(noise(100).into()).send().await;
        assert_eq!(refusal(outcome), ("BadDigest".to_owned(), 400));
        let parts = store.client.list_parts().bucket(&store.bucket).key("object").upload_id(&id).send().await.unwrap();
        assert!(parts.parts().is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_completion_can_demand_that_no_object_stands() {
    with_store(async |store| {
        store.put("object", "first").await;
        let id = create(&store, "object").await;
        let part = put_part(&store, &id, 1, noise(10)).await;
        let outcome = complete!(store, &id, vec![part]).if_none_match("*").send().await;
        assert_eq!(refusal(outcome), ("PreconditionFailed".to_owned(), 412));
        assert_eq!(store.get("object").await, b"first");
    })
    .await;
}

#[tokio::test]
async fn metadata_given_at_creation_is_the_object_s() {
    with_store(async |store| {
        let create = store.client.create_multipart_upload().bucket(&store.bucket).key("object");
        let output = create.metadata("colour", "red").content_type("text/odd").send().await.unwrap();
        let id = output.upload_id().unwrap();
        let part = put_part(&store, id, 1, noise(10)).await;
        complete!(store, id, vec![part]).send().await.unwrap();
        let head = store.client.head_object().bucket(&store.bucket).key("object").send().await.unwrap();
        assert_eq!(head.metadata().unwrap().get("colour").map(String::as_str), Some("red"));
        assert_eq!(head.content_type(), Some("text/odd"));
    })
    .await;
}

#[tokio::test]
async fn a_checksum_of_the_whole_object_is_joined_from_its_parts() {
    with_store(async |store| {
        let whole = [noise(PART), noise(1234)].concat();
        for algorithm in [ChecksumAlgorithm::Crc32, ChecksumAlgorithm::Crc32C, ChecksumAlgorithm::Crc64Nvme] {
            let put = store.client.put_object().bucket(&store.bucket).key("plain").checksum_algorithm(algorithm.clone());
            let plain = put.body(whole.clone().into()).send().await.unwrap();
            let create = store.client.create_multipart_upload().bucket(&store.bucket).key("object");
            let created = create.checksum_algorithm(algorithm.clone()).checksum_type(ChecksumType::FullObject).send().await.unwrap();
            assert_eq!(created.checksum_type(), Some(&ChecksumType::FullObject));
            let id = created.upload_id().unwrap();
            let mut parts = Vec::new();
            for (number, body) in [(1, noise(PART)), (2, noise(1234))] {
                let put = store.client.upload_part().bucket(&store.bucket).key("object").upload_id(id).part_number(number);
                let part = put.checksum_algorithm(algorithm.clone()).body(body.into()).send().await.unwrap();
                parts.push(CompletedPart::builder().part_number(number).set_e_tag(part.e_tag).build());
            }
            let wrong = complete!(store, id, parts.clone()).checksum_type(ChecksumType::FullObject).checksum_crc32("AAAAAA==");
            if algorithm == ChecksumAlgorithm::Crc32 {
                assert_eq!(refusal(wrong.send().await), ("BadDigest".to_owned(), 400));
            }
            let done = complete!(store, id, parts).checksum_type(ChecksumType::FullObject).send().await.unwrap();
            assert_eq!(done.checksum_type(), Some(&ChecksumType::FullObject));
            let sums = (done.checksum_crc32(), done.checksum_crc32_c(), done.checksum_crc64_nvme());
            assert_eq!(sums, (plain.checksum_crc32(), plain.checksum_crc32_c(), plain.checksum_crc64_nvme()));
            let head = store.client.head_object().bucket(&store.bucket).key("object").checksum_mode(ChecksumMode::Enabled);
            assert_eq!(head.send().await.unwrap().checksum_type(), Some(&ChecksumType::FullObject));
            assert!(store.get("object").await == whole);
        }
    })
    .await;
}

#[tokio::test]
async fn a_checksum_type_that_its_algorithm_cannot_have_is_refused() {
    with_store(async |store| {
        let create = || store.client.create_multipart_upload().bucket(&store.bucket).key("object");
        let wanted = ("InvalidRequest".to_owned(), 400);
        let sha = create().checksum_algorithm(ChecksumAlgorithm::Sha256).checksum_type(ChecksumType::FullObject);
        assert_eq!(refusal(sha.send().await), wanted);
        let crc = create().checksum_algorithm(ChecksumAlgorithm::Crc64Nvme).checksum_type(ChecksumType::Composite);
        assert_eq!(refusal(crc.send().await), wanted);
    })
    .await;
}
