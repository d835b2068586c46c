//! An S3 server for one machine, durable and small: `s3s` speaks the protocol, the storage is our own.
//!
//! ```text
//! server → door → service (the S3 trait) → upload / download → files
//!                        └→ catalog: readers, one writer with group commit → reaper (unlinks, callbacks)
//! ```

mod attributes;
mod buckets;
mod catalog;
mod conditions;
mod crc;
mod digest;
mod door;
mod download;
mod error;
mod files;
mod listing;
mod multipart;
mod objects;
mod presigned_v2;
mod query;
mod reaper;
mod server;
mod service;
mod settings;
mod upload;
mod writer;

pub use self::error::Error;
pub use self::server::Blobs;
pub use self::settings::{Creation, Limits, ObjectCreated, OnCreated, Settings};
