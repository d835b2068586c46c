//! An AMQP 0-9-1 server for one machine, durable and small.
//! `server` owns the threads, `connection` the sockets, `core` all state; `journal` keeps what must outlive the process.
//! One thread holds the state, so no lock is on the path of a message; a second one writes and syncs the journal.

mod alarms;
mod arguments;
mod channel;
mod codec;
mod confirms;
mod connection;
mod consumers;
mod content;
mod core;
mod deadletter;
mod deliver;
mod encode;
mod error;
mod exchange;
mod exchanges;
mod frame;
mod handshake;
mod ids;
mod journal;
mod message;
mod methods;
mod outbox;
mod pager;
mod publish;
mod queue;
mod queues;
mod refusal;
mod replyto;
mod restore;
mod server;
mod settings;
mod settle;
mod timers;
mod tls;
mod topic;
mod wire;

pub use error::Error;
pub use server::Broker;
pub use settings::Settings;
pub use tls::Tls;
