//! Results of one measurement.

use crate::percentiles::Percentiles;

pub(super) struct Figures {
    pub(super) per_second: f64,
    pub(super) submitted_per_second: f64,
    /// Milliseconds from the creation of each task to its start, or from each invocation to its answer.
    pub(super) waits: Percentiles,
}
