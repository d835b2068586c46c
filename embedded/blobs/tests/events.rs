//! Events passed to the owner's callback, and objects removed by lifecycle rules, with a clock of the test's own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{
    AbortIncompleteMultipartUpload, BucketLifecycleConfiguration, CompletedMultipartUpload, CompletedPart, Event as Wanted,
    ExpirationStatus, FilterRule, FilterRuleName, LifecycleExpiration, LifecycleRule, LifecycleRuleFilter, NotificationConfiguration,
    NotificationConfigurationFilter, QueueConfiguration, S3KeyFilter,
};
use embedded_blobs::{Blobs, Creation, Event, Happening, Settings};
use tempfile::TempDir;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

const DAY_SECS: u64 = 24 * 3600;

struct TestStore {
    _folder: TempDir,
    server: Blobs,
    s3: Client,
    events: UnboundedReceiver<Event>,
    later_secs: Arc<AtomicU64>,
}

/// A server with one bucket, whose lifecycle clock is `later_secs` ahead.
async fn start() -> TestStore {
    let folder = TempDir::new().unwrap();
    let (sender, events) = unbounded_channel();
    let later_secs = Arc::new(AtomicU64::new(0));
    let mut settings = Settings::new("127.0.0.1:0".parse().unwrap(), folder.path(), "piecework", "piecework");
    settings.on_event = Some(Arc::new(move |event| {
        // The test may have ended already.
        let _ = sender.send(event);
    }));
    let ahead = later_secs.clone();
    settings.clock = Arc::new(move || SystemTime::now() + Duration::from_secs(ahead.load(Ordering::Relaxed)));
    settings.limits.lifecycle_period = Duration::from_millis(20);
    let server = Blobs::start(settings).await.unwrap();
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .endpoint_url(server.endpoint())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("piecework", "piecework", None, None, "test"))
        .force_path_style(true)
        .build();
    let s3 = Client::from_conf(config);
    s3.create_bucket().bucket("bucket").send().await.unwrap();
    TestStore { _folder: folder, server, s3, events, later_secs }
}

impl TestStore {
    async fn ask(&self, events: &[&str], prefix: Option<&str>) {
        let rule = |prefix: &str| FilterRule::builder().name(FilterRuleName::Prefix).value(prefix).build();
        let filter = prefix.map(|prefix| {
            NotificationConfigurationFilter::builder().key(S3KeyFilter::builder().filter_rules(rule(prefix)).build()).build()
        });
        let events = events.iter().map(|event| Wanted::from(*event)).collect();
        let queue = QueueConfiguration::builder().id("mine").queue_arn("arn:q").set_events(Some(events)).set_filter(filter);
        let given = NotificationConfiguration::builder().queue_configurations(queue.build().unwrap()).build();
        self.s3.put_bucket_notification_configuration().bucket("bucket").notification_configuration(given).send().await.unwrap();
    }

    async fn put(&self, key: &str, body: &'static [u8]) {
        self.s3.put_object().bucket("bucket").key(key).body(ByteStream::from_static(body)).send().await.unwrap();
    }

    async fn rule(&self, prefix: &str, expiration: Option<LifecycleExpiration>, abort_days: Option<i32>) {
        let abort = abort_days.map(|days| AbortIncompleteMultipartUpload::builder().days_after_initiation(days).build());
        let rule = LifecycleRule::builder()
            .status(ExpirationStatus::Enabled)
            .filter(LifecycleRuleFilter::builder().prefix(prefix).build())
            .set_expiration(expiration)
            .set_abort_incomplete_multipart_upload(abort)
            .build()
            .unwrap();
        let given = BucketLifecycleConfiguration::builder().rules(rule).build().unwrap();
        self.s3.put_bucket_lifecycle_configuration().bucket("bucket").lifecycle_configuration(given).send().await.unwrap();
    }
}

#[tokio::test]
async fn the_callback_hears_what_was_asked_for_after_its_commit() {
    let mut store = start().await;
    store.put("in/unasked", b"x").await;
    store.ask(&["s3:ObjectCreated:*", "s3:ObjectRemoved:Delete"], Some("in/")).await;
    store.put("in/one", b"hello").await;
    let put = store.events.recv().await.unwrap();
    assert_eq!((put.what, put.bucket.as_str(), put.key.as_str()), (Happening::Created(Creation::Put), "bucket", "in/one"));
    assert_eq!(put.content, Some((5, "5d41402abc4b2a76b9719d911017c592".to_owned())));
    assert_eq!((put.asked.id.as_str(), put.asked.arn.as_str(), put.region.as_str()), ("mine", "arn:q", "us-east-1"));
    store.put("out/one", b"hello").await;
    store.s3.copy_object().bucket("bucket").key("in/two").copy_source("bucket/in/one").send().await.unwrap();
    let copy = store.events.recv().await.unwrap();
    assert_eq!((copy.what, copy.key.as_str()), (Happening::Created(Creation::Copy), "in/two"));
    assert!(copy.sequencer > put.sequencer);
    let upload = store.s3.create_multipart_upload().bucket("bucket").key("in/three").send().await.unwrap();
    let id = upload.upload_id().unwrap();
    let part = store.s3.upload_part().bucket("bucket").key("in/three").upload_id(id).part_number(1).body(ByteStream::from_static(b"part"));
    let part = CompletedPart::builder().part_number(1).set_e_tag(part.send().await.unwrap().e_tag).build();
    let parts = CompletedMultipartUpload::builder().parts(part).build();
    let complete = store.s3.complete_multipart_upload().bucket("bucket").key("in/three").upload_id(id).multipart_upload(parts);
    let etag = complete.send().await.unwrap().e_tag.unwrap();
    let completed = store.events.recv().await.unwrap();
    assert_eq!(completed.what, Happening::Created(Creation::CompleteMultipartUpload));
    assert_eq!(completed.content, Some((4, etag.trim_matches('"').to_owned())));
    store.s3.delete_object().bucket("bucket").key("in/one").send().await.unwrap();
    store.s3.delete_object().bucket("bucket").key("in/missing").send().await.unwrap();
    let gone = store.events.recv().await.unwrap();
    assert_eq!((gone.what, gone.key.as_str(), &gone.content), (Happening::Deleted, "in/one", &None));
    assert!(gone.sequencer > completed.sequencer);
    store.s3.put_object().bucket("bucket").key("in/two").if_none_match("*").send().await.unwrap_err();
    store.server.stop().await;
    assert_eq!(store.events.recv().await, None);
}

