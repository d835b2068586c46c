//! Notification configuration of buckets: put and get. Any topic or queue may be named; all events are passed to the owner's callback.
//! Called by the S3 trait; the matching is in the crate's `notifications.rs`.

use s3s::dto::*;
use s3s::{S3Request, S3Response, S3Result, s3_error};

use super::Service;
use super::refuse::unsupported;
use crate::configurations::{self, Kind};
use crate::files::fresh_id;
use crate::notifications::{Notifications, Target};
use crate::objects::bucket_id;

const TARGETS_MAX: usize = 100;
/// The supported events, with the patterns for all events of a kind.
const EVENTS: [&str; 8] = [
    "s3:ObjectCreated:*",
    "s3:ObjectCreated:Put",
    "s3:ObjectCreated:Copy",
    "s3:ObjectCreated:CompleteMultipartUpload",
    "s3:ObjectRemoved:*",
    "s3:ObjectRemoved:Delete",
    "s3:LifecycleExpiration:*",
    "s3:LifecycleExpiration:Delete",
];

impl Service {
    pub(super) async fn set_notifications(
        &self,
        request: S3Request<PutBucketNotificationConfigurationInput>,
    ) -> S3Result<S3Response<PutBucketNotificationConfigurationOutput>> {
        let given = request.input.notification_configuration;
        unsupported(given.event_bridge_configuration.is_some(), "Notifying an event bus")?;
        unsupported(given.lambda_function_configurations.is_some_and(|list| !list.is_empty()), "Notifying a function")?;
        let topics = given.topic_configurations.unwrap_or_default().into_iter();
        let queues = given.queue_configurations.unwrap_or_default().into_iter();
        let targets: S3Result<Vec<_>> = topics
            .map(|topic| target(topic.id, topic.topic_arn, true, topic.events, topic.filter))
            .chain(queues.map(|queue| target(queue.id, queue.queue_arn, false, queue.events, queue.filter)))
            .collect();
        let notifications = Notifications { targets: targets? };
        if notifications.targets.len() > TARGETS_MAX {
            return Err(s3_error!(InvalidArgument, "A bucket has at most {TARGETS_MAX} notification configurations."));
        }
        let name = request.input.bucket;
        self.writer
            .run(move |connection, _| {
                let bucket = bucket_id(connection, &name)?;
                if notifications.targets.is_empty() {
                    return configurations::remove(connection, bucket, Kind::Notifications);
                }
                configurations::write(connection, bucket, Kind::Notifications, &notifications)
            })
            .await?;
        Ok(S3Response::new(PutBucketNotificationConfigurationOutput::default()))
    }

    pub(super) async fn notifications(
        &self,
        request: S3Request<GetBucketNotificationConfigurationInput>,
    ) -> S3Result<S3Response<GetBucketNotificationConfigurationOutput>> {
        let name = request.input.bucket;
        let found = self
            .readers
            .run(move |connection| {
                let bucket = bucket_id(connection, &name)?;
                configurations::read::<Notifications>(connection, bucket, Kind::Notifications)
            })
            .await?;
        let (topics, queues): (Vec<_>, Vec<_>) = found.unwrap_or_default().targets.into_iter().partition(|target| target.is_topic);
        let topics: Vec<_> = topics
            .into_iter()
            .map(|target| TopicConfiguration {
                filter: filter(&target),
                events: target.events.into_iter().map(Event::from).collect(),
                id: Some(target.id),
                topic_arn: target.arn,
            })
            .collect();
        let queues: Vec<_> = queues
            .into_iter()
            .map(|target| QueueConfiguration {
                filter: filter(&target),
                events: target.events.into_iter().map(Event::from).collect(),
                id: Some(target.id),
                queue_arn: target.arn,
            })
            .collect();
        Ok(S3Response::new(GetBucketNotificationConfigurationOutput {
            topic_configurations: (!topics.is_empty()).then_some(topics),
            queue_configurations: (!queues.is_empty()).then_some(queues),
            ..Default::default()
        }))
    }
}

fn target(
    id: Option<String>,
    arn: String,
    is_topic: bool,
    events: Vec<Event>,
    filter: Option<NotificationConfigurationFilter>,
) -> S3Result<Target> {
    let events: Vec<String> = events.into_iter().map(|event| event.as_ref().to_owned()).collect();
    if let Some(unknown) = events.iter().find(|event| !EVENTS.contains(&event.as_str())) {
        return Err(s3_error!(InvalidArgument, "The event {unknown} is not supported for notifications."));
    }
    if events.is_empty() || arn.is_empty() {
        return Err(s3_error!(MalformedXML, "A notification configuration names a target and at least one event."));
    }
    let (mut prefix, mut suffix) = (None, None);
    for rule in filter.and_then(|filter| filter.key).and_then(|key| key.filter_rules).unwrap_or_default() {
        let name = rule.name.as_ref().map(FilterRuleName::as_str).unwrap_or_default();
        let place = match name.to_ascii_lowercase().as_str() {
            "prefix" => &mut prefix,
            "suffix" => &mut suffix,
            _ => return Err(s3_error!(InvalidArgument, "filter rule name must be either prefix or suffix")),
        };
        if place.replace(rule.value.unwrap_or_default()).is_some() {
            return Err(s3_error!(InvalidArgument, "Cannot specify more than one {name} rule in a filter."));
        }
    }
    Ok(Target { id: id.filter(|id| !id.is_empty()).unwrap_or_else(fresh_id), arn, is_topic, events, prefix, suffix })
}

fn filter(target: &Target) -> Option<NotificationConfigurationFilter> {
    let rule = |name, value: &Option<String>| {
        value.clone().map(|value| FilterRule { name: Some(FilterRuleName::from_static(name)), value: Some(value) })
    };
    let rules: Vec<_> = [rule("Prefix", &target.prefix), rule("Suffix", &target.suffix)].into_iter().flatten().collect();
    (!rules.is_empty()).then_some(NotificationConfigurationFilter { key: Some(S3KeyFilter { filter_rules: Some(rules) }) })
}
