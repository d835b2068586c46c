//! Tasks that come by message: all tasks of a message are added in one transaction, or none of them.
//!
//! ```text
//! message ─► known? ─yes─► the same answer, or a conflict when its body was another one
//!              └─no─► job, checks ─► tasks, the message's id ─commit─► answer now, or when each task has ended
//! ```
//! Answers are errands: rows that stay until the broker has them. Those that wait for an end are rows of their own until then.

use std::collections::HashSet;

use contract::{
    ids::{JobId, JobUid, PoolId, TaskId, TaskUid},
    state::{JobState, TaskState},
    time::Timestamp,
};
use model::{
    condition::Condition,
    refusal::{Code, Refusal},
    submission::{Answer, MessageKey, NewSubmission, News, Reply, Target, Wait},
    task::NewTask,
};
use store::{StoreError, errands::Errand};

use crate::{awaiting::Awaiting, command::Done, command_error::CommandError, world::World};

/// A message's id is known for this long at least, while there are no more than [`MESSAGES_MAX`] later ones.
const REMEMBERED_MS: i64 = 24 * 60 * 60 * 1000;
/// Messages whose ids are known at most; the oldest are forgotten first.
const MESSAGES_MAX: u64 = 10_000_000;
/// Ids that are forgotten in one transaction at most.
const FORGOTTEN_MAX: usize = 1_000;
/// Answers for tasks that will never end that leave in one transaction at most.
const SLICE_ROWS: usize = 200;

fn conflict(key: &MessageKey) -> Refusal {
    Refusal::new(
        Code::OperationInvalidForCurrentState,
        "A message with the same message_id and another body or priority was submitted before.",
    )
    .with("MessageId", &key.id)
    .hint("Give each message an id of its own; the same id is for sending the same message again.")
}

/// Whether a job is on the pool that a message names.
fn check_pool(job: &JobId, is_on: &PoolId, named: &PoolId) -> Result<(), Refusal> {
    if is_on == named {
        return Ok(());
    }
    let text = "The value provided for one of the properties in the request body is invalid.";
    let refusal = Refusal::new(Code::InvalidPropertyValue, text).with("PropertyName", "job").with("PropertyValue", job);
    let refusal = refusal.with("Reason", format!("The job runs on pool {is_on}, and the message's routing key names pool {named}."));
    Err(refusal.hint("Publish with the job's pool as the routing key, or name another job."))
}

impl World {
    /// Adds the tasks of a message, unless that has been done before.
    pub(super) fn submit(&mut self, submission: NewSubmission, now: Timestamp) -> Result<Done, CommandError> {
        if let Some(key) = &submission.key
            && let Some(digest) = self.store.remembered(&submission.pool, &key.id)?
        {
            if digest != key.digest {
                return Err(conflict(key).into());
            }
            self.tell_again(submission)?;
            return Ok(Done::Submitted { is_repeated: true });
        }
        let NewSubmission { pool, job, tasks, is_list, key, reply } = submission;
        let id = job.id().clone();
        let uid = self.job_for(&pool, job, &tasks, now)?;
        let names: Vec<TaskId> = tasks.iter().map(|task| task.id.clone()).collect();
        let first = self.next_task;
        if let Some(refusal) = self.insert_tasks(uid, tasks, now)?.into_iter().find_map(Result::err) {
            // It was checked before; this transaction is undone.
            return Err(refusal.into());
        }
        if let Some(key) = &key {
            self.store.remember(&pool, key, now)?;
        }
        match reply {
            None => {}
            Some((reply, Wait::Accepted)) => self.tell(Answer { reply, news: News::Accepted { job: id, tasks: names, is_list } })?,
            Some((reply, Wait::Completed)) => {
                // Tasks get their numbers in order.
                for (number, task) in (first..).zip(names) {
                    self.await_end(uid, (TaskUid(number), task), &id, &reply)?;
                }
            }
        }
        Ok(Done::Submitted { is_repeated: false })
    }

    /// The job that takes all of these tasks, which is made where it stands for a pool; nothing has changed when it is refused.
    fn job_for(&mut self, pool: &PoolId, job: Target, tasks: &[NewTask], now: Timestamp) -> Result<JobUid, CommandError> {
        if !self.pools.contains_key(pool) {
            let refusal = Refusal::new(Code::PoolNotFound, "The specified pool does not exist.").with("PoolId", pool);
            return Err(refusal.hint("The routing key of a submission is the id of a pool.").into());
        }
        self.slots_of_usable_pool(pool)?;
        let is_there = self.alive(job.id()).is_some() || self.stored_job(job.id())?.is_some();
        let uid = match &job {
            Target::Standing(_) if !is_there => None,
            _ => Some(self.open_job(job.id(), &Condition::default())?),
        };
        if let Some(entry) = uid.and_then(|uid| self.jobs.get(&uid)) {
            check_pool(&entry.record.id, &entry.record.pool, pool)?;
        }
        let mut names = HashSet::with_capacity(tasks.len());
        for task in tasks {
            self.check_task(uid, task)?;
            let is_new = names.insert(task.id.as_str().to_ascii_lowercase());
            let is_taken = !is_new || uid.map_or(Ok(None), |uid| self.store.number_of(uid, &task.id))?.is_some();
            if is_taken {
                return Err(Refusal::new(Code::TaskExists, "The specified task already exists.").with("TaskId", &task.id).into());
            }
            if task.acts_on_job() && !uid.and_then(|uid| self.jobs.get(&uid)).is_some_and(|entry| entry.record.performs_exit_options) {
                return Err(task.unheard().into());
            }
        }
        match (uid, job) {
            (Some(uid), _) => Ok(uid),
            (None, Target::Standing(job)) => {
                let id = job.id.clone();
                self.create_job(*job, now)?;
                let missing = || Refusal::new(Code::InternalError, "The job of the pool's submissions was not made.");
                Ok(self.alive(&id).ok_or_else(missing)?)
            }
            (None, Target::Named(job)) => {
                Err(Refusal::new(Code::JobNotFound, "The specified job does not exist.").with("JobId", job).into())
            }
        }
    }

