//! `piecework job …`.

use clap::Subcommand;
use contract::ids::{JobId, PoolId};
use serde_json::{Value, json};

use crate::{
    client::path,
    exit_codes::{FAILED, OK},
    output::{Column, Output},
    settings::ServerArgs,
    work,
};

const COLUMNS: &[Column] =
    &[("JOB", "/id"), ("STATE", "/state"), ("POOL", "/executionInfo/poolId"), ("PRIORITY", "/priority"), ("CREATED", "/creationTime")];

#[derive(Debug, Subcommand)]
pub(crate) enum JobCommand {
    /// Create a job
    Create {
        #[command(flatten)]
        server: ServerArgs,
        /// Name of the job
        job: JobId,
        /// The pool its tasks run on
        #[arg(long)]
        pool: PoolId,
        /// From -1000 to 1000; larger goes first
        #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
        priority: i32,
        /// Let tasks of the job depend on each other
        #[arg(long)]
        dependencies: bool,
    },
    /// List jobs
    List {
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Show a job and how many of its tasks are where
    Show {
        #[command(flatten)]
        server: ServerArgs,
        /// Name of the job
        job: JobId,
    },
    /// Wait until all tasks of a job have ended
    Wait {
        #[command(flatten)]
        server: ServerArgs,
        /// Name of the job
        job: JobId,
    },
    /// End a job and its tasks
    Cancel {
        #[command(flatten)]
        server: ServerArgs,
        /// Name of the job
        job: JobId,
    },
    /// Delete a job and its tasks
    Delete {
        #[command(flatten)]
        server: ServerArgs,
        /// Name of the job
        job: JobId,
    },
}

pub(crate) async fn run(command: JobCommand, out: &dyn Output) -> anyhow::Result<u8> {
    match command {
        JobCommand::Create { server, job, pool, priority, dependencies } => {
            let body = json!({
                "id": job, "priority": priority, "poolInfo": { "poolId": pool }, "usesTaskDependencies": dependencies,
            });
            server.open()?.client.post("/jobs", Some(&body)).await?;
            out.done(&format!("job {job} created"))?;
        }
        JobCommand::List { server } => out.list(COLUMNS, &server.open()?.client.list::<Value>("/jobs", &[]).await?)?,
        JobCommand::Show { server, job } => {
            let client = server.open()?.client;
            let mut value: Value = client.get(&path(&["jobs", job.as_str()]), &[]).await?;
            let counts: Value = client.get(&path(&["jobs", job.as_str(), "taskcounts"]), &[]).await?;
            value["taskCounts"] = counts["taskCounts"].clone();
            out.one(&value)?;
        }
        JobCommand::Wait { server, job } => {
            let counts = work::wait(&server.open()?.client, job.as_str()).await?;
            out.done(&format!("{} tasks succeeded, {} failed", counts.succeeded, counts.failed))?;
            return Ok(if counts.failed == 0 { OK } else { FAILED });
        }
        JobCommand::Cancel { server, job } => {
            let body = json!({ "terminateReason": "cancelled" });
            server.open()?.client.post(&path(&["jobs", job.as_str(), "terminate"]), Some(&body)).await?;
            out.done(&format!("job {job} is being ended"))?;
        }
        JobCommand::Delete { server, job } => {
            server.open()?.client.delete(&path(&["jobs", job.as_str()])).await?;
            out.done(&format!("job {job} is being deleted"))?;
        }
    }
    Ok(OK)
}
