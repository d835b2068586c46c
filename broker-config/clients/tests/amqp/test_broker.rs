//! A broker, a link, and unique names for each test.

use std::{net::SocketAddr, path::Path, time::Duration};

use broker_config::{
    settings::{BrokerSettings, Secret},
    topology::{Queue, Topology},
};
use clients::amqp::{Link, LinkState, Outgoing};
use contract::body::Format;
use embedded_broker::{Broker, Settings};
use tempfile::TempDir;

/// A test that takes longer has failed.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// A broker for one test.
pub struct TestBroker {
    pub url: String,
    broker: Option<(Broker, TempDir)>,
}

impl TestBroker {
    pub async fn start() -> TestBroker {
        match std::env::var("PIECEWORK_TEST_AMQP_URL") {
            Ok(url) => TestBroker { url, broker: None },
            Err(_) => {
                let data = TempDir::new().unwrap();
                let broker = embedded(data.path(), 0).await;
                TestBroker { url: broker.url(), broker: Some((broker, data)) }
            }
        }
    }

    /// Host and port of the broker.
    pub fn address(&self) -> SocketAddr {
        let authority = self.url.split("://").nth(1).unwrap().split('/').next().unwrap();
        authority.rsplit('@').next().unwrap().replace("localhost", "127.0.0.1").parse().unwrap()
    }

    /// The same login through another address.
    pub fn url_through(&self, address: SocketAddr) -> String {
        self.url.replace(&self.address().to_string(), &address.to_string())
    }

    pub async fn link(&self) -> Link {
        Link::open(settings(&self.url)).await.unwrap()
    }

    pub async fn stop(self) {
        if let Some((broker, _data)) = self.broker {
            broker.stop().await;
        }
    }
}

/// An embedded broker on a folder; port 0 picks a free one.
pub async fn embedded(data: &Path, port: u16) -> Broker {
    Broker::start(Settings::new(([127, 0, 0, 1], port).into(), data, "tester", "s3cret-pass")).await.unwrap()
}

pub fn settings(url: &str) -> BrokerSettings {
    BrokerSettings { url: Secret::new(url), name: "test".to_owned() }
}

/// A name that no other test uses.
pub fn name(word: &str) -> String {
    format!("test.{word}.{:016x}", rand::random::<u64>())
}

/// A durable queue of that name.
pub fn queue(name: &str) -> Topology {
    Topology { exchanges: vec![], queues: vec![Queue { name: name.to_owned(), arguments: vec![], bindings: vec![] }] }
}

/// A message to a queue through the default exchange.
pub fn text(queue: &str, text: impl Into<String>) -> Outgoing {
    Outgoing::raw("", queue, text.into().into_bytes(), Format::Json)
}

/// Waits until the link is connected with a generation above `old`.
pub async fn reconnected(link: &Link, old: u64) -> u64 {
    let mut state = link.state();
    let state = state.wait_for(|state| matches!(state, LinkState::Connected { generation } if *generation > old)).await.unwrap();
    match *state {
        LinkState::Connected { generation } => generation,
        _ => unreachable!("just seen"),
    }
}

/// Publishes again and again until the message is confirmed, as every part does.
pub async fn publish_until_confirmed(link: &Link, outgoing: Outgoing) {
    while let Err(error) = link.publisher().publish(outgoing.clone()).await {
        assert!(error.is_transient(), "{error}");
        tokio::task::yield_now().await;
    }
}

pub async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("the case took too long")
}
