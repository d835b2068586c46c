//! Reads a job manager task: a task with a few properties of its own.

use model::{job::NewManager, refusal::Refusal};
use serde_json::{Value, json};

use crate::{
    body::{Object, is_something},
    shared_body::shown_identity,
    tasks,
};

/// Properties of tasks that a job manager task does not have.
const FOREIGN: &[&str] = &["dependsOn", "exitConditions", "affinityInfo", "multiInstanceSettings"];

/// The job manager task, and the JSON that GET shows.
pub fn read(body: &Object<'_>) -> Result<Option<(NewManager, Value)>, Refusal> {
    let Some(given) = body.object("jobManagerTask") else { return Ok(None) };
    if let Some(name) = FOREIGN.iter().find(|name| given.fields().get(**name).is_some_and(is_something)) {
        return Err(given.not_served(name, "A job manager task runs first and alone decides what follows; leave the property out."));
    }
    let task = tasks::body::read(given)?;
    let ends_job = given.flag("killJobOnCompletion").unwrap_or(true);
    let is_exclusive = given.flag("runExclusive").unwrap_or(true);
    if given.flag("allowLowPriorityNode") == Some(false) {
        return Err(
            given.not_served("allowLowPriorityNode", "A manager runs on any node of its pool; give a pool without low-priority nodes.")
        );
    }
    let mut shown = serde_json::to_value(&task.document).expect("a task has a JSON form");
    shown["id"] = json!(task.id);
    shown["userIdentity"] = shown_identity(&given);
    shown["killJobOnCompletion"] = json!(ends_job);
    shown["runExclusive"] = json!(is_exclusive);
    shown["allowLowPriorityNode"] = json!(true);
    Ok(Some((NewManager { task, ends_job, is_exclusive }, shown)))
}

#[cfg(test)]
mod tests {
    use model::refusal::Code;

    use super::*;
    use crate::body::tried;

    fn manager(task: Value) -> Result<Option<(NewManager, Value)>, Refusal> {
        let body = json!({"id": "j", "poolInfo": {"poolId": "p"}, "jobManagerTask": task});
        tried("JobAddParameter", &body, |body| read(&body))
    }

    #[test]
    fn defaults_are_azures() {
        let (manager, shown) = manager(json!({"id": "m", "commandLine": "x"})).unwrap().unwrap();
        assert!(manager.ends_job && manager.is_exclusive);
        assert_eq!(
            (&shown["id"], &shown["killJobOnCompletion"], &shown["allowLowPriorityNode"]),
            (&json!("m"), &json!(true), &json!(true))
        );
    }

    #[test]
    fn a_wrong_property_is_named_with_its_path() {
        let refusal = manager(json!({"id": "m", "commandLine": "x", "killJobOnCompletion": "perhaps"})).unwrap_err();
        assert_eq!(refusal.values[0].1, "jobManagerTask.killJobOnCompletion");
        let refusal = manager(json!({"id": "m"})).unwrap_err();
        assert_eq!((refusal.code, refusal.values[0].1.as_str()), (Code::MissingRequiredProperty, "jobManagerTask.commandLine"));
        let refusal = manager(json!({"id": "m", "commandLine": "x", "allowLowPriorityNode": false})).unwrap_err();
        assert_eq!((refusal.code, refusal.values[0].1.as_str()), (Code::UnsupportedProperty, "jobManagerTask.allowLowPriorityNode"));
        assert_eq!(
            manager(json!({"id": "m", "commandLine": "x", "dependsOn": {"taskIds": ["a"]}})).unwrap_err().code,
            Code::UnsupportedProperty
        );
    }
}
