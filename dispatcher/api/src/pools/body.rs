//! Reads the bodies of pool requests: new pools, resizes, removal of nodes, policies.

use std::collections::HashSet;

use contract::{
    ids::{NodeId, PoolId},
    period::Period,
    spec::QueuePolicy,
    state::DeallocationOption,
};
use model::{pool::NewPool, refusal::Refusal};
use serde_json::{Value, json};

use crate::{
    body::{Object, prune},
    pools::{machine, parts, scaling_body},
};

/// Reads a new pool.
pub fn read(body: Object<'_>) -> Result<NewPool, Refusal> {
    specification(body, body.required_id("id"))
}

/// Reads a pool without its name, which is given.
pub fn specification(body: Object<'_>, id: PoolId) -> Result<NewPool, Refusal> {
    let (target_dedicated, target_low_priority) = new_targets(&body)?;
    let scaling = scaling_body::new(&body)?;
    let given = parts::read(&body)?;
    let mut fields = given.fields;
    if !fields.contains_key(machine::MACHINE) {
        return Err(body.missing(machine::MACHINE));
    }
    fields.entry("enableInterNodeCommunication").or_insert(json!(false));
    fields.entry("taskSchedulingPolicy").or_insert(json!({"nodeFillType": "spread"}));
    let (fill, job_order) = given.scheduling.unwrap_or_default();
    Ok(NewPool {
        id,
        document: prune(Value::Object(fields)).to_string(),
        slots_per_node: given.slots_per_node.unwrap_or(1),
        fill,
        job_order,
        target_dedicated,
        target_low_priority,
        settings: body.plain(),
        start_task: given.start_task.flatten(),
        packages: given.packages.unwrap_or_default(),
        policy: None,
        scaling,
    })
}

fn targets(body: &Object<'_>) -> (Option<u32>, Option<u32>) {
    (body.integer("targetDedicatedNodes"), body.integer("targetLowPriorityNodes"))
}

fn new_targets(body: &Object<'_>) -> Result<(u32, u32), Refusal> {
    let (dedicated, low_priority) = targets(body);
    if body.flag("enableAutoScale") == Some(true) && (dedicated.is_some() || low_priority.is_some()) {
        return Err(body.invalid("enableAutoScale", "Targets and enableAutoScale exclude each other."));
    }
    // Azure's reference requires one of the two; its service accepts none as zero, and the tests of its clients rely on
    // that.
    Ok((dedicated.unwrap_or(0), low_priority.unwrap_or(0)))
}

fn deallocation(body: &Object<'_>, name: &str) -> Option<DeallocationOption> {
    body.word(name).and_then(DeallocationOption::parse)
}

/// A requested resize.
pub struct Resize {
    /// Dedicated nodes.
    pub dedicated: Option<u32>,
    /// Low-priority nodes.
    pub low_priority: Option<u32>,
    /// Time limit of the resize; absent means the pool's own.
    pub timeout: Option<Period>,
    /// Fate of the tasks that run on removed nodes.
    pub option: DeallocationOption,
}

/// Reads a resize.
pub fn resize(body: Object<'_>) -> Result<Resize, Refusal> {
    let (dedicated, low_priority) = targets(&body);
    if dedicated.is_none() && low_priority.is_none() {
        return Err(body.missing("targetDedicatedNodes"));
    }
    let option = deallocation(&body, "nodeDeallocationOption").unwrap_or(DeallocationOption::Requeue);
    Ok(Resize { dedicated, low_priority, timeout: body.period("resizeTimeout"), option })
}

/// Nodes to remove.
pub struct Removal {
    /// The nodes, without repetitions.
    pub nodes: Vec<NodeId>,
    /// Fate of the tasks that run on removed nodes.
    pub option: DeallocationOption,
    /// Time limit of the resize; absent means the pool's own.
    pub timeout: Option<Period>,
}

