//! The command line of Piecework; starts any part, alone or all in one process.
//!
//! `cli` has one file for each noun and verb; `stack` runs all parts in one process; `client` talks to a server.

mod access;
mod archive;
mod bench;
mod blob_events;
mod broker_admin;
mod cli;
mod client;
mod command_line;
mod data_folder;
mod demo;
mod doctor;
mod exit_codes;
mod full_disk;
mod interrupts;
mod map;
mod metrics_page;
mod output;
mod percentiles;
mod ready;
mod secrets;
mod session;
mod settings;
mod shared_key;
mod stack;
mod tail;
mod tracer;
mod umask;
mod up;
mod work;

use std::process::ExitCode;

/// Parses the command line, runs it, and turns the result into an exit code.
pub fn main() -> ExitCode {
    cli::main()
}
