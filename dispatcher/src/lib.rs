//! Wires the dispatcher's parts (store, engine, messaging, API), watches their health, and ends them in order.

mod disk_space;
mod metrics;
mod service;

pub use disk_space::{is_short, make_room};
pub use service::{Access, DispatcherError, Settings, run};
