//! Reads the parts of a pool that can be given when it is added and changed later.

use broker_config::spec::{FillType, StartTask};
use serde_json::{Value, json};

use crate::{
    core::JobOrder,
    http::{
        shared_body::{COMMAND_LINE_MAX, environment, resource_files, retries, shown_identity},
        validate::Object,
    },
    refusal::Refusal,
};

/// Characters of a start task with its files and variables.
const START_TASK_MAX: usize = 32_768;
/// Slots of a node.
const SLOTS_MAX: i64 = 256;
/// Tags of a pool, and characters of their names and values.
const TAGS_MAX: usize = 50;
const TAG_NAME_MAX: usize = 512;
const TAG_VALUE_MAX: usize = 256;

const OWN_UPGRADES: &str = "Upgrade the machine's system itself, or give mode manual.";

/// Reads `vmSize`.
pub fn vm_size<'a>(body: &Object<'a>) -> Result<Option<&'a str>, Refusal> {
    if body.value("vmSize").is_none() { Ok(None) } else { body.required_text("vmSize", 256).map(Some) }
}

/// Reads `taskSlotsPerNode`, or its old name.
pub fn slots(body: &Object<'_>) -> Result<Option<u32>, Refusal> {
    let slots = match body.integer("taskSlotsPerNode", 1..=SLOTS_MAX)? {
        Some(slots) => Some(slots),
        None => body.integer("maxTasksPerNode", 1..=SLOTS_MAX)?,
    };
    Ok(slots.map(|slots| slots as u32))
}

/// Reads a start task: what nodes run, and what is shown.
pub fn start_task(body: &Object<'_>) -> Result<Option<(StartTask, Value)>, Refusal> {
    let Some(given) = body.object("startTask")? else { return Ok(None) };
    given.unsupported(&["containerSettings"], "Containers are not served yet.")?;
    let task = StartTask {
        command_line: given.required_text("commandLine", COMMAND_LINE_MAX)?.to_owned(),
        resource_files: resource_files(&given)?,
        environment_settings: environment(&given, "environmentSettings")?,
        max_task_retry_count: Some(retries(&given)?.unwrap_or(0)),
        wait_for_success: Some(given.flag("waitForSuccess")?.unwrap_or(true)),
    };
    let mut shown = json!(task);
    if shown.to_string().chars().count() > START_TASK_MAX {
        return Err(
            given.invalid("commandLine", format!("The start task with its files and variables may have {START_TASK_MAX} characters."))
        );
    }
    shown["userIdentity"] = shown_identity(&given)?;
    Ok(Some((task, shown)))
}

/// How nodes are filled and jobs take turns, and how that is shown.
pub fn scheduling(body: &Object<'_>) -> Result<Option<(FillType, JobOrder, Value)>, Refusal> {
    let Some(policy) = body.object("taskSchedulingPolicy")? else { return Ok(None) };
    let word = policy.choice("nodeFillType", &["spread", "pack"])?.ok_or_else(|| policy.missing("nodeFillType"))?;
    let fill = if word == "pack" { FillType::Pack } else { FillType::Spread };
    let order = policy.choice("jobDefaultOrder", &["none", "creationtime"])?;
    let shown = json!({"nodeFillType": word, "jobDefaultOrder": order});
    Ok(Some((fill, order.and_then(JobOrder::parse).unwrap_or_default(), shown)))
}

/// Refuses what is retired or cannot be had here.
pub fn retired(body: &Object<'_>) -> Result<(), Refusal> {
    body.unsupported(&["certificateReferences"], "Certificates are retired.")?;
    body.unsupported(&["applicationLicenses"], "There are no licences to rent here.")?;
    body.unsupported(&["identity"], "Nodes use the configured blob store's credentials.")
}

/// Reads `resourceTags`: names and texts.
pub fn tags(body: &Object<'_>) -> Result<Option<Value>, Refusal> {
    let Some(tags) = body.object("resourceTags")? else { return Ok(None) };
    let Some(Value::Object(given)) = body.value("resourceTags") else { return Ok(None) };
    if given.len() > TAGS_MAX {
        return Err(body.invalid("resourceTags", format!("It may have at most {TAGS_MAX} tags.")));
    }
    for name in given.keys() {
        if name.is_empty() || name.chars().count() > TAG_NAME_MAX {
            return Err(body.invalid("resourceTags", format!("A tag's name has 1 to {TAG_NAME_MAX} characters.")));
        }
        tags.text(name, TAG_VALUE_MAX)?;
    }
    Ok(body.value("resourceTags").cloned())
}

/// Reads `upgradePolicy`; systems are not upgraded from here, so only `manual` is kept.
pub fn upgrades(body: &Object<'_>) -> Result<Option<Value>, Refusal> {
    let Some(policy) = body.object("upgradePolicy")? else { return Ok(None) };
    let mode = policy.choice("mode", &["automatic", "manual", "rolling"])?.ok_or_else(|| policy.missing("mode"))?;
    if let Some(automatic) = policy.object("automaticOSUpgradePolicy")? {
        for name in ["disableAutomaticRollback", "enableAutomaticOSUpgrade", "useRollingUpgradePolicy", "osRollingUpgradeDeferral"] {
            automatic.flag(name)?;
        }
        automatic.unsupported(&["enableAutomaticOSUpgrade"], OWN_UPGRADES)?;
    }
    if let Some(rolling) = policy.object("rollingUpgradePolicy")? {
        for name in ["enableCrossZoneUpgrade", "prioritizeUnhealthyInstances", "rollbackFailedInstancesOnPolicyBreach"] {
            rolling.flag(name)?;
        }
        rolling.integer("maxBatchInstancePercent", 5..=100)?;
        rolling.integer("maxUnhealthyInstancePercent", 5..=100)?;
        rolling.integer("maxUnhealthyUpgradedInstancePercent", 0..=100)?;
        rolling.period("pauseTimeBetweenBatches", broker_config::period::Period::from_secs(0))?;
    }
    if mode != "manual" {
        policy.unsupported(&["mode"], OWN_UPGRADES)?;
    }
    Ok(body.value("upgradePolicy").cloned())
}

/// Reads `targetNodeCommunicationMode`.
pub fn communication(body: &Object<'_>) -> Result<Option<&'static str>, Refusal> {
    body.choice("targetNodeCommunicationMode", &["default", "classic", "simplified"])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refusal::Code::{self, *};

    fn check(name: &str, value: Value) -> Option<Code> {
        let body = json!({ name: value });
        let body = Object::root(body.as_object().unwrap());
        let all = || {
            retired(&body)?;
            tags(&body)?;
            upgrades(&body)?;
            scheduling(&body)?;
            slots(&body)
        };
        all().err().map(|refusal| refusal.code)
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
