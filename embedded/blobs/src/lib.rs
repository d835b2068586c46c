//! An S3 server for one machine, durable and small: `s3s` implements the protocol, the storage is part of this crate.
//!
//! ```text
//! server → gateway → service (the S3 trait) → upload / download → files
//!                        └→ catalog: readers, one writer with group commit → reaper (unlinks), notifier (callback)
//! ```

mod attributes;
mod bucket_name;
mod buckets;
mod catalog;
mod conditions;
mod configurations;
mod connections;
mod crc;
mod deletes;
mod digest;
mod download;
mod error;
mod events;
mod expiry;
mod files;
mod gateway;
mod lifecycle;
mod listing;
mod multipart;
mod notifications;
mod notifier;
mod objects;
mod presigned_v2;
mod query;
mod reaper;
mod server;
mod service;
mod settings;
mod stall;
mod upload;
mod wellformed;
mod writer;

pub use self::error::Error;
pub use self::events::{Asked, Creation, Event, Happening, OnEvent};
pub use self::server::Blobs;
pub use self::settings::{Clock, Limits, Settings};
