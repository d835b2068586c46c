//! Properties and headers travel untouched; the headers CC and BCC route.

use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldArray, FieldTable},
};

use crate::test_broker::*;

#[tokio::test]
async fn every_property_arrives_as_it_was_sent() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let name = s.queue(&channel, "q", FieldTable::default()).await;
        let headers = table([
            ("text", text("value")),
            ("number", int(-7)),
            ("yes", AMQPValue::Boolean(true)),
            ("nothing", AMQPValue::Void),
            ("inner", AMQPValue::FieldTable(table([("deep", AMQPValue::Double(1.5))]))),
            ("list", AMQPValue::FieldArray(FieldArray::from(vec![int(1), text("two")]))),
        ]);
        let properties = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_content_encoding("utf-8".into())
            .with_headers(headers)
            .with_delivery_mode(1)
            .with_priority(3)
            .with_correlation_id("correlation".into())
            .with_reply_to("reply".into())
            .with_expiration("60000".into())
            .with_message_id("message".into())
            .with_timestamp(1_700_000_000)
            .with_type("kind".into())
            .with_user_id("guest".into())
            .with_app_id("app".into());
        publish_with(&channel, "", &name, "x", properties.clone()).await;
        assert_eq!(take(&channel, &name).await.unwrap().properties, properties);
    })
    .await;
}

#[tokio::test]
async fn further_keys_stand_in_cc_and_bcc() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let (main, cc, bcc) = (
            s.queue(&channel, "main", FieldTable::default()).await,
            s.queue(&channel, "cc", FieldTable::default()).await,
            s.queue(&channel, "bcc", FieldTable::default()).await,
        );
        let keys = |key: &str| AMQPValue::FieldArray(FieldArray::from(vec![text(key)]));
        let properties = BasicProperties::default().with_headers(table([("CC", keys(&cc)), ("BCC", keys(&bcc))]));
        publish_with(&channel, "", &main, "x", properties).await;
        for queue in [&main, &cc, &bcc] {
            let message = take(&channel, queue).await.unwrap();
            assert!(header(&message.properties, "CC").is_some());
            assert!(header(&message.properties, "BCC").is_none());
        }
    })
    .await;
}
