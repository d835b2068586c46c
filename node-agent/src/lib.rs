//! Runs what the pool's queue delivers and keeps nothing worth keeping.
#![allow(dead_code)]
mod beneath;
mod capacity;
mod error;
mod guardian;
mod outbox;
mod path;
mod pattern;
mod process;
mod root;
