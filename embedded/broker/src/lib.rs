//! An AMQP 0-9-1 server for one machine, durable and small.
//! `server` owns the threads, `connection` the sockets, `core` all state; `journal` stores everything that survives a restart.
//! One thread holds the state, so messages need no lock; a second one writes and syncs the journal.

mod access;
mod administration;
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
mod equivalence;
mod error;
mod exchange;
mod exchanges;
mod frame;
mod handshake;
mod held;
mod ids;
mod journal;
mod lapse;
mod message;
mod methods;
mod outbox;
mod pager;
mod permissions;
mod publish;
mod queue;
mod queues;
mod refusal;
mod replyto;
mod restore;
mod server;
mod settings;
mod settle;
mod terms;
mod timers;
mod tls;
mod topic;
mod user_error;
mod users;
mod wire;

pub use administration::Users;
pub use error::Error;
pub use permissions::{Permissions, TopicPermission};
pub use server::Broker;
pub use settings::Settings;
pub use tls::Tls;
pub use user_error::UserError;
pub use users::User;
