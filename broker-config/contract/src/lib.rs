//! Shared by all parts of Piecework: ids, specs, states, messages, and bodies in MessagePack or JSON.
//!
//! Serde types and their parsing rules only: nothing here uses a network or a database.

pub mod backoff;
pub mod body;
pub mod clock;
pub mod function;
pub mod ids;
pub mod job_task;
pub mod message;
pub mod outcome;
pub mod period;
pub mod spec;
pub mod state;
pub mod time;
pub mod url;
