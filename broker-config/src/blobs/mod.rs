//! Large data: one S3 client that every part uses, on the embedded store and on any other alike.
//!
//! Small blobs move in one request. Files move in parts, several at a time, each retried by itself;
//! no conditional writes and no checksums beyond what a store asks for, so that Garage and its kin agree.

mod bucket;
mod client;
mod download;
mod error;
mod headers;
mod list;
mod locate;
mod object;
mod presign;
mod stream;
mod upload;

use std::time::Duration;

pub use self::{
    client::Blobs, error::BlobError, headers::BlobHeaders, list::Listing, locate::Location, object::BlobInfo, stream::BlobStream,
};

/// A store that is not reached by then is away.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// One attempt at one request, the answer's body apart.
pub const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(120);
/// The next piece of a body.
pub const CHUNK_TIMEOUT: Duration = Duration::from_secs(30);
/// Attempts at one request.
pub const ATTEMPTS_MAX: u32 = 4;
/// Files up to this size are uploaded in one request; larger ones in parts of at least this size.
pub const PART_BYTES: u64 = 8 * 1024 * 1024;
/// Parts of one upload, as S3 has it.
pub const PARTS_MAX: u64 = 10_000;
/// Parts of one file on their way at the same time.
pub const PARTS_IN_FLIGHT: usize = 4;
/// Rounds over the parts of one file that failed.
pub const PART_ROUNDS_MAX: usize = 3;
/// Downloads above this size are fetched in ranges of it, several at a time.
pub const RANGE_BYTES: u64 = 16 * 1024 * 1024;
/// A presigned URL lives no longer, as S3 has it.
pub const PRESIGN_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// Keys of one listing or one deletion, as S3 has it.
pub const PAGE_MAX: usize = 1000;
