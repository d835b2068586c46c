//! Reads changes of a pool: a patch of the given properties, or a replacement of all that can always change.

use model::{pool::PoolChange, refusal::Refusal};
use serde_json::Value;

use crate::{
    body::{Object, or_null, prune},
    pools::parts,
};

/// Reads a patch; properties that are not given stay.
pub fn patch(body: Object<'_>) -> Result<PoolChange, Refusal> {
    let mut change = parts::read(&body)?;
    change.fields = change.fields.into_iter().map(|(name, value)| (name, or_null(prune(value)))).collect();
    Ok(change)
}

/// Reads a replacement; properties that are not given are removed.
pub fn replacement(body: Object<'_>) -> Result<PoolChange, Refusal> {
    let mut change = patch(body)?;
    change.start_task.get_or_insert(None);
    for name in ["startTask", "metadata", "targetNodeCommunicationMode"] {
        change.fields.entry(name).or_insert(Value::Null);
    }
    Ok(change)
}

#[cfg(test)]
mod tests {
    use model::refusal::Code;
    use serde_json::json;

    use super::*;
    use crate::body::tried;

    fn patched(body: Value) -> Result<PoolChange, Code> {
        tried("PoolPatchParameter", &body, patch).map_err(|refusal| refusal.code)
    }

    fn replaced(body: Value) -> Result<PoolChange, Code> {
        tried("PoolUpdatePropertiesParameter", &body, replacement).map_err(|refusal| refusal.code)
    }

    #[test]
    fn a_patch_names_only_what_it_was_given() {
        let change = patched(json!({"metadata": [], "displayName": "x"})).unwrap();
        assert_eq!(Value::Object(change.fields), json!({"metadata": null, "displayName": "x"}));
        assert_eq!((change.start_task, change.needs_no_nodes), (None, None));
        let change = patched(json!({"taskSlotsPerNode": "4", "startTask": {"commandLine": "x"}})).unwrap();
        assert_eq!((change.slots_per_node, change.needs_no_nodes), (Some(4), Some("taskSlotsPerNode")));
        assert!(change.start_task.is_some());
        assert_eq!(patched(json!({"vmSize": ""})).err(), Some(Code::InvalidPropertyValue));
        assert_eq!(patched(json!({"startTask": {}})).err(), Some(Code::MissingRequiredProperty));
        assert_eq!(patched(json!({"virtualMachineConfiguration": {}})).err(), Some(Code::MissingRequiredProperty));
    }

    #[test]
    fn a_replacement_removes_what_it_leaves_out() {
        let lists = json!({"applicationPackageReferences": [], "metadata": []});
        let change = replaced(lists).unwrap();
        assert_eq!(change.start_task, Some(None));
        let left = json!({"applicationPackageReferences": null, "metadata": null, "startTask": null, "targetNodeCommunicationMode": null});
        assert_eq!(Value::Object(change.fields), left);
        assert_eq!(replaced(json!({"metadata": []})).err(), Some(Code::MissingRequiredProperty));
        assert_eq!(replaced(json!({"applicationPackageReferences": []})).err(), Some(Code::MissingRequiredProperty));
    }
}
