//! The S3 client of all parts, for the embedded store and any other alike.
//!
//! Small blobs take one request. Files are sent in parts, several at a time, and each part is retried by itself.
//! No conditional writes, and checksums only where a store asks for them, so that it works with Garage and similar stores.

mod bucket;
mod client;
mod download;
mod error;
mod headers;
mod info;
mod limits;
mod list;
mod locate;
mod measured;
mod notify;
mod object;
mod presign;
mod stream;
mod upload;

pub use self::{
    client::Blobs,
    download::Partial,
    error::BlobError,
    headers::BlobHeaders,
    info::BlobInfo,
    limits::{
        ATTEMPT_TIMEOUT, ATTEMPTS_MAX, CHUNK_TIMEOUT, CONNECT_TIMEOUT, PAGE_MAX, PART_BYTES, PART_ROUNDS_MAX, PARTS_IN_FLIGHT, PARTS_MAX,
        PRESIGN_MAX, RANGE_BYTES,
    },
    list::Listing,
    locate::{KEY_BYTES_MAX, Location, Places},
    stream::BlobStream,
};
