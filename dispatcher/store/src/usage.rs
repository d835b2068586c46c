//! What pools and tasks have used: core time by half hour, and the sums that statistics show.

use contract::time::Timestamp;

use crate::filter::Filter;

/// A page of usage, ordered by interval and pool.
#[derive(Debug, Clone, PartialEq)]
pub struct UsagePage {
    /// Intervals that start here or later.
    pub from: Timestamp,
    /// Intervals that end here or earlier.
    pub until: Timestamp,
    /// Only what follows this row.
    pub after: Option<(Timestamp, String)>,
    pub rows_max: usize,
    /// Only rows that pass.
    pub filter: Option<Filter>,
}
