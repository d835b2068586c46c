//! Reads a job schedule as it is asked for, and what PATCH and PUT change of one.

use broker_config::{
    ids::{JobId, ScheduleId},
    period::Period,
    time::Timestamp,
};
use serde_json::{Map, Value, json};

use crate::{
    command::{NewJob, NewSchedule},
    http::{
        job_body,
        shared_body::{display_name, metadata},
        validate::{Object, prune},
    },
    refusal::Refusal,
    store::schedules::Timetable,
};

/// The shortest interval and start window.
const LEAST: Period = Period::from_secs(60);

/// `schedule`: when jobs are due, and what GET shows.
fn timetable(given: &Object<'_>) -> Result<(Timetable, Value), Refusal> {
    let finite = |period: Option<Period>| period.filter(|period| *period < Period::UNLIMITED);
    let (start_window, interval) = (given.period("startWindow", LEAST)?, given.period("recurrenceInterval", LEAST)?);
    let table = Timetable {
        not_until: given.time("doNotRunUntil")?,
        not_after: given.time("doNotRunAfter")?,
        start_window: finite(start_window),
        interval: finite(interval),
    };
    if let (Some(until), Some(after)) = (table.not_until, table.not_after)
        && after < until
    {
        return Err(given.invalid("doNotRunAfter", "It must not be before doNotRunUntil."));
    }
    let shown = json!({
        "doNotRunUntil": table.not_until.map(Timestamp::iso),
        "doNotRunAfter": table.not_after.map(Timestamp::iso),
        "startWindow": start_window,
        "recurrenceInterval": interval,
    });
    Ok((table, prune(shown)))
}

/// `jobSpecification`: what jobs are made from, and what GET shows.
fn specification(given: Object<'_>, schedule: &ScheduleId) -> Result<(NewJob, Value), Refusal> {
    let mut shown: Map<String, Value> = given.fields().clone();
    let job = job_body::specification(given, JobId::of_schedule(schedule, 1))?;
    let document: Map<String, Value> = serde_json::from_str(&job.document).expect("a job's document is an object");
    shown.retain(|name, _| SPECIFIED.contains(&name.as_str()));
    shown.extend(document);
    shown.insert("priority".to_owned(), json!(job.priority));
    shown.insert("maxParallelTasks".to_owned(), json!(job.max_parallel));
    shown.insert("usesTaskDependencies".to_owned(), json!(job.uses_dependencies));
    shown.insert("onAllTasksComplete".to_owned(), json!(if job.terminate_when_complete { "terminatejob" } else { "noaction" }));
    let on_failure = if job.performs_exit_options { "performexitoptionsjobaction" } else { "noaction" };
    shown.insert("onTaskFailure".to_owned(), json!(on_failure));
    shown.insert(
        "constraints".to_owned(),
        json!({"maxWallClockTime": job.max_wall_clock.unwrap_or(Period::UNLIMITED), "maxTaskRetryCount": job.max_task_retry_count}),
    );
    Ok((job, prune(Value::Object(shown))))
}

/// Properties of a specification that are shown as they were given.
const SPECIFIED: &[&str] = &["displayName", "poolInfo"];

/// Reads a new schedule.
pub fn read(body: Object<'_>) -> Result<NewSchedule, Refusal> {
    let id: ScheduleId = body.required("id")?;
    let (timetable, shown_schedule) = timetable(&body.required_object("schedule")?)?;
    let (job, shown_job) = specification(body.required_object("jobSpecification")?, &id)?;
    let document = json!({
        "displayName": display_name(&body)?,
        "schedule": shown_schedule,
        "jobSpecification": shown_job,
        "metadata": metadata(&body)?,
    });
    let mut document = prune(document);
    // An empty schedule is one too, and is shown.
    document["schedule"] = shown_schedule_or_empty(&document);
    Ok(NewSchedule { id, timetable, job, document: document.to_string() })
}

