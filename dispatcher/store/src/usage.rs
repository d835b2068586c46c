//! Pages of the stored core time by half hours.

use contract::time::Timestamp;

use crate::filter::Filter;

/// A page of usage, ordered by interval and pool.
#[derive(Debug, Clone, PartialEq)]
pub struct UsagePage {
    /// Only intervals that start here or later.
    pub from: Timestamp,
    /// Only intervals that end here or earlier.
    pub until: Timestamp,
    /// Only rows after this one.
    pub after: Option<(Timestamp, String)>,
    pub rows_max: usize,
    /// Only rows that pass the filter.
    pub filter: Option<Filter>,
}
