//! Time limits and size limits between a part and its blob store.

use std::time::Duration;

/// Connecting to the store fails after this long.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// One attempt at one request, without the body of the answer.
pub const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(120);
/// Longest wait for the next piece of a body.
pub const CHUNK_TIMEOUT: Duration = Duration::from_secs(30);
/// Attempts at one request.
pub const ATTEMPTS_MAX: u32 = 4;
/// Files up to this size are uploaded in one request; larger ones in parts of at least this size.
pub const PART_BYTES: u64 = 8 * 1024 * 1024;
/// Parts of one upload; S3's limit.
pub const PARTS_MAX: u64 = 10_000;
/// Parts of one file sent concurrently.
pub const PARTS_IN_FLIGHT: usize = 4;
/// Attempts to send the failed parts of one file.
pub const PART_ROUNDS_MAX: usize = 3;
/// Larger downloads are fetched in ranges of this size, several at a time.
pub const RANGE_BYTES: u64 = 16 * 1024 * 1024;
/// Longest validity of a presigned URL; S3's limit.
pub const PRESIGN_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// Keys of one listing or one deletion; S3's limit.
pub const PAGE_MAX: usize = 1000;
