//! The truth about pools, nodes, jobs and tasks, and the Azure Batch door.
//!
//! `core` holds the rules, pure; `store` the rows; `engine` runs rules and rows in one thread, many inputs
//! to a transaction; `road` speaks AMQP with agents and autoscaler; `http` is the door for people.

pub mod auto_pool;
pub mod command;
pub mod core;
pub mod engine;
pub mod formula;
pub mod http;
pub mod refusal;
pub mod road;
mod service;
pub mod store;
mod task_token;

pub use service::{Access, DispatcherError, Settings, run};
pub use task_token::TaskTokens;
