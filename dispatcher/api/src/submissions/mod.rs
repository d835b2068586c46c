//! Tasks that come by message: what a message asks for is read as a request's body is, and answers have the API's words.
//!
//! Nothing here speaks to the broker; who does takes messages apart and sends what [`show`] writes.

pub mod read;
pub mod show;