fn shown_schedule_or_empty(document: &Value) -> Value {
    document.get("schedule").cloned().unwrap_or_else(|| json!({}))
}

/// What shall change of a schedule.
pub struct Change {
    /// When jobs are due.
    pub timetable: Option<Timetable>,
    /// What jobs are made from.
    pub job: Option<NewJob>,
    fields: Map<String, Value>,
}

impl Change {
    /// The document with the new values.
    pub fn merged(&self, document: &str) -> String {
        let mut fields: Map<String, Value> = serde_json::from_str(document).unwrap_or_default();
        fields.extend(self.fields.clone());
        fields.retain(|_, value| !value.is_null() && value.as_array().is_none_or(|items| !items.is_empty()));
        Value::Object(fields).to_string()
    }
}

/// Reads the parts to change; with `is_whole` schedule and specification must be there, and metadata goes when absent.
pub fn change(body: Object<'_>, schedule: &ScheduleId, is_whole: bool) -> Result<Change, Refusal> {
    if let Some(name) = ["schedule", "jobSpecification"].iter().find(|name| is_whole && body.value(name).is_none()) {
        return Err(body.missing(name));
    }
    let mut fields = Map::new();
    let mut change = Change { timetable: None, job: None, fields: Map::new() };
    if let Some(given) = body.object("schedule")? {
        let (table, shown) = timetable(&given)?;
        change.timetable = Some(table);
        fields.insert("schedule".to_owned(), shown);
    }
    if let Some(given) = body.object("jobSpecification")? {
        let (job, shown) = specification(given, schedule)?;
        change.job = Some(job);
        fields.insert("jobSpecification".to_owned(), shown);
    }
    if is_whole || body.value("metadata").is_some() {
        fields.insert("metadata".to_owned(), Value::Array(metadata(&body)?));
    }
    change.fields = fields;
    Ok(change)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refusal::Code;

    fn schedule(body: Value) -> Result<NewSchedule, Refusal> {
        read(Object::root(body.as_object().unwrap()))
    }

    #[test]
    fn intervals_and_windows_have_a_least_and_infinite_ones_are_none() {
        let with = |given: Value| schedule(json!({"id": "s", "schedule": given, "jobSpecification": {"poolInfo": {"poolId": "p"}}}));
        for name in ["startWindow", "recurrenceInterval"] {
            assert_eq!(with(json!({name: "PT59S"})).unwrap_err().code, Code::InvalidPropertyValue, "{name}");
        }
        let read = with(json!({"startWindow": "P10675199DT2H48M5.4775807S", "recurrenceInterval": "PT1M"})).unwrap();
        assert_eq!((read.timetable.start_window, read.timetable.interval), (None, Some(Period::from_secs(60))));
        let wrong = with(json!({"doNotRunUntil": "2026-01-02T00:00:00Z", "doNotRunAfter": "2026-01-01T00:00:00Z"})).unwrap_err();
        assert_eq!((wrong.code, wrong.values[0].1.as_str()), (Code::InvalidPropertyValue, "schedule.doNotRunAfter"));
    }

    #[test]
    fn the_specification_is_read_as_a_job_is() {
        let read = schedule(json!({"id": "s", "schedule": {}, "jobSpecification": {"priority": 3, "poolInfo": {"poolId": "p"}}})).unwrap();
        assert_eq!((read.job.priority, read.job.id.as_str()), (3, "s:job-1"));
        let document: Value = serde_json::from_str(&read.document).unwrap();
        assert_eq!(document["jobSpecification"]["poolInfo"], json!({"poolId": "p"}));
        assert_eq!(document["schedule"], json!({}));
        let wrong = schedule(json!({"id": "s", "schedule": {}, "jobSpecification": {"poolInfo": {}}})).unwrap_err();
        assert_eq!((wrong.code, wrong.values[0].1.as_str()), (Code::MissingRequiredProperty, "jobSpecification.poolInfo.poolId"));
    }
}
