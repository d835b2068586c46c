//! The behaviour that an S3 store must have, tested with the AWS SDK and plain HTTP.
//! Runs on an embedded server, or on the store that `PIECEWORK_TEST_S3_ENDPOINT`, `…_ACCESS_KEY`, `…_SECRET_KEY`
//! and `…_REGION` name.

mod access;
mod buckets;
mod conditions;
mod copies;
mod lifecycle;
mod listing;
mod multipart;
mod names;
mod notifications;
mod objects;
mod raw;
mod refusals;
mod seventeen;
mod slow;
mod store;
mod tags;
