//! Pools that are created with a job (Azure's `autoPoolSpecification`): the request, the pool's lifetime, and its name.
//!
//! The API reads an [`AutoPool`], the engine creates a pool from it together with the job, and the store keeps a
//! [`Tie`] in the job's row.

use contract::ids::PoolId;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{document::Properties, pool::NewPool, property::invalid, refusal::Refusal};

/// Characters of an id prefix at most, so that prefix, `_` and a GUID stay below the longest id.
pub const PREFIX_MAX: usize = 20;

/// Whether the pool belongs to one job or to a job schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lifetime {
    /// The pool is deleted when the job completes.
    Job,
    /// All jobs of the schedule share the pool; it is deleted with the schedule.
    JobSchedule,
}

impl Lifetime {
    /// The wire spelling.
    pub fn as_str(self) -> &'static str {
        match self {
            Lifetime::Job => "job",
            Lifetime::JobSchedule => "jobschedule",
        }
    }
}

/// Connects a job with the pool that was created for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tie {
    pub lifetime: Lifetime,
    /// Whether the pool stays after the job or the schedule has ended.
    pub keep_alive: bool,
}

/// A request for a pool that is created together with a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AutoPool {
    /// `autoPoolIdPrefix`; the pool's name begins with it.
    pub prefix: Option<PoolId>,
    pub tie: Tie,
    /// The pool's properties; its name is a placeholder and is replaced.
    pub pool: NewPool,
}

impl AutoPool {
    /// The pool's name, made from the prefix and a number that is unique in the store.
    pub fn name(&self, number: u128) -> PoolId {
        let hex = format!("{number:032X}");
        let guid = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-");
        let name = match &self.prefix {
            Some(prefix) => format!("{prefix}_{guid}"),
            None => guid,
        };
        name.parse().expect("a prefix of at most 20 characters, '_' and 36 more are an id")
    }
}

/// Whether the name looks like one made by [`AutoPool::name`]. A name that a person chose counts too when it ends
/// alike.
pub fn is_made_for_jobs(pool: &PoolId) -> bool {
    const GUID: &str = "XXXXXXXX-XXXX-XXXX-XXXX-XXXXXXXXXXXX";
    let name = pool.as_str();
    let Some((prefix, guid)) = name.len().checked_sub(GUID.len()).and_then(|start| name.split_at_checked(start)) else { return false };
    let fits = |(wanted, found): (u8, u8)| if wanted == b'-' { found == b'-' } else { matches!(found, b'0'..=b'9' | b'A'..=b'F') };
    (prefix.is_empty() || prefix.ends_with('_')) && GUID.bytes().zip(guid.bytes()).all(fits)
}

/// The pool that a job's tasks run in. In JSON, a name is a bare string, the form it had before there were automatic
/// pools.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum JobPool {
    /// A pool that exists already.
    Named(PoolId),
    /// A pool that is created for the job.
    Auto(Box<AutoPool>),
}

impl JobPool {
    /// Connection to the pool of a job that creates its own; `None` for a named pool.
    pub fn tie(&self) -> Option<Tie> {
        match self {
            JobPool::Named(_) => None,
            JobPool::Auto(auto) => Some(auto.tie),
        }
    }
}

impl From<PoolId> for JobPool {
    fn from(pool: PoolId) -> JobPool {
        JobPool::Named(pool)
    }
}

/// The property of a job's document that describes the pool created for it.
pub const AUTO: &str = "autoPoolSpecification";

/// Path of the first given property that differs from the stored one. Properties that are not given do not count.
fn difference<'a>(path: &str, is: &Value, given: &'a Value) -> Option<(String, &'a Value)> {
    match (is, given) {
        (Value::Object(is), Value::Object(given)) => given.iter().find_map(|(name, given)| {
            let path = format!("{path}.{name}");
            difference(&path, is.get(name).unwrap_or(&Value::Null), given)
        }),
        _ => (is != given).then(|| (path.to_owned(), given)),
    }
}

/// Change of the automatic pool in a job's document.
#[derive(Debug, Clone)]
pub struct PoolChange {
    /// The new `autoPoolSpecification`, in the form in which GET shows it.
    pub given: Value,
    /// Whether properties that are not given go back to their defaults (PUT) or stay (PATCH).
    pub is_whole: bool,
}

impl PoolChange {
    /// Applies the change to the job's document. Only `keepAlive` can change; returns its new value, or a refusal that
    /// names the first other property that differs.
    pub fn apply(&self, document: &mut Properties) -> Result<Option<bool>, Refusal> {
        let (given, is_whole) = (&self.given, self.is_whole);
        let path = format!("poolInfo.{AUTO}");
        let Some(is) = document.get_mut("poolInfo").and_then(|info| info.get_mut(AUTO)) else {
            return Err(invalid(path, given, "The job runs on a pool that was there before it; name the pool it shall move to."));
        };
        let mut rest = given.clone();
        let keep_alive = rest.as_object_mut().and_then(|fields| fields.remove("keepAlive")).and_then(|flag| flag.as_bool());
        if let Some((path, value)) = difference(&path, is, &rest) {
            return Err(invalid(path, value, "Of a job's own pool only keepAlive can be changed."));
        }
        let keep_alive = keep_alive.or(is_whole.then_some(false));
        let was = is.get("keepAlive").and_then(Value::as_bool).unwrap_or(false);
        if let Some(keep_alive) = keep_alive.filter(|keep_alive| *keep_alive != was) {
            is["keepAlive"] = json!(keep_alive);
        }
        Ok(keep_alive)
    }
}

