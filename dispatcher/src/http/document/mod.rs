//! What the door tells about itself: the OpenAPI document and the page of compatibility.
//!
//! Both are written from the table that routes requests (`routes`), with what `operations` says of each row and
//! the shapes of `bodies` and `entities`. The results are kept in `docs/` and compared by a test.

mod bodies;
mod compatibility;
mod entities;
mod notation;
mod openapi;
mod operations;

pub use compatibility::compatibility;
pub use openapi::{get, openapi};
