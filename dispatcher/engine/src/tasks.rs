//! Changes of tasks that clients request, and events that agents report.

use contract::{
    ids::{Fence, JobId, JobUid, PoolId, TaskId, TaskUid},
    message::{AgentEvent, EventBatch},
    outcome::{Fault, Stream},
    state::TaskState,
    time::Timestamp,
};
use model::{
    condition::Condition,
    refusal::{Code, Refusal},
    task::{Failure, NewTask},
};
use scheduler::{EndCause, Event, Ready};
use store::{
    StoreError,
    errands::Errand,
    records::{Ending, Inserted, NewTaskRecord, Streams, TaskHead},
};

use crate::{
    command::Done,
    command_error::CommandError,
    job_tasks::check_name,
    refusals::illegible,
    streams::Shipped,
    world::{World, merge},
};

/// The result of adding one task: its version and time.
type Added = Result<(u64, Timestamp), Refusal>;

impl World {
    pub(super) fn create_tasks(&mut self, job: &JobId, tasks: Vec<NewTask>, now: Timestamp) -> Result<Done, CommandError> {
        let uid = self.open_job(job, &Condition::default())?;
        Ok(Done::Tasks(self.insert_tasks(uid, tasks, now)?))
    }

    /// Whether a job takes a task, its name apart; a job that is still to be made uses no dependencies and prepares nothing.
    pub(super) fn check_task(&self, job: Option<JobUid>, task: &NewTask) -> Result<(), Refusal> {
        let uses_dependencies = job.and_then(|job| self.jobs.get(&job)).is_some_and(|entry| entry.record.uses_dependencies);
        if !uses_dependencies && !task.depends_on.is_empty() {
            let text = "The task depends on others but its job does not use dependencies.";
            let refusal = Refusal::new(Code::TaskDependenciesNotSpecifiedOnJob, text).with("TaskId", &task.id);
            return Err(refusal.hint("Create the job with usesTaskDependencies set to true."));
        }
        check_name(job.and_then(|job| self.job_tasks.get(&job)), &task.id)?;
        let packages = self.check_packages(&task.spec.application_package_references);
        packages.map_err(|refusal| refusal.with("TaskId", &task.id))
    }

    /// Adds tasks to a job that accepts them; one result each.
    pub(super) fn insert_tasks(&mut self, uid: JobUid, tasks: Vec<NewTask>, now: Timestamp) -> Result<Vec<Added>, StoreError> {
        let Some(entry) = self.jobs.get(&uid) else { return Ok(Vec::new()) };
        let (retries_default, pool) = (entry.record.max_task_retry_count, entry.record.pool.clone());
        let slots_per_node = self.pools.get(&pool).map(|pool| pool.record.slots_per_node);
        let mut results = Vec::with_capacity(tasks.len());
        let mut ready = Vec::new();
        for task in tasks {
            if let Err(refusal) = self.check_task(Some(uid), &task) {
                results.push(Err(refusal));
                continue;
            }
            let number = TaskUid(self.next_task);
            let version = self.next_version();
            let slots = task.spec.slots();
            let own_retries = task.spec.constraints.max_task_retry_count;
            let retries_max = own_retries.unwrap_or(retries_default);
            // A task without `maxTaskRetryCount` shows the job's.
            let mut document = task.document;
            document.constraints.max_task_retry_count.get_or_insert(retries_max);
            let record = NewTaskRecord {
                uid: number,
                id: &task.id,
                document: &document.text(),
                exit_conditions: task.exit_conditions.as_ref(),
                slots,
                retries_max,
                depends_on: &task.depends_on,
                fits: slots_per_node.is_none_or(|most| slots <= most),
                fence: Fence(self.first_fence),
                version,
                at: now,
            };
            match self.store.insert_task(uid, &record)? {
                Inserted::Exists => {
                    results.push(Err(Refusal::new(Code::TaskExists, "The specified task already exists.").with("TaskId", &task.id)))
                }
                inserted => {
                    self.next_task += 1;
                    self.count(uid, u64::from(slots), |counts, n| counts.active += n);
                    results.push(Ok((version, now)));
                    if inserted == Inserted::Ready {
                        ready.push(Ready {
                            uid: number,
                            attempt: 0,
                            fence: Fence(self.first_fence),
                            slots,
                            crashes: 0,
                            retries: 0,
                            retries_max,
                        });
                        let mut spec = task.spec;
                        if let Some(entry) = self.jobs.get(&uid) {
                            spec.environment_settings = merge(&entry.record.environment, spec.environment_settings);
                        }
                        self.equip(&mut spec);
                        self.fresh.insert(number, (task.id, spec));
                    }
                }
            }
        }
        self.offer(uid, &pool, ready, now)?;
        Ok(results)
    }

    fn offer(&mut self, job: JobUid, pool: &PoolId, tasks: Vec<Ready>, now: Timestamp) -> Result<(), StoreError> {
        if tasks.is_empty() {
            return Ok(());
        }
        if !self.pools.contains_key(pool) {
            if let Some(entry) = self.jobs.get_mut(&job) {
                entry.parked += tasks.len() as u64;
            }
            return Ok(());
        }
        self.step(pool, Event::Added { job, tasks }, now)
    }

    pub(super) fn head(&mut self, job: &JobId, task: &TaskId) -> Result<(JobUid, TaskHead), CommandError> {
        let uid = match self.alive(job) {
            Some(uid) => uid,
            None => match self.stored_job(job)? {
                Some(record) => record.uid,
                None => return Err(Refusal::new(Code::JobNotFound, "The specified job does not exist.").with("JobId", job).into()),
            },
        };
        let found = match self.store.task(uid, task) {
            Err(error @ StoreError::Corrupt { .. }) => {
                if let Some(number) = self.store.number_of(uid, task)? {
                    self.legible::<()>(number, Err(error))?;
                }
                return Err(illegible("task").with("TaskId", task).into());
            }
            found => found?,
        };
        match found {
            Some(head) => Ok((uid, head)),
            None => Err(Refusal::new(Code::TaskNotFound, "The specified task does not exist.").with("TaskId", task).into()),
        }
    }