#[cfg(test)]
mod tests {
    use contract::ids::ID_LENGTH_MAX;

    use super::*;
    use crate::refusal::Code;

    fn auto(prefix: Option<&str>) -> AutoPool {
        let pool = NewPool {
            id: "template".parse().unwrap(),
            document: "{}".into(),
            slots_per_node: 2,
            fill: Default::default(),
            job_order: Default::default(),
            target_dedicated: 1,
            target_low_priority: 0,
            settings: Default::default(),
            start_task: None,
            packages: vec![],
            policy: None,
            scaling: None,
        };
        let tie = Tie { lifetime: Lifetime::JobSchedule, keep_alive: true };
        AutoPool { prefix: prefix.map(|prefix| prefix.parse().unwrap()), tie, pool }
    }

    #[test]
    fn a_name_is_the_prefix_and_a_guid_and_always_an_id() {
        assert_eq!(auto(None).name(0xAB).as_str(), "00000000-0000-0000-0000-0000000000AB");
        let longest = auto(Some(&"x".repeat(PREFIX_MAX))).name(u128::MAX);
        for made in [auto(None).name(7), longest.clone()] {
            assert!(is_made_for_jobs(&made), "{made}");
        }
        for chosen in ["pool", "x0000000-0000-0000-0000-0000000000AB", "x00000000-0000-0000-0000-0000000000AB", "a_b"] {
            assert!(!is_made_for_jobs(&chosen.parse().unwrap()), "{chosen}");
        }
        assert!(longest.as_str().starts_with("xxxx") && longest.as_str().len() <= ID_LENGTH_MAX, "{longest}");
    }

    #[test]
    fn what_was_stored_before_there_were_automatic_pools_is_a_name() {
        assert_eq!(serde_json::from_str::<JobPool>(r#""pool""#).unwrap(), JobPool::Named("pool".parse().unwrap()));
        for pool in [JobPool::Named("pool".parse().unwrap()), JobPool::Auto(Box::new(auto(Some("p"))))] {
            let text = serde_json::to_string(&pool).unwrap();
            assert_eq!(serde_json::from_str::<JobPool>(&text).unwrap(), pool, "{text}");
        }
    }

    #[test]
    fn of_a_jobs_own_pool_only_keep_alive_can_change() {
        let is = || json!({"poolInfo": {"autoPoolSpecification": {"poolLifetimeOption": "job", "pool": {"vmSize": "a", "metadata": [1]}}}});
        let ask = |given: Value, is_whole: bool| {
            let mut document = is().as_object().unwrap().clone();
            let merged = PoolChange { given, is_whole }.apply(&mut document);
            merged.map(|keep_alive| (keep_alive, document["poolInfo"]["autoPoolSpecification"].get("keepAlive").cloned()))
        };
        assert_eq!(ask(json!({"poolLifetimeOption": "job", "keepAlive": true}), false), Ok((Some(true), Some(json!(true)))));
        assert_eq!(ask(json!({"poolLifetimeOption": "job", "keepAlive": false}), false), Ok((Some(false), None)));
        assert_eq!(ask(json!({"poolLifetimeOption": "job"}), false), Ok((None, None)));
        assert_eq!(ask(json!({"poolLifetimeOption": "job", "pool": {"vmSize": "a"}}), true), Ok((Some(false), None)));
        for (given, path) in [
            (json!({"poolLifetimeOption": "jobschedule"}), ".poolLifetimeOption"),
            (json!({"autoPoolIdPrefix": "p"}), ".autoPoolIdPrefix"),
            (json!({"pool": {"vmSize": "b"}}), ".pool.vmSize"),
            (json!({"pool": {"metadata": [1, 2]}}), ".pool.metadata"),
        ] {
            let refusal = ask(given, false).unwrap_err();
            assert_eq!(
                (refusal.code, refusal.values[0].1.as_str()),
                (Code::InvalidPropertyValue, format!("poolInfo.autoPoolSpecification{path}").as_str())
            );
        }
        let refusal =
            PoolChange { given: json!({"poolLifetimeOption": "job"}), is_whole: false }.apply(&mut Properties::new()).unwrap_err();
        assert_eq!((refusal.code, refusal.values[0].1.as_str()), (Code::InvalidPropertyValue, "poolInfo.autoPoolSpecification"));
    }
}
