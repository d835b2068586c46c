//! Job schedules: add, list, get, change, disable, enable, terminate, delete, and the jobs they created.

pub mod body;

use contract::{ids::ScheduleId, time::Timestamp};
use engine::command::Command;
use model::{
    condition::etag,
    refusal::{Code, Refusal},
    schedule::ScheduleRow,
};
use serde::Serialize;
use store::{
    filter::{Field, Filter},
    rows::JobRow,
};

use crate::{
    answer::{Answer, Fields, Iso},
    call::Call,
    error::{not_found, store_failed},
    filter::{Compiled, compile, compile_without_id},
    jobs,
    odata::Select,
    resource::{self, Resource},
    state::ApiState,
    stats::{self, JobStats},
};

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

fn url(base: &str, schedule: &ScheduleId) -> String {
    format!("{base}/jobschedules/{schedule}")
}

impl Resource for ScheduleRow {
    const SHAPE: &'static str = "CloudJobSchedule";
    const KIND: &'static str = "jobschedules";
    /// Base URL of the API.
    type Place = String;
    type Extra = JobStats;

    fn token(&self) -> String {
        self.id.to_string()
    }

    fn stamp(&self) -> Option<(u64, Timestamp)> {
        Some((self.version, self.modified_at))
    }

    fn url(&self, base: &String) -> String {
        url(base, &self.id)
    }

    async fn extras(api: &ApiState, call: &Call, select: Option<&Select>, base: &String, rows: &[Self]) -> Result<Vec<JobStats>, Refusal> {
        stats::of(api, call, select, rows, |row| row.url(base)).await
    }

    fn show<'a>(&self, fields: Fields<'a>, base: &String, stats: Option<&JobStats>) -> Fields<'a> {
        let execution = ExecutionInfo {
            next_run_time: self.next_due.map(Iso),
            recent_job: self.recent.as_ref().map(|job| RecentJob { id: job.as_str(), url: jobs::url(base, job) }),
            end_time: self.ended_at.map(Iso),
        };
        fields
            .add("id", self.id.as_str())
            .add("url", &self.url(base))
            .add("eTag", &etag(self.version))
            .add("lastModified", &Iso(self.modified_at))
            .add("creationTime", &Iso(self.created_at))
            .add("state", self.state.as_str())
            .add("stateTransitionTime", &Iso(self.state_at))
            .add_some("previousState", self.previous.map(|(state, _)| state))
            .add_some("previousStateTransitionTime", self.previous.map(|(_, at)| Iso(at)))
            .add("executionInfo", &execution)
            .add_some("stats", stats)
            .document(&self.document)
    }
}

async fn find(api: &ApiState, schedule: &ScheduleId) -> Result<ScheduleRow, Refusal> {
    let row = api.read.schedule(schedule).await.map_err(store_failed)?;
    row.ok_or_else(|| not_found(Code::JobScheduleNotFound, schedule))
}

/// Adds a schedule; its first job is created at once when it is due.
pub async fn add(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let schedule = body::read(call.json()?.root())?;
    let url = url(&call.base, &schedule.id);
    let (version, at) = api.change(Command::CreateSchedule(Box::new(schedule))).await?;
    Ok(Answer::empty(201).changed(version, at).created(&url))
}

/// A page of schedules.
pub async fn list(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    resource::list(api, call, compile(call, ScheduleRow::SHAPE)?, call.base.clone(), |page| api.read.schedules(page)).await
}

/// Handles `GET /jobschedules/{id}`.
pub async fn get(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    resource::get(api, call, async { Ok((call.base.clone(), find(api, &id(call)?).await?)) }).await
}

/// Whether a schedule exists.
pub async fn exists(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    resource::exists(call, &call.base, &find(api, &id(call)?).await?)
}

/// Changes the parts that are named.
pub async fn patch(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    change(api, call, false).await
}

/// Replaces all properties that can change.
pub async fn update(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    change(api, call, true).await
}

async fn change(api: &ApiState, call: &Call, is_whole: bool) -> Result<Answer, Refusal> {
    let schedule = id(call)?;
    let change = body::change(call.json()?.root(), &schedule, is_whole)?;
    let url = url(&call.base, &find(api, &schedule).await?.id);
    let (version, at) = api.change(Command::ChangeSchedule(schedule, Box::new(change), call.condition.clone())).await?;
    Ok(Answer::empty(200).changed(version, at).about(&url))
}

async fn switch(api: &ApiState, call: &Call, enabled: bool) -> Result<Answer, Refusal> {
    let schedule = id(call)?;
    let url = url(&call.base, &schedule);
    let (version, at) = api.change(Command::SwitchSchedule(schedule, enabled, call.condition.clone())).await?;
    Ok(Answer::empty(204).changed(version, at).about(&url))
}

/// Creates no jobs until the schedule is enabled.
pub async fn disable(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    switch(api, call, false).await
}

/// Creates jobs again.
pub async fn enable(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    switch(api, call, true).await
}

/// Terminates a schedule and its active job.
pub async fn terminate(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let (schedule, is_forced) = (id(call)?, call.query.flag("force")?);
    let url = url(&call.base, &schedule);
    let ended = api.change(Command::TerminateSchedule(schedule.clone(), call.condition.clone())).await;
    let (version, at) = jobs::forced(api, is_forced.then_some(Command::ForceSchedule(schedule)), ended).await?;
    Ok(Answer::empty(202).changed(version, at).about(&url))
}

/// Removes a schedule with its jobs.
pub async fn delete(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let (schedule, is_forced) = (id(call)?, call.query.flag("force")?);
    let ended = api.change(Command::DeleteSchedule(schedule.clone(), call.condition.clone())).await;
    jobs::forced(api, is_forced.then_some(Command::ForceSchedule(schedule)), ended).await?;
    Ok(Answer::empty(202))
}

/// A page of the jobs that a schedule created.
pub async fn list_jobs(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let schedule = find(api, &id(call)?).await?.id;
    let own = Filter::StartsWith(Field::Id, format!("{schedule}:job-"));
    let filter = match compile_without_id(call, JobRow::SHAPE)? {
        Compiled::Constant(true) => Compiled::Store(own),
        Compiled::Constant(false) => Compiled::Constant(false),
        Compiled::Store(filter) => Compiled::Store(Filter::And(vec![own, filter])),
    };
    jobs::page(api, call, filter).await
}
