//! Reads a job as it is asked for, and what PATCH and PUT change of one.

use broker_config::{ids::JobId, period::Period};
use serde_json::{Map, Value, json};

use crate::{
    command::{DisableOption, JobChange, NewJob},
    http::{
        job_chores, job_manager, job_pool,
        shared_body::{display_name, environment, metadata, retries},
        validate::{Object, prune},
    },
    refusal::Refusal,
};

const NO_NETWORKS: &str = "Nodes use the network of the machine they run on.";

/// The limits of a job: retries and wall clock.
type Limits = (i32, Option<Period>);

fn limits(body: &Object<'_>) -> Result<Option<Limits>, Refusal> {
    let Some(given) = body.object("constraints")? else { return Ok(None) };
    let wall_clock = given.period("maxWallClockTime", Period::from_ms(1))?.filter(|period| *period < Period::UNLIMITED);
    Ok(Some((retries(&given)?.unwrap_or(0), wall_clock)))
}

fn priority(body: &Object<'_>) -> Result<Option<i32>, Refusal> {
    Ok(body.integer("priority", -1000..=1000)?.map(|priority| priority as i32))
}

fn max_parallel(body: &Object<'_>) -> Result<Option<i32>, Refusal> {
    let given = body.integer("maxParallelTasks", -1..=i64::from(i32::MAX))?;
    if given == Some(0) {
        return Err(body.invalid("maxParallelTasks", "It must be -1, for no limit, or at least 1."));
    }
    Ok(given.map(|count| count as i32))
}

fn terminates(body: &Object<'_>) -> Result<Option<bool>, Refusal> {
    Ok(body.choice("onAllTasksComplete", &["noaction", "terminatejob"])?.map(|action| action == "terminatejob"))
}

/// Reads a new job.
pub fn read(body: Object<'_>) -> Result<NewJob, Refusal> {
    let id: JobId = body.required("id")?;
    if id.as_str().contains(':') {
        return Err(body.invalid("id", "id holds ':'; letters, digits, '-' and '_' are allowed"));
    }
    specification(body, id)
}

/// Reads what a job is made from; its name is given.
pub fn specification(body: Object<'_>, id: JobId) -> Result<NewJob, Refusal> {
    body.unsupported(&["networkConfiguration"], NO_NETWORKS)?;
    let (pool, pool_info) = job_pool::read(&body, id.schedule().is_some())?;
    let (max_task_retry_count, max_wall_clock) = limits(&body)?.unwrap_or_default();
    let environment = environment(&body, "commonEnvironmentSettings")?;
    let (manager, shown_manager) = job_manager::read(&body)?.unzip();
    let chores = job_chores::read(&body, manager.as_ref().map(|manager| &manager.task.id))?;
    let document = prune(json!({
        "displayName": display_name(&body)?,
        "commonEnvironmentSettings": environment,
        "allowTaskPreemption": body.flag("allowTaskPreemption")?.unwrap_or(false),
        "metadata": metadata(&body)?,
        "jobManagerTask": shown_manager,
        "poolInfo": pool_info,
        "jobPreparationTask": chores.as_ref().map(|(_, preparation, _)| preparation),
        "jobReleaseTask": chores.as_ref().and_then(|(.., release)| release.as_ref()),
    }));
    Ok(NewJob {
        id,
        document: document.to_string(),
        pool,
        priority: priority(&body)?.unwrap_or(0),
        max_parallel: max_parallel(&body)?.unwrap_or(-1),
        environment,
        max_task_retry_count,
        max_wall_clock,
        terminate_when_complete: terminates(&body)?.unwrap_or(false),
        performs_exit_options: body.choice("onTaskFailure", &["noaction", "performexitoptionsjobaction"])?
            == Some("performexitoptionsjobaction"),
        uses_dependencies: body.flag("usesTaskDependencies")?.unwrap_or(false),
        manager: manager.map(Box::new),
        chores: chores.map(|(chores, ..)| Box::new(chores)),
    })
}

