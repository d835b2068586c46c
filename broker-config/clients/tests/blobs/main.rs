//! The blob client against a real S3 server over real sockets.
//!
//! `PIECEWORK_TEST_S3_URL` names one that takes the key `tester` and the secret `tester-secret`; else an embedded one is started.

mod files;
mod hostile;
mod objects;
mod test_store;
