//! Reads job preparation and release tasks.

use contract::{
    ids::TaskId,
    period::Period,
    spec::{TaskConstraints, TaskSpec},
};
use engine::shown_constraints;
use model::{
    job_tasks::{JobTasks, PreparationTask, RELEASE_MAX, ReleaseTask},
    refusal::Refusal,
};
use serde_json::{Value, json};

use crate::{
    body::{Object, prune},
    shared_body::{command_line, environment, resource_files, shown_identity},
    tasks,
};

const PREPARATION: &str = "jobPreparationTask";
const RELEASE: &str = "jobReleaseTask";
/// Default `retentionTime` of a release task's directory.
const RETENTION: Period = Period::from_secs(7 * 24 * 3600);

/// The job tasks, and the JSON of preparation and release that GET shows.
pub type Read = (JobTasks, Value, Option<Value>);

/// Ids of the preparation and release tasks in a job's document.
pub fn names(document: &str) -> Option<(TaskId, Option<TaskId>)> {
    let document: Value = serde_json::from_str(document).ok()?;
    let name = |task: &str| document[task]["id"].as_str()?.parse().ok();
    name(PREPARATION).map(|preparation| (preparation, name(RELEASE)))
}

fn name(task: &Object<'_>, default: &str) -> TaskId {
    task.id("id").unwrap_or_else(|| default.parse().expect("the default names are ids"))
}

fn spec(task: &Object<'_>, constraints: TaskConstraints) -> Result<TaskSpec, Refusal> {
    Ok(TaskSpec {
        command_line: command_line(task)?,
        resource_files: resource_files(task)?,
        environment_settings: environment(task, "environmentSettings")?,
        constraints,
        ..TaskSpec::default()
    })
}

fn preparation(given: &Object<'_>) -> Result<(PreparationTask, Value), Refusal> {
    let constraints = tasks::body::constraints(given);
    let task = PreparationTask {
        id: name(given, "jobpreparation"),
        spec: spec(given, constraints)?,
        waits: given.flag("waitForSuccess").unwrap_or(true),
        reruns: given.flag("rerunOnNodeRebootAfterSuccess").unwrap_or(true),
    };
    let retries = constraints.max_task_retry_count.unwrap_or(0);
    let shown = json!({
        "id": task.id,
        "commandLine": task.spec.command_line,
        "resourceFiles": task.spec.resource_files,
        "environmentSettings": task.spec.environment_settings,
        "constraints": shown_constraints(TaskConstraints { max_task_retry_count: Some(retries), ..constraints }),
        "waitForSuccess": task.waits,
        "rerunOnNodeRebootAfterSuccess": task.reruns,
        "userIdentity": shown_identity(given),
    });
    Ok((task, prune(shown)))
}

fn release(given: &Object<'_>) -> Result<(ReleaseTask, Value), Refusal> {
    let limit = given.period("maxWallClockTime").unwrap_or(RELEASE_MAX);
    let retention = given.period("retentionTime");
    let constraints = TaskConstraints { max_wall_clock_time: Some(limit), retention_time: retention, max_task_retry_count: None };
    let task = ReleaseTask { id: name(given, "jobrelease"), spec: spec(given, constraints)? };
    let shown = json!({
        "id": task.id,
        "commandLine": task.spec.command_line,
        "resourceFiles": task.spec.resource_files,
        "environmentSettings": task.spec.environment_settings,
        "maxWallClockTime": limit,
        "retentionTime": retention.unwrap_or(RETENTION),
        "userIdentity": shown_identity(given),
    });
    Ok((task, prune(shown)))
}

/// Reads both tasks. `manager` is the job manager's id, which they must not share.
pub fn read(body: &Object<'_>, manager: Option<&TaskId>) -> Result<Option<Read>, Refusal> {
    let given_release = body.object(RELEASE);
    let Some(given) = body.object(PREPARATION) else {
        return match given_release {
            Some(_) => Err(body.invalid(RELEASE, "A job with a release task needs a preparation task, too: add jobPreparationTask.")),
            None => Ok(None),
        };
    };
    let (preparation, shown) = preparation(&given)?;
    let release = given_release.as_ref().map(release).transpose()?;
    let same = |id: &TaskId, what: &str| format!("The {what} task is called {id}, too; each task needs an id of its own.");
    if let Some(manager) = manager.filter(|manager| **manager == preparation.id) {
        return Err(given.invalid("id", same(manager, "job manager")));
    }
    if let (Some((release, _)), Some(given)) = (&release, &given_release) {
        if release.id == preparation.id {
            return Err(given.invalid("id", same(&preparation.id, "job preparation")));
        }
        if manager == Some(&release.id) {
            return Err(given.invalid("id", same(&release.id, "job manager")));
        }
    }
    let (release, shown_release) = release.unzip();
    Ok(Some((JobTasks { preparation, release }, shown, shown_release)))
}

