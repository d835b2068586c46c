//! Wires the dispatcher's parts (store, engine, messaging, API), watches their health, and ends them in order.

mod disk_space;
mod locked;
mod metrics;
mod progress;
mod service;
mod submissions;
mod triggers;
mod unavailable;

pub use disk_space::{is_short, make_room};
pub use locked::wait_while_locked;
pub use progress::Progress;
pub use service::{Access, DispatcherError, Settings, run};
pub use unavailable::answer_unavailable;
