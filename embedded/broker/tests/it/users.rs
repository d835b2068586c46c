//! Users of the embedded broker beyond RabbitMQ's behaviour: immediate changes, persistence, limits.

use std::{os::unix::fs::PermissionsExt, time::Duration};

use embedded_broker::{Broker, Permissions, TopicPermission, User, UserError};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, ErrorKind, options::*, types::FieldTable};

use crate::servers::{WAIT, settings, start};

const PASSWORD: &str = "Pa55word-of-a-test";

fn user(name: &str, permissions: Permissions) -> User {
    User { name: name.to_owned(), tags: vec!["tag".to_owned()], permissions }
}

fn writes(pattern: &str) -> Permissions {
    Permissions { write: pattern.to_owned(), ..Permissions::default() }
}

async fn connect(broker: &Broker, name: &str, password: &str) -> lapin::Result<Connection> {
    let url = broker.url().replacen("guest:guest", &format!("{name}:{password}"), 1);
    Connection::connect(&url, ConnectionProperties::default()).await
}

async fn publish(channel: &Channel, exchange: &str, key: &str, properties: BasicProperties) -> lapin::Result<()> {
    channel.basic_publish(exchange.into(), key.into(), BasicPublishOptions::default(), b"x", properties).await?.await.map(drop)
}

async fn confirming(connection: &Connection) -> Channel {
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    channel
}

fn code(result: lapin::Result<()>) -> u16 {
    match result.expect_err("the broker refuses").kind() {
        ErrorKind::ProtocolError(error) => error.get_id(),
        other => panic!("not the protocol's error: {other:?}"),
    }
}

#[tokio::test]
async fn users_survive_a_restart_in_a_private_file_without_their_passwords() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path()).await;
    broker.users().put(user("a", writes("^x$")), PASSWORD).await.unwrap();
    broker.users().put(user("b", Permissions::all()), PASSWORD).await.unwrap();
    broker.users().remove("b").await.unwrap();
    broker.stop().await;

    let file = folder.path().join("users.json");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!std::fs::read_to_string(&file).unwrap().contains(PASSWORD));

    let broker = start(folder.path()).await;
    assert_eq!(broker.users().list().await.unwrap(), [user("a", writes("^x$"))]);
    connect(&broker, "a", PASSWORD).await.unwrap();
    assert_eq!(code(connect(&broker, "a", "wrong").await.map(drop)), 403);
    assert_eq!(code(connect(&broker, "b", PASSWORD).await.map(drop)), 403);
    broker.stop().await;
}

#[tokio::test]
async fn a_damaged_file_of_users_stops_the_start_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("users.json"), r#"{"v":99,"users":[]}"#).unwrap();
    let error = Broker::start(settings(folder.path())).await.err().unwrap().to_string();
    assert!(error.contains("users.json") && error.contains("99"), "{error}");
}

#[tokio::test]
async fn a_changed_permission_counts_at_the_next_operation_of_an_open_channel() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path()).await;
    broker.users().put(user("a", writes("^amq\\.fanout$")), PASSWORD).await.unwrap();
    let connection = connect(&broker, "a", PASSWORD).await.unwrap();
    let channel = confirming(&connection).await;
    publish(&channel, "amq.fanout", "k", BasicProperties::default()).await.unwrap();
    broker.users().permit("a", writes("^amq\\.direct$")).await.unwrap();
    assert_eq!(code(publish(&channel, "amq.fanout", "k", BasicProperties::default()).await), 403);
    publish(&confirming(&connection).await, "amq.direct", "k", BasicProperties::default()).await.unwrap();
    broker.stop().await;
}

#[tokio::test]
async fn another_password_closes_the_connections_of_the_old_one() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path()).await;
    broker.users().put(user("a", Permissions::all()), PASSWORD).await.unwrap();
    let connection = connect(&broker, "a", PASSWORD).await.unwrap();
    let own = connect(&broker, "guest", "guest").await.unwrap();
    broker.users().put(user("a", Permissions::all()), "another").await.unwrap();
    let closed = async {
        while connection.status().connected() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(WAIT, closed).await.expect("the connection is closed");
    assert_eq!(code(connect(&broker, "a", PASSWORD).await.map(drop)), 403);
    connect(&broker, "a", "another").await.unwrap();
    own.create_channel().await.expect("connections of others stay");
    broker.stop().await;
}

#[tokio::test]
async fn keys_are_limited_on_direct_exchanges_too_and_whatever_header_holds_them() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path()).await;
    let topics = vec![TopicPermission { exchange: "amq.direct".into(), write: "^mine$".into(), read: String::new() }];
    broker.users().put(user("a", Permissions { topics, ..Permissions::all() }), PASSWORD).await.unwrap();
    let connection = connect(&broker, "a", PASSWORD).await.unwrap();
    publish(&confirming(&connection).await, "amq.direct", "mine", BasicProperties::default()).await.unwrap();
    assert_eq!(code(publish(&confirming(&connection).await, "amq.direct", "other", BasicProperties::default()).await), 403);
    for header in ["CC", "BCC"] {
        let mut headers = FieldTable::default();
        let keys = vec![lapin::types::AMQPValue::LongString("other".into())];
        headers.insert(header.into(), lapin::types::AMQPValue::FieldArray(keys.into()));
        let properties = BasicProperties::default().with_headers(headers);
        assert_eq!(code(publish(&confirming(&connection).await, "amq.direct", "mine", properties).await), 403, "{header}");
    }
    broker.stop().await;
}

#[tokio::test]
async fn what_cannot_be_a_user_is_refused_and_nothing_changes() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path()).await;
    let users = broker.users();
    assert!(matches!(users.put(user("guest", Permissions::all()), PASSWORD).await, Err(UserError::Reserved { .. })));
    assert!(matches!(users.remove("guest").await, Err(UserError::Reserved { .. })));
    assert!(matches!(users.remove("nobody").await, Err(UserError::Unknown { .. })));
    assert!(matches!(users.permit("nobody", Permissions::all()).await, Err(UserError::Unknown { .. })));
    for name in ["", "a\nb", &"a".repeat(256)] {
        assert!(matches!(users.put(user(name, Permissions::all()), PASSWORD).await, Err(UserError::Name { .. })), "{name:?}");
    }
    for password in ["", &"a".repeat(256)] {
        assert!(matches!(users.put(user("a", Permissions::all()), password).await, Err(UserError::Password { .. })));
    }
    assert!(matches!(users.put(user("a", writes("(")), PASSWORD).await, Err(UserError::Pattern { .. })));
    assert_eq!(users.list().await.unwrap(), []);
    broker.stop().await;
    assert!(matches!(users.list().await, Err(UserError::Stopped)));
}
