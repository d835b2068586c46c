//! `piecework task …`.

use std::io::{self, Write};

use clap::Subcommand;
use contract::ids::{JobId, TaskId};
use serde_json::{Value, json};

use crate::{
    client::path,
    command_line,
    exit_codes::OK,
    output::{Column, Output},
    settings::ServerArgs,
    tail::Tail,
    work::{self, Task},
};

const COLUMNS: &[Column] = &[
    ("TASK", "/id"),
    ("STATE", "/state"),
    ("RESULT", "/executionInfo/result"),
    ("EXIT", "/executionInfo/exitCode"),
    ("NODE", "/nodeInfo/nodeId"),
    ("STARTED", "/executionInfo/startTime"),
    ("ENDED", "/executionInfo/endTime"),
];

#[derive(Debug, Subcommand)]
pub(crate) enum TaskCommand {
    /// Add a task to a job
    Create {
        #[command(flatten)]
        server: ServerArgs,
        /// The job
        job: JobId,
        /// Name of the task
        task: TaskId,
        /// Slots it takes on its node
        #[arg(long)]
        slots: Option<u32>,
        /// Tasks that must succeed first
        #[arg(long, value_delimiter = ',')]
        after: Vec<TaskId>,
        /// Retries after a failure
        #[arg(long, default_value_t = 0)]
        retries: i32,
        /// Program and arguments
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// List a job's tasks
    List {
        #[command(flatten)]
        server: ServerArgs,
        /// The job
        job: JobId,
        /// Only those in this state
        #[arg(long, value_parser = ["active", "preparing", "running", "completed"])]
        state: Option<String>,
    },
    /// Show a task
    Show {
        #[command(flatten)]
        server: ServerArgs,
        /// The job
        job: JobId,
        /// The task
        task: TaskId,
    },
    /// Print what a task wrote
    Logs {
        #[command(flatten)]
        server: ServerArgs,
        /// The job
        job: JobId,
        /// The task
        task: TaskId,
        /// Show stderr instead of stdout
        #[arg(long)]
        stderr: bool,
        /// Go on until the task ends
        #[arg(short, long)]
        follow: bool,
    },
    /// End a task
    Cancel {
        #[command(flatten)]
        server: ServerArgs,
        /// The job
        job: JobId,
        /// The task
        task: TaskId,
    },
    /// Delete a task and its files
    Delete {
        #[command(flatten)]
        server: ServerArgs,
        /// The job
        job: JobId,
        /// The task
        task: TaskId,
    },
}

pub(crate) async fn run(command: TaskCommand, out: &dyn Output) -> anyhow::Result<u8> {
    match command {
        TaskCommand::Create { server, job, task, slots, after, retries, command } => {
            let mut body = json!({
                "id": task, "commandLine": command_line::of(&command), "constraints": { "maxTaskRetryCount": retries },
            });
            if let Some(slots) = slots {
                body["requiredSlots"] = json!(slots);
            }
            if !after.is_empty() {
                body["dependsOn"] = json!({ "taskIds": after });
            }
            server.open()?.client.post(&path(&["jobs", job.as_str(), "tasks"]), Some(&body)).await?;
            out.done(&format!("task {task} added to job {job}"))?;
        }
        TaskCommand::List { server, job, state } => {
            let filter = state.map(|state| format!("state eq '{state}'"));
            let query: Vec<_> = filter.iter().map(|filter| ("$filter", filter.as_str())).collect();
            out.list(COLUMNS, &server.open()?.client.list::<Value>(&path(&["jobs", job.as_str(), "tasks"]), &query).await?)?;
        }
        TaskCommand::Show { server, job, task } => {
            let task: Value = server.open()?.client.get(&work::task_path(job.as_str(), task.as_str()), &[]).await?;
            out.one(&task)?;
        }
        TaskCommand::Logs { server, job, task, stderr, follow } => {
            let file = if stderr { "stderr.txt" } else { "stdout.txt" };
            logs(&server, &job, &task, file, follow).await?;
        }
        TaskCommand::Cancel { server, job, task } => {
            server.open()?.client.post(&path(&["jobs", job.as_str(), "tasks", task.as_str(), "terminate"]), None).await?;
            out.done(&format!("task {task} is being ended"))?;
        }
        TaskCommand::Delete { server, job, task } => {
            server.open()?.client.delete(&work::task_path(job.as_str(), task.as_str())).await?;
            out.done(&format!("task {task} deleted"))?;
        }
    }
    Ok(OK)
}

async fn logs(server: &ServerArgs, job: &JobId, task: &TaskId, file: &str, follow: bool) -> anyhow::Result<()> {
    let client = server.open()?.client;
    let mut tail = Tail::new(job.as_str(), task.as_str(), file);
    loop {
        let seen: Task = client.get(&work::task_path(job.as_str(), task.as_str()), &[]).await?;
        let has_ended = seen.is_completed();
        let more = tail.next(&client).await?;
        io::stdout().lock().write_all(&more)?;
        io::stdout().lock().flush()?;
        if more.is_empty() {
            if has_ended || !follow {
                return Ok(());
            }
            tokio::time::sleep(work::POLL_PERIOD).await;
        }
    }
}