/// Reads the nodes to remove.
pub fn removal(body: Object<'_>) -> Removal {
    let mut nodes: Vec<NodeId> = body.list("nodeList").texts();
    let mut seen = HashSet::new();
    nodes.retain(|node| seen.insert(node.clone()));
    let option = deallocation(&body, "nodeDeallocationOption").unwrap_or(DeallocationOption::Requeue);
    Removal { nodes, option, timeout: body.period("resizeTimeout") }
}

/// Reads Piecework's queue-depth policy.
pub fn policy(body: Object<'_>) -> Result<QueuePolicy, Refusal> {
    let policy: QueuePolicy = body.plain();
    if policy.min_nodes > policy.max_nodes {
        return Err(body.invalid("minNodes", "It must not be above maxNodes."));
    }
    Ok(policy)
}

#[cfg(test)]
mod tests {
    use model::refusal::Code;

    use super::*;
    use crate::body::tried;

    fn with(name: &str, value: Value) -> Result<NewPool, Code> {
        let mut body = json!({
            "id": "p", "vmSize": "small", "targetDedicatedNodes": 2,
            "virtualMachineConfiguration": {"imageReference": {"publisher": "a", "offer": "b", "sku": "c"}, "nodeAgentSKUId": "d"},
        });
        body[name] = value;
        tried("PoolAddParameter", &body, read).map_err(|refusal| refusal.code)
    }

    #[test]
    fn a_quickstart_pool_is_read_with_azures_defaults() {
        let pool = with("displayName", json!("x")).unwrap();
        assert_eq!((pool.target_dedicated, pool.target_low_priority, pool.slots_per_node), (2, 0, 1));
        assert_eq!(pool.settings, Default::default());
        let document: Value = serde_json::from_str(&pool.document).unwrap();
        assert_eq!(document["virtualMachineConfiguration"]["imageReference"]["version"], "latest");
        assert!(document["virtualMachineConfiguration"].get("licenseType").is_none());
    }

    #[test]
    fn pools_that_cannot_be_are_refused() {
        use Code::*;
        for (name, value, code) in [
            ("id", json!("a b"), InvalidPropertyValue),
            ("vmSize", Value::Null, MissingRequiredProperty),
            ("virtualMachineConfiguration", Value::Null, MissingRequiredProperty),
            ("cloudServiceConfiguration", json!({"osFamily": "5"}), InvalidPropertyValue),
            ("targetDedicatedNodes", json!(-1), InvalidPropertyValue),
            ("enableAutoScale", json!(true), InvalidPropertyValue),
            ("autoScaleFormula", json!("$TargetDedicatedNodes=1;"), InvalidAutoScalingSettings),
            ("resizeTimeout", json!("PT4M"), InvalidPropertyValue),
            ("taskSlotsPerNode", json!(0), InvalidPropertyValue),
            ("taskSlotsPerNode", json!(257), InvalidPropertyValue),
            ("taskSchedulingPolicy", json!({"nodeFillType": "even"}), InvalidPropertyValue),
            ("startTask", json!({}), MissingRequiredProperty),
            ("startTask", json!({"commandLine": "x".repeat(40_000)}), InvalidPropertyValue),
            ("metadata", json!([{"name": "", "value": "v"}]), EmptyMetadataKey),
            ("mountConfiguration", json!([{}]), InvalidPropertyValue),
        ] {
            assert_eq!(with(name, value.clone()).map(|_| ()), Err(code), "{name} {value}");
        }
    }

    #[test]
    fn a_policy_needs_a_ceiling_above_its_floor() {
        let read = |body: Value| tried("QueuePolicy", &body, policy).map_err(|refusal| refusal.code);
        let policy = read(json!({"maxNodes": "4", "idleMs": 500, "deallocation": "Requeue"})).unwrap();
        assert_eq!((policy.min_nodes, policy.max_nodes, policy.idle_ms, policy.deallocation), (0, 4, 500, DeallocationOption::Requeue));
        assert_eq!(read(json!({})), Err(Code::MissingRequiredProperty));
        assert_eq!(read(json!({"minNodes": 5, "maxNodes": 4})), Err(Code::InvalidPropertyValue));
    }
}
