//! What every case needs: a broker's address, a link, and names of its own.

use std::time::Duration;

use broker_config::{
    amqp::{Link, Outgoing, Subscription},
    body::Format,
    settings::{BrokerSettings, Secret},
    topology::{Queue, Topology},
};

/// A case that takes longer has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub fn url() -> String {
    std::env::var("PIECEWORK_TEST_AMQP_URL").unwrap_or_else(|_| "amqp://guest:guest@127.0.0.1:5682/%2f".to_owned())
}

pub fn settings(url: &str) -> BrokerSettings {
    BrokerSettings { url: Secret::new(url), name: "test".to_owned() }
}

pub async fn link() -> Link {
    Link::open(settings(&url())).await.unwrap()
}

/// A name that no other case uses.
pub fn name(word: &str) -> String {
    format!("test.{word}.{:016x}", rand::random::<u64>())
}

pub fn queue(name: &str) -> Topology {
    Topology { exchanges: vec![], queues: vec![Queue { name: name.to_owned(), arguments: vec![], bindings: vec![] }] }
}

pub fn text(queue: &str, text: impl Into<String>) -> Outgoing {
    Outgoing::raw("", queue, text.into().into_bytes(), Format::Json)
}

pub fn plain(queue: &str, prefetch: u16) -> Subscription {
    Subscription::plain(queue, prefetch)
}

pub async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("the case took too long")
}
