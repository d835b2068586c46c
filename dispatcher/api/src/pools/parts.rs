//! Reads the properties of a pool that can be given when it is added and changed later.

use contract::spec::{FillType, StartTask};
use model::{
    pool::{JobOrder, PoolChange},
    refusal::Refusal,
};
use serde_json::{Value, json};

use crate::{
    body::Object,
    pools::{machine, network},
    shared_body::{environment, metadata, packages, resource_files, shown_identity},
};

/// Characters of a start task, including its files and variables.
const START_TASK_MAX: usize = 32_768;
/// Tags of a pool, and characters of their names.
const TAGS_MAX: usize = 50;
const TAG_NAME_MAX: usize = 512;

/// Reads the given properties of a new pool or of a change.
pub fn read(body: &Object<'_>) -> Result<PoolChange, Refusal> {
    let mut fields = body.shown_only();
    let mut set = |name: &str, value: Option<Value>| fields.extend(value.map(|value| (name.to_owned(), value)));
    tags(body)?;
    network::network(body)?;
    network::mounts(body)?;
    network::users(body)?;
    upgrades(body)?;
    for name in ["networkConfiguration", "upgradePolicy"] {
        set(name, body.kept(name));
    }
    let packages = body.value("applicationPackageReferences").map(|_| packages(body)).transpose()?;
    set("applicationPackageReferences", packages.as_ref().map(|packages| json!(packages)));
    set("metadata", body.value("metadata").map(|_| metadata(body)).transpose()?.map(Value::Array));
    set(machine::MACHINE, machine::read(body)?);
    let (start_task, shown) = start_task(body)?.unzip();
    set("startTask", shown);
    let (scheduling, shown) = scheduling(body).unzip();
    set("taskSchedulingPolicy", shown);
    Ok(PoolChange {
        fields,
        start_task: start_task.map(Some),
        packages,
        slots_per_node: slots(body),
        scheduling,
        needs_no_nodes: body.first(|property| property.needs_no_nodes),
    })
}

/// Reads `taskSlotsPerNode`, or its old name.
fn slots(body: &Object<'_>) -> Option<u32> {
    body.integer("taskSlotsPerNode").or_else(|| body.integer("maxTasksPerNode"))
}

/// Reads a start task: what nodes run, and the JSON that GET shows.
fn start_task(body: &Object<'_>) -> Result<Option<(StartTask, Value)>, Refusal> {
    let Some(given) = body.object("startTask") else { return Ok(None) };
    let task = StartTask {
        command_line: given.required_text("commandLine"),
        resource_files: resource_files(&given)?,
        environment_settings: environment(&given, "environmentSettings")?,
        max_task_retry_count: Some(given.integer("maxTaskRetryCount").unwrap_or(0)),
        wait_for_success: Some(given.flag("waitForSuccess").unwrap_or(true)),
    };
    let mut shown = json!(task);
    if shown.to_string().chars().count() > START_TASK_MAX {
        return Err(
            given.invalid("commandLine", format!("The start task with its files and variables may have {START_TASK_MAX} characters."))
        );
    }
    shown["userIdentity"] = shown_identity(&given);
    Ok(Some((task, shown)))
}

/// How nodes are filled and how jobs share the pool, and the JSON that GET shows.
fn scheduling(body: &Object<'_>) -> Option<((FillType, JobOrder), Value)> {
    let policy = body.object("taskSchedulingPolicy")?;
    let (fill, order) = (policy.word("nodeFillType"), policy.word("jobDefaultOrder"));
    let shown = json!({"nodeFillType": fill, "jobDefaultOrder": order});
    let fill = if fill == Some("pack") { FillType::Pack } else { FillType::Spread };
    Some(((fill, order.and_then(JobOrder::parse).unwrap_or_default()), shown))
}

/// Checks number and names of `resourceTags`.
fn tags(body: &Object<'_>) -> Result<(), Refusal> {
    let Some(Value::Object(given)) = body.value("resourceTags") else { return Ok(()) };
    if given.len() > TAGS_MAX {
        return Err(body.invalid("resourceTags", format!("It may have at most {TAGS_MAX} tags.")));
    }
    if given.keys().any(|name| name.is_empty() || name.chars().count() > TAG_NAME_MAX) {
        return Err(body.invalid("resourceTags", format!("A tag's name has 1 to {TAG_NAME_MAX} characters.")));
    }
    Ok(())
}

/// Checks `upgradePolicy`. Piecework upgrades no systems, so only `manual` is kept.
fn upgrades(body: &Object<'_>) -> Result<(), Refusal> {
    match body.object("upgradePolicy") {
        Some(policy) if policy.word("mode") != Some("manual") => {
            Err(policy.not_served("mode", "Upgrade the machine's system itself, or give mode manual."))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use model::refusal::Code::{self, *};

    use super::*;
    use crate::body::tried;

    fn check(name: &str, value: Value) -> Option<Code> {
        tried("PoolPatchParameter", &json!({ name: value }), |body| read(&body)).err().map(|refusal| refusal.code)
    }

    #[test]
    fn parts_are_checked_to_the_last_field() {
        for (name, value, code) in [
            ("certificateReferences", json!([{}]), Some(UnsupportedProperty)),
            ("certificateReferences", json!([]), None),
            ("applicationLicenses", json!(["maya"]), Some(UnsupportedProperty)),
            ("resourceTags", json!({"a": "b"}), None),
            ("resourceTags", json!({"a": 1}), Some(InvalidPropertyValue)),
            ("resourceTags", json!({"": "b"}), Some(InvalidPropertyValue)),
            ("upgradePolicy", json!({"mode": "Manual"}), None),
            ("upgradePolicy", json!({"mode": "automatic"}), Some(UnsupportedProperty)),
            ("upgradePolicy", json!({"mode": "never"}), Some(InvalidPropertyValue)),
            ("upgradePolicy", json!({}), Some(MissingRequiredProperty)),
            (
                "upgradePolicy",
                json!({"mode": "manual", "rollingUpgradePolicy": {"maxBatchInstancePercent": 4}}),
                Some(InvalidPropertyValue),
            ),
            ("taskSchedulingPolicy", json!({}), Some(MissingRequiredProperty)),
            ("taskSchedulingPolicy", json!({"nodeFillType": "Pack", "jobDefaultOrder": "CreationTime"}), None),
            ("taskSchedulingPolicy", json!({"nodeFillType": "pack", "jobDefaultOrder": "name"}), Some(InvalidPropertyValue)),
            ("maxTasksPerNode", json!(257), Some(InvalidPropertyValue)),
        ] {
            assert_eq!(check(name, value.clone()), code, "{name} {value}");
        }
    }
}
