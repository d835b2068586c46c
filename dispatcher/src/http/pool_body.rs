//! Reads a pool as it is asked for, and the bodies of its resizes.

use std::collections::HashSet;

use broker_config::{
    ids::{NodeId, PoolId},
    period::Period,
    spec::{FillType, QueuePolicy},
    state::DeallocationOption,
};
use serde_json::json;

use crate::{
    command::NewPool,
    core::JobOrder,
    http::{
        pool_machine, pool_network, pool_parts, scaling_body,
        shared_body::{self, display_name, metadata, not_empty},
        validate::{Object, prune},
    },
    refusal::Refusal,
};

/// Nodes a pool may ask for.
const NODES_MAX: i64 = 100_000;
/// Nodes that one request may remove.
const REMOVED_MAX: usize = 100;
/// The shortest limit of a resize, and the one when none is given.
const RESIZE_LEAST: Period = Period::from_secs(5 * 60);
const RESIZE_DEFAULT: Period = Period::from_secs(15 * 60);
/// The longest time that a policy may wait.
const POLICY_MS_MAX: i64 = 7 * 24 * 3600 * 1000;

/// Reads a new pool.
pub fn read(body: Object<'_>) -> Result<NewPool, Refusal> {
    let id: PoolId = body.required("id")?;
    specification(body, id)
}

/// Reads what a pool is made from; its name is given.
pub fn specification(body: Object<'_>, id: PoolId) -> Result<NewPool, Refusal> {
    let packages = shared_body::packages(&body)?;
    pool_parts::retired(&body)?;
    pool_network::mounts(&body)?;
    pool_network::users(&body)?;
    let machine = pool_machine::required(&body)?;
    let vm_size = pool_parts::vm_size(&body)?.ok_or_else(|| body.missing("vmSize"))?;
    let (target_dedicated, target_low_priority) = new_targets(&body, body.flag("enableAutoScale")?.unwrap_or(false))?;
    let scaling = scaling_body::new(&body)?;
    let start_task = pool_parts::start_task(&body)?;
    let (fill, job_order, scheduling) = match pool_parts::scheduling(&body)? {
        Some(policy) => policy,
        None => (FillType::Spread, JobOrder::default(), json!({"nodeFillType": "spread"})),
    };
    let document = prune(json!({
        "displayName": display_name(&body)?,
        "vmSize": vm_size,
        "virtualMachineConfiguration": machine,
        "enableInterNodeCommunication": body.flag("enableInterNodeCommunication")?.unwrap_or(false),
        "startTask": start_task.as_ref().map(|(_, shown)| shown),
        "taskSchedulingPolicy": scheduling,
        "applicationPackageReferences": packages,
        "metadata": metadata(&body)?,
        "networkConfiguration": pool_network::network(&body)?,
        "targetNodeCommunicationMode": pool_parts::communication(&body)?,
        "resourceTags": pool_parts::tags(&body)?,
        "upgradePolicy": pool_parts::upgrades(&body)?,
    }));
    Ok(NewPool {
        id,
        document: document.to_string(),
        slots_per_node: pool_parts::slots(&body)?.unwrap_or(1),
        fill,
        job_order,
        target_dedicated,
        target_low_priority,
        resize_timeout: body.period("resizeTimeout", RESIZE_LEAST)?.unwrap_or(RESIZE_DEFAULT),
        start_task: start_task.map(|(task, _)| task),
        packages,
        policy: None,
        scaling,
    })
}

fn target(body: &Object<'_>, name: &str) -> Result<Option<u32>, Refusal> {
    Ok(body.integer(name, 0..=NODES_MAX)?.map(|nodes| nodes as u32))
}

fn new_targets(body: &Object<'_>, is_scaled: bool) -> Result<(u32, u32), Refusal> {
    let (dedicated, low_priority) = (target(body, "targetDedicatedNodes")?, target(body, "targetLowPriorityNodes")?);
    if is_scaled && (dedicated.is_some() || low_priority.is_some()) {
        return Err(body.invalid("enableAutoScale", "Targets and enableAutoScale exclude each other."));
    }
    // Azure's reference wants one of the two; its service takes none as zero, and the tests of its clients rely on it.
    Ok((dedicated.unwrap_or(0), low_priority.unwrap_or(0)))
}

