//! The broker's topology and its users as data, the settings with which every part connects to broker and blob store, and the table of metrics.

pub mod disk;
pub mod metrics;
pub mod private;
pub mod publisher;
pub mod removal;
mod remove_tree;
pub mod settings;
pub mod topology;
