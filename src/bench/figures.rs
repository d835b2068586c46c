//! Results of one measurement.

use crate::percentiles::Percentiles;

pub(super) struct Figures {
    pub(super) per_second: f64,
    pub(super) submitted_per_second: f64,
    /// Milliseconds from the request of each task or invocation to its result.
    pub(super) waits: Percentiles,
}
