//! Permissions of a node's own broker user: everything that the agent needs, and nothing beyond `docs/security.md`.

use embedded_broker::{Permissions, TopicPermission, User};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, ErrorKind, options::*, types::FieldTable};

use contract::outcome::{Outcome, Stream};

use crate::harness::{Harness, task};

const PASSWORD: &str = "Pa55word-of-a-node";

/// The least that an agent of `pool/node` needs.
fn rights() -> Permissions {
    let topic = |exchange: &str, write: &str, read: &str| TopicPermission {
        exchange: exchange.to_owned(),
        write: write.to_owned(),
        read: read.to_owned(),
    };
    Permissions {
        configure: r"^amq\.gen-".to_owned(),
        write: r"^(piecework\.(events|beats|requests)|amq\.default|amq\.gen-.*)$".to_owned(),
        read: r"^(piecework\.pool\.pool(\.wide)?|piecework\.control|amq\.gen-.*)$".to_owned(),
        topics: vec![
            topic("piecework.events", r"^node\.pool\.node$", "^$"),
            topic("piecework.requests", "^asks$", "^$"),
            topic("piecework.control", "^$", r"^(node\.pool\.node|pool\.pool)$"),
        ],
    }
}

fn code<T>(result: lapin::Result<T>) -> u16 {
    let Err(error) = result else { return 0 };
    match error.kind() {
        ErrorKind::ProtocolError(error) => error.get_id(),
        other => panic!("not the protocol's error: {other:?}"),
    }
}

async fn channel(connection: &Connection) -> Channel {
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    channel
}

async fn publish(connection: &Connection, exchange: &str, key: &str) -> u16 {
    let channel = channel(connection).await;
    match channel.basic_publish(exchange.into(), key.into(), BasicPublishOptions::default(), b"x", BasicProperties::default()).await {
        Ok(confirm) => code(confirm.await),
        Err(error) => code::<()>(Err(error)),
    }
}

#[tokio::test]
async fn an_agent_works_by_a_user_of_its_own_which_can_do_little_else() {
    let mut harness = Harness::new(1).await;
    let users = harness.broker.as_ref().unwrap().users();
    users.put(User { name: "node".to_owned(), tags: vec![], permissions: rights() }, PASSWORD).await.unwrap();
    let url = harness.url().replacen("user:password", &format!("node:{PASSWORD}"), 1);
    harness.start_agent_at(&url);
    harness.report().await;
    harness.release(&task(1, "/bin/echo done")).await;
    let finished = harness.finished().await;
    assert_eq!((finished.outcome, finished.stdout), (Outcome::Exit { code: 0 }, Stream::Inline { bytes: b"done\n".to_vec() }));

    let node = Connection::connect(&url, ConnectionProperties::default()).await.unwrap();
    for (exchange, key) in [
        ("piecework.tasks", "pool"),
        ("piecework.invoke", "pool"),
        ("piecework.control", "node.pool.other"),
        ("piecework.dead", "pool"),
        ("piecework.events", "node.pool.other"),
        ("piecework.events", "node.other.node"),
        ("piecework.requests", "scale"),
    ] {
        assert_eq!(publish(&node, exchange, key).await, 403, "{exchange} {key}");
    }
    for queue in ["piecework.pool.other", "piecework.events.0", "piecework.asks", "piecework.beats", "piecework.dead"] {
        assert_eq!(code(channel(&node).await.basic_get(queue.into(), BasicGetOptions::default()).await), 403, "{queue}");
        assert_eq!(code(channel(&node).await.queue_purge(queue.into(), QueuePurgeOptions::default()).await), 403, "{queue}");
    }
    for queue in ["piecework.pool.pool", "mine"] {
        assert_eq!(code(channel(&node).await.queue_delete(queue.into(), QueueDeleteOptions::default()).await), 403, "{queue}");
        let options = QueueDeclareOptions { durable: true, ..Default::default() };
        assert_eq!(code(channel(&node).await.queue_declare(queue.into(), options, FieldTable::default()).await), 403, "{queue}");
    }
    let channel = node.create_channel().await.unwrap();
    let own = channel.queue_declare("".into(), QueueDeclareOptions { exclusive: true, ..Default::default() }, FieldTable::default());
    let own = own.await.unwrap().name().to_string();
    let bound = channel.queue_bind(
        own.as_str().into(),
        "piecework.control".into(),
        "node.pool.other".into(),
        QueueBindOptions::default(),
        FieldTable::default(),
    );
    assert_eq!(code(bound.await), 403, "control messages to another node");

    users.remove("node").await.unwrap();
    while node.status().connected() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(code(Connection::connect(&url, ConnectionProperties::default()).await), 403, "a revoked node does not come back");
    harness.end_agent(node_agent::Ending::Now).await.ok();
    harness.stop().await;
}
