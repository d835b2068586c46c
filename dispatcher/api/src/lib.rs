//! The HTTP API: Azure Batch's REST operations, and Piecework's own below `/piecework/`.
//!
//! `pipeline` authenticates a request and finds its operation in `routes`. Handlers (`pools`, `jobs`, `tasks`, …)
//! decode it, send one command to the engine or read rows, and encode the answer; they decide nothing.

mod account;
mod answer;
mod applications;
mod auth;
mod body;
mod call;
mod conditional;
mod connections;
mod dead_letters;
mod digest;
mod dispatch;
mod document;
mod error;
mod explain;
mod file_answer;
mod filter;
mod function_packages;
mod functions;
mod headers;
mod health;
mod images;
mod jobs;
mod json;
mod left_out;
mod listen;
mod lists;
mod metrics_page;
mod nodes;
mod odata;
mod operation;
mod permissions;
mod pipeline;
mod pools;
mod protocol_errors;
mod publishers;
mod query;
mod queues;
mod resource;
mod retired_operations;
mod routes;
mod schedules;
mod schema;
mod shared_body;
mod state;
mod stats;
pub mod submissions;
mod tasks;
mod tls;
mod transfer;
pub mod triggers;
mod unreadable;
mod version;

pub use auth::{Caller, Gate, Key, Keys, KeysError, Oidc, OidcSettings, Role, read_keys, watch_file};
pub use document::{compatibility, openapi};
pub use listen::serve;
pub use metrics_page::serve_metrics;
pub use pipeline::router;
pub use routes::{ROUTES, Route, Served};
pub use state::{ApiState, MetricsPage, Publishers};
pub use tls::{TlsError, TlsFiles};
