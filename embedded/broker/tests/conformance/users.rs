//! Users: the permission that each operation needs on each resource, and the texts of refusals.

use embedded_broker::{Permissions, TopicPermission};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, ErrorKind, ExchangeKind, options::*, types::FieldTable};

use crate::{administration::permissions, test_broker::*};

/// Three prefixes of a case: a user may configure, write and read names that begin with its own.
struct Names {
    user: String,
    configure: String,
    write: String,
    read: String,
    both: String,
    other: String,
}

/// A user with a connection, and one queue and one topic exchange for each of its rights.
async fn limited(s: &TestBroker) -> (Names, Connection, Channel) {
    let name = |short: &str| s.name(short);
    let names = Names { user: name("u"), configure: name("c"), write: name("w"), read: name("r"), both: name("b"), other: name("o") };
    let any_of = |first: &str, second: &str| format!("^({first}|{second})");
    let url =
        s.user(&names.user, &any_of(&names.configure, &names.both), &any_of(&names.write, &names.both), &format!("^{}", names.read)).await;
    let owner = s.channel().await;
    for name in [&names.write, &names.read, &names.other] {
        let options = QueueDeclareOptions { auto_delete: true, ..Default::default() };
        declare(&owner, &format!("{name}-q"), options, FieldTable::default()).await.unwrap();
        let options = ExchangeDeclareOptions { auto_delete: true, ..Default::default() };
        owner.exchange_declare(format!("{name}-x").as_str().into(), ExchangeKind::Topic, options, FieldTable::default()).await.unwrap();
    }
    (names, connect(&url).await, owner)
}

async fn connect(url: &str) -> Connection {
    Connection::connect(url, ConnectionProperties::default()).await.unwrap()
}

/// Removes what a case has left.
async fn clear(s: &TestBroker, names: &Names, owner: &Channel) {
    for name in [&names.write, &names.read, &names.other, &names.configure, &names.both] {
        owner.queue_delete(format!("{name}-q").as_str().into(), QueueDeleteOptions::default()).await.unwrap();
        owner.exchange_delete(format!("{name}-x").as_str().into(), ExchangeDeleteOptions::default()).await.unwrap();
    }
    s.remove_user(&names.user).await;
}

/// The code and text of a refusal.
fn refusal<T: std::fmt::Debug>(result: lapin::Result<T>) -> (u16, String) {
    match result.expect_err("the broker refuses").kind() {
        ErrorKind::ProtocolError(error) => (error.get_id(), error.get_message().to_string()),
        other => panic!("not the protocol's error: {other:?}"),
    }
}

/// Asserts RabbitMQ's refusal of a resource to a user; newer ones say first which right was missing.
fn assert_refused<T: std::fmt::Debug>(result: lapin::Result<T>, resource: &str, user: &str) {
    let (code, text) = refusal(result);
    assert_eq!(code, 403, "{text}");
    let wanted = format!("access to {resource} in vhost '/' refused for user '{user}'");
    assert!(text.starts_with("ACCESS_REFUSED - ") && text.ends_with(&wanted), "{text}, but wanted {wanted}");
}

async fn publish_as(connection: &Connection, exchange: &str, key: &str, properties: BasicProperties) -> lapin::Result<()> {
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    channel.basic_publish(exchange.into(), key.into(), BasicPublishOptions::default(), b"x", properties).await?.await.map(drop)
}

async fn bind_as(connection: &Connection, queue: &str, exchange: &str, key: &str) -> lapin::Result<()> {
    let channel = connection.create_channel().await.unwrap();
    channel.queue_bind(queue.into(), exchange.into(), key.into(), QueueBindOptions::default(), FieldTable::default()).await
}

