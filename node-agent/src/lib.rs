//! Runs what the pool's queue delivers and keeps nothing worth keeping.
#![allow(dead_code)]
mod beneath;
mod capacity;
mod error;
mod execution;
mod fetch;
mod guardian;
mod outbox;
mod outputs;
mod path;
mod pattern;
mod process;
mod room;
mod root;
mod settings;
mod staging;
mod streams;
