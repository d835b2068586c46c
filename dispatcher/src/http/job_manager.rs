//! Reads a job's manager task: a task like any other, with a few properties of its own.

use serde_json::{Map, Value, json};

use crate::{
    command::NewManager,
    http::{shared_body::shown_identity, task_body, validate::Object},
    refusal::Refusal,
};

/// Properties of tasks that a manager task does not have.
const FOREIGN: &[&str] = &["dependsOn", "exitConditions", "affinityInfo", "multiInstanceSettings"];

/// The manager task of a job body, and what GET shows of it.
pub fn read(body: &Object<'_>) -> Result<Option<(NewManager, Value)>, Refusal> {
    let Some(given) = body.object("jobManagerTask")? else { return Ok(None) };
    given.unsupported(FOREIGN, "A job manager task runs first and alone decides what follows; leave the property out.")?;
    let task = task_body::read(given)?;
    let ends_job = given.flag("killJobOnCompletion")?.unwrap_or(true);
    let is_exclusive = given.flag("runExclusive")?.unwrap_or(true);
    let allows_low_priority = given.flag("allowLowPriorityNode")?.unwrap_or(true);
    let mut shown: Map<String, Value> = serde_json::from_str(&task.document).expect("a task's document is an object");
    shown.insert("id".to_owned(), json!(task.id));
    shown.insert("userIdentity".to_owned(), shown_identity(&given)?);
    shown.insert("killJobOnCompletion".to_owned(), json!(ends_job));
    shown.insert("runExclusive".to_owned(), json!(is_exclusive));
    shown.insert("allowLowPriorityNode".to_owned(), json!(allows_low_priority));
    Ok(Some((NewManager { task, ends_job, is_exclusive }, Value::Object(shown))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refusal::Code;

    fn manager(task: Value) -> Result<Option<(NewManager, Value)>, Refusal> {
        let body = json!({"jobManagerTask": task});
        read(&Object::root(body.as_object().unwrap()))
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
        assert_eq!(
            manager(json!({"id": "m", "commandLine": "x", "dependsOn": {"taskIds": ["a"]}})).unwrap_err().code,
            Code::UnsupportedProperty
        );
    }
}
