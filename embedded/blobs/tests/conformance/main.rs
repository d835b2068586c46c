//! What an S3 store must do, as seen by the AWS SDK and by plain HTTP.
//! Runs on an embedded server, or on the store that `PIECEWORK_TEST_S3_ENDPOINT`, `…_ACCESS_KEY`, `…_SECRET_KEY`
//! and `…_REGION` name.

mod access;
mod buckets;
mod conditions;
mod copies;
mod lifecycle;
mod listing;
mod multipart;
mod notifications;
mod objects;
mod raw;
mod refusals;
mod seventeen;
mod slow;
mod store;
mod tags;
