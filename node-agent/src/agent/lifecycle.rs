//! The agent's life cycle: packages, start task, joining again, periodic work, shutdown.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use contract::{
    backoff,
    message::{Joined, NodeReport, StartTaskEnd},
    outcome::{DISK_FULL, Fault, Outcome},
    spec::{Package, StartTask},
    state::NodeState,
    time::Timestamp,
};
use tokio::{sync::oneshot, time::sleep};

use crate::{
    agent::{Agent, Life},
    cleanup,
    context::NodeContext,
    execution::{self, RunControl},
    packages::{self, deployed::Deployed},
    process::{
        environment::Environment,
        launch::{Launch, Leftovers},
    },
    shortage,
};

/// Tries of the pool's packages on a node whose disk others have filled, and the pause between two.
const DEPLOYS_MAX: usize = 60;
const ROOM_PAUSE: Duration = Duration::from_secs(10);

impl Agent {
    /// Deploys the pool's packages, if it has any; the result comes through the channel.
    pub(super) fn begin_packages(&mut self) -> Option<oneshot::Receiver<Result<Vec<Deployed>, Fault>>> {
        if self.joined.packages.is_empty() {
            return None;
        }
        self.report(NodeState::Starting, None, false);
        let (done, end) = oneshot::channel();
        let (context, packages) = (self.context.clone(), self.joined.packages.clone());
        tokio::spawn(async move {
            // Fails only when the whole agent has ended.
            done.send(deploy_with_room(&context, &packages).await).ok();
        });
        Some(end)
    }

    /// Returns whether the node may go on; without its packages it stays unusable until its agent starts again.
    pub(super) fn on_packages(&mut self, end: Option<Result<Vec<Deployed>, Fault>>) -> bool {
        let lost = || Fault {
            code: "ApplicationPackageError".to_owned(),
            message: "the node agent failed internally while it deployed the packages".to_owned(),
            details: vec![],
        };
        match end.unwrap_or_else(|| Err(lost())) {
            Ok(packages) => self.context.packages.set(packages).is_ok(),
            Err(fault) => {
                tracing::error!(code = fault.code, details = ?fault.details, "the pool's application packages cannot be deployed; the node takes no tasks until its agent starts again");
                self.report(NodeState::Unusable, Some(fault), false);
                false
            }
        }
    }

    /// Starts the start task if there is one; its result comes through the channel.
    pub(super) fn begin_start_task(&mut self) -> Option<oneshot::Receiver<StartTaskEnd>> {
        let Some(task) = self.joined.start_task.clone() else {
            self.report(NodeState::Idle, None, false);
            return None;
        };
        self.report(if waits(&task) { NodeState::WaitingForStartTask } else { NodeState::Idle }, None, false);
        let (done, end) = oneshot::channel();
        let context = self.context.clone();
        tokio::spawn(async move {
            // Fails only when the whole agent has ended.
            done.send(run_start_task(context, task).await).ok();
        });
        Some(end)
    }

    pub(super) fn may_consume_early(&self) -> bool {
        self.joined.start_task.as_ref().is_none_or(|task| !waits(task))
    }

    /// Returns whether the node may take tasks now and could not before.
    pub(super) fn on_start_task(&mut self, end: Option<StartTaskEnd>) -> bool {
        let Some(end) = end else {
            tracing::error!("the work on the start task failed inside the agent; the node counts its start task as failed");
            return false;
        };
        let is_success = matches!(end.outcome, Outcome::Exit { code: 0 });
        let waits = self.joined.start_task.as_ref().is_some_and(waits);
        let state = if is_success || !waits { NodeState::Idle } else { NodeState::StartTaskFailed };
        tracing::info!(outcome = ?end.outcome, retries = end.retries, "the start task ended");
        let report = NodeReport { state, start_task: Some(end), fault: None, is_drained: false, at: Timestamp::now(), number: 0 };
        self.outbox.report(report);
        is_success && waits
    }

    pub(super) fn on_rejoined(&mut self, joined: Joined) {
        self.context.epoch.store(joined.epoch.0, Ordering::Relaxed);
        let order = joined.order;
        self.joined.epoch = joined.epoch;
        if self.is_ready() {
            self.report(NodeState::Idle, None, false);
        }
        self.outbox.resend(Instant::now(), true);
        self.apply_order(order);
        self.heartbeat();
    }

    /// Periodic work, every [`super::HOUSEKEEPING`]: watches the channel, the guardian, unacknowledged results and the
    /// disk.
    pub(super) fn housekeep(&mut self) {
        if let Some(generation) = self.tasks.as_ref().map(|tasks| *tasks.consumer.generation().borrow())
            && generation > self.generation
        {
            self.on_new_channel(generation);
        }
        let job_tasks = self.job_tasks.run_control().filter_map(|run_control| run_control.group.group());
        let others = job_tasks.chain(self.warm.groups());
        self.guard.watch(self.live.values().filter_map(|live| live.run_control.group.group()).chain(others), self.context.orphans.living());
        self.warm.tidy(&self.context, self.capacity.is_consuming());
        self.outbox.resend(Instant::now(), false);
        self.resend_job_tasks(false);
        if self.outbox.kept_count() > super::heartbeats::KEPT_BEFORE_HEARTBEAT {
            self.heartbeat();
        }
        self.wake_wide();
        self.watch_disk();
    }

