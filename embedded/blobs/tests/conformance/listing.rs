//! Listing keys, both versions.

use aws_sdk_s3::types::EncodingType;

use crate::store::{Store, refusal, with_store};

async fn fill(store: &Store, keys: &[&str]) {
    for key in keys {
        store.put(key, *key).await;
    }
}

/// Lists with version 2 in pages of `page` entries; prefixes carry a star.
async fn walk(store: &Store, prefix: &str, delimiter: Option<&str>, page: i32) -> Vec<String> {
    let mut found = Vec::new();
    let mut token = None;
    loop {
        let output = store
            .client
            .list_objects_v2()
            .bucket(&store.bucket)
            .prefix(prefix)
            .set_delimiter(delimiter.map(str::to_owned))
            .max_keys(page)
            .set_continuation_token(token)
            .send()
            .await
            .unwrap();
        let entries = output.contents().len() + output.common_prefixes().len();
        assert_eq!(output.key_count(), Some(entries as i32));
        assert!(entries <= page as usize);
        let mut entries: Vec<_> = output.contents().iter().map(|object| object.key().unwrap().to_owned()).collect();
        entries.extend(output.common_prefixes().iter().map(|prefix| format!("{}*", prefix.prefix().unwrap())));
        entries.sort();
        found.extend(entries);
        token = output.next_continuation_token().map(str::to_owned);
        assert_eq!(output.is_truncated(), Some(token.is_some()));
        if token.is_none() {
            return found;
        }
    }
}

/// As `walk`, with version 1.
async fn walk_v1(store: &Store, delimiter: Option<&str>, page: i32) -> Vec<String> {
    let mut found = Vec::new();
    let mut marker: Option<String> = None;
    loop {
        let output = store
            .client
            .list_objects()
            .bucket(&store.bucket)
            .set_delimiter(delimiter.map(str::to_owned))
            .max_keys(page)
            .set_marker(marker)
            .send()
            .await
            .unwrap();
        let mut entries: Vec<_> = output.contents().iter().map(|object| object.key().unwrap().to_owned()).collect();
        let last_key = entries.last().cloned();
        entries.extend(output.common_prefixes().iter().map(|prefix| format!("{}*", prefix.prefix().unwrap())));
        entries.sort();
        found.extend(entries);
        if output.is_truncated() != Some(true) {
            return found;
        }
        marker = output.next_marker().map(str::to_owned).or(last_key);
    }
}

const TREE: [&str; 9] = ["a", "a/1", "a/2", "a/b/3", "ab", "b/4", "c", "d/5", "d/6"];

#[tokio::test]
async fn an_empty_bucket_lists_nothing() {
    with_store(async |store| {
        assert!(walk(&store, "", None, 10).await.is_empty());
        assert!(walk_v1(&store, None, 10).await.is_empty());
    })
    .await;
}

