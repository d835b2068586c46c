//! Job schedules: add, list, get, change, disable, enable, terminate, delete, and the jobs they made.

use broker_config::ids::ScheduleId;
use serde::Serialize;

use crate::{
    command::{Command, ScheduleChange, etag},
    http::{
        answer::{Answer, Fields, Iso},
        call::Call,
        conditional::unchanged,
        entrance::Door,
        error::{not_found, store_failed},
        filter::{Compiled, JOBS_OF_SCHEDULE, SCHEDULES, compile},
        jobs,
        lists::{Paging, ROWS_MAX, shape},
        schedule_body,
        stats::{self, JobStats},
        validate::Object,
        version::Kind,
    },
    refusal::{Code, Refusal},
    store::{
        filter::{Field, Filter},
        schedules::ScheduleRow,
    },
};

#[rustfmt::skip]
const PROPERTIES: &[&str] = &[
    "id", "displayName", "url", "eTag", "lastModified", "creationTime", "state", "stateTransitionTime", "previousState",
    "previousStateTransitionTime", "schedule", "jobSpecification", "executionInfo", "metadata", "stats",
];

/// A changed document is written again this often when another change came between.
const MERGES_MAX: usize = 5;

#[derive(Serialize)]
struct RecentJob<'a> {
    id: &'a str,
    url: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ExecutionInfo<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    next_run_time: Option<Iso>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recent_job: Option<RecentJob<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_time: Option<Iso>,
}

fn id(call: &Call) -> Result<ScheduleId, Refusal> {
    call.schedule()
}

fn url(call: &Call, schedule: &ScheduleId) -> String {
    format!("{}/jobschedules/{schedule}", call.base)
}

fn show<'a>(fields: Fields<'a>, call: &'a Call, row: &ScheduleRow, stats: Option<&JobStats>) -> Vec<u8> {
    let execution = ExecutionInfo {
        next_run_time: row.next_due.map(Iso),
        recent_job: row.recent.as_ref().map(|job| RecentJob { id: job.as_str(), url: jobs::url(call, job) }),
        end_time: row.ended_at.map(Iso),
    };
    fields
        .without(call.lacks(Kind::Schedule))
        .add("id", row.id.as_str())
        .add("url", &url(call, &row.id))
        .add("eTag", &etag(row.version))
        .add("lastModified", &Iso(row.modified_at))
        .add("creationTime", &Iso(row.created_at))
        .add("state", row.state.as_str())
        .add("stateTransitionTime", &Iso(row.state_at))
        .add_some("previousState", row.previous.map(|(state, _)| state))
        .add_some("previousStateTransitionTime", row.previous.map(|(_, at)| Iso(at)))
        .add("executionInfo", &execution)
        .add_some("stats", stats)
        .document(&row.document)
        .finish()
}

async fn find(door: &Door, schedule: &ScheduleId) -> Result<ScheduleRow, Refusal> {
    let row = door.read.schedule(schedule).await.map_err(store_failed)?;
    row.ok_or_else(|| not_found(Code::JobScheduleNotFound, schedule))
}

/// Adds a schedule; its first job is made at once when it is due.
pub async fn add(door: &Door, call: &Call) -> Result<Answer, Refusal> {
    let schedule = schedule_body::read(Object::root(&call.json()?))?;
    let url = url(call, &schedule.id);
    let (version, at) = door.change(Command::CreateSchedule(Box::new(schedule))).await?;
    Ok(Answer::empty(201).changed(version, at).created(&url))
}

/// A page of schedules.
pub async fn list(door: &Door, call: &Call) -> Result<Answer, Refusal> {
    let select = shape(call, PROPERTIES)?;
    let paging = Paging::read(call, ROWS_MAX)?;
    let rows = match paging.page(compile(call.query.text("$filter")?, SCHEDULES)?) {
        None => Vec::new(),
        Some(page) => door.read.schedules(page).await.map_err(store_failed)?,
    };
    let stats = stats::of_rows(door, call, select.as_ref(), &rows, |row| url(call, &row.id)).await?;
    let show = |at: usize, row: &ScheduleRow| show(Fields::new(select.as_ref()), call, row, stats.get(at));
    Ok(paging.answer(call, "jobschedules", &rows, |row| row.id.as_str(), show))
}

