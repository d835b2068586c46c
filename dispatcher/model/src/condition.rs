//! A request's conditional headers, and versions as ETags.

use contract::time::Timestamp;

use crate::refusal::{Code, Refusal};

/// The conditional headers of a request; absent ones always hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Condition {
    /// `If-Match`: an ETag, or `*`.
    pub if_match: Option<String>,
    pub if_none_match: Option<String>,
    pub if_modified_since: Option<Timestamp>,
    pub if_unmodified_since: Option<Timestamp>,
}

/// The ETag for a resource's version, as shown and compared.
pub fn etag(version: u64) -> String {
    format!("0x{version:X}")
}

impl Condition {
    /// Whether a resource with this version and modification time meets all conditions.
    pub fn is_met(&self, version: u64, modified_at: Timestamp) -> bool {
        let same = |given: &str| given == "*" || given.trim_matches('"') == etag(version);
        let seconds = |time: Timestamp| time.0.div_euclid(1000);
        self.if_match.as_deref().is_none_or(same)
            && !self.if_none_match.as_deref().is_some_and(same)
            && self.if_modified_since.is_none_or(|since| seconds(modified_at) > seconds(since))
            && self.if_unmodified_since.is_none_or(|since| seconds(modified_at) <= seconds(since))
    }

    /// Refuses a write to a resource that does not meet the conditions.
    pub fn check(&self, version: u64, modified_at: Timestamp) -> Result<(), Refusal> {
        if self.is_met(version, modified_at) {
            return Ok(());
        }
        Err(Refusal::new(Code::ConditionNotMet, "The condition specified in the request headers was not met.")
            .with("ETag", etag(version))
            .hint("Read the resource again and repeat the change with its present ETag."))
    }
}
