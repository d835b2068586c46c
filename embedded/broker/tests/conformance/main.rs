//! One suite for every broker: against the embedded one, or against the one that PIECEWORK_TEST_AMQP_URL names.
//! Each case has names of its own, so that cases share a real broker without meeting.

mod acks;
mod administration;
mod arguments;
mod channels;
mod closes;
mod confirms;
mod consumers;
mod deadletters;
mod exchanges;
mod limits;
mod login;
mod priorities;
mod properties;
mod qos;
mod queues;
mod replies;
mod test_broker;
mod times;
mod users;
#[path = "../wire/mod.rs"]
#[allow(dead_code, reason = "two suites share it, and neither needs all of it")]
mod wire;