/// One schedule.
pub async fn get(door: &Door, call: &Call) -> Result<Answer, Refusal> {
    let select = shape(call, PROPERTIES)?;
    let row = find(door, &id(call)?).await?;
    if let Some(answer) = unchanged(&call.condition, row.version, row.modified_at)? {
        return Ok(answer);
    }
    let fields = Fields::new(select.as_ref()).always("odata.metadata", &format!("{}/$metadata#jobschedules/@Element", call.base));
    let url = url(call, &row.id);
    let stats = stats::of_one(door, call, select.as_ref(), &row, &url).await?;
    Ok(Answer::json(show(fields, call, &row, stats.as_ref())).changed(row.version, row.modified_at).about(&url))
}

/// Whether a schedule exists.
pub async fn exists(door: &Door, call: &Call) -> Result<Answer, Refusal> {
    let row = find(door, &id(call)?).await?;
    let unchanged = unchanged(&call.condition, row.version, row.modified_at)?;
    Ok(unchanged.unwrap_or_else(|| Answer::empty(200).changed(row.version, row.modified_at)).about(&url(call, &row.id)))
}

/// Changes the parts that are named.
pub async fn patch(door: &Door, call: &Call) -> Result<Answer, Refusal> {
    change(door, call, false).await
}

/// Changes everything that can change.
pub async fn update(door: &Door, call: &Call) -> Result<Answer, Refusal> {
    change(door, call, true).await
}

async fn change(door: &Door, call: &Call, is_whole: bool) -> Result<Answer, Refusal> {
    let schedule = id(call)?;
    let asked = schedule_body::change(Object::root(&call.json()?), &schedule, is_whole)?;
    for attempt in 1.. {
        let row = find(door, &schedule).await?;
        let change = ScheduleChange { timetable: asked.timetable, job: asked.job.clone(), document: asked.merged(&row.document) };
        let mut condition = call.condition.clone();
        let is_merge = condition == Default::default();
        if is_merge {
            condition.if_match = Some(etag(row.version));
        }
        match door.change(Command::ChangeSchedule(schedule.clone(), Box::new(change), condition)).await {
            Err(refusal) if is_merge && refusal.code == Code::ConditionNotMet && attempt < MERGES_MAX => continue,
            Err(refusal) => return Err(refusal),
            Ok((version, at)) => return Ok(Answer::empty(200).changed(version, at).about(&url(call, &schedule))),
        }
    }
    unreachable!("the last attempt returns")
}

async fn switch(door: &Door, call: &Call, enabled: bool) -> Result<Answer, Refusal> {
    let schedule = id(call)?;
    let url = url(call, &schedule);
    let (version, at) = door.change(Command::SwitchSchedule(schedule, enabled, call.condition.clone())).await?;
    Ok(Answer::empty(204).changed(version, at).about(&url))
}

/// Makes no jobs until it is enabled.
pub async fn disable(door: &Door, call: &Call) -> Result<Answer, Refusal> {
    switch(door, call, false).await
}

/// Makes jobs again.
pub async fn enable(door: &Door, call: &Call) -> Result<Answer, Refusal> {
    switch(door, call, true).await
}

/// Ends a schedule and its job.
pub async fn terminate(door: &Door, call: &Call) -> Result<Answer, Refusal> {
    call.query.flag("force")?;
    let schedule = id(call)?;
    let url = url(call, &schedule);
    let (version, at) = door.change(Command::TerminateSchedule(schedule, call.condition.clone())).await?;
    Ok(Answer::empty(202).changed(version, at).about(&url))
}

/// Removes a schedule with its jobs.
pub async fn delete(door: &Door, call: &Call) -> Result<Answer, Refusal> {
    call.query.flag("force")?;
    door.change(Command::DeleteSchedule(id(call)?, call.condition.clone())).await?;
    Ok(Answer::empty(202))
}

/// A page of the jobs that a schedule made.
pub async fn list_jobs(door: &Door, call: &Call) -> Result<Answer, Refusal> {
    let schedule = find(door, &id(call)?).await?.id;
    let own = Filter::StartsWith(Field::Id, format!("{schedule}:job-"));
    let filter = match compile(call.query.text("$filter")?, JOBS_OF_SCHEDULE)? {
        Compiled::Constant(true) => Compiled::Store(own),
        Compiled::Constant(false) => Compiled::Constant(false),
        Compiled::Store(filter) => Compiled::Store(Filter::And(vec![own, filter])),
    };
    jobs::page(door, call, filter).await
}