#[tokio::test]
async fn a_callback_that_hangs_holds_up_no_write() {
    let folder = TempDir::new().unwrap();
    let (release, held) = std::sync::mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let mut settings = Settings::new("127.0.0.1:0".parse().unwrap(), folder.path(), "piecework", "piecework");
    settings.on_event = Some(Arc::new(move |_| {
        // Ends when the test drops its half.
        let _ = held.lock().unwrap().recv();
    }));
    let mut store = start().await;
    let idle = std::mem::replace(&mut store.server, Blobs::start(settings).await.unwrap());
    idle.stop().await;
    let config = store.s3.config().to_builder().endpoint_url(store.server.endpoint()).build();
    store.s3 = Client::from_conf(config);
    store.s3.create_bucket().bucket("bucket").send().await.unwrap();
    store.ask(&["s3:ObjectCreated:*"], None).await;
    for at in 0..20 {
        store.put(&format!("k{at}"), b"x").await;
    }
    drop(release);
    store.server.stop().await;
}

#[tokio::test]
async fn lifecycle_rules_expire_objects_by_prefix_and_tell_of_it() {
    let mut store = start().await;
    store.ask(&["s3:ObjectRemoved:*"], None).await;
    for at in 0..300 {
        store.put(&format!("tmp/{at:03}"), b"x").await;
    }
    store.put("tmp/large", &[7; 100_000]).await;
    store.put("kept", b"x").await;
    store.rule("tmp/", Some(LifecycleExpiration::builder().days(1).build()), None).await;
    store.later_secs.store(2 * DAY_SECS, Ordering::Relaxed);
    let mut keys = Vec::new();
    while keys.len() < 301 {
        let gone = store.events.recv().await.unwrap();
        assert_eq!(gone.what, Happening::Expired);
        keys.push(gone.key);
    }
    assert_eq!(keys.last().map(String::as_str), Some("tmp/large"));
    let left = store.s3.list_objects_v2().bucket("bucket").send().await.unwrap();
    assert_eq!(left.contents().iter().map(|object| object.key().unwrap()).collect::<Vec<_>>(), ["kept"]);
    store.server.stop().await;
    assert_eq!(store.events.recv().await, None);
}

#[tokio::test]
async fn a_rule_with_a_date_expires_everything_once_it_has_passed() {
    let mut store = start().await;
    store.ask(&["s3:LifecycleExpiration:*"], None).await;
    store.put("one", b"x").await;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let date = aws_sdk_s3::primitives::DateTime::from_secs(((now / DAY_SECS + 3) * DAY_SECS) as i64);
    store.rule("", Some(LifecycleExpiration::builder().date(date).build()), None).await;
    store.later_secs.store(4 * DAY_SECS, Ordering::Relaxed);
    assert_eq!(store.events.recv().await.unwrap().key, "one");
    store.server.stop().await;
}

#[tokio::test]
async fn unfinished_uploads_are_dropped_after_their_days() {
    let mut store = start().await;
    store.ask(&["s3:ObjectRemoved:*"], None).await;
    store.put("marker", b"x").await;
    let upload = store.s3.create_multipart_upload().bucket("bucket").key("unfinished").send().await.unwrap();
    let id = upload.upload_id().unwrap();
    let part = store.s3.upload_part().bucket("bucket").key("unfinished").upload_id(id).part_number(1);
    part.body(ByteStream::from_static(b"part")).send().await.unwrap();
    store.rule("", Some(LifecycleExpiration::builder().days(1).build()), Some(1)).await;
    store.later_secs.store(2 * DAY_SECS, Ordering::Relaxed);
    // Objects are deleted first in a check, so the second marker proves that the first check has ended.
    assert_eq!(store.events.recv().await.unwrap().key, "marker");
    store.put("marker", b"y").await;
    assert_eq!(store.events.recv().await.unwrap().key, "marker");
    let uploads = store.s3.list_multipart_uploads().bucket("bucket").send().await.unwrap();
    assert!(uploads.uploads().is_empty());
    store.server.stop().await;
}
