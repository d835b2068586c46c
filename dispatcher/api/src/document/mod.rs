//! Generated descriptions of the API: the OpenAPI document and the compatibility page.
//!
//! Both are made from the table that routes requests (`routes`), the descriptions in `operations`, and the schema. The
//! results are kept in `docs/` and compared by a test.

mod compatibility;
mod effects;
mod json_schema;
mod openapi;
pub mod operations;
pub mod unknown;

pub use compatibility::compatibility;
pub use openapi::{get, openapi};
