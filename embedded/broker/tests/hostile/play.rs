//! Runs one case, with a well-behaved client beside it.

use std::time::Duration;

use embedded_broker::Broker;
use futures::StreamExt;
use lapin::{BasicProperties, Connection, ConnectionProperties, options::*, types::FieldTable};
use tokio::{sync::oneshot, task::JoinHandle, time::timeout};

use crate::{
    corpus::{Case, Expect, Phase},
    wire::{HEADER, Wire},
};

/// Time limit of one case.
const CASE_TIMEOUT: Duration = Duration::from_secs(40);

/// Brings a connection into the state in which the case begins.
pub async fn arrive(broker: &Broker, phase: Phase) -> Wire {
    match phase {
        Phase::Greeting => Wire::open(&broker.url()).await,
        Phase::Login => {
            let mut wire = Wire::open(&broker.url()).await;
            wire.greet().await;
            wire
        }
        Phase::Open => {
            let mut wire = Wire::log_in(&broker.url()).await;
            wire.channel(1).await;
            wire
        }
    }
}

/// Plays a case; returns the difference from the expected result, if any.
pub async fn play(broker: &Broker, case: &Case) -> Option<String> {
    let playing = async {
        let mut wire = arrive(broker, case.phase).await;
        wire.send(&case.bytes).await;
        let problem = match case.expect {
            Expect::Code(code) => {
                let close = wire.close().await.map(|(code, _)| code);
                (close != Some(code)).then(|| format!("{}: {close:?} instead of {code}", case.name))
            }
            Expect::Header => {
                let answer = wire.rest().await;
                (answer != HEADER).then(|| format!("{}: {answer:?} instead of the protocol's header", case.name))
            }
            Expect::Harmless => None,
        };
        // In every case the connection ends with its client.
        wire.finish().await;
        wire.rest().await;
        problem
    };
    timeout(CASE_TIMEOUT, playing).await.unwrap_or_else(|_| Some(format!("{}: the connection hangs", case.name)))
}

/// A client that publishes and consumes, with confirms and acks, until it is stopped.
pub struct Witness {
    end: oneshot::Sender<()>,
    work: JoinHandle<()>,
}

impl Witness {
    pub fn begin(url: &str) -> Witness {
        let (end, mut ended) = oneshot::channel();
        let url = url.to_owned();
        let work = tokio::spawn(async move {
            let connection = Connection::connect(&url, ConnectionProperties::default()).await.unwrap();
            let channel = connection.create_channel().await.unwrap();
            channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
            let durable = QueueDeclareOptions { durable: true, ..Default::default() };
            channel.queue_declare("witness".into(), durable, FieldTable::default()).await.unwrap();
            let mut consumer =
                channel.basic_consume("witness".into(), "w".into(), Default::default(), FieldTable::default()).await.unwrap();
            let mut count = 0_u64;
            while count == 0 || ended.try_recv().is_err() {
                let body = count.to_be_bytes();
                let persistent = BasicProperties::default().with_delivery_mode(2);
                let confirm = channel.basic_publish("".into(), "witness".into(), Default::default(), &body, persistent).await.unwrap();
                assert!(timeout(CASE_TIMEOUT, confirm).await.expect("the broker confirms").unwrap().is_ack());
                let delivery = timeout(CASE_TIMEOUT, consumer.next()).await.expect("the broker delivers").unwrap().unwrap();
                assert_eq!((delivery.data.as_slice(), delivery.redelivered), (&body[..], false));
                delivery.ack(BasicAckOptions::default()).await.unwrap();
                count += 1;
            }
            connection.close(200, "done".into()).await.unwrap();
        });
        Witness { end, work }
    }

    pub async fn end(self) {
        assert!(self.end.send(()).is_ok(), "the honest client was cut off");
        self.work.await.expect("the honest client was served throughout");
    }
}
