//! Lifecycle configuration: stored rules are returned, and unsupported ones are refused.

use aws_sdk_s3::primitives::DateTime;
use aws_sdk_s3::types::builders::LifecycleRuleBuilder;
use aws_sdk_s3::types::{
    AbortIncompleteMultipartUpload, BucketLifecycleConfiguration, ExpirationStatus, LifecycleExpiration, LifecycleRule,
    LifecycleRuleFilter, NoncurrentVersionExpiration, Tag, Transition, TransitionStorageClass,
};

use crate::store::{Store, refusal, with_store};

fn rule(id: &str) -> LifecycleRuleBuilder {
    LifecycleRule::builder().id(id).status(ExpirationStatus::Enabled).filter(LifecycleRuleFilter::builder().prefix("tmp/").build())
}

fn days(days: i32) -> LifecycleExpiration {
    LifecycleExpiration::builder().days(days).build()
}

async fn put(store: &Store, rules: impl IntoIterator<Item = LifecycleRuleBuilder>) -> Result<(), (String, u16)> {
    let rules = rules.into_iter().map(|rule| rule.build().unwrap()).collect();
    let configuration = BucketLifecycleConfiguration::builder().set_rules(Some(rules)).build().unwrap();
    let put = store.client.put_bucket_lifecycle_configuration().bucket(&store.bucket).lifecycle_configuration(configuration);
    match put.send().await {
        Ok(_) => Ok(()),
        outcome => Err(refusal(outcome)),
    }
}

#[tokio::test]
async fn rules_come_back_as_they_were_put_and_can_be_deleted() {
    with_store(async |store| {
        let get = || store.client.get_bucket_lifecycle_configuration().bucket(&store.bucket).send();
        let none = ("NoSuchLifecycleConfiguration".to_owned(), 404);
        assert_eq!(refusal(get().await), none);
        let abort = AbortIncompleteMultipartUpload::builder().days_after_initiation(3).build();
        let date = DateTime::from_secs(2_000_000_000 / 86_400 * 86_400);
        let rules = [
            rule("days").expiration(days(7)).abort_incomplete_multipart_upload(abort),
            rule("date").status(ExpirationStatus::Disabled).expiration(LifecycleExpiration::builder().date(date).build()),
        ];
        put(&store, rules).await.unwrap();
        let found = get().await.unwrap();
        let [one, other] = found.rules() else { panic!("{found:?}") };
        assert_eq!((one.id(), one.filter().unwrap().prefix()), (Some("days"), Some("tmp/")));
        assert_eq!(one.expiration().unwrap().days(), Some(7));
        assert_eq!(one.abort_incomplete_multipart_upload().unwrap().days_after_initiation(), Some(3));
        assert_eq!(other.status(), &ExpirationStatus::Disabled);
        assert_eq!(other.expiration().unwrap().date(), Some(&date));
        store.client.delete_bucket_lifecycle().bucket(&store.bucket).send().await.unwrap();
        assert_eq!(refusal(get().await), none);
    })
    .await;
}

#[tokio::test]
async fn a_rule_may_name_its_prefix_in_the_old_place() {
    with_store(async |store| {
        #[allow(deprecated)]
        let old = LifecycleRule::builder().id("old").status(ExpirationStatus::Enabled).prefix("logs/").expiration(days(1));
        put(&store, [old]).await.unwrap();
        let found = store.client.get_bucket_lifecycle_configuration().bucket(&store.bucket).send().await.unwrap();
        #[allow(deprecated)]
        let prefix = found.rules()[0].prefix();
        assert_eq!(prefix, Some("logs/"));
        assert!(found.rules()[0].filter().is_none());
    })
    .await;
}

#[tokio::test]
async fn rules_that_cannot_be_carried_out_are_refused_and_change_nothing() {
    with_store(async |store| {
        put(&store, [rule("kept").expiration(days(1))]).await.unwrap();
        let tag = Tag::builder().key("a").value("b").build().unwrap();
        let glacier = Transition::builder().days(1).storage_class(TransitionStorageClass::Glacier).build();
        let versions = NoncurrentVersionExpiration::builder().noncurrent_days(1).build();
        let refused = [
            (rule("tag").filter(LifecycleRuleFilter::builder().tag(tag).build()).expiration(days(1)), "NotImplemented", 501),
            (
                rule("size").filter(LifecycleRuleFilter::builder().object_size_greater_than(5).build()).expiration(days(1)),
                "NotImplemented",
                501,
            ),
            (rule("move").transitions(glacier), "NotImplemented", 501),
            (rule("versions").noncurrent_version_expiration(versions), "NotImplemented", 501),
            (rule("zero").expiration(days(0)), "InvalidArgument", 400),
            (rule("noon").expiration(LifecycleExpiration::builder().date(DateTime::from_secs(43_200)).build()), "InvalidArgument", 400),
            (rule("nothing"), "InvalidRequest", 400),
        ];
        for (rule, code, status) in refused {
            assert_eq!(put(&store, [rule]).await, Err((code.to_owned(), status)));
        }
        let twice = [rule("same").expiration(days(1)), rule("same").expiration(days(2))];
        assert_eq!(put(&store, twice).await, Err(("InvalidArgument".to_owned(), 400)));
        let found = store.client.get_bucket_lifecycle_configuration().bucket(&store.bucket).send().await.unwrap();
        assert_eq!(found.rules().len(), 1);
        assert_eq!(found.rules()[0].id(), Some("kept"));
    })
    .await;
}
