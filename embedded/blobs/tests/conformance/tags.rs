//! Object tags.

use aws_sdk_s3::types::{Tag, Tagging};

use crate::store::{refusal, with_store};

fn tag(key: &str, value: &str) -> Tag {
    Tag::builder().key(key).value(value).build().unwrap()
}

#[tokio::test]
async fn tags_are_set_read_and_removed() {
    with_store(async |store| {
        store.put("object", "x").await;
        let wanted = [tag("a", "1"), tag("b b", "zwei+ü")];
        let tagging = Tagging::builder().set_tag_set(Some(wanted.to_vec())).build().unwrap();
        store.client.put_object_tagging().bucket(&store.bucket).key("object").tagging(tagging).send().await.unwrap();
        let read = async || {
            let output = store.client.get_object_tagging().bucket(&store.bucket).key("object").send().await.unwrap();
            output.tag_set().to_vec()
        };
        assert_eq!(read().await, wanted);
        store.client.delete_object_tagging().bucket(&store.bucket).key("object").send().await.unwrap();
        assert!(read().await.is_empty());
        assert_eq!(store.get("object").await, b"x");
    })
    .await;
}

#[tokio::test]
async fn bad_tags_are_refused() {
    with_store(async |store| {
        store.put("object", "x").await;
        let many: Vec<_> = (0..11).map(|at| tag(&format!("k{at}"), "v")).collect();
        for tags in [many, vec![tag(&"k".repeat(129), "v")], vec![tag("k", &"v".repeat(257))]] {
            let tagging = Tagging::builder().set_tag_set(Some(tags)).build().unwrap();
            let put = store.client.put_object_tagging().bucket(&store.bucket).key("object").tagging(tagging);
            assert_eq!(refusal(put.send().await).1, 400);
        }
    })
    .await;
}

#[tokio::test]
async fn tags_of_a_missing_object_are_no_such_key() {
    with_store(async |store| {
        let outcome = store.client.get_object_tagging().bucket(&store.bucket).key("nothing").send().await;
        assert_eq!(refusal(outcome), ("NoSuchKey".to_owned(), 404));
    })
    .await;
}