#[cfg(test)]
mod tests {
    use model::refusal::Code;

    use super::*;
    use crate::body::tried;

    fn job_tasks(mut body: Value) -> Result<Option<Read>, Refusal> {
        (body["id"], body["poolInfo"]) = (json!("j"), json!({"poolId": "p"}));
        tried("JobAddParameter", &body, |body| read(&body, Some(&"manager".parse().unwrap())))
    }

    #[test]
    fn defaults_are_azures() {
        let body = json!({"jobPreparationTask": {"commandLine": "a"}, "jobReleaseTask": {"commandLine": "b"}});
        let (job_tasks, preparation, release) = job_tasks(body).unwrap().unwrap();
        let release = release.unwrap();
        assert!(job_tasks.preparation.waits && job_tasks.preparation.reruns);
        assert_eq!((&preparation["id"], &release["id"]), (&json!("jobpreparation"), &json!("jobrelease")));
        assert_eq!((&preparation["waitForSuccess"], &preparation["rerunOnNodeRebootAfterSuccess"]), (&json!(true), &json!(true)));
        assert_eq!((&release["maxWallClockTime"], &release["retentionTime"]), (&json!("PT15M"), &json!("P7D")));
        assert_eq!(job_tasks.rules().release_ms, Some(900_000));
    }

    #[test]
    fn a_wrong_property_is_named_with_its_path() {
        let of = |body: Value| job_tasks(body).map(|_| ()).map_err(|refusal| (refusal.code, refusal.values[0].1.clone()));
        let invalid = |path: &str| Err((Code::InvalidPropertyValue, path.to_owned()));
        let preparation = |task: Value| json!({ "jobPreparationTask": task });
        let release = |task: Value| json!({"jobPreparationTask": {"commandLine": "a"}, "jobReleaseTask": task});
        assert_eq!(of(json!({"jobReleaseTask": {"commandLine": "b"}})), invalid("jobReleaseTask"));
        assert_eq!(of(preparation(json!({}))), Err((Code::MissingRequiredProperty, "jobPreparationTask.commandLine".to_owned())));
        for (task, path) in [
            (json!({"commandLine": " "}), "commandLine"),
            (json!({"commandLine": "a", "id": "a b"}), "id"),
            (json!({"commandLine": "a", "id": "Manager"}), "id"),
            (json!({"commandLine": "a", "waitForSuccess": 1}), "waitForSuccess"),
            (json!({"commandLine": "a", "rerunOnNodeRebootAfterSuccess": "x"}), "rerunOnNodeRebootAfterSuccess"),
            (json!({"commandLine": "a", "constraints": {"maxTaskRetryCount": -2}}), "constraints.maxTaskRetryCount"),
            (json!({"commandLine": "a", "resourceFiles": [{"httpUrl": "x", "filePath": "y"}]}), "resourceFiles[0].httpUrl"),
        ] {
            assert_eq!(of(preparation(task)), invalid(&format!("jobPreparationTask.{path}")));
        }
        for (task, path) in [
            (json!({"commandLine": "b", "maxWallClockTime": "PT15M1S"}), "maxWallClockTime"),
            (json!({"commandLine": "b", "maxWallClockTime": "PT0S"}), "maxWallClockTime"),
            (json!({"commandLine": "b", "id": "JobPreparation"}), "id"),
            (json!({"commandLine": "b", "id": "manager"}), "id"),
        ] {
            assert_eq!(of(release(task)), invalid(&format!("jobReleaseTask.{path}")));
        }
        let container = json!({"commandLine": "a", "containerSettings": {"imageName": "i"}});
        assert_eq!(of(preparation(container)).unwrap_err().0, Code::UnsupportedProperty);
    }

    #[test]
    fn names_are_found_in_the_document() {
        assert_eq!(names("{}"), None);
        let document = r#"{"jobPreparationTask":{"id":"p"}}"#;
        assert_eq!(names(document), Some(("p".parse().unwrap(), None)));
    }
}
