//! Processes of tasks: command lines, environments, start and end, resource usage.

pub mod command_line;
pub mod environment;
pub mod held_files;
pub mod launch;
pub mod orphans;
pub mod strays;
pub mod threads;
pub mod tree;
pub mod umask;
pub mod usage;