    /// The answer to a message that was carried out before.
    fn tell_again(&mut self, submission: NewSubmission) -> Result<(), CommandError> {
        let NewSubmission { job, tasks, is_list, reply, .. } = submission;
        let Some((reply, wait)) = reply else { return Ok(()) };
        let job = job.id().clone();
        let tasks = tasks.into_iter().map(|task| task.id);
        if wait == Wait::Accepted {
            return Ok(self.tell(Answer { reply, news: News::Accepted { job, tasks: tasks.collect(), is_list } })?);
        }
        let (uid, is_alive) = match self.alive(&job) {
            Some(uid) => (Some(uid), true),
            None => (self.stored_job(&job)?.map(|record| record.uid), false),
        };
        for task in tasks {
            let number = uid.map_or(Ok(None), |uid| self.store.number_of(uid, &task))?;
            match (uid, number) {
                (Some(uid), Some(number)) if is_alive && !self.has_ended(number)? => {
                    self.await_end(uid, (number, task), &job, &reply)?;
                }
                _ => self.tell(Answer { reply: reply.clone(), news: News::Ended { job: job.clone(), task, uid: number } })?,
            }
        }
        Ok(())
    }

    fn has_ended(&mut self, task: TaskUid) -> Result<bool, StoreError> {
        let head = self.store.task_by_uid(task);
        Ok(self.legible(task, head)?.is_none_or(|head| head.state == TaskState::Completed))
    }

    fn tell(&mut self, answer: Answer) -> Result<(), StoreError> {
        self.run_errand(&Errand::Tell(answer))
    }

    fn await_end(&mut self, job: JobUid, (uid, task): (TaskUid, TaskId), name: &JobId, reply: &Reply) -> Result<(), StoreError> {
        self.awaiting.may_be = true;
        let news = News::Ended { job: name.clone(), task, uid: Some(uid) };
        self.store.await_end(job, uid, &Answer { reply: reply.clone(), news })
    }

    /// Tells those who wait for a task that it has ended, or is gone.
    pub(super) fn tell_end(&mut self, job: JobUid, task: TaskUid) -> Result<(), StoreError> {
        if self.awaiting.may_be {
            for answer in self.store.take_awaited(job, task)? {
                self.tell(answer)?;
            }
        }
        Ok(())
    }

    /// Tells some of those who wait for tasks of a job that ends or goes; whether others are left.
    pub(super) fn tell_job_end(&mut self, job: JobUid) -> Result<bool, StoreError> {
        if !self.awaiting.may_be {
            return Ok(false);
        }
        let (answers, count) = self.store.take_awaited_of_job(job, SLICE_ROWS)?;
        for answer in answers {
            self.tell(answer)?;
        }
        Ok(count == SLICE_ROWS)
    }

    /// A job has ended: tasks that wait in it never begin.
    pub(super) fn tell_waiting_of(&mut self, job: JobUid) {
        if self.awaiting.may_be {
            self.awaiting.over.push_back(job);
        }
    }

    /// Tells a slice of those who wait for tasks of jobs that have ended.
    pub(super) fn tell_over(&mut self) -> Result<(), StoreError> {
        if let Some(job) = self.awaiting.over.pop_front()
            && self.tell_job_end(job)?
        {
            self.awaiting.over.push_back(job);
        }
        Ok(())
    }

    /// Finds the answers that wait, after a start: those for tasks of jobs that are over leave by themselves.
    pub(super) fn load_awaiting(&mut self) -> Result<(), StoreError> {
        self.awaiting = Awaiting::default();
        let mut last = None;
        while let Some(job) = self.store.next_awaited_job(last)? {
            self.awaiting.may_be = true;
            if self.jobs.get(&job).is_none_or(|entry| entry.record.state == JobState::Completed) {
                self.awaiting.over.push_back(job);
            }
            last = Some(job);
        }
        Ok(())
    }

    /// Forgets messages that were carried out long ago.
    pub(super) fn tick_messages(&mut self, now: Timestamp) -> Result<(), StoreError> {
        // A clock that is set ahead makes nothing old.
        let before = self.steady().min(now).plus_ms(-REMEMBERED_MS);
        self.store.forget_messages(before, MESSAGES_MAX, FORGOTTEN_MAX).map(drop)
    }
}
