//! What the API tells about itself: the OpenAPI document and the page of compatibility.
//!
//! Both are written from the table that routes requests (`routes`), with what `operations` says of each row and
//! the shapes of the schema. The results are kept in `docs/` and compared by a test.

mod compatibility;
mod effects;
mod json_schema;
mod openapi;
pub mod operations;
pub mod unknown;

pub use compatibility::compatibility;
pub use openapi::{get, openapi};
