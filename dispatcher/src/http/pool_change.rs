//! Reads the changes of a pool: a patch of what is named, or new values for all that can always change.

use serde_json::{Map, Value, json};

use crate::{
    command::PoolChange,
    http::{
        pool_machine, pool_network, pool_parts,
        shared_body::{display_name, metadata, packages},
        validate::{Object, prune},
    },
    refusal::Refusal,
};

/// What only a pool without nodes may change: nodes that are there would not follow.
const NEED_NO_NODES: &[&str] = &[
    "vmSize",
    "virtualMachineConfiguration",
    "enableInterNodeCommunication",
    "taskSlotsPerNode",
    "maxTasksPerNode",
    "taskSchedulingPolicy",
    "networkConfiguration",
    "mountConfiguration",
    "userAccounts",
    "upgradePolicy",
    "resourceTags",
];

/// Reads a patch: what is absent stays.
pub fn patch(body: Object<'_>) -> Result<PoolChange, Refusal> {
    let mut change = always_changeable(&body)?;
    let mut set = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            change.fields.insert(name.to_owned(), prune(value));
        }
    };
    set("displayName", display_name(&body)?.map(Value::from));
    set("vmSize", pool_parts::vm_size(&body)?.map(Value::from));
    set("virtualMachineConfiguration", pool_machine::read(&body)?);
    set("enableInterNodeCommunication", body.flag("enableInterNodeCommunication")?.map(Value::from));
    set("networkConfiguration", pool_network::network(&body)?);
    set("upgradePolicy", pool_parts::upgrades(&body)?);
    set("resourceTags", pool_parts::tags(&body)?);
    pool_network::mounts(&body)?;
    pool_network::users(&body)?;
    let scheduling = pool_parts::scheduling(&body)?;
    set("taskSchedulingPolicy", scheduling.as_ref().map(|(_, _, shown)| shown.clone()));
    change.scheduling = scheduling.map(|(fill, order, _)| (fill, order));
    change.slots_per_node = pool_parts::slots(&body)?;
    change.needs_no_nodes = NEED_NO_NODES.iter().find(|name| body.value(name).is_some()).copied();
    Ok(change)
}

/// Reads new values for everything that can always change: what is absent goes.
pub fn replacement(body: Object<'_>) -> Result<PoolChange, Refusal> {
    for name in ["applicationPackageReferences", "metadata"] {
        if body.value(name).is_none() {
            return Err(body.missing(name));
        }
    }
    let mut change = always_changeable(&body)?;
    change.start_task.get_or_insert(None);
    for name in ["startTask", "metadata", "targetNodeCommunicationMode"] {
        change.fields.entry(name).or_insert(Value::Null);
    }
    Ok(change)
}

fn always_changeable(body: &Object<'_>) -> Result<PoolChange, Refusal> {
    pool_parts::retired(body)?;
    let mut fields = Map::new();
    let given = packages(body)?;
    let packages = body.value("applicationPackageReferences").map(|_| given);
    if let Some(packages) = &packages {
        fields.insert("applicationPackageReferences".to_owned(), json!(packages));
    }
    let start_task = pool_parts::start_task(body)?;
    if let Some((_, shown)) = &start_task {
        fields.insert("startTask".to_owned(), prune(shown.clone()));
    }
    if body.value("metadata").is_some() {
        fields.insert("metadata".to_owned(), Value::Array(metadata(body)?));
    }
    if let Some(mode) = pool_parts::communication(body)? {
        fields.insert("targetNodeCommunicationMode".to_owned(), json!(mode));
    }
    Ok(PoolChange { fields, start_task: start_task.map(|(task, _)| Some(task)), packages, ..PoolChange::default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refusal::Code;

    fn read<T>(body: Value, read: impl Fn(Object<'_>) -> Result<T, Refusal>) -> Result<T, Code> {
        read(Object::root(body.as_object().unwrap())).map_err(|refusal| refusal.code)
    }

    #[test]
    fn a_patch_names_only_what_it_was_given() {
        let change = read(json!({"metadata": [], "displayName": "x"}), patch).unwrap();
        assert_eq!(Value::Object(change.fields), json!({"metadata": [], "displayName": "x"}));
        assert_eq!((change.start_task, change.needs_no_nodes), (None, None));
        let change = read(json!({"taskSlotsPerNode": "4", "startTask": {"commandLine": "x"}}), patch).unwrap();
        assert_eq!((change.slots_per_node, change.needs_no_nodes), (Some(4), Some("taskSlotsPerNode")));
        assert!(change.start_task.is_some());
        assert_eq!(read(json!({"vmSize": ""}), patch).err(), Some(Code::InvalidPropertyValue));
        assert_eq!(read(json!({"startTask": {}}), patch).err(), Some(Code::MissingRequiredProperty));
        assert_eq!(read(json!({"virtualMachineConfiguration": {}}), patch).err(), Some(Code::MissingRequiredProperty));
    }

    #[test]
    fn a_replacement_removes_what_it_leaves_out() {
        let lists = json!({"applicationPackageReferences": [], "metadata": []});
        let change = read(lists, replacement).unwrap();
        assert_eq!(change.start_task, Some(None));
        let left = json!({"applicationPackageReferences": [], "metadata": [], "startTask": null, "targetNodeCommunicationMode": null});
        assert_eq!(Value::Object(change.fields), left);
        assert_eq!(read(json!({"metadata": []}), replacement).err(), Some(Code::MissingRequiredProperty));
        assert_eq!(read(json!({"applicationPackageReferences": []}), replacement).err(), Some(Code::MissingRequiredProperty));
    }
}
