//! A pool's autoscale formula and the result of its last evaluation; kept as JSON in the pool's row.

use contract::{outcome::Fault, period::Period, time::Timestamp};
use serde::{Deserialize, Serialize};

/// Automatic scaling of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scaling {
    pub formula: String,
    /// Time between two evaluations.
    pub interval: Period,
    /// When the formula was last set.
    pub enabled_at: Timestamp,
    /// The last evaluation, if there was one.
    #[serde(default)]
    pub run: Option<ScaleRun>,
}

impl Scaling {
    /// Time of the last evaluation; the time at which the formula was set when there was none.
    pub fn last_at(&self) -> Timestamp {
        self.run.as_ref().map_or(self.enabled_at, |run| run.at)
    }

    /// Whether the next evaluation is due `passed_ms` after the last one.
    pub fn is_due(&self, passed_ms: i64) -> bool {
        passed_ms >= i64::try_from(self.interval.as_ms()).unwrap_or(i64::MAX)
    }
}

/// The result of one evaluation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScaleRun {
    pub at: Timestamp,
    /// All variables as one text, `$name=value;…`.
    pub results: String,
    /// Why the evaluation failed; a failed one changes no target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
}