#[tokio::test]
async fn declaring_and_deleting_need_configure() {
    with_broker(async |s| {
        let (names, user, owner) = limited(s).await;
        let channel = async || user.create_channel().await.unwrap();
        let (own, other) = (format!("{}-q", names.configure), format!("{}-q", names.other));
        let (own_x, other_x) = (format!("{}-x", names.configure), format!("{}-x", names.other));
        let refused = |result, kind: &str, name: &str| assert_refused::<()>(result, &format!("{kind} '{name}'"), &names.user);
        let auto = QueueDeclareOptions { auto_delete: true, ..Default::default() };
        let none = FieldTable::default;

        declare(&channel().await, &own, auto, none()).await.unwrap();
        refused(declare(&channel().await, &other, auto, none()).await.map(drop), "queue", &other);
        let passive = QueueDeclareOptions { passive: true, ..Default::default() };
        declare(&channel().await, &other, passive, none()).await.unwrap();
        let result = channel().await.queue_delete(other.as_str().into(), QueueDeleteOptions::default()).await;
        refused(result.map(drop), "queue", &other);
        // Whoever may not use a name does not learn whether something has it.
        let missing = s.name("o-missing");
        let result = channel().await.queue_delete(missing.as_str().into(), QueueDeleteOptions::default()).await;
        refused(result.map(drop), "queue", &missing);
        channel().await.queue_delete(own.as_str().into(), QueueDeleteOptions::default()).await.unwrap();

        let options = ExchangeDeclareOptions { auto_delete: true, ..Default::default() };
        channel().await.exchange_declare(own_x.as_str().into(), ExchangeKind::Fanout, options, none()).await.unwrap();
        refused(
            channel().await.exchange_declare(other_x.as_str().into(), ExchangeKind::Topic, options, none()).await,
            "exchange",
            &other_x,
        );
        let passive = ExchangeDeclareOptions { passive: true, ..Default::default() };
        channel().await.exchange_declare(other_x.as_str().into(), ExchangeKind::Topic, passive, none()).await.unwrap();
        refused(channel().await.exchange_delete(other_x.as_str().into(), ExchangeDeleteOptions::default()).await, "exchange", &other_x);
        clear(s, &names, &owner).await;
    })
    .await;
}

#[tokio::test]
async fn a_server_named_queue_needs_configure_for_its_generated_name() {
    with_broker(async |s| {
        let (names, user, owner) = limited(s).await;
        let exclusive = QueueDeclareOptions { exclusive: true, ..Default::default() };
        let (code, text) = refusal(declare(&user.create_channel().await.unwrap(), "", exclusive, FieldTable::default()).await.map(drop));
        assert!(code == 403 && text.contains("queue 'amq.gen-"), "{code} {text}");
        s.permit(&names.user, permissions(r"^amq\.gen-", "", "")).await;
        let user = connect(&s.url_of(&names.user, crate::administration::PASSWORD)).await;
        declare(&user.create_channel().await.unwrap(), "", exclusive, FieldTable::default()).await.unwrap();
        clear(s, &names, &owner).await;
    })
    .await;
}

#[tokio::test]
async fn a_dead_letter_exchange_needs_read_on_the_queue_and_write_on_the_exchange() {
    with_broker(async |s| {
        let (names, user, owner) = limited(s).await;
        let (queue, target) = (format!("{}-q", names.configure), format!("{}-x", names.write));
        let auto = QueueDeclareOptions { auto_delete: true, ..Default::default() };
        let arguments = |exchange: &str| table([("x-dead-letter-exchange", text(exchange))]);
        let result = declare(&user.create_channel().await.unwrap(), &queue, auto, arguments(&target)).await;
        assert_refused(result.map(drop), &format!("queue '{queue}'"), &names.user);
        s.permit(&names.user, permissions(&names.configure, &format!("^{}", names.write), &names.configure)).await;
        let user = connect(&s.url_of(&names.user, crate::administration::PASSWORD)).await;
        let foreign = format!("{}-x", names.other);
        let result = declare(&user.create_channel().await.unwrap(), &queue, auto, arguments(&foreign)).await;
        assert_refused(result.map(drop), &format!("exchange '{foreign}'"), &names.user);
        declare(&user.create_channel().await.unwrap(), &queue, auto, arguments(&target)).await.unwrap();
        clear(s, &names, &owner).await;
    })
    .await;
}

#[tokio::test]
async fn an_alternate_exchange_needs_read_on_the_exchange_and_write_on_the_alternate() {
    with_broker(async |s| {
        let (names, user, owner) = limited(s).await;
        let (exchange, target) = (format!("{}-x", names.configure), format!("{}-x", names.write));
        let options = ExchangeDeclareOptions { auto_delete: true, ..Default::default() };
        let declare = async |user: &Connection, alternate: &str| {
            let arguments = table([("alternate-exchange", text(alternate))]);
            let channel = user.create_channel().await.unwrap();
            channel.exchange_declare(exchange.as_str().into(), ExchangeKind::Fanout, options, arguments).await
        };
        assert_refused(declare(&user, &target).await, &format!("exchange '{exchange}'"), &names.user);
        s.permit(&names.user, permissions(&names.configure, &format!("^{}", names.write), &names.configure)).await;
        let user = connect(&s.url_of(&names.user, crate::administration::PASSWORD)).await;
        let foreign = format!("{}-x", names.other);
        assert_refused(declare(&user, &foreign).await, &format!("exchange '{foreign}'"), &names.user);
        declare(&user, &target).await.unwrap();
        clear(s, &names, &owner).await;
    })
    .await;
}

