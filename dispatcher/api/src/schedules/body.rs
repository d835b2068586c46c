//! Reads the bodies of job schedule requests: a new schedule, PATCH and PUT.

use contract::{
    ids::{JobId, ScheduleId},
    period::Period,
    time::Timestamp,
};
use model::{
    document::Properties,
    job::NewJob,
    refusal::Refusal,
    schedule::{NewSchedule, ScheduleChange, Timetable},
};
use serde_json::{Map, Value, json};

use crate::{
    body::{Object, or_null, prune},
    jobs,
    shared_body::metadata,
};

/// `schedule`: the timetable, and the JSON that GET shows.
fn timetable(given: &Object<'_>) -> Result<(Timetable, Value), Refusal> {
    let finite = |period: Option<Period>| period.filter(|period| *period < Period::UNLIMITED);
    let (start_window, interval) = (given.period("startWindow"), given.period("recurrenceInterval"));
    let table = Timetable {
        not_until: given.time("doNotRunUntil"),
        not_after: given.time("doNotRunAfter"),
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

/// `jobSpecification`: the job, and the JSON that GET shows.
fn specification(given: Object<'_>, schedule: &ScheduleId) -> Result<(NewJob, Value), Refusal> {
    let mut shown: Map<String, Value> = given.fields().clone();
    let job = jobs::body::specification(given, JobId::of_schedule(schedule, 1))?;
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

/// Properties of a job specification that GET shows as they were given.
const SPECIFIED: &[&str] = &["displayName", "poolInfo"];

/// Reads a new schedule.
pub fn read(body: Object<'_>) -> Result<NewSchedule, Refusal> {
    let id: ScheduleId = body.required_id("id");
    let (timetable, shown_schedule) = timetable(&body.required_object("schedule"))?;
    let (job, shown_job) = specification(body.required_object("jobSpecification"), &id)?;
    let document = json!({
        "displayName": body.text("displayName"),
        "schedule": shown_schedule,
        "jobSpecification": shown_job,
        "metadata": metadata(&body)?,
    });
    let mut document = prune(document);
    // An empty schedule is valid and is shown.
    if document.get("schedule").is_none() {
        document["schedule"] = json!({});
    }
    Ok(NewSchedule { id, timetable, job, document: document.to_string() })
}

/// Reads a change; with `is_whole` (PUT), metadata is removed when it is not given.
pub fn change(body: Object<'_>, schedule: &ScheduleId, is_whole: bool) -> Result<ScheduleChange, Refusal> {
    let mut change = ScheduleChange { timetable: None, job: None, fields: Properties::new() };
    if let Some(given) = body.object("schedule") {
        let (table, shown) = timetable(&given)?;
        change.timetable = Some(table);
        change.fields.insert("schedule".to_owned(), shown);
    }
    if let Some(given) = body.object("jobSpecification") {
        let (job, shown) = specification(given, schedule)?;
        change.job = Some(job);
        change.fields.insert("jobSpecification".to_owned(), shown);
    }
    if is_whole || body.value("metadata").is_some() {
        change.fields.insert("metadata".to_owned(), or_null(Value::Array(metadata(&body)?)));
    }
    Ok(change)
}

#[cfg(test)]
mod tests {
    use model::refusal::Code;

    use super::*;
    use crate::body::tried;

    fn schedule(body: Value) -> Result<NewSchedule, Refusal> {
        tried("JobScheduleAddParameter", &body, read)
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
