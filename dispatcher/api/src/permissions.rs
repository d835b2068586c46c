//! Authorization: what each caller may do, checked once the operation is known.

use engine::task_token::Bearer;
use http::Method;
use model::refusal::{Code, Refusal};

use crate::{
    auth::{Caller, Role},
    routes::Route,
};

impl Caller {
    /// Refuses an operation that the caller may not use on the resource in the path.
    pub fn may(&self, route: &Route, values: &[String]) -> Result<(), Refusal> {
        let is_read = route.method == Method::GET || route.method == Method::HEAD;
        let (is_allowed, reason) = match self {
            Caller::Anybody => (route.is_open(), "nobody was identified"),
            Caller::Account | Caller::Bearer(Role::Contributor) => (true, ""),
            Caller::Bearer(Role::Reader) => (is_read, "a reader may only look"),
            Caller::Bearer(Role::Submitter) => {
                let is_work = route.path.starts_with("/jobs");
                (is_read || is_work, "a submitter may change jobs, tasks and job schedules only")
            }
            Caller::Task(Bearer { job, .. }) => {
                let is_own = values.first().is_some_and(|value| value.eq_ignore_ascii_case(job.as_str()));
                (is_own && TASK_MAY.contains(&route.name), "a task's token is good for its own job, its tasks and their files only")
            }
        };
        if is_allowed {
            return Ok(());
        }
        Err(Refusal::new(
            Code::InsufficientAccountPermissions,
            "The account being accessed does not have sufficient permissions to execute this operation.",
        )
        .with("Operation", route.name)
        .with("Reason", reason))
    }
}

/// Operations that a task's token allows.
const TASK_MAY: &[&str] = &[
    "job.get",
    "job.get_task_counts",
    "task.add",
    "task.add_collection",
    "task.list",
    "task.get",
    "task.list_subtasks",
    "file.list_from_task",
    "file.get_from_task",
    "file.get_properties_from_task",
];
