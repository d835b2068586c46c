//! Conditional reads and writes.

use std::time::{Duration, SystemTime};

use aws_sdk_s3::primitives::{ByteStream, DateTime};

use crate::store::{Store, refusal, with_store};

fn hours_from_now(hours: i64) -> DateTime {
    let now = DateTime::from(SystemTime::now());
    DateTime::from_secs(now.secs() + hours * 3600)
}

async fn etag(store: &Store, body: &str) -> String {
    store.put("object", body).await.e_tag().unwrap().to_owned()
}

const OTHER: &str = "\"00000000000000000000000000000000\"";

#[tokio::test]
async fn reads_match_on_the_etag() {
    with_store(async |store| {
        let etag = etag(&store, "x").await;
        let get = || store.client.get_object().bucket(&store.bucket).key("object");
        get().if_match(&etag).send().await.unwrap();
        get().if_match("*").send().await.unwrap();
        assert_eq!(refusal(get().if_match(OTHER).send().await), ("PreconditionFailed".to_owned(), 412));
        get().if_none_match(OTHER).send().await.unwrap();
        assert_eq!(refusal(get().if_none_match(&etag).send().await).1, 304);
        assert_eq!(refusal(get().if_none_match("*").send().await).1, 304);
    })
    .await;
}

#[tokio::test]
async fn reads_match_on_the_time() {
    with_store(async |store| {
        etag(&store, "x").await;
        let get = || store.client.get_object().bucket(&store.bucket).key("object");
        get().if_modified_since(hours_from_now(-1)).send().await.unwrap();
        get().if_unmodified_since(hours_from_now(1)).send().await.unwrap();
        let outcome = get().if_unmodified_since(hours_from_now(-1)).send().await;
        assert_eq!(refusal(outcome), ("PreconditionFailed".to_owned(), 412));
        let modified = get().send().await.unwrap().last_modified().copied().unwrap();
        assert_eq!(refusal(get().if_modified_since(modified).send().await).1, 304);
    })
    .await;
}

#[tokio::test]
async fn the_etag_outranks_the_time() {
    with_store(async |store| {
        let etag = etag(&store, "x").await;
        let get = || store.client.get_object().bucket(&store.bucket).key("object");
        get().if_match(&etag).if_unmodified_since(hours_from_now(-1)).send().await.unwrap();
        let outcome = get().if_none_match(&etag).if_modified_since(hours_from_now(-1)).send().await;
        assert_eq!(refusal(outcome).1, 304);
    })
    .await;
}

#[tokio::test]
async fn heads_match_as_reads_do() {
    with_store(async |store| {
        let etag = etag(&store, "x").await;
        let head = || store.client.head_object().bucket(&store.bucket).key("object");
        head().if_match(&etag).send().await.unwrap();
        assert_eq!(refusal(head().if_match(OTHER).send().await).1, 412);
        assert_eq!(refusal(head().if_none_match(&etag).send().await).1, 304);
    })
    .await;
}

#[tokio::test]
async fn a_put_that_wants_no_object_is_refused_when_there_is_one() {
    with_store(async |store| {
        let put = |body: &'static [u8]| {
            store.client.put_object().bucket(&store.bucket).key("object").if_none_match("*").body(ByteStream::from_static(body)).send()
        };
        put(b"first").await.unwrap();
        assert_eq!(refusal(put(b"second").await), ("PreconditionFailed".to_owned(), 412));
        assert_eq!(store.get("object").await, b"first");
    })
    .await;
}

#[tokio::test]
async fn of_many_puts_that_want_no_object_one_wins() {
    with_store(async |store| {
        let puts = (0..16).map(|at| {
            store.client.put_object().bucket(&store.bucket).key("object").if_none_match("*").body(ByteStream::from(vec![at; 1000])).send()
        });
        let outcomes = futures::future::join_all(puts).await;
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
        let winner = outcomes.iter().position(Result::is_ok).unwrap();
        assert_eq!(store.get("object").await, vec![winner as u8; 1000]);
    })
    .await;
}

#[tokio::test]
async fn a_put_that_wants_an_etag_replaces_only_that() {
    with_store(async |store| {
        let etag = etag(&store, "first").await;
        let put = |wanted: &str, body: &'static [u8]| {
            store.client.put_object().bucket(&store.bucket).key("object").if_match(wanted).body(ByteStream::from_static(body)).send()
        };
        put(&etag, b"second").await.unwrap();
        assert_eq!(refusal(put(&etag, b"third").await), ("PreconditionFailed".to_owned(), 412));
        assert_eq!(store.get("object").await, b"second");
    })
    .await;
}

#[tokio::test]
async fn a_put_that_wants_an_etag_is_refused_when_there_is_no_object() {
    with_store(async |store| {
        let outcome = store.client.put_object().bucket(&store.bucket).key("nothing").if_match(OTHER).send().await;
        assert_eq!(refusal(outcome).1, 404);
        assert!(store.keys().await.is_empty());
    })
    .await;
}

#[tokio::test]
async fn time_goes_forward_in_last_modified() {
    with_store(async |store| {
        let before = DateTime::from(SystemTime::now() - Duration::from_secs(2));
        etag(&store, "x").await;
        let head = store.client.head_object().bucket(&store.bucket).key("object").send().await.unwrap();
        assert!(head.last_modified().unwrap().secs() >= before.secs());
    })
    .await;
}