#[tokio::test]
async fn consuming_getting_and_purging_need_read() {
    with_broker(async |s| {
        let (names, user, owner) = limited(s).await;
        let channel = async || user.create_channel().await.unwrap();
        let (own, missing) = (format!("{}-q", names.read), s.name("o-missing"));
        for other in [format!("{}-q", names.other), format!("{}-q", names.write), missing] {
            let refused = |result| assert_refused::<()>(result, &format!("queue '{other}'"), &names.user);
            let options = BasicConsumeOptions::default();
            let consumed = channel().await.basic_consume(other.as_str().into(), "".into(), options, FieldTable::default()).await;
            refused(consumed.map(drop));
            refused(channel().await.basic_get(other.as_str().into(), BasicGetOptions::default()).await.map(drop));
            refused(channel().await.queue_purge(other.as_str().into(), QueuePurgeOptions::default()).await.map(drop));
        }
        // A user who may read a queue may also empty it.
        publish(&owner, "", &own, "lost").await;
        assert_eq!(channel().await.queue_purge(own.as_str().into(), QueuePurgeOptions::default()).await.unwrap(), 1);
        assert!(channel().await.basic_get(own.as_str().into(), BasicGetOptions::default()).await.unwrap().is_none());
        clear(s, &names, &owner).await;
    })
    .await;
}

#[tokio::test]
async fn publishing_needs_write_and_the_default_exchange_has_a_name() {
    with_broker(async |s| {
        let (names, user, owner) = limited(s).await;
        for exchange in [format!("{}-x", names.other), format!("{}-x", names.read), s.name("o-missing")] {
            let result = publish_as(&user, &exchange, "k", BasicProperties::default()).await;
            assert_refused(result, &format!("exchange '{exchange}'"), &names.user);
        }
        publish_as(&user, &format!("{}-x", names.write), "k", BasicProperties::default()).await.unwrap();
        let queue = format!("{}-q", names.write);
        let result = publish_as(&user, "", &queue, BasicProperties::default()).await;
        assert_refused(result, "exchange 'amq.default'", &names.user);
        s.permit(&names.user, permissions("", r"^amq\.default$", "")).await;
        let user = connect(&s.url_of(&names.user, crate::administration::PASSWORD)).await;
        publish_as(&user, "", &queue, BasicProperties::default()).await.unwrap();
        clear(s, &names, &owner).await;
    })
    .await;
}

#[tokio::test]
async fn a_binding_needs_write_on_its_end_and_read_on_its_source() {
    with_broker(async |s| {
        let (names, user, owner) = limited(s).await;
        let (write_q, read_q) = (format!("{}-q", names.write), format!("{}-q", names.read));
        let (write_x, read_x) = (format!("{}-x", names.write), format!("{}-x", names.read));
        assert_refused(bind_as(&user, &read_q, &read_x, "k").await, &format!("queue '{read_q}'"), &names.user);
        assert_refused(bind_as(&user, &write_q, &write_x, "k").await, &format!("exchange '{write_x}'"), &names.user);
        bind_as(&user, &write_q, &read_x, "k").await.unwrap();
        let channel = user.create_channel().await.unwrap();
        let result = channel.queue_unbind(write_q.as_str().into(), write_x.as_str().into(), "k".into(), FieldTable::default()).await;
        assert_refused(result, &format!("exchange '{write_x}'"), &names.user);
        let bind = async |to: &str, from: &str| {
            let channel = user.create_channel().await.unwrap();
            channel.exchange_bind(to.into(), from.into(), "k".into(), ExchangeBindOptions::default(), FieldTable::default()).await
        };
        assert_refused(bind(&read_x, &read_x).await, &format!("exchange '{read_x}'"), &names.user);
        assert_refused(bind(&write_x, &write_x).await, &format!("exchange '{write_x}'"), &names.user);
        bind(&write_x, &read_x).await.unwrap();
        clear(s, &names, &owner).await;
    })
    .await;
}

#[tokio::test]
async fn a_forged_user_id_is_406_and_the_own_one_is_delivered() {
    with_broker(async |s| {
        let (names, user, owner) = limited(s).await;
        let (queue, exchange) = (format!("{}-q", names.write), format!("{}-x", names.write));
        bind(&owner, &queue, &exchange, "k").await;
        let forged = BasicProperties::default().with_user_id("guest".into());
        let (code, text) = refusal(publish_as(&user, &exchange, "k", forged).await);
        let wanted = format!("PRECONDITION_FAILED - user_id property set to 'guest' but authenticated user was '{}'", names.user);
        assert_eq!((code, text), (406, wanted));
        publish_as(&user, &exchange, "k", BasicProperties::default().with_user_id(names.user.as_str().into())).await.unwrap();
        let delivered = take(&owner, &queue).await.unwrap();
        assert_eq!(delivered.properties.user_id().as_ref().unwrap().as_str(), names.user);
        clear(s, &names, &owner).await;
    })
    .await;
}

