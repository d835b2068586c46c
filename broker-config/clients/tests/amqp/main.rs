//! The AMQP client against a real broker over real sockets.
//!
//! `PIECEWORK_TEST_AMQP_URL` names a broker for the cases that any will do for; else, and for the cases
//! in which the broker itself dies, an embedded one is started.

mod browsing;
mod calls;
mod flow;
mod reconnecting;
mod refusals;
mod relay;
mod slots;
mod test_broker;
