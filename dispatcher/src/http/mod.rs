//! The door for people: Azure Batch's REST operations, and ours below `/piecework/`.
//!
//! `entrance` lets a request in and finds its operation in `routes`; handlers (`pools`, `jobs`, `tasks`, …)
//! take it apart, call one rule or read rows, and shape the answer; they decide nothing.

mod account;
mod answer;
mod applications;
mod auth;
mod call;
mod chore_status;
mod conditional;
mod document;
mod entrance;
mod error;
mod explain;
mod file_answer;
mod filter;
mod health;
mod images;
mod job_body;
mod job_chores;
mod job_manager;
mod job_pool;
mod jobs;
mod json;
mod listen;
mod lists;
mod metrics;
mod node_files;
mod node_orders;
mod nodes;
mod odata;
mod own_words;
mod pool_body;
mod pool_change;
mod pool_machine;
mod pool_network;
mod pool_parts;
mod pools;
mod query;
mod queues;
mod retired;
mod routes;
mod scaling;
mod scaling_body;
mod schedule_body;
mod schedules;
mod shared_body;
mod start_tasks;
mod stats;
mod task_body;
mod task_collection;
mod task_files;
mod tasks;
mod tls;
mod transfer;
mod validate;
mod version;

pub use auth::{Caller, Gate, Key, Keys, KeysError, Oidc, OidcSettings, Role, read_keys, watch_file};
pub use document::{compatibility, openapi};
pub use entrance::{Door, router};
pub use health::{Health, Problem};
pub use listen::serve;
pub use routes::{ROUTES, Route, Served};
pub use tls::{TlsError, TlsFiles};
