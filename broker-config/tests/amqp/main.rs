//! The AMQP client against a real broker over real sockets.
//!
//! `PIECEWORK_TEST_AMQP_URL` names the broker.

mod flow;
mod stage;
