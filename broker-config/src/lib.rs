//! What all parts of Piecework agree on.
//!
//! The contract (ids, specs, states, messages), the topology of the road as data,
//! bodies in MessagePack or JSON, the AMQP and blob clients, and the settings they need.
//! Dispatcher, node agents and autoscaler stand on this crate and never see each other.

pub mod amqp;
pub mod blobs;
pub mod body;
pub mod chore;
pub mod ids;
pub mod message;
pub mod period;
pub mod settings;
pub mod spec;
pub mod state;
pub mod time;
pub mod topology;
