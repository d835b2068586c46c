//! One execution of a job's preparation or release: its tries, each from an empty folder.

use std::sync::Arc;

use broker_config::{
    chore::{Chore, ChoreEnd, ChoreKey},
    ids::{Fence, RunId, RunKey, TaskUid},
    message::{Fault, Outcome},
    time::Timestamp,
};
use tokio::time::{Duration, Instant, sleep};

use crate::{
    execution::{self, Reins},
    process::{
        environment::{Environment, TaskFacts},
        launch::Launch,
    },
    room::Room,
};

/// Between two tries.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Runs a chore to its end; a stop ends it between tries, too.
pub async fn run(room: Arc<Room>, chore: Chore, reins: Reins) -> Box<ChoreEnd> {
    let started_at = Timestamp::now();
    let folder = room.root.task_folder(&chore.job, &chore.task);
    let run = RunKey { uid: TaskUid(0), attempt: chore.key.number, fence: Fence(0), run: RunId::random() };
    let facts = TaskFacts { job: chore.job.clone(), task: chore.task.clone(), run };
    let spec = &chore.spec;
    let mut environment = Environment::new(&room.facts, Some(&facts), &folder, &spec.environment_settings);
    environment.add_packages(room.packages.get().into_iter().flatten());
    if let Some(preparation) = &spec.preparation {
        environment.add_preparation(&room.root.task_folder(&chore.job, preparation));
    }
    let limit = spec.constraints.max_wall_clock_time.and_then(|time| time.limit());
    let tries_max = spec.constraints.max_task_retry_count.unwrap_or(0);
    let (mut retries, mut retried_at) = (0, None);
    loop {
        let deadline = limit.map(|limit| Instant::now() + limit);
        let outcome = match execution::prepare(&room, &folder, &spec.resource_files, &reins, deadline, limit).await {
            Err(outcome) => outcome,
            Ok(()) => {
                let launch = Launch { command_line: spec.command_line.clone(), environment: environment.clone(), folder: folder.clone() };
                execution::process(&room, launch, &reins, deadline, limit, Some(run.run.to_string()), false).await.outcome
            }
        };
        let may_retry = matches!(outcome, Outcome::Exit { code } if code != 0) || matches!(outcome, Outcome::Signal { .. });
        if !may_retry || (tries_max >= 0 && retries >= tries_max.unsigned_abs()) {
            return Box::new(ChoreEnd { key: chore.key, started_at, ended_at: Timestamp::now(), outcome, retries, retried_at });
        }
        tokio::select! {
            () = sleep(RETRY_PAUSE) => {}
            () = reins.stop.cancelled() => {
                let ended_at = Timestamp::now();
                return Box::new(ChoreEnd { key: chore.key, started_at, ended_at, outcome: Outcome::Stopped, retries, retried_at });
            }
        }
        retries += 1;
        retried_at = Some(Timestamp::now());
    }
}

/// The end of a chore whose task of the runtime was lost.
pub fn lost(key: ChoreKey) -> Box<ChoreEnd> {
    let now = Timestamp::now();
    let fault = Fault { code: "NodeError".to_owned(), message: "the execution was lost".to_owned(), details: vec![] };
    Box::new(ChoreEnd { key, started_at: now, ended_at: now, outcome: Outcome::Node(fault), retries: 0, retried_at: None })
}
