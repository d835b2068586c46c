//! Starts job preparations before runs and job releases after a job's last run, and acts on their results.

use std::time::Instant;

use contract::{
    ids::RunId,
    job_task::JobTask,
    message::{Started, TaskMessage},
    outcome::{JobTaskEnd, JobTaskKey, Outcome},
    time::Timestamp,
};

use crate::{
    agent::{Agent, Held},
    execution::{Ended, RunControl},
    job_task_execution,
    job_tasks::Readiness,
};

impl Agent {
    /// Starts a run that the dispatcher allowed, after its job's preparation if there is one.
    pub(super) fn start_prepared(
        &mut self,
        message: TaskMessage,
        run: RunId,
        held: Option<Held>,
        units: u32,
        preparation: Option<Box<JobTask>>,
    ) {
        let key = preparation.as_ref().map(|job_task| job_task.key);
        let has_job_tasks = message.spec.as_ref().is_some_and(|spec| spec.preparation.is_some());
        if has_job_tasks && self.job_tasks.is_released(&message.job, key) {
            // The job was released here while the answer was on its way.
            return self.report_end(message.key().with(run), Timestamp::now(), Ended::bare(Outcome::Stopped), held);
        }
        let Some(job_task) = preparation else { return self.start(message, run, held, units) };
        let is_awaited = job_task.is_awaited;
        match self.job_tasks.prepare(job_task, run) {
            Readiness::Begin(job_task) => {
                self.begin_job_task(*job_task);
                if is_awaited { self.start_waiting(message, run, held, units) } else { self.start(message, run, held, units) }
            }
            Readiness::Wait => self.start_waiting(message, run, held, units),
            Readiness::Ready => self.start(message, run, held, units),
            Readiness::Failed(end) => {
                self.report_end(message.key().with(run), Timestamp::now(), Ended::bare(Outcome::Unprepared(end)), held);
            }
        }
    }

    fn begin_job_task(&mut self, job_task: JobTask) {
        tracing::info!(job = %job_task.job, task = %job_task.task, "starting a job preparation or release");
        let (context, run_control, key) = (self.context.clone(), RunControl::new(), job_task.key);
        self.job_tasks.began(key, run_control.clone());
        let running = tokio::spawn(job_task_execution::run(context, job_task, run_control));
        self.running_job_tasks.push(Box::pin(async move { running.await.unwrap_or_else(|_| job_task_execution::lost(key)) }));
    }

    /// Reports the result of a job task and lets the runs that waited for it begin or fail.
    pub(super) fn on_job_task_ended(&mut self, end: Box<JobTaskEnd>) {
        tracing::info!(key = ?end.key, outcome = ?end.outcome, retries = end.retries, "a job preparation or release ended");
        let has_succeeded = end.has_succeeded();
        // Queued before the runs that depend on it.
        self.outbox.job_task(end.clone());
        for run in self.job_tasks.ended(end.clone(), Instant::now()) {
            let Some(live) = self.live.get_mut(run) else { continue };
            let Some(begin) = live.begin.take() else { continue };
            if has_succeeded {
                live.started_at = Timestamp::now();
                let key = live.key;
                let started = Started { uid: key.uid, attempt: key.attempt, fence: key.fence, run, at: live.started_at };
                self.outbox.started(started);
            }
            // A run that was stopped meanwhile has dropped its receiver.
            begin.send((!has_succeeded).then(|| end.clone())).ok();
        }
    }

    /// Ends the job tasks that the dispatcher's reply says are over, and takes in the releases that are due.
    pub(super) fn on_job_tasks(&mut self, over: Vec<JobTaskKey>, releases: Vec<JobTask>) {
        over.into_iter().for_each(|key| self.job_tasks.over(key));
        for job_task in releases {
            let job = job_task.job.clone();
            if self.job_tasks.release(Box::new(job_task)) {
                self.live.values().filter(|live| live.job == job).for_each(|live| live.run_control.stop.cancel());
            }
        }
    }

    /// Begins the releases whose jobs have no run on this node any more.
    pub(super) fn begin_releases(&mut self) {
        let ready = self.job_tasks.ready(|job| self.live.values().any(|live| live.job == *job));
        ready.into_iter().for_each(|job_task| self.begin_job_task(job_task));
    }

    /// Sends results of job tasks again: all of them, or those that are unacknowledged for too long.
    pub(super) fn resend_job_tasks(&mut self, everything: bool) {
        for end in self.job_tasks.resend(Instant::now(), everything) {
            self.outbox.job_task(Box::new(end));
        }
    }

    /// Stops every job task, because the agent shuts down or its node is drained.
    pub(super) fn stop_job_tasks(&self) {
        self.job_tasks.run_control().for_each(|run_control| run_control.stop.cancel());
    }

    pub(super) fn has_job_tasks(&self) -> bool {
        self.job_tasks.run_control().next().is_some()
    }
}
