//! The shortest way through: connect, publish with confirm, consume, ack, stop.

use embedded_broker::{Broker, Settings};
use futures::StreamExt;
use lapin::{BasicProperties, Connection, ConnectionProperties, options::*};

#[tokio::test]
async fn a_message_goes_through_and_the_server_stops() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings::new("127.0.0.1:0".parse().unwrap(), folder.path(), "me", "p@ss/word");
    let broker = Broker::start(settings).await.unwrap();
    let connection = Connection::connect(&broker.url(), ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    let options = QueueDeclareOptions { durable: true, ..Default::default() };
    channel.queue_declare("work".into(), options, Default::default()).await.unwrap();
    for body in [&b"one"[..], b""] {
        let confirm = channel
            .basic_publish("".into(), "work".into(), Default::default(), body, BasicProperties::default().with_delivery_mode(2))
            .await
            .unwrap()
            .await
            .unwrap();
        assert!(confirm.is_ack());
    }
    let mut consumer = channel.basic_consume("work".into(), "".into(), Default::default(), Default::default()).await.unwrap();
    for body in [&b"one"[..], b""] {
        let delivery = consumer.next().await.unwrap().unwrap();
        assert_eq!(delivery.data, body);
        delivery.ack(Default::default()).await.unwrap();
    }
    connection.close(200, "".into()).await.unwrap();
    broker.stop().await;
}
