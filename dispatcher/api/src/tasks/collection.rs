//! Adds up to a hundred tasks in one request, each with a result of its own.

use contract::ids::TaskId;
use engine::command::{Command, Done};
use model::{
    condition::etag,
    refusal::{Code, Refusal},
    task::NewTask,
};
use serde::Serialize;
use serde_json::Value;

use crate::{
    answer::{Answer, Iso},
    body::Object,
    call::Call,
    error::ErrorBody,
    lists,
    state::ApiState,
    tasks::{self, body},
};

/// Tasks of one collection at most.
const COLLECTION_MAX: usize = 100;
/// Characters of an invalid id that the error repeats.
const SHOWN_MAX: usize = 256;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Added<'a> {
    status: &'static str,
    task_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    e_tag: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_modified: Option<Iso>,
    #[serde(skip_serializing_if = "Option::is_none")]
    location: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorBody<'a>>,
}

/// For each task of the body: the task, or its id and the refusal.
type Asked = Vec<Result<NewTask, (String, Refusal)>>;

fn read(body: Object<'_>) -> Result<Asked, Refusal> {
    let list = body.list("value");
    if list.len() > COLLECTION_MAX {
        return Err(body.invalid("value", format!("At most {COLLECTION_MAX} tasks can be added in one request.")));
    }
    list.each(|item| {
        let given = item.value("id").and_then(Value::as_str).unwrap_or_default();
        let id = given.chars().take(SHOWN_MAX).collect();
        Ok(item.check().and_then(body::read).map_err(|refusal| (id, refusal)))
    })
}

async fn check_actions(api: &ApiState, call: &Call, asked: &mut Asked) -> Result<(), Refusal> {
    if !asked.iter().flatten().any(NewTask::acts_on_job) || api.job(&call.job()?).await?.performs_exit_options {
        return Ok(());
    }
    for slot in asked {
        if let Ok(task) = slot
            && task.acts_on_job()
        {
            *slot = Err((task.id.as_str().to_owned(), task.unheard()));
        }
    }
    Ok(())
}

/// Adds tasks; a refused one does not affect the others.
pub async fn add(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let job = call.job()?;
    let mut asked = read(call.json()?.root())?;
    check_actions(api, call, &mut asked).await?;
    let mut refused = Vec::new();
    let mut tasks = Vec::with_capacity(asked.len());
    let mut order: Vec<Result<TaskId, usize>> = Vec::with_capacity(asked.len());
    for slot in asked {
        match slot {
            Ok(task) => {
                order.push(Ok(task.id.clone()));
                tasks.push(task);
            }
            Err(fault) => {
                order.push(Err(refused.len()));
                refused.push(fault);
            }
        }
    }
    let Done::Tasks(results) = api.engine.call(Command::CreateTasks(job.clone(), tasks)).await? else {
        return Err(Refusal::new(Code::InternalError, "The engine answered another question."));
    };
    let mut results = results.iter();
    let added = order.iter().map(|slot| {
        let (id, result) = match slot {
            Ok(id) => (id.as_str(), results.next().map(|result| result.as_ref().map(|done| (id, *done)))),
            Err(index) => (refused[*index].0.as_str(), Some(Err(&refused[*index].1))),
        };
        let error = |refusal: &Refusal| if refusal.code.status() < 500 { "clienterror" } else { "servererror" };
        let nothing = Added { status: "servererror", task_id: id, e_tag: None, last_modified: None, location: None, error: None };
        let added = match result {
            Some(Ok((task, (version, at)))) => Added {
                status: "success",
                e_tag: Some(etag(version)),
                last_modified: Some(Iso(at)),
                location: Some(tasks::url(&call.base, &job, task)),
                ..nothing
            },
            Some(Err(refusal)) => Added { status: error(refusal), error: Some(ErrorBody::new(refusal, None, call.id)), ..nothing },
            None => nothing,
        };
        serde_json::to_vec(&added).expect("a result has a JSON form")
    });
    Ok(lists::list(call, "taskaddresult", added, None))
}
