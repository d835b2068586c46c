//! A program that follows a bucket: it binds a queue of its own to the exchange of the blob store's events.

use std::time::Duration;

use aws_sdk_s3::{
    primitives::ByteStream,
    types::{Event, NotificationConfiguration, TopicConfiguration},
};
use broker_config::{
    settings::{BrokerSettings, Secret},
    topology::{self, Queue, Topology},
};
use clients::amqp::{Link, Subscription};
use serde_json::Value;

use crate::stack::Stack;

const EVENT_MAX: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_bound_to_the_blob_exchange_gets_puts_and_deletes() {
    let stack = tokio::task::spawn_blocking(Stack::start).await.unwrap();
    let broker = BrokerSettings { url: Secret::new(stack.ready.broker.clone()), name: "a program that follows a bucket".to_owned() };
    let link = Link::open(broker).await.unwrap();
    let follower = Queue { name: "follower".to_owned(), arguments: vec![], bindings: vec![(topology::BLOBS, "followed".to_owned())] };
    link.declare(&Topology { exchanges: vec![], queues: vec![follower] }).await.unwrap();
    let mut consumer = link.subscribe(Subscription::plain("follower", 10)).await.unwrap();

    let s3 = stack.ready.s3.client();
    for bucket in ["followed", "other"] {
        s3.create_bucket().bucket(bucket).send().await.unwrap();
        let topic = TopicConfiguration::builder().id("all").topic_arn("arn:piecework:blobs");
        let topic = topic.events(Event::S3ObjectCreated).events(Event::S3ObjectRemoved).build().unwrap();
        let given = NotificationConfiguration::builder().topic_configurations(topic).build();
        s3.put_bucket_notification_configuration().bucket(bucket).notification_configuration(given).send().await.unwrap();
    }
    for bucket in ["other", "followed"] {
        s3.put_object().bucket(bucket).key("a file.txt").body(ByteStream::from_static(b"hello")).send().await.unwrap();
        s3.delete_object().bucket(bucket).key("a file.txt").send().await.unwrap();
    }

    let mut records = Vec::new();
    for _ in 0..2 {
        let delivery = tokio::time::timeout(EVENT_MAX, consumer.next()).await.expect("an event").expect("a consumer");
        assert_eq!((delivery.exchange.as_str(), delivery.routing_key.as_str()), ("piecework.blobs", "followed"));
        consumer.acker().ack(delivery.tag);
        let body: Value = serde_json::from_slice(&delivery.body).unwrap();
        records.push(body["Records"][0].clone());
    }
    assert_eq!(records[0]["eventName"], "ObjectCreated:Put");
    assert_eq!(records[0]["s3"]["bucket"]["name"], "followed");
    assert_eq!(records[0]["s3"]["object"]["key"], "a+file.txt");
    assert_eq!(records[0]["s3"]["object"]["size"], 5);
    assert_eq!(records[0]["s3"]["object"]["eTag"], "5d41402abc4b2a76b9719d911017c592");
    assert_eq!(records[1]["eventName"], "ObjectRemoved:Delete");
    assert!(records[1]["s3"]["object"]["sequencer"].as_str() > records[0]["s3"]["object"]["sequencer"].as_str());
    link.close().await;
    tokio::task::spawn_blocking(move || stack.stop()).await.unwrap();
}
