//! Copying objects within the store.

use aws_sdk_s3::types::{MetadataDirective, TaggingDirective};

use crate::store::{Store, noise, refusal, with_store};

fn source(store: &Store, key: &str) -> String {
    format!("{}/{key}", store.bucket)
}

#[tokio::test]
async fn a_copy_has_the_bytes_and_metadata_of_its_source() {
    with_store(async |store| {
        for size in [10, 300_000] {
            let put = store.client.put_object().bucket(&store.bucket).key("from");
            put.metadata("colour", "red").content_type("text/odd").body(noise(size).into()).send().await.unwrap();
            let copy = store.client.copy_object().bucket(&store.bucket).key("to").copy_source(source(&store, "from"));
            let result = copy.send().await.unwrap();
            store.client.delete_object().bucket(&store.bucket).key("from").send().await.unwrap();
            assert!(store.get("to").await == noise(size));
            let head = store.client.head_object().bucket(&store.bucket).key("to").send().await.unwrap();
            assert_eq!(head.metadata().unwrap().get("colour").map(String::as_str), Some("red"));
            assert_eq!(head.content_type(), Some("text/odd"));
            assert_eq!(head.e_tag(), result.copy_object_result().unwrap().e_tag());
        }
    })
    .await;
}

#[tokio::test]
async fn a_copy_can_replace_the_metadata() {
    with_store(async |store| {
        let put = store.client.put_object().bucket(&store.bucket).key("from").metadata("colour", "red");
        put.body(b"x".to_vec().into()).send().await.unwrap();
        store
            .client
            .copy_object()
            .bucket(&store.bucket)
            .key("to")
            .copy_source(source(&store, "from"))
            .metadata_directive(MetadataDirective::Replace)
            .metadata("shape", "round")
            .send()
            .await
            .unwrap();
        let head = store.client.head_object().bucket(&store.bucket).key("to").send().await.unwrap();
        let metadata = head.metadata().unwrap();
        assert_eq!(metadata.len(), 1);
        assert_eq!(metadata.get("shape").map(String::as_str), Some("round"));
    })
    .await;
}

#[tokio::test]
async fn an_object_can_be_copied_onto_itself_only_to_change_it() {
    with_store(async |store| {
        store.put("object", noise(100_000)).await;
        let copy = || store.client.copy_object().bucket(&store.bucket).key("object").copy_source(source(&store, "object"));
        assert_eq!(refusal(copy().send().await), ("InvalidRequest".to_owned(), 400));
        copy().metadata_directive(MetadataDirective::Replace).metadata("a", "b").send().await.unwrap();
        assert!(store.get("object").await == noise(100_000));
    })
    .await;
}

#[tokio::test]
async fn copying_a_missing_object_is_refused() {
    with_store(async |store| {
        let copy = store.client.copy_object().bucket(&store.bucket).key("to").copy_source(source(&store, "nothing"));
        assert_eq!(refusal(copy.send().await), ("NoSuchKey".to_owned(), 404));
    })
    .await;
}

#[tokio::test]
async fn a_copy_can_demand_the_state_of_its_source() {
    with_store(async |store| {
        let etag = store.put("from", "x").await.e_tag().unwrap().to_owned();
        let copy = || store.client.copy_object().bucket(&store.bucket).key("to").copy_source(source(&store, "from"));
        let outcome = copy().copy_source_if_none_match(&etag).send().await;
        assert_eq!(refusal(outcome), ("PreconditionFailed".to_owned(), 412));
        copy().copy_source_if_match(&etag).send().await.unwrap();
        assert_eq!(store.get("to").await, b"x");
    })
    .await;
}

#[tokio::test]
async fn odd_keys_can_be_copied() {
    with_store(async |store| {
        store.put("a b+c%/ü", "x").await;
        let encoded = format!("{}/a%20b%2Bc%25/%C3%BC", store.bucket);
        store.client.copy_object().bucket(&store.bucket).key("to").copy_source(encoded).send().await.unwrap();
        assert_eq!(store.get("to").await, b"x");
    })
    .await;
}

#[tokio::test]
async fn tags_travel_with_a_copy_unless_replaced() {
    with_store(async |store| {
        let put = store.client.put_object().bucket(&store.bucket).key("from").tagging("a=1");
        put.body(b"x".to_vec().into()).send().await.unwrap();
        let copy = |key: &str| store.client.copy_object().bucket(&store.bucket).key(key).copy_source(source(&store, "from"));
        copy("same").send().await.unwrap();
        copy("new").tagging_directive(TaggingDirective::Replace).tagging("b=2").send().await.unwrap();
        let tags = async |key: &str| {
            let tags = store.client.get_object_tagging().bucket(&store.bucket).key(key).send().await.unwrap();
            tags.tag_set().iter().map(|tag| format!("{}={}", tag.key(), tag.value())).collect::<Vec<_>>()
        };
        assert_eq!(tags("same").await, ["a=1"]);
        assert_eq!(tags("new").await, ["b=2"]);
    })
    .await;
}
