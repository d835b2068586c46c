//! Notification configuration: a stored one is returned, and events that can never happen are refused.

use aws_sdk_s3::types::{
    Event, FilterRule, FilterRuleName, LambdaFunctionConfiguration, NotificationConfiguration, NotificationConfigurationFilter,
    QueueConfiguration, S3KeyFilter, TopicConfiguration,
};

use crate::store::{refusal, with_store};

#[tokio::test]
async fn topics_and_queues_come_back_as_they_were_put_and_an_empty_one_clears_them() {
    with_store(async |store| {
        let rule = |name, value: &str| FilterRule::builder().name(name).value(value).build();
        let key =
            S3KeyFilter::builder().filter_rules(rule(FilterRuleName::Prefix, "in/")).filter_rules(rule(FilterRuleName::Suffix, ".png"));
        let topic = TopicConfiguration::builder()
            .id("topic")
            .topic_arn("arn:aws:sns:us-east-1:1:topic")
            .events(Event::S3ObjectCreated)
            .filter(NotificationConfigurationFilter::builder().key(key.build()).build());
        let queue = QueueConfiguration::builder().queue_arn("anything").events(Event::S3ObjectRemoved).events(Event::S3ObjectCreatedCopy);
        let both =
            NotificationConfiguration::builder().topic_configurations(topic.build().unwrap()).queue_configurations(queue.build().unwrap());
        let put =
            |given| store.client.put_bucket_notification_configuration().bucket(&store.bucket).notification_configuration(given).send();
        let get = || store.client.get_bucket_notification_configuration().bucket(&store.bucket).send();
        assert!(get().await.unwrap().topic_configurations().is_empty());
        put(both.build()).await.unwrap();
        let found = get().await.unwrap();
        let topic = &found.topic_configurations()[0];
        assert_eq!((topic.id(), topic.topic_arn()), (Some("topic"), "arn:aws:sns:us-east-1:1:topic"));
        let rules = topic.filter().unwrap().key().unwrap().filter_rules();
        assert_eq!(rules.iter().map(|rule| rule.value().unwrap()).collect::<Vec<_>>(), ["in/", ".png"]);
        let queue = &found.queue_configurations()[0];
        assert!(queue.id().is_some_and(|id| !id.is_empty()), "an id is made up when none was given");
        assert_eq!(queue.events(), [Event::S3ObjectRemoved, Event::S3ObjectCreatedCopy]);
        put(NotificationConfiguration::builder().build()).await.unwrap();
        let found = get().await.unwrap();
        assert!(found.topic_configurations().is_empty() && found.queue_configurations().is_empty());
    })
    .await;
}

#[tokio::test]
async fn events_that_never_happen_and_functions_are_refused() {
    with_store(async |store| {
        let put =
            |given| store.client.put_bucket_notification_configuration().bucket(&store.bucket).notification_configuration(given).send();
        let queue = QueueConfiguration::builder().queue_arn("q").events(Event::S3ObjectRestorePost).build().unwrap();
        let outcome = put(NotificationConfiguration::builder().queue_configurations(queue).build()).await;
        assert_eq!(refusal(outcome), ("InvalidArgument".to_owned(), 400));
        let function = LambdaFunctionConfiguration::builder().lambda_function_arn("f").events(Event::S3ObjectCreated).build().unwrap();
        let outcome = put(NotificationConfiguration::builder().lambda_function_configurations(function).build()).await;
        assert_eq!(refusal(outcome), ("NotImplemented".to_owned(), 501));
    })
    .await;
}