/// Reads how a job is disabled.
pub fn disable(body: Object<'_>) -> Result<DisableOption, Refusal> {
    match body.choice("disableTasks", &["requeue", "terminate", "wait"])? {
        None => Err(body.missing("disableTasks")),
        Some("requeue") => Ok(DisableOption::Requeue),
        Some("terminate") => Ok(DisableOption::Terminate),
        Some(_) => Ok(DisableOption::Wait),
    }
}

/// What shall change, and how its document changes.
pub struct Change {
    /// Everything but the document.
    pub change: JobChange,
    /// New values of the document; null removes one.
    pub document: Map<String, Value>,
    /// What is said of the job's own pool.
    auto_pool: Option<Value>,
    is_whole: bool,
}

impl Change {
    /// The change of a job with this document.
    pub fn of(&self, document: &str) -> Result<JobChange, Refusal> {
        let mut change = self.change.clone();
        if self.document.is_empty() && self.auto_pool.is_none() {
            return Ok(change);
        }
        let mut fields: Map<String, Value> = serde_json::from_str(document).unwrap_or_default();
        if let Some(given) = &self.auto_pool {
            change.keep_alive = job_pool::merge(&mut fields, given, self.is_whole)?;
        }
        fields.extend(self.document.clone());
        change.document = Some(prune(Value::Object(fields)).to_string());
        Ok(change)
    }
}

/// Reads the parts of a job to change. With `is_whole` those left out go back to their defaults.
pub fn change(body: Object<'_>, is_whole: bool) -> Result<Change, Refusal> {
    body.unsupported(&["networkConfiguration"], NO_NETWORKS)?;
    let (pool, auto_pool) = match job_pool::change(&body)? {
        None if is_whole => return Err(body.missing("poolInfo")),
        None => (None, None),
        Some(job_pool::Change::Named(pool)) => (Some(pool), None),
        Some(job_pool::Change::Auto(given)) => (None, Some(given)),
    };
    let or = |is_given: bool| is_given || is_whole;
    let limits = if or(body.value("constraints").is_some()) { Some(limits(&body)?.unwrap_or_default()) } else { None };
    let mut document = Map::new();
    if or(body.value("metadata").is_some()) {
        document.insert("metadata".to_owned(), Value::Array(metadata(&body)?));
    }
    if let Some(allowed) = body.flag("allowTaskPreemption")?.or(is_whole.then_some(false)) {
        document.insert("allowTaskPreemption".to_owned(), Value::Bool(allowed));
    }
    let change = JobChange {
        priority: priority(&body)?.or(is_whole.then_some(0)),
        max_parallel: max_parallel(&body)?.or(is_whole.then_some(-1)),
        terminate_when_complete: terminates(&body)?.or(is_whole.then_some(false)),
        max_task_retry_count: limits.map(|(retries, _)| retries),
        max_wall_clock: limits.map(|(_, wall_clock)| wall_clock),
        pool,
        keep_alive: None,
        document: None,
    };
    Ok(Change { change, document, auto_pool, is_whole })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refusal::Code;

    fn job(body: Value) -> Result<NewJob, Refusal> {
        read(Object::root(body.as_object().unwrap()))
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
        let patch = change(Object::root(body.as_object().unwrap()), false).unwrap();
        assert_eq!((patch.change.priority, patch.change.max_parallel), (Some(5), None));
        assert_eq!(patch.of(r#"{"metadata":[]}"#).unwrap().document, None);
        let put = change(Object::root(body.as_object().unwrap()), true).unwrap();
        assert_eq!((put.change.priority, put.change.max_parallel), (Some(5), Some(-1)));
        let merged = put.of(r#"{"displayName":"d","metadata":[{"name":"a","value":"b"}]}"#).unwrap().document.unwrap();
        assert_eq!(serde_json::from_str::<Value>(&merged).unwrap(), json!({"displayName": "d", "allowTaskPreemption": false}));
    }
}
