//! An S3 server for one machine, durable and small.
