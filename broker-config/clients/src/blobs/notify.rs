//! Turns on the events of a bucket.

use aws_sdk_s3::types::{Event, NotificationConfiguration, TopicConfiguration};

use super::{client::Blobs, error::BlobError, measured::measured};

/// The name of our entry among a bucket's notifications.
const ENTRY: &str = "piecework-triggers";
/// Where our own store's events go; other stores refuse it.
const TARGET: &str = "arn:piecework:blobs";

impl Blobs {
    /// Lets a bucket of our own store send an event for every object that is created, and keeps what else is configured.
    pub async fn notify(&self, bucket: &str) -> Result<(), BlobError> {
        let asked = self.client().get_bucket_notification_configuration().bucket(bucket);
        let found = measured("GetBucketNotification", asked.send()).await.map_err(|error| self.at(bucket, "").failure(error))?;
        let mut topics = found.topic_configurations.unwrap_or_default();
        if topics.iter().any(|topic| topic.id() == Some(ENTRY)) {
            return Ok(());
        }
        let topic = TopicConfiguration::builder().id(ENTRY).topic_arn(TARGET).events(Event::S3ObjectCreated);
        topics.push(topic.build().expect("a topic needs its target and events alone"));
        let configuration = NotificationConfiguration::builder()
            .set_topic_configurations(Some(topics))
            .set_queue_configurations(found.queue_configurations)
            .set_lambda_function_configurations(found.lambda_function_configurations)
            .build();
        let asked = self.client().put_bucket_notification_configuration().bucket(bucket).notification_configuration(configuration);
        measured("PutBucketNotification", asked.send()).await.map_err(|error| self.at(bucket, "").failure(error))?;
        Ok(())
    }
}
