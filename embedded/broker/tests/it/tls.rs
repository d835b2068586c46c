//! AMQPS: a third-party client over TLS, and clients that break the handshake.

use std::time::Duration;

use embedded_broker::{Broker, Error, Settings, Tls};
use futures::StreamExt;
use lapin::{Connection, ConnectionProperties, options::*, tcp::OwnedTLSConfig, types::FieldTable};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::{hostile::Raw, servers::*};

/// Larger than any buffer between client and server.
const LARGE_BYTES: usize = 5 << 20;

/// A certificate authority of its own, and a certificate that it signed.
struct Site {
    authority: String,
    chain: String,
    key: String,
}

fn site() -> Site {
    let mut authority = CertificateParams::new(vec![]).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    Site { authority: authority.pem(), chain: leaf.pem(), key: key.serialize_pem() }
}

async fn secured(folder: &std::path::Path, site: &Site) -> Broker {
    let tls = Tls::from_pem(site.chain.as_bytes(), site.key.as_bytes()).unwrap();
    Broker::start(Settings { tls: Some(tls), handshake_timeout: Duration::from_secs(1), ..settings(folder) }).await.unwrap()
}

async fn connect(url: &str, authority: &str) -> lapin::Result<Connection> {
    let config = OwnedTLSConfig { identity: None, cert_chain: Some(authority.to_owned()) };
    let runtime = lapin::runtime::default_runtime()?;
    tokio::time::timeout(WAIT, Connection::connect_with_config(url, ConnectionProperties::default(), config, runtime)).await.unwrap()
}

#[tokio::test]
async fn messages_small_and_large_pass_over_tls_and_the_end_is_clean() {
    let (folder, site) = (tempfile::tempdir().unwrap(), site());
    let broker = secured(folder.path(), &site).await;
    assert!(broker.url().starts_with("amqps://"), "{}", broker.url());
    let connection = connect(&broker.url(), &site.authority).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    durable_queue(&channel, "q", FieldTable::default()).await;
    let large: Vec<u8> = (0..LARGE_BYTES).map(|n| (n % 251) as u8).collect();
    for n in 0..200 {
        assert!(publish(&channel, "", "q", format!("small {n}").as_bytes(), 2).await.is_ack());
    }
    assert!(publish(&channel, "", "q", &large, 2).await.is_ack());
    let mut consumer = channel.basic_consume("q".into(), "c".into(), BasicConsumeOptions::default(), FieldTable::default()).await.unwrap();
    for n in 0..201 {
        let delivery = tokio::time::timeout(WAIT, consumer.next()).await.unwrap().unwrap().unwrap();
        assert!(delivery.data == if n < 200 { format!("small {n}").into_bytes() } else { large.clone() }, "message {n}");
        delivery.ack(BasicAckOptions::default()).await.unwrap();
    }
    connection.close(200, "bye".into()).await.unwrap();
    broker.stop().await;
}

#[tokio::test]
async fn a_client_of_another_authority_stays_outside_and_others_go_on() {
    let (folder, ours, foreign) = (tempfile::tempdir().unwrap(), site(), site());
    let broker = secured(folder.path(), &ours).await;
    assert!(connect(&broker.url(), &foreign.authority).await.is_err());
    let connection = connect(&broker.url(), &ours.authority).await.unwrap();
    connection.close(200, "bye".into()).await.unwrap();
    broker.stop().await;
}

#[tokio::test]
async fn plain_bytes_and_silence_on_a_tls_port_are_ended() {
    let (folder, site) = (tempfile::tempdir().unwrap(), site());
    let broker = secured(folder.path(), &site).await;
    for bytes in [&b"AMQP\x00\x00\x09\x01"[..], b"GET / HTTP/1.1\r\n\r\n", &[0x16, 3, 1, 0xff, 0xff], &[0x16, 3, 1, 0, 0], &[0; 600], b""] {
        let mut raw = Raw::open(&broker).await;
        raw.send(bytes).await;
        let answer = raw.rest().await;
        assert!(answer.is_empty() || answer[0] == 0x15, "nothing or a TLS alert: {answer:?}");
    }
    connect(&broker.url(), &site.authority).await.unwrap().close(200, "bye".into()).await.unwrap();
    broker.stop().await;
}

#[test]
fn a_key_that_belongs_to_another_certificate_is_refused() {
    let (one, other) = (site(), site());
    assert!(matches!(Tls::from_pem(one.chain.as_bytes(), other.key.as_bytes()), Err(Error::Certificate(_))));
    assert!(matches!(Tls::from_pem(one.chain.as_bytes(), b"no key"), Err(Error::Pem(_))));
    assert!(Tls::from_pem(b"", one.key.as_bytes()).is_err());
}
