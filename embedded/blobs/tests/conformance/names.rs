//! Keys that are difficult in XML, refused bucket names, and the null version.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_sdk_s3::config::interceptors::AfterDeserializationInterceptorContextRef;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_sdk_s3::presigning::PresigningConfig;
use aws_sdk_s3::primitives::SdkBody;
use aws_sdk_s3::types::{Delete, EncodingType, ObjectIdentifier};

use crate::raw::send;
use crate::store::{refusal, with_store};

/// Keys with characters that parsers change or refuse.
const TRICKY: [&str; 6] = ["a\rb", "a\r\nb", "c\nd\te", "<&>'\"", "emoji-🦀", "nel\u{85}\u{2028}"];
/// Keys that XML 1.0 cannot contain.
const BEYOND: [&str; 3] = ["bell\u{7}", "unit\u{1f}", "end\u{ffff}"];

/// Records the bytes of an answer as received.
#[derive(Clone, Debug, Default)]
struct Tap(Arc<Mutex<String>>);

impl Tap {
    fn text(&self) -> String {
        self.0.lock().unwrap().clone()
    }
}

impl Intercept for Tap {
    fn name(&self) -> &'static str {
        "tap"
    }
    fn read_after_deserialization(
        &self,
        context: &AfterDeserializationInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let bytes = context.response().body().bytes().expect("an answer in memory");
        *self.0.lock().unwrap() = String::from_utf8(bytes.to_vec())?;
        Ok(())
    }
}

fn hour() -> PresigningConfig {
    PresigningConfig::expires_in(Duration::from_secs(3600)).unwrap()
}

fn sorted<const N: usize>(names: [&str; N]) -> Vec<String> {
    let mut names = names.map(str::to_owned).to_vec();
    names.sort();
    names
}

fn is_xml(text: &str) -> bool {
    text.chars().all(|one| matches!(one, '\t' | '\n' | '\u{20}'..='\u{fffd}' | '\u{10000}'..))
}

