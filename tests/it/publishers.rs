//! `piecework publisher`: permissions that its printed URL has, and those that it lacks.

use std::{process::Command, time::Duration};

use futures::StreamExt;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, ErrorKind, options::*, types::FieldTable};
use serde_json::Value;

use crate::{
    rest::Rest,
    stack::{Stack, text},
};

const CLOSED_MAX: Duration = Duration::from_secs(30);
const ANSWER_MAX: Duration = Duration::from_secs(60);

fn told(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let (out, err) = text(&output);
    assert!(output.status.success(), "{out}\n{err}");
    out
}

/// Runs a command of a stack beside the runtime; its JSON.
async fn json(stack: &Stack, arguments: &[&str]) -> Value {
    let mut command = stack.command();
    command.args(arguments).arg("--json");
    let out = tokio::task::spawn_blocking(move || told(&mut command)).await.unwrap();
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
}

/// The reply code of a refusal, 0 when there was none.
fn code<T>(result: lapin::Result<T>) -> u16 {
    let Err(error) = result else { return 0 };
    match error.kind() {
        ErrorKind::ProtocolError(error) => error.get_id(),
        other => panic!("not the protocol's error: {other:?}"),
    }
}

struct Publisher(Connection);

impl Publisher {
    async fn channel(&self) -> Channel {
        let channel = self.0.create_channel().await.unwrap();
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        channel
    }

    async fn publish(&self, exchange: &str, key: &str, properties: BasicProperties) -> u16 {
        let channel = self.channel().await;
        let sent = channel.basic_publish(exchange.into(), key.into(), BasicPublishOptions::default(), b"{}", properties).await;
        match sent {
            Ok(confirm) => code(confirm.await),
            Err(error) => code::<()>(Err(error)),
        }
    }

    async fn declare(&self, queue: &str) -> u16 {
        let options = QueueDeclareOptions { exclusive: true, ..Default::default() };
        code(self.channel().await.queue_declare(queue.into(), options, FieldTable::default()).await)
    }

    /// The body of the next message of a queue.
    async fn next(&self, queue: &str) -> String {
        let channel = self.channel().await;
        let options = BasicConsumeOptions { no_ack: true, ..Default::default() };
        let mut consumer = channel.basic_consume(queue.into(), "".into(), options, FieldTable::default()).await.unwrap();
        let next = tokio::time::timeout(ANSWER_MAX, consumer.next()).await.expect("an answer comes").unwrap().unwrap();
        String::from_utf8(next.data.clone()).unwrap()
    }