    fn watch_disk(&mut self) {
        let free = self.free_bytes.load(Ordering::Relaxed);
        let is_full = free < self.settings.file_reserve_bytes;
        if is_full == self.is_disk_full {
            return;
        }
        self.is_disk_full = is_full;
        tracing::warn!(free, is_full, "the free space of the node's disk has crossed its reserve; a full disk takes no tasks");
        let fault = is_full.then(|| Fault {
            code: DISK_FULL.to_owned(),
            message: "the node's disk is nearly full; it takes no tasks".to_owned(),
            details: vec![("FreeBytes".to_owned(), free.to_string())],
        });
        if self.is_ready() {
            self.report(if is_full { NodeState::Unusable } else { NodeState::Idle }, fault, false);
        }
        self.apply_order(self.order);
    }

    /// Begins a shutdown that drains: takes no tasks, stops runs; the loop ends when their results are confirmed.
    pub(super) fn begin_shutdown(&mut self) {
        self.life = Life::ShuttingDown(Instant::now());
        self.accept(false);
        self.live.values().for_each(|live| live.run_control.stop.cancel());
        self.stop_job_tasks();
    }

    /// Kills every process of this node and ends the agent. It may block for as long as processes take to die.
    pub(super) async fn leave(mut self) {
        self.guard.rest();
        for live in self.live.values() {
            live.run_control.group.signal(rustix::process::Signal::KILL);
        }
        self.job_tasks.run_control().for_each(|run_control| run_control.group.signal(rustix::process::Signal::KILL));
        self.warm.end();
        cleanup::end_processes(&self.context.root);
        self.guard.finish();
        self.heartbeat_thread.finish().await;
    }
}

/// Deploys the pool's packages; waits for room a while when others have filled the disk.
async fn deploy_with_room(context: &NodeContext, packages: &[Package]) -> Result<Vec<Deployed>, Fault> {
    for _ in 1..DEPLOYS_MAX {
        match packages::deploy(context, packages).await {
            Err(fault) if fault.code == DISK_FULL => {
                tracing::warn!(details = ?fault.details, "the node's disk has no room for the pool's application packages; trying again");
                sleep(ROOM_PAUSE).await;
            }
            other => return other,
        }
    }
    packages::deploy(context, packages).await
}

fn waits(task: &StartTask) -> bool {
    task.wait_for_success.unwrap_or(true)
}

async fn run_start_task(context: std::sync::Arc<NodeContext>, task: StartTask) -> StartTaskEnd {
    let started_at = Timestamp::now();
    let folder = context.root.path().join("startup");
    let mut environment = Environment::new(&context.facts, None, &folder, &task.environment_settings);
    environment.add_packages(context.packages.get().into_iter().flatten());
    let tries_max = task.max_task_retry_count.unwrap_or(0);
    let seed = rand::random();
    // The pause grows with all tries so far; only failures of the task itself count as retries.
    let (mut tries, mut retries, mut retried_at) = (0, 0, None);
    loop {
        let run_control = RunControl::new();
        // A further try finds the files of the one before it.
        let prepared = match retries {
            0 => execution::prepare(&context, &folder, &task.resource_files, &run_control).await,
            _ => execution::prepare_again(&context, &folder).await,
        };
        let outcome = match prepared {
            Err(outcome) => outcome,
            Ok(()) => {
                let launch = Launch {
                    command_line: task.command_line.clone(),
                    environment: environment.clone(),
                    folder: folder.clone(),
                    directory: None,
                    leftovers: Leftovers::Stay(None),
                };
                execution::process(&context, &context.threads, launch, &run_control, None, None, None).await.outcome
            }
        };
        let may_retry = matches!(outcome, Outcome::Exit { code } if code != 0) || matches!(outcome, Outcome::Signal { .. });
        let is_short = shortage::is_cause(&outcome);
        if !is_short && (!may_retry || (tries_max >= 0 && retries >= tries_max as u32)) {
            return StartTaskEnd { started_at, ended_at: Timestamp::now(), outcome, retries, retried_at };
        }
        // A shortage of the node is no failure of the start task.
        retries += u32::from(!is_short);
        // The first retry comes at once, as with tasks. Random pauses keep nodes that fail together from retrying
        // together.
        sleep(Duration::from_millis(backoff::retry_pause_ms(seed, tries))).await;
        tries += 1;
        retried_at = Some(Timestamp::now());
    }
}
