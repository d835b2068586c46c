//! Reads the bodies of job requests: a new job, PATCH and PUT.

use contract::{ids::JobId, period::Period};
use model::{
    document::Properties,
    job::{DisableOption, JobChange, NewJob},
    refusal::Refusal,
};
use serde_json::{Value, json};

use crate::{
    body::{Object, or_null, prune},
    jobs::{manager, pool, preparation},
    shared_body::{environment, metadata},
};

/// The limits of a job: retries and wall clock.
type Limits = (i32, Option<Period>);

fn limits(body: &Object<'_>) -> Option<Limits> {
    let given = body.object("constraints")?;
    let wall_clock = given.period("maxWallClockTime").filter(|period| *period < Period::UNLIMITED);
    Some((given.integer("maxTaskRetryCount").unwrap_or(0), wall_clock))
}

fn max_parallel(body: &Object<'_>) -> Result<Option<i32>, Refusal> {
    match body.integer("maxParallelTasks") {
        Some(0) => Err(body.invalid("maxParallelTasks", "It must be -1, for no limit, or at least 1.")),
        given => Ok(given),
    }
}

fn terminates(body: &Object<'_>) -> Option<bool> {
    body.word("onAllTasksComplete").map(|action| action == "terminatejob")
}

/// Reads a new job.
pub fn read(body: Object<'_>) -> Result<NewJob, Refusal> {
    specification(body, body.required_id("id"))
}

/// Reads a job without its name, which is given.
pub fn specification(body: Object<'_>, id: JobId) -> Result<NewJob, Refusal> {
    let (pool, pool_info) = pool::read(&body, id.schedule().is_some())?;
    let (max_task_retry_count, max_wall_clock) = limits(&body).unwrap_or_default();
    let environment = environment(&body, "commonEnvironmentSettings")?;
    let (manager, shown_manager) = manager::read(&body)?.unzip();
    let job_tasks = preparation::read(&body, manager.as_ref().map(|manager| &manager.task.id))?;
    let document = prune(json!({
        "displayName": body.text("displayName"),
        "commonEnvironmentSettings": environment,
        "allowTaskPreemption": body.flag("allowTaskPreemption").unwrap_or(false),
        "metadata": metadata(&body)?,
        "jobManagerTask": shown_manager,
        "poolInfo": pool_info,
        "jobPreparationTask": job_tasks.as_ref().map(|(_, preparation, _)| preparation),
        "jobReleaseTask": job_tasks.as_ref().and_then(|(.., release)| release.as_ref()),
    }));
    Ok(NewJob {
        id,
        document: document.to_string(),
        pool,
        priority: body.integer("priority").unwrap_or(0),
        max_parallel: max_parallel(&body)?.unwrap_or(-1),
        environment,
        max_task_retry_count,
        max_wall_clock,
        terminate_when_complete: terminates(&body).unwrap_or(false),
        performs_exit_options: body.word("onTaskFailure") == Some("performexitoptionsjobaction"),
        uses_dependencies: body.flag("usesTaskDependencies").unwrap_or(false),
        manager: manager.map(Box::new),
        job_tasks: job_tasks.map(|(job_tasks, ..)| Box::new(job_tasks)),
    })
}

/// Reads what happens to running tasks when a job is disabled.
pub fn disable(body: Object<'_>) -> DisableOption {
    match body.word("disableTasks") {
        Some("requeue") => DisableOption::Requeue,
        Some("terminate") => DisableOption::Terminate,
        _ => DisableOption::Wait,
    }
}

/// Reads a change. With `is_whole` (PUT), properties that are not given go back to their defaults.
pub fn change(body: Object<'_>, is_whole: bool) -> Result<JobChange, Refusal> {
    let (pool, own_pool) = match pool::change(&body, is_whole)? {
        None => (None, None),
        Some(pool::Change::Named(pool)) => (Some(pool), None),
        Some(pool::Change::Own(change)) => (None, Some(change)),
    };
    let or = |is_given: bool| is_given || is_whole;
    let limits = or(body.value("constraints").is_some()).then(|| limits(&body).unwrap_or_default());
    let mut fields = Properties::new();
    if or(body.value("metadata").is_some()) {
        fields.insert("metadata".to_owned(), or_null(Value::Array(metadata(&body)?)));
    }
    if let Some(allowed) = body.flag("allowTaskPreemption").or(is_whole.then_some(false)) {
        fields.insert("allowTaskPreemption".to_owned(), Value::Bool(allowed));
    }
    Ok(JobChange {
        priority: body.integer("priority").or(is_whole.then_some(0)),
        max_parallel: max_parallel(&body)?.or(is_whole.then_some(-1)),
        terminate_when_complete: terminates(&body).or(is_whole.then_some(false)),
        max_task_retry_count: limits.map(|(retries, _)| retries),
        max_wall_clock: limits.map(|(_, wall_clock)| wall_clock),
        pool,
        keep_alive: None,
        fields,
        own_pool,
    })
}

#[cfg(test)]
mod tests {
    use model::refusal::Code;

    use super::*;
    use crate::body::tried;

    fn job(body: Value) -> Result<NewJob, Refusal> {
        tried("JobAddParameter", &body, read)
    }

    #[test]
    fn a_job_needs_exactly_one_pool() {
        let code = |info: Value| job(json!({"id": "j", "poolInfo": info})).map(|_| ()).map_err(|refusal| refusal.code);
        assert_eq!(code(json!({"poolId": "p"})), Ok(()));
        assert_eq!(code(json!({})), Err(Code::MissingRequiredProperty));
        assert_eq!(code(Value::Null), Err(Code::MissingRequiredProperty));
        assert_eq!(code(json!({"autoPoolSpecification": {"poolLifetimeOption": "job"}})), Err(Code::MissingRequiredProperty));
        assert_eq!(code(json!({"poolId": "p", "autoPoolSpecification": {}})), Err(Code::InvalidPropertyValue));
    }

    #[test]
    fn defaults_are_azures() {
        let job = job(json!({"id": "j", "poolInfo": {"poolId": "p"}, "constraints": {"maxWallClockTime": "P10675199DT2H48M5.4775807S"}}))
            .unwrap();
        assert_eq!((job.priority, job.max_parallel, job.max_task_retry_count, job.max_wall_clock), (0, -1, 0, None));
        assert_eq!(job.document, r#"{"allowTaskPreemption":false}"#);
    }

    #[test]
    fn a_patch_keeps_what_it_does_not_name_and_a_put_does_not() {
        let body = json!({"priority": 5, "poolInfo": {"poolId": "p"}});
        let patch = tried("JobPatchParameter", &body, |body| change(body, false)).unwrap();
        assert_eq!((patch.priority, patch.max_parallel, patch.fields.len()), (Some(5), None, 0));
        let put = tried("JobUpdateParameter", &body, |body| change(body, true)).unwrap();
        assert_eq!((put.priority, put.max_parallel), (Some(5), Some(-1)));
        assert_eq!(Value::Object(put.fields), json!({"metadata": null, "allowTaskPreemption": false}));
    }
}