#[tokio::test]
async fn topic_permissions_limit_the_keys_of_publishes_and_bindings() {
    with_broker(async |s| {
        let (names, _user, owner) = limited(s).await;
        let exchange = format!("{}-x", names.both);
        let options = ExchangeDeclareOptions { auto_delete: true, ..Default::default() };
        owner.exchange_declare(exchange.as_str().into(), ExchangeKind::Topic, options, FieldTable::default()).await.unwrap();
        let topic = TopicPermission { exchange: exchange.clone(), write: r"^node-1\..*".into(), read: r"^{username}\.".into() };
        s.permit(&names.user, Permissions { topics: vec![topic], ..Permissions::all() }).await;
        let user = connect(&s.url_of(&names.user, crate::administration::PASSWORD)).await;
        publish_as(&user, &exchange, "node-1.x", BasicProperties::default()).await.unwrap();
        let refused = publish_as(&user, &exchange, "node-2.x", BasicProperties::default()).await;
        assert_refused(refused, &format!("topic 'node-2.x' in exchange '{exchange}'"), &names.user);
        let queue = format!("{}-q", names.write);
        bind_as(&user, &queue, &exchange, &format!("{}.k", names.user)).await.unwrap();
        let refused = bind_as(&user, &queue, &exchange, "node-1.x").await;
        assert_refused(refused, &format!("topic 'node-1.x' in exchange '{exchange}'"), &names.user);
        // Other exchanges have no limit.
        publish_as(&user, &format!("{}-x", names.write), "node-2.x", BasicProperties::default()).await.unwrap();
        clear(s, &names, &owner).await;
    })
    .await;
}

#[tokio::test]
async fn patterns_are_found_anywhere_in_a_name_unless_anchored() {
    with_broker(async |s| {
        let (names, _user, owner) = limited(s).await;
        let exchange = format!("{}-x", names.write);
        s.permit(&names.user, permissions("", &names.write[1..], "")).await;
        let url = s.url_of(&names.user, crate::administration::PASSWORD);
        publish_as(&connect(&url).await, &exchange, "k", BasicProperties::default()).await.unwrap();
        s.permit(&names.user, permissions("", &format!("^{}$", names.write), "")).await;
        let result = publish_as(&connect(&url).await, &exchange, "k", BasicProperties::default()).await;
        assert_refused(result, &format!("exchange '{exchange}'"), &names.user);
        clear(s, &names, &owner).await;
    })
    .await;
}

#[tokio::test]
async fn direct_replies_need_no_right_to_receive_and_the_default_exchange_to_send() {
    with_broker(async |s| {
        let (names, user, owner) = limited(s).await;
        let channel = user.create_channel().await.unwrap();
        let options = BasicConsumeOptions { no_ack: true, ..Default::default() };
        let mut replies = consume_with(&channel, "amq.rabbitmq.reply-to", "", options, FieldTable::default()).await;
        let (queue, exchange) = (format!("{}-q", names.write), format!("{}-x", names.write));
        bind(&owner, &queue, &exchange, "k").await;
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        publish_with(&channel, &exchange, "k", "?", BasicProperties::default().with_reply_to("amq.rabbitmq.reply-to".into())).await;
        let address = take(&owner, &queue).await.unwrap().properties.reply_to().clone().unwrap();
        let result = publish_as(&user, "", address.as_str(), BasicProperties::default()).await;
        assert_refused(result, "exchange 'amq.default'", &names.user);
        publish(&owner, "", address.as_str(), "!").await;
        assert_eq!(next(&mut replies).await.data, b"!");
        clear(s, &names, &owner).await;
    })
    .await;
}

#[tokio::test]
async fn removing_a_user_closes_its_connections_and_ends_its_logins() {
    with_broker(async |s| {
        let (names, user, owner) = limited(s).await;
        let channel = user.create_channel().await.unwrap();
        let queue = format!("{}-q", names.read);
        publish(&owner, "", &queue, "held").await;
        get(&channel, &queue).await;
        s.remove_user(&names.user).await;
        // The held message comes back, so the connection is closed.
        assert_eq!(await_message(&owner, &queue).await.data, b"held");
        let closed = async {
            while user.status().connected() {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        closed.await;
        assert!(channel.basic_get(queue.as_str().into(), BasicGetOptions::default()).await.is_err());
        let url = s.url_of(&names.user, crate::administration::PASSWORD);
        let login = Connection::connect(&url, ConnectionProperties::default()).await;
        assert_eq!(code(login.map(drop)), 403);
        s.user(&names.user, "", "", "").await;
        clear(s, &names, &owner).await;
    })
    .await;
}