    async fn get(&self, queue: &str) -> u16 {
        code(self.channel().await.basic_get(queue.into(), BasicGetOptions::default()).await)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_reaches_its_pool_and_its_answers_and_nothing_else_until_it_is_removed() {
    // Users are not bound to a virtual host, so stacks on one broker need different names.
    let name = format!("web-{}", std::process::id());
    let stack = tokio::task::spawn_blocking(|| {
        let stack = Stack::start();
        let rest = Rest::new(&stack.ready);
        rest.add_pool("Mine", 0, 1);
        rest.add_pool("other", 0, 1);
        stack
    });
    let stack = stack.await.unwrap();
    let added = json(&stack, &["publisher", "add", &name, "--pool", "mine", "--submit", "--invoke", "f"]).await;
    let url = added["url"].as_str().unwrap();
    let publisher = Publisher(Connection::connect(url, ConnectionProperties::default()).await.unwrap());
    let plain = BasicProperties::default;

    // What it is for.
    assert_eq!(publisher.publish("piecework.invoke", "mine", plain()).await, 0);
    assert_eq!(publisher.publish("piecework.invoke", "mine", plain().with_user_id(name.as_str().into())).await, 0);
    assert_eq!(publisher.publish("piecework.submit", "mine", plain()).await, 0);
    let own = format!("piecework.answers.{name}.own");
    assert_eq!(publisher.declare(&own).await, 0);
    assert_eq!(publisher.publish("piecework.submit", "mine", plain().with_reply_to(own.as_str().into())).await, 0);
    let refused = publisher.next(&own).await;
    assert!(refused.contains("commandLine"), "an empty submission is answered: {refused}");
    assert_eq!(publisher.declare(&format!("piecework.answers.{name}.a")).await, 0);
    assert_eq!(publisher.get(&format!("piecework.answers.{name}.a")).await, 0);
    let options = BasicConsumeOptions { no_ack: true, ..Default::default() };
    let replies = publisher.channel().await;
    replies.basic_consume("amq.rabbitmq.reply-to".into(), "".into(), options, FieldTable::default()).await.unwrap();

    // Everything else.
    for exchange in
        ["", "piecework.tasks", "piecework.events", "piecework.beats", "piecework.control", "piecework.requests", "piecework.dead"]
    {
        for key in ["mine", "piecework.pool.mine", "node.mine.n"] {
            assert_eq!(publisher.publish(exchange, key, plain()).await, 403, "{exchange:?} {key}");
        }
    }
    assert_eq!(publisher.publish("piecework.invoke", "mine", plain().with_user_id("guest".into())).await, 406);
    for queue in ["piecework.pool.mine", "piecework.events.0", "piecework.asks", "piecework.dead", "piecework.answers.other.a"] {
        assert_eq!(publisher.get(queue).await, 403, "{queue}");
        assert_eq!(publisher.declare(queue).await, 403, "{queue}");
        assert_eq!(code(publisher.channel().await.queue_purge(queue.into(), QueuePurgeOptions::default()).await), 403, "{queue}");
        assert_eq!(code(publisher.channel().await.queue_delete(queue.into(), QueueDeleteOptions::default()).await), 403, "{queue}");
    }
    assert_eq!(publisher.declare("").await, 403, "server-named queues");
    for exchange in ["piecework.control", "piecework.events", "piecework.invoke"] {
        let queue = format!("piecework.answers.{name}.a");
        let channel = publisher.channel().await;
        let bound =
            channel.queue_bind(queue.as_str().into(), exchange.into(), "#".into(), QueueBindOptions::default(), FieldTable::default());
        assert_eq!(code(bound.await), 403, "{exchange}");
    }
    // RabbitMQ limits keys of topic exchanges only.
    if std::env::var_os("PIECEWORK_TEST_AMQP_URL").is_none() {
        assert_eq!(publisher.publish("piecework.invoke", "other", plain()).await, 403);
        assert_ne!(publisher.publish("piecework.submit", "other", plain()).await, 0);
    }

    let listed = json(&stack, &["publisher", "list"]).await;
    let listed = listed.as_array().unwrap().iter().find(|publisher| publisher["name"] == *name).expect("a listed publisher").clone();
    assert_eq!((&listed["poolId"], &listed["submit"], &listed["functions"][0]), (&"Mine".into(), &true.into(), &"f".into()));
    assert_eq!(listed.get("url"), None, "a password is shown once");
    let again = stack.command().args(["publisher", "add", &name, "--pool", "mine", "--submit"]).output().unwrap();
    assert!(!again.status.success() && text(&again).1.contains("already"), "{:?}", text(&again));

    json(&stack, &["publisher", "remove", &name]).await;
    let closed = async {
        while publisher.0.status().connected() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(CLOSED_MAX, closed).await.expect("a removed publisher's connection is closed");
    assert_eq!(code(Connection::connect(url, ConnectionProperties::default()).await), 403);
    tokio::task::spawn_blocking(move || stack.stop()).await.unwrap();
}

#[test]
fn users_of_the_broker_that_are_no_publishers_stay() {
    let stack = Stack::start();
    for name in ["piecework", "guest", "nobody"] {
        let refused = stack.command().args(["publisher", "remove", name]).output().unwrap();
        assert!(!refused.status.success() && text(&refused).1.contains("no such publisher"), "{name}: {:?}", text(&refused));
    }
}
