//! Preparations before runs, releases after the last of them: when they begin and what follows from their ends.

use std::time::Instant;

use broker_config::{
    chore::{Chore, ChoreEnd, ChoreKey},
    ids::RunId,
    message::{Outcome, Started, TaskMessage},
    time::Timestamp,
};

use crate::{
    agent::{Agent, Held},
    chore_execution,
    chores::Outlook,
    execution::{Ended, Reins},
};

impl Agent {
    /// Starts what an answer allowed, after or beside the job's preparation.
    pub(super) fn start_prepared(&mut self, message: TaskMessage, run: RunId, held: Held, units: u32, preparation: Option<Box<Chore>>) {
        let key = preparation.as_ref().map(|chore| chore.key);
        let has_chores = message.spec.as_ref().is_some_and(|spec| spec.preparation.is_some());
        if has_chores && self.chores.is_released(&message.job, key) {
            // The answer was on its way while the job ended here.
            return self.tell_end(message.key().with(run), Timestamp::now(), Ended::bare(Outcome::Stopped), Some(held));
        }
        let Some(chore) = preparation else { return self.start(message, run, Some(held), units) };
        let is_awaited = chore.is_awaited;
        match self.chores.prepare(chore, run) {
            Outlook::Begin(chore) => {
                self.begin_chore(*chore);
                if is_awaited { self.start_waiting(message, run, held, units) } else { self.start(message, run, Some(held), units) }
            }
            Outlook::Wait => self.start_waiting(message, run, held, units),
            Outlook::Go => self.start(message, run, Some(held), units),
            Outlook::Fail(end) => {
                self.tell_end(message.key().with(run), Timestamp::now(), Ended::bare(Outcome::Unprepared(end)), Some(held));
            }
        }
    }

    fn begin_chore(&mut self, chore: Chore) {
        tracing::info!(job = %chore.job, task = %chore.task, "starting");
        let (room, reins, key) = (self.room.clone(), Reins::new(), chore.key);
        self.chores.began(key, reins.clone());
        let running = tokio::spawn(chore_execution::run(room, chore, reins));
        self.choring.push(Box::pin(async move { running.await.unwrap_or_else(|_| chore_execution::lost(key)) }));
    }

    /// A chore ended: it is told, and the runs that waited for it go on.
    pub(super) fn on_chore_ended(&mut self, end: Box<ChoreEnd>) {
        tracing::info!(key = ?end.key, outcome = ?end.outcome, retries = end.retries, "a chore ended");
        let has_succeeded = end.has_succeeded();
        // Told before the runs that depend on it.
        self.outbox.chore(end.clone());
        for run in self.chores.ended(end.clone(), Instant::now()) {
            let Some(live) = self.live.get_mut(&run) else { continue };
            let Some(go) = live.go.take() else { continue };
            if has_succeeded {
                live.started_at = Timestamp::now();
                let key = live.key;
                let started = Started { uid: key.uid, attempt: key.attempt, fence: key.fence, run, at: live.started_at };
                self.outbox.started(started);
            }
            // A run that was stopped meanwhile does not listen any more.
            go.send((!has_succeeded).then(|| end.clone())).ok();
        }
    }

    /// Chores of the last beat that are over, and releases that are due.
    pub(super) fn on_chores(&mut self, over: Vec<ChoreKey>, releases: Vec<Chore>) {
        over.into_iter().for_each(|key| self.chores.over(key));
        for chore in releases {
            let job = chore.job.clone();
            if self.chores.release(Box::new(chore)) {
                self.live.values().filter(|live| live.job == job).for_each(|live| live.reins.stop.cancel());
            }
        }
    }

    /// Begins the releases that wait for nothing any more.
    pub(super) fn begin_releases(&mut self) {
        let ready = self.chores.ready(|job| self.live.values().any(|live| live.job == *job));
        ready.into_iter().for_each(|chore| self.begin_chore(chore));
    }

    /// Tells ends of chores again.
    pub(super) fn tell_chores(&mut self, everything: bool) {
        for end in self.chores.tell_again(Instant::now(), everything) {
            self.outbox.chore(Box::new(end));
        }
    }

    /// Stops every chore, for the agent has to leave.
    pub(super) fn stop_chores(&self) {
        self.chores.reins().for_each(|reins| reins.stop.cancel());
    }

    pub(super) fn has_chores(&self) -> bool {
        self.chores.reins().next().is_some()
    }
}
