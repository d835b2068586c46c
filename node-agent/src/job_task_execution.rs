//! Executes a job's preparation or release with its retries, the first try from an empty folder.

use std::{path::Path, sync::Arc};

use contract::{
    backoff,
    ids::{Fence, JobId, JobUid, RunId, RunKey, TaskUid},
    job_task::JobTask,
    outcome::{Fault, JobTaskEnd, JobTaskKey, JobTaskKind, Outcome},
    time::Timestamp,
};
use tokio::time::{Duration, sleep};

use crate::{
    context::NodeContext,
    execution::{self, RunControl},
    folders::Mark,
    off_loop::{off_loop, try_off_loop},
    owner::Owner,
    process::{
        environment::{Environment, TaskFacts},
        launch::{Launch, Leftovers},
    },
    shortage,
};

/// Runs a job task to its end; a stop also ends it between tries. A release first ends the daemons of the preparation.
pub async fn run(context: Arc<NodeContext>, job_task: JobTask, run_control: RunControl) -> Box<JobTaskEnd> {
    let (kind, job, orphans) = (job_task.key.kind, job_task.job.clone(), context.orphans.clone());
    let end = run_tries(context, job_task, run_control).await;
    if kind == JobTaskKind::Release
        && let Err(error) = off_loop(move || orphans.release_job(&job)).await
    {
        tracing::warn!(%error, "cannot end the processes that a job's preparation left; they stay until the node's agent ends");
    }
    end
}

async fn run_tries(context: Arc<NodeContext>, job_task: JobTask, run_control: RunControl) -> Box<JobTaskEnd> {
    let started_at = Timestamp::now();
    let folder = context.root.task_folder(&job_task.job, &job_task.task);
    let run = RunKey { uid: TaskUid(0), attempt: job_task.key.number, fence: Fence(0), run: RunId::random() };
    let facts = TaskFacts { job: job_task.job.clone(), task: job_task.task.clone(), run };
    let spec = &job_task.spec;
    let owner = Owner::Job(job_task.key.job);
    let kept = context.retention.hold(&folder, spec.constraints.retention_time, owner).await;
    let _released = match job_task.key.kind {
        JobTaskKind::Preparation => {
            kept.pin();
            None
        }
        JobTaskKind::Release => Some(Released { context: context.clone(), job: job_task.job.clone(), uid: job_task.key.job }),
    };
    let mut environment = Environment::new(&context.facts, Some(&facts), &folder, &spec.environment_settings);
    environment.add_packages(context.packages.get().into_iter().flatten());
    if let Some(preparation) = &spec.preparation {
        environment.add_preparation(&context.root.task_folder(&job_task.job, preparation));
    }
    let limit = spec.constraints.max_wall_clock_time.and_then(|time| time.limit());
    let tries_max = spec.constraints.max_task_retry_count.unwrap_or(0);
    // Threads of their own: however many jobs end at once, tasks and preparations do not wait for releases.
    let (threads, leftovers) = match job_task.key.kind {
        // Daemons of a preparation stay: they may serve the job's tasks.
        JobTaskKind::Preparation => (&context.preparation_threads, Leftovers::Stay(Some(job_task.job.clone()))),
        JobTaskKind::Release => (&context.release_threads, Leftovers::End),
    };
    // The pause grows with all tries so far; only failures of the command itself count as retries.
    let (mut tries, mut retries, mut retried_at) = (0, 0, None);
    loop {
        // A further try finds the files of the one before it.
        let prepared = match retries {
            0 => prepare(&context, &job_task, &folder, &run_control).await,
            _ => execution::prepare_again(&context, &folder).await,
        };
        let outcome = match prepared {
            Err(outcome) => outcome,
            Ok(()) => {
                let launch = Launch {
                    command_line: spec.command_line.clone(),
                    environment: environment.clone(),
                    folder: folder.clone(),
                    directory: None,
                    leftovers: leftovers.clone(),
                };
                execution::process(&context, threads, launch, &run_control, limit, Some(run.run.to_string()), None).await.outcome
            }
        };
        let may_retry = matches!(outcome, Outcome::Exit { code } if code != 0) || matches!(outcome, Outcome::Signal { .. });
        let is_short = shortage::is_cause(&outcome);
        if !is_short && (!may_retry || (tries_max >= 0 && retries >= tries_max.unsigned_abs())) {
            return Box::new(JobTaskEnd { key: job_task.key, started_at, ended_at: Timestamp::now(), outcome, retries, retried_at });
        }
        // The first retry comes at once, as with tasks; a shortage of the node has been waited for already.
        let pause = Duration::from_millis(backoff::retry_pause_ms(job_task.key.job.0, tries));
        tries += 1;
        tokio::select! {
            () = sleep(pause) => {}
            () = run_control.stop.cancelled() => {
                let ended_at = Timestamp::now();
                return Box::new(JobTaskEnd { key: job_task.key, started_at, ended_at, outcome: Outcome::Stopped, retries, retried_at });
            }
        }
        // A shortage of the node is no failure of the command.
        retries += u32::from(!is_short);
        retried_at = Some(Timestamp::now());
    }
}

/// Makes an empty folder, fetches the inputs and marks the folder as this job's.
async fn prepare(context: &Arc<NodeContext>, job_task: &JobTask, folder: &Path, run_control: &RunControl) -> Result<(), Outcome> {
    execution::prepare(context, folder, &job_task.spec.resource_files, run_control).await?;
    let mark = Mark::new(&context.root, &job_task.job, &job_task.task, Owner::Job(job_task.key.job));
    let marked = try_off_loop(move || mark.set()).await;
    marked.map_err(|error| Outcome::Node(execution::node_fault("the folder cannot be marked as the job's", &error)))
}

/// Unpins the folders of the job's preparation when it is dropped, so that their retention times begin.
struct Released {
    context: Arc<NodeContext>,
    job: JobId,
    uid: JobUid,
}

impl Drop for Released {
    fn drop(&mut self) {
        self.context.retention.unpin(&self.context.root.job_folder(&self.job), Some(self.uid));
    }
}

/// The result of a job task whose work panicked.
pub fn lost(key: JobTaskKey) -> Box<JobTaskEnd> {
    let now = Timestamp::now();
    let fault = Fault {
        code: "NodeError".to_owned(),
        message: "the node agent failed internally while it ran the command".to_owned(),
        details: vec![],
    };
    Box::new(JobTaskEnd { key, started_at: now, ended_at: now, outcome: Outcome::Node(fault), retries: 0, retried_at: None })
}
