//! The clients of the two services that all parts use over the network: AMQP brokers and S3 stores.

pub mod amqp;
pub mod blobs;
