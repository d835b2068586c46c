//! Pages of the stored core time by half hours.

use contract::time::Timestamp;

use crate::{filter::Filter, left_out::LeftOut};

/// A page of usage, ordered by interval and pool.
#[derive(Debug, Clone)]
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
    /// Told of the rows that cannot be read; they are left out of the page.
    pub left_out: LeftOut,
}
