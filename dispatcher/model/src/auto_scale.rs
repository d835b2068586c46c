//! How a pool's size follows a formula, and what the last evaluation said; kept as JSON in the pool's row.

use contract::{outcome::Fault, period::Period, time::Timestamp};
use serde::{Deserialize, Serialize};

/// A pool's automatic scaling.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scaling {
    /// The formula's text.
    pub formula: String,
    /// Between two evaluations.
    pub interval: Period,
    /// When somebody last set it.
    pub enabled_at: Timestamp,
    /// The last evaluation.
    #[serde(default)]
    pub run: Option<ScaleRun>,
}

impl Scaling {
    /// When it was last evaluated, or set.
    pub fn last_at(&self) -> Timestamp {
        self.run.as_ref().map_or(self.enabled_at, |run| run.at)
    }

    /// Whether the next evaluation is due this long after the last one.
    pub fn is_due(&self, passed_ms: i64) -> bool {
        passed_ms >= i64::try_from(self.interval.as_ms()).unwrap_or(i64::MAX)
    }
}

/// One evaluation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScaleRun {
    /// When.
    pub at: Timestamp,
    /// All variables as one text.
    pub results: String,
    /// Why it failed; it changed nothing then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
}