    pub(super) fn pool_of(&self, job: JobUid) -> Option<PoolId> {
        self.jobs.get(&job).map(|job| job.record.pool.clone())
    }

    pub(super) fn terminate_task(
        &mut self,
        job: &JobId,
        task: &TaskId,
        condition: &Condition,
        now: Timestamp,
    ) -> Result<Done, CommandError> {
        let (uid, head) = self.head(job, task)?;
        condition.check(head.version, head.modified_at)?;
        if head.state == TaskState::Completed {
            return Err(Refusal::new(Code::TaskCompleted, "The specified task is already in a completed state.")
                .with("TaskId", task)
                .into());
        }
        let Some(pool) = self.pool_of(uid) else {
            return Err(Refusal::new(Code::JobCompleted, "The specified job is already in a completed state.").with("JobId", job).into());
        };
        if head.is_live {
            self.step(&pool, Event::Cancel { uid: head.uid, delete: false }, now)?;
        } else {
            if head.is_ready {
                self.withdraw(uid, now)?;
            }
            let fault = Fault { code: "TaskEnded".to_owned(), message: "The task was ended by request.".to_owned(), details: vec![] };
            let ending = Ending {
                fence: head.fence.next(),
                has_succeeded: false,
                exit_code: None,
                failure: Some(Failure { is_user_error: true, fault }),
                streams: Streams::Earlier,
                stdout: Stream::Empty,
                stderr: Stream::Empty,
                started_at: None,
                node: None,
                at: now,
            };
            let version = self.next_version();
            self.store.end(head.uid, &ending, version)?;
            self.ended(uid, head.uid, false, &EndCause::Ended, false, now)?;
        }
        Ok(Done::Changed { version: self.version, at: now })
    }

    /// Tells the scheduler that a waiting row is gone.
    pub(super) fn withdraw(&mut self, job: JobUid, now: Timestamp) -> Result<(), StoreError> {
        if let Some(pool) = self.pool_of(job).filter(|pool| self.pools.contains_key(pool)) {
            return self.step(&pool, Event::Withdrawn { job }, now);
        }
        if let Some(entry) = self.jobs.get_mut(&job) {
            entry.parked = entry.parked.saturating_sub(1);
        }
        Ok(())
    }

    pub(super) fn remove_task(&mut self, job: &JobId, task: &TaskId, condition: &Condition, now: Timestamp) -> Result<Done, CommandError> {
        let (uid, head) = self.head(job, task)?;
        condition.check(head.version, head.modified_at)?;
        let pool = self.pool_of(uid);
        match &pool {
            Some(pool) if head.is_live => self.step(pool, Event::Cancel { uid: head.uid, delete: true }, now)?,
            _ => {
                if head.is_ready {
                    self.withdraw(uid, now)?;
                }
                let blobs = self.store.blobs_of(head.uid)?;
                self.discard(&blobs.into_iter().flatten().collect::<Vec<_>>())?;
                self.store.delete_task(head.uid)?;
                self.tell_end(uid, head.uid)?;
                self.uncount(job, uid, &head)?;
            }
        }
        if let Some(pool) = pool {
            let (last, job_uid) = (Some(head.uid), Some(uid));
            self.run_errand(&Errand::Forget { pool, job: job.clone(), task: Some(task.clone()), last, job_uid })?;
            self.complete_if_done(uid, now)?;
        }
        Ok(Done::Changed { version: self.version, at: now })
    }

    /// Removes a task that is not released or running from its job's counters.
    fn uncount(&mut self, job: &JobId, uid: JobUid, head: &TaskHead) -> Result<(), StoreError> {
        let change = |counts: &mut model::job::Counts, n: u64| {
            let from = match (head.state, head.has_succeeded) {
                (TaskState::Completed, Some(true)) => &mut counts.succeeded,
                (TaskState::Completed, _) => &mut counts.failed,
                (TaskState::Active, _) => &mut counts.active,
                _ => &mut counts.running,
            };
            *from = from.saturating_sub(n);
        };
        if self.jobs.contains_key(&uid) {
            self.count(uid, u64::from(head.slots), change);
        } else if let Ok(Some(mut record)) = self.refusable(|world| world.stored_job(job))? {
            change(&mut record.tasks, 1);
            change(&mut record.slots, u64::from(head.slots));
            self.store.put_job(&record, None)?;
        }
        Ok(())
    }

    pub(super) fn on_events(&mut self, batch: EventBatch, now: Timestamp) -> Result<(), StoreError> {
        let EventBatch { pool, node, epoch, events, .. } = batch;
        for event in events {
            let mut shipped = None;
            let event = match event {
                AgentEvent::Started(started) => Event::Started { node: node.clone(), epoch, started },
                AgentEvent::Finished(finished) => {
                    shipped = Shipped::of(&finished);
                    Event::Finished { node: node.clone(), epoch, finished }
                }
                AgentEvent::JobTask(end) => Event::JobTaskEnded { node: node.clone(), epoch, end },
                AgentEvent::Node(report) => {
                    self.note_report(&pool, &node, epoch, &report);
                    Event::Reported { node: node.clone(), epoch, report }
                }
            };
            self.step(&pool, event, now)?;
            if let Some(shipped) = shipped {
                self.discard_unkept(shipped)?;
            }
        }
        Ok(())
    }
}
