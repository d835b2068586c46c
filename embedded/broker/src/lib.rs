//! An AMQP 0-9-1 server for one machine, durable and small.