fn deallocation(body: &Object<'_>, name: &str) -> Result<Option<DeallocationOption>, Refusal> {
    let words: Vec<_> = DeallocationOption::ALL.iter().map(|option| option.as_str()).collect();
    Ok(body.choice(name, &words)?.and_then(DeallocationOption::parse))
}

/// A resize as it is asked for.
pub struct Resize {
    /// Dedicated nodes.
    pub dedicated: Option<u32>,
    /// Low-priority nodes.
    pub low_priority: Option<u32>,
    /// Its limit.
    pub timeout: Option<Period>,
    /// What becomes of running tasks.
    pub option: DeallocationOption,
}

/// Reads a resize.
pub fn resize(body: Object<'_>) -> Result<Resize, Refusal> {
    let (dedicated, low_priority) = (target(&body, "targetDedicatedNodes")?, target(&body, "targetLowPriorityNodes")?);
    if dedicated.is_none() && low_priority.is_none() {
        return Err(body.missing("targetDedicatedNodes"));
    }
    Ok(Resize {
        dedicated,
        low_priority,
        timeout: body.period("resizeTimeout", RESIZE_LEAST)?,
        option: deallocation(&body, "nodeDeallocationOption")?.unwrap_or(DeallocationOption::Requeue),
    })
}

/// Reads which nodes to remove.
pub fn removal(body: Object<'_>) -> Result<(Vec<NodeId>, DeallocationOption), Refusal> {
    let list = body.list("nodeList", REMOVED_MAX)?;
    not_empty(&body, "nodeList", &list)?;
    body.period("resizeTimeout", RESIZE_LEAST)?;
    let mut nodes: Vec<NodeId> = list.texts()?;
    let mut seen = HashSet::new();
    nodes.retain(|node| seen.insert(node.clone()));
    Ok((nodes, deallocation(&body, "nodeDeallocationOption")?.unwrap_or(DeallocationOption::Requeue)))
}

/// Reads the built-in policy.
pub fn policy(body: Object<'_>) -> Result<QueuePolicy, Refusal> {
    let usual = QueuePolicy::default();
    let nodes = |name: &str, usual: u32| Ok(target(&body, name)?.unwrap_or(usual));
    let time = |name: &str, usual: u64| Ok(body.integer(name, 0..=POLICY_MS_MAX)?.map_or(usual, |ms| ms as u64));
    let policy = QueuePolicy {
        min_nodes: nodes("minNodes", usual.min_nodes)?,
        max_nodes: target(&body, "maxNodes")?.ok_or_else(|| body.missing("maxNodes"))?,
        react_ms: time("reactMs", usual.react_ms)?,
        idle_ms: time("idleMs", usual.idle_ms)?,
        deallocation: deallocation(&body, "deallocation")?.unwrap_or(usual.deallocation),
    };
    if policy.min_nodes > policy.max_nodes {
        return Err(body.invalid("minNodes", "It must not be above maxNodes."));
    }
    Ok(policy)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::refusal::Code;

    fn with(name: &str, value: Value) -> Result<NewPool, Code> {
        let mut body = json!({
            "id": "p", "vmSize": "small", "targetDedicatedNodes": 2,
            "virtualMachineConfiguration": {"imageReference": {"publisher": "a", "offer": "b", "sku": "c"}, "nodeAgentSKUId": "d"},
        });
        body[name] = value;
        read(Object::root(body.as_object().unwrap())).map_err(|refusal| refusal.code)
    }

    #[test]
    fn a_quickstart_pool_is_read_with_azures_defaults() {
        let pool = with("displayName", json!("x")).unwrap();
        assert_eq!((pool.target_dedicated, pool.target_low_priority, pool.slots_per_node), (2, 0, 1));
        assert_eq!(pool.resize_timeout, RESIZE_DEFAULT);
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
        let read = |body: Value| policy(Object::root(body.as_object().unwrap())).map_err(|refusal| refusal.code);
        let policy = read(json!({"maxNodes": "4", "idleMs": 500, "deallocation": "Requeue"})).unwrap();
        assert_eq!((policy.min_nodes, policy.max_nodes, policy.idle_ms, policy.deallocation), (0, 4, 500, DeallocationOption::Requeue));
        assert_eq!(read(json!({})), Err(Code::MissingRequiredProperty));
        assert_eq!(read(json!({"minNodes": 5, "maxNodes": 4})), Err(Code::InvalidPropertyValue));
    }
}
