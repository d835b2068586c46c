//! The agent's own life: the start task, joining again, housekeeping, farewell.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use broker_config::{
    message::{Fault, Joined, NodeReport, Outcome, StartTaskEnd},
    spec::StartTask,
    state::NodeState,
    time::Timestamp,
};
use tokio::{sync::oneshot, time::sleep};

use crate::{
    agent::Agent,
    cleanup,
    execution::{self, Reins},
    packages::{self, Deployed},
    process::{environment::Environment, launch::Launch},
    room::Room,
};

/// Between two tries of a start task.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

impl Agent {
    /// Makes the pool's packages stand, if it has any; the end comes by the channel.
    pub(super) fn begin_packages(&mut self) -> Option<oneshot::Receiver<Result<Vec<Deployed>, Fault>>> {
        if self.joined.packages.is_empty() {
            return None;
        }
        self.report(NodeState::Starting, None, false);
        let (done, end) = oneshot::channel();
        let (room, packages) = (self.room.clone(), self.joined.packages.clone());
        tokio::spawn(async move {
            // Nobody listens only when the whole agent has ended.
            done.send(packages::deploy(&room, &packages).await).ok();
        });
        Some(end)
    }

    /// Whether the node may go on; without its packages it is unusable until it starts again.
    pub(super) fn on_packages(&mut self, end: Option<Result<Vec<Deployed>, Fault>>) -> bool {
        let lost = || Fault { code: "ApplicationPackageError".to_owned(), message: "the packages were lost".to_owned(), details: vec![] };
        match end.unwrap_or_else(|| Err(lost())) {
            Ok(packages) => self.room.packages.set(packages).is_ok(),
            Err(fault) => {
                tracing::error!(code = fault.code, details = ?fault.details, "the pool's packages cannot be deployed");
                self.report(NodeState::Unusable, Some(fault), false);
                false
            }
        }
    }

    /// Starts the start task if there is one; its end comes by the channel.
    pub(super) fn begin_start_task(&mut self) -> Option<oneshot::Receiver<StartTaskEnd>> {
        let Some(task) = self.joined.start_task.clone() else {
            self.report(NodeState::Idle, None, false);
            return None;
        };
        self.report(if waits(&task) { NodeState::WaitingForStartTask } else { NodeState::Idle }, None, false);
        let (done, end) = oneshot::channel();
        let room = self.room.clone();
        tokio::spawn(async move {
            // Nobody listens only when the whole agent has ended.
            done.send(run_start_task(room, task).await).ok();
        });
        Some(end)
    }

    pub(super) fn may_consume_early(&self) -> bool {
        self.joined.start_task.as_ref().is_none_or(|task| !waits(task))
    }

    /// Whether the node may take tasks now and did not before.
    pub(super) fn on_start_task(&mut self, end: Option<StartTaskEnd>) -> bool {
        let Some(end) = end else {
            tracing::error!("the start task was lost");
            return false;
        };
        let is_success = matches!(end.outcome, Outcome::Exit { code: 0 });
        let waits = self.joined.start_task.as_ref().is_some_and(waits);
        let state = if is_success || !waits { NodeState::Idle } else { NodeState::StartTaskFailed };
        tracing::info!(outcome = ?end.outcome, retries = end.retries, "the start task ended");
        let report = NodeReport { state, start_task: Some(end), fault: None, is_drained: false, at: Timestamp::now() };
        self.outbox.report(report);
        is_success && waits
    }

    pub(super) fn on_rejoined(&mut self, joined: Joined) {
        self.room.epoch.store(joined.epoch.0, Ordering::Relaxed);
        let order = joined.order;
        self.joined.epoch = joined.epoch;
        if self.is_ready {
            self.report(NodeState::Idle, None, false);
        }
        self.outbox.tell_again(Instant::now(), true);
        self.apply_order(order);
        self.beat();
    }

    /// What changes slowly.
    pub(super) fn keep_house(&mut self) {
        if let Some(generation) = self.tasks.as_ref().map(|tasks| *tasks.generation().borrow())
            && generation > self.generation
        {
            self.on_new_channel(generation);
        }
        let chores = self.chores.reins().filter_map(|reins| reins.leash.group());
        self.guard.watch(self.live.values().filter_map(|live| live.reins.leash.group()).chain(chores));
        self.outbox.tell_again(Instant::now(), false);
        self.tell_chores(false);
        if self.outbox.kept_count() > super::beats::KEPT_BEFORE_BEAT {
            self.beat();
        }
        self.wake_wide();
        self.watch_disk();
    }

    fn watch_disk(&mut self) {
        let free = match rustix::fs::statvfs(&**self.room.root.path()) {
            Ok(stat) => stat.f_bavail.saturating_mul(stat.f_frsize),
            Err(error) => return tracing::warn!(%error, "cannot measure the free space"),
        };
        let is_full = free < self.settings.file_reserve_bytes;
        if is_full == self.is_disk_full {
            return;
        }
        self.is_disk_full = is_full;
        tracing::warn!(free, is_full, "the node's disk");
        let fault = is_full.then(|| Fault {
            code: "DiskFull".to_owned(),
            message: "the node's disk is nearly full; it takes no tasks".to_owned(),
            details: vec![("FreeBytes".to_owned(), free.to_string())],
        });
        if self.is_ready {
            self.report(if is_full { NodeState::Unusable } else { NodeState::Idle }, fault, false);
        }
        self.apply_order(self.order);
    }

    /// A polite end: nothing new, runs are stopped and told.
    pub(super) fn say_farewell(&mut self) {
        self.is_leaving = true;
        self.accept(false);
        self.live.values().for_each(|live| live.reins.stop.cancel());
        self.stop_chores();
    }

    /// Ends every process of this node, whatever state it is in.
    pub(super) fn leave(self) {
        for live in self.live.values() {
            live.reins.leash.signal(rustix::process::Signal::KILL);
        }
        self.chores.reins().for_each(|reins| reins.leash.signal(rustix::process::Signal::KILL));
        cleanup::end_processes(&self.room.root);
        self.guard.finish();
    }
}

fn waits(task: &StartTask) -> bool {
    task.wait_for_success.unwrap_or(true)
}

async fn run_start_task(room: std::sync::Arc<Room>, task: StartTask) -> StartTaskEnd {
    let started_at = Timestamp::now();
    let folder = room.root.path().join("startup");
    let mut environment = Environment::new(&room.facts, None, &folder, &task.environment_settings);
    environment.add_packages(room.packages.get().into_iter().flatten());
    let tries_max = task.max_task_retry_count.unwrap_or(0);
    let (mut retries, mut retried_at) = (0, None);
    loop {
        let reins = Reins::new();
        let outcome = match execution::prepare(&room, &folder, &task.resource_files, &reins, None, None).await {
            Err(outcome) => outcome,
            Ok(()) => {
                let launch = Launch { command_line: task.command_line.clone(), environment: environment.clone(), folder: folder.clone() };
                execution::process(&room, launch, &reins, None, None, None, false).await.outcome
            }
        };
        let may_retry = matches!(outcome, Outcome::Exit { code } if code != 0) || matches!(outcome, Outcome::Signal { .. });
        if !may_retry || (tries_max >= 0 && retries >= tries_max as u32) {
            return StartTaskEnd { started_at, ended_at: Timestamp::now(), outcome, retries, retried_at };
        }
        retries += 1;
        sleep(RETRY_PAUSE).await;
        retried_at = Some(Timestamp::now());
    }
}
