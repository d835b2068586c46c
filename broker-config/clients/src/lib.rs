//! The clients of the two services that all parts use over the network: AMQP brokers and S3 stores; and of
//! RabbitMQ's management API, where the users of the broker are administered.

pub mod amqp;
pub mod blobs;
pub mod broker_users;
