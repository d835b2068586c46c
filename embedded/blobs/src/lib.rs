//! An S3 server for one machine, durable and small: `s3s` speaks the protocol, the storage is our own.
//!
//! ```text
//! server → door → service (the S3 trait) → upload / download → files
//!                        └→ catalog: readers, one writer with group commit → reaper (unlinks), teller (callback)
//! ```

mod attributes;
mod buckets;
mod catalog;
mod conditions;
mod configurations;
mod crc;
mod digest;
mod door;
mod download;
mod error;
mod events;
mod expiry;
mod files;
mod lifecycle;
mod listing;
mod multipart;
mod notifications;
mod objects;
mod presigned_v2;
mod query;
mod reaper;
mod server;
mod service;
mod settings;
mod stall;
mod teller;
mod upload;
mod writer;

pub use self::error::Error;
pub use self::events::{Asked, Creation, Event, Happening, OnEvent};
pub use self::server::Blobs;
pub use self::settings::{Clock, Limits, Settings};