#[tokio::test]
async fn pages_of_any_size_make_the_same_listing() {
    with_store(async |store| {
        fill(&store, &TREE).await;
        for page in [1, 2, 3, 5, 9, 1000] {
            assert_eq!(walk(&store, "", None, page).await, TREE, "pages of {page}");
            assert_eq!(walk_v1(&store, None, page).await, TREE, "pages of {page}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_delimiter_folds_keys_once_on_any_page_size() {
    with_store(async |store| {
        fill(&store, &TREE).await;
        for page in [1, 2, 3, 5, 1000] {
            let wanted = ["a", "a/*", "ab", "b/*", "c", "d/*"];
            assert_eq!(walk(&store, "", Some("/"), page).await, wanted, "pages of {page}");
            assert_eq!(walk_v1(&store, Some("/"), page).await, wanted, "pages of {page}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_prefix_selects_keys() {
    with_store(async |store| {
        fill(&store, &TREE).await;
        assert_eq!(walk(&store, "a", None, 10).await, ["a", "a/1", "a/2", "a/b/3", "ab"]);
        assert_eq!(walk(&store, "a/", Some("/"), 10).await, ["a/1", "a/2", "a/b/*"]);
        assert_eq!(walk(&store, "a/b", Some("/"), 10).await, ["a/b/*"]);
        assert!(walk(&store, "zzz", None, 10).await.is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_delimiter_may_have_several_characters() {
    with_store(async |store| {
        fill(&store, &["x--1", "x--2", "y-3", "z"]).await;
        assert_eq!(walk(&store, "", Some("--"), 2).await, ["x--*", "y-3", "z"]);
    })
    .await;
}

#[tokio::test]
async fn start_after_skips_keys() {
    with_store(async |store| {
        fill(&store, &["a", "b", "c"]).await;
        for (after, wanted) in [("a", vec!["b", "c"]), ("aa", vec!["b", "c"]), ("c", vec![])] {
            let output = store.client.list_objects_v2().bucket(&store.bucket).start_after(after).send().await.unwrap();
            let keys: Vec<_> = output.contents().iter().map(|object| object.key().unwrap()).collect();
            assert_eq!(keys, wanted, "after {after}");
        }
    })
    .await;
}

#[tokio::test]
async fn no_entries_are_wanted_and_none_come() {
    with_store(async |store| {
        store.put("object", "x").await;
        let output = store.client.list_objects_v2().bucket(&store.bucket).max_keys(0).send().await.unwrap();
        assert!(output.contents().is_empty());
        assert_eq!(output.is_truncated(), Some(false));
    })
    .await;
}

#[tokio::test]
async fn a_negative_number_of_entries_is_refused() {
    with_store(async |store| {
        let outcome = store.client.list_objects_v2().bucket(&store.bucket).max_keys(-1).send().await;
        assert_eq!(refusal(outcome), ("InvalidArgument".to_owned(), 400));
    })
    .await;
}

#[tokio::test]
async fn a_wrong_continuation_token_is_refused() {
    with_store(async |store| {
        let outcome = store.client.list_objects_v2().bucket(&store.bucket).continuation_token("!").send().await;
        assert_eq!(refusal(outcome), ("InvalidArgument".to_owned(), 400));
    })
    .await;
}

#[tokio::test]
async fn names_are_encoded_when_asked() {
    with_store(async |store| {
        fill(&store, &["dir one/a+b", "ü"]).await;
        let output =
            store.client.list_objects_v2().bucket(&store.bucket).delimiter("/").encoding_type(EncodingType::Url).send().await.unwrap();
        assert_eq!(output.common_prefixes()[0].prefix(), Some("dir%20one/"));
        assert_eq!(output.contents()[0].key(), Some("%C3%BC"));
    })
    .await;
}

#[tokio::test]
async fn a_listing_tells_size_etag_and_time() {
    with_store(async |store| {
        let etag = store.put("object", "hello").await.e_tag().unwrap().to_owned();
        let output = store.client.list_objects_v2().bucket(&store.bucket).send().await.unwrap();
        let object = &output.contents()[0];
        assert_eq!(object.size(), Some(5));
        assert_eq!(object.e_tag(), Some(etag.as_str()));
        let head = store.client.head_object().bucket(&store.bucket).key("object").send().await.unwrap();
        assert_eq!(object.last_modified().unwrap().secs(), head.last_modified().unwrap().secs());
    })
    .await;
}

#[tokio::test]
async fn a_thousand_keys_fill_a_page() {
    with_store(async |store| {
        let puts = (0..1001).map(|at| format!("key-{at:05}")).map(|key| {
            let store = store.clone();
            async move { store.put(&key, "x").await }
        });
        use futures::StreamExt;
        futures::stream::iter(puts).buffer_unordered(32).collect::<Vec<_>>().await;
        let output = store.client.list_objects_v2().bucket(&store.bucket).max_keys(5000).send().await.unwrap();
        assert_eq!(output.contents().len(), 1000);
        assert_eq!(output.is_truncated(), Some(true));
        assert_eq!(walk(&store, "", None, 1000).await.len(), 1001);
    })
    .await;
}
