//! Runs what the pool's queue delivers and keeps nothing worth keeping.
#![allow(dead_code)]
mod beneath;
mod path;
mod pattern;
mod process { mod command_line; mod environment; }