#[tokio::test]
async fn keys_with_carriage_returns_are_listed_and_deleted_as_they_are() {
    with_store(async |store| {
        for key in TRICKY {
            store.put(key, "x").await;
        }
        assert_eq!(store.keys().await, sorted(TRICKY));
        let tap = Tap::default();
        store.client.list_objects().bucket(&store.bucket).customize().interceptor(tap.clone()).send().await.unwrap();
        let listed = tap.text();
        assert!(!listed.contains('\r') && listed.contains("<Key>a&#13;b</Key>"), "{listed}");
        let wanted = TRICKY.map(|key| ObjectIdentifier::builder().key(key).build().unwrap());
        let wanted = Delete::builder().set_objects(Some(wanted.to_vec())).build().unwrap();
        let output = store.client.delete_objects().bucket(&store.bucket).delete(wanted).send().await.unwrap();
        let mut deleted: Vec<_> = output.deleted().iter().filter_map(|one| one.key()).map(str::to_owned).collect();
        deleted.sort();
        assert_eq!(deleted, sorted(TRICKY));
        assert!(store.keys().await.is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_listing_with_names_beyond_xml_is_encoded_and_says_so() {
    with_store(async |store| {
        for key in BEYOND {
            store.put(key, "x").await;
        }
        let output = store.client.list_objects_v2().bucket(&store.bucket).send().await.unwrap();
        assert_eq!(output.encoding_type(), Some(&EncodingType::Url));
        let keys: Vec<_> = output.contents().iter().filter_map(|one| one.key()).collect();
        assert_eq!(keys, ["bell%07", "end%EF%BF%BF", "unit%1F"]);
        let output = store.client.list_objects().bucket(&store.bucket).prefix("bell").delimiter("\u{7}").send().await.unwrap();
        assert_eq!(output.common_prefixes()[0].prefix(), Some("bell%07"));
        let output = store.client.list_object_versions().bucket(&store.bucket).send().await.unwrap();
        assert_eq!(output.versions()[0].key(), Some("bell%07"));
        for key in BEYOND {
            store.client.create_multipart_upload().bucket(&store.bucket).key(key).send().await.unwrap();
        }
        let output = store.client.list_multipart_uploads().bucket(&store.bucket).send().await.unwrap();
        assert_eq!((output.encoding_type(), output.uploads()[0].key()), (Some(&EncodingType::Url), Some("bell%07")));
    })
    .await;
}

#[tokio::test]
async fn every_answer_about_a_key_is_xml() {
    with_store(async |store| {
        store.put("there\u{1}", "x").await;
        let wanted = ObjectIdentifier::builder().key("there\u{1}").build().unwrap();
        let wanted = Delete::builder().objects(wanted).build().unwrap();
        let output = store.client.delete_objects().bucket(&store.bucket).delete(wanted).send().await.unwrap();
        assert_eq!(output.deleted()[0].key(), Some("there\u{fffd}"));
        assert!(store.keys().await.is_empty());
        let tap = Tap::default();
        let create = store.client.create_multipart_upload().bucket(&store.bucket).key("a\rb\u{1}");
        let created = create.customize().interceptor(tap.clone()).send().await.unwrap();
        assert_eq!(created.key(), Some("a\rb\u{fffd}"));
        let missing = store.client.get_object().bucket(&store.bucket).key("a\rb\u{1}").presigned(hour()).await.unwrap();
        let missing = String::from_utf8(send("GET", missing.uri(), &[], b"").await.body).unwrap();
        for answer in [tap.text(), missing] {
            assert!(answer.starts_with("<?xml") && is_xml(&answer), "{answer:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_delete_of_many_understands_references_and_sections() {
    with_store(async |store| {
        for key in ["a\rb", "emoji-🦀", "bell\u{7}", "<b>&", "stays"] {
            store.put(key, "x").await;
        }
        let delete = async |body: &'static str| {
            let wanted = Delete::builder().objects(ObjectIdentifier::builder().key("k").build().unwrap()).build().unwrap();
            let request = store.client.delete_objects().bucket(&store.bucket).delete(wanted).customize();
            let request = request.mutate_request(move |request| {
                *request.body_mut() = SdkBody::from(body);
                request.headers_mut().insert("content-length", body.len().to_string());
            });
            request.send().await
        };
        let keys = "<Delete><Object><Key>a&#13;b</Key></Object><Object><Key>emoji-&#x1F980;</Key></Object>\
                    <Object><Key>bell&#7;</Key></Object><Object><Key><![CDATA[<b>&]]></Key></Object></Delete>";
        assert_eq!(delete(keys).await.unwrap().deleted().len(), 4);
        assert_eq!(store.keys().await, ["stays"]);
        let outcome = delete("<Delete><Object><Key>&#0;</Key></Object></Delete>").await;
        assert_eq!(refusal(outcome), ("MalformedXML".to_owned(), 400));
    })
    .await;
}

#[tokio::test]
async fn a_refused_bucket_name_is_told_its_fault() {
    with_store(async |store| {
        for (name, reason) in [
            ("UPPER", "upper-case"),
            ("under_score", "underscores"),
            ("-dash", "begin and end"),
            ("a..b", "two dots"),
            ("192.168.0.1", "IP address"),
            ("ab", "3 to 63"),
        ] {
            let answer = send("PUT", &format!("{}/{name}", store.endpoint), &[], b"").await;
            assert_eq!((answer.status, answer.code()), (400, "InvalidBucketName".to_owned()), "{name}");
            let text = String::from_utf8(answer.body).unwrap();
            assert!(text.contains(reason), "{name}: {text}");
        }
    })
    .await;
}

#[tokio::test]
async fn every_object_is_its_own_null_version() {
    with_store(async |store| {
        for key in ["a", "b", "dir/c", "dir/d", "e"] {
            store.put(key, key).await;
        }
        let list = || store.client.list_object_versions().bucket(&store.bucket);
        let output = list().send().await.unwrap();
        assert_eq!(output.versions().len(), 5);
        assert!(output.delete_markers().is_empty());
        let first = &output.versions()[0];
        assert_eq!((first.key(), first.version_id(), first.is_latest(), first.size()), (Some("a"), Some("null"), Some(true), Some(1)));
        let (mut seen, mut marker) = (Vec::new(), None::<(String, String)>);
        loop {
            let (key, version) = marker.clone().unzip();
            let page = list().delimiter("/").max_keys(2).set_key_marker(key).set_version_id_marker(version).send().await.unwrap();
            seen.extend(page.versions().iter().filter_map(|one| one.key()).map(str::to_owned));
            seen.extend(page.common_prefixes().iter().filter_map(|one| one.prefix()).map(str::to_owned));
            marker = page.next_key_marker().zip(page.next_version_id_marker()).map(|(key, version)| (key.to_owned(), version.to_owned()));
            assert_eq!(page.is_truncated(), Some(marker.is_some()));
            if marker.is_none() {
                break;
            }
        }
        assert_eq!(seen, ["a", "b", "e", "dir/"].map(str::to_owned));
        let outcome = list().version_id_marker("null").send().await;
        assert_eq!(refusal(outcome), ("InvalidArgument".to_owned(), 400));
        assert_eq!(refusal(store.client.list_object_versions().bucket("no-such-bucket").send().await).0, "NoSuchBucket");
    })
    .await;
}

#[tokio::test]
async fn the_null_version_may_be_named_wherever_a_version_may() {
    with_store(async |store| {
        store.put("object", "x").await;
        store.put("other", "y").await;
        let (client, bucket) = (&store.client, &store.bucket);
        let got = client.get_object().bucket(bucket).key("object").version_id("null").send().await.unwrap();
        assert_eq!(got.version_id(), Some("null"));
        let head = client.head_object().bucket(bucket).key("object").version_id("null").send().await.unwrap();
        assert_eq!(head.version_id(), Some("null"));
        let source = format!("{bucket}/object?versionId=null");
        client.copy_object().bucket(bucket).key("copy").copy_source(source).send().await.unwrap();
        client.get_object_tagging().bucket(bucket).key("object").version_id("null").send().await.unwrap();
        let gone = client.delete_object().bucket(bucket).key("object").version_id("null").send().await.unwrap();
        assert_eq!(gone.version_id(), Some("null"));
        let wanted = ObjectIdentifier::builder().key("other").version_id("null").build().unwrap();
        let wanted = Delete::builder().objects(wanted).build().unwrap();
        let gone = client.delete_objects().bucket(bucket).delete(wanted).send().await.unwrap();
        assert_eq!((gone.deleted()[0].key(), gone.deleted()[0].version_id()), (Some("other"), Some("null")));
        assert_eq!(store.keys().await, ["copy"]);
    })
    .await;
}
