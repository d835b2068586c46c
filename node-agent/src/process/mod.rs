//! Processes of tasks: their command lines, environments, starts, ends, and what they used.

pub mod command_line;
pub mod environment;
pub mod launch;
pub mod threads;
pub mod tree;
pub mod usage;
