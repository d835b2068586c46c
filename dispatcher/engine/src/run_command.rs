//! Carries out each command and answers it once.

use contract::time::Timestamp;
use model::refusal::Refusal;
use store::StoreError;
use tokio::sync::oneshot;

use crate::{
    command::{Command, Done},
    command_error::CommandError,
    messages::Output,
    world::World,
};

impl World {
    /// Answers are sent after the commit; the answer for a new pool also waits until its queues are declared.
    pub(super) fn on_command(
        &mut self,
        command: Command,
        reply: oneshot::Sender<Result<Done, Refusal>>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let new_pool = match &command {
            Command::CreatePool(pool) => Some(pool.id.clone()),
            _ => None,
        };
        match (new_pool, self.refusable(|world| world.carry_out(command, now))?) {
            (Some(pool), Ok(done)) => {
                self.undeclare_first(&pool);
                self.outputs.push(Output::Declare(pool, Some((reply, done))));
            }
            // The command was refused after a change, so the transaction is rolled back; its own refusal is the answer.
            (_, Err(refusal)) if self.half_done.is_some() => {
                // The receiver is gone when the API handler has timed out.
                let _ = reply.send(Err(refusal));
            }
            (_, result) => self.answers.push((reply, result)),
        }
        Ok(())
    }

    fn carry_out(&mut self, command: Command, now: Timestamp) -> Result<Done, CommandError> {
        match command {
            Command::CreatePool(pool) => self.create_pool(*pool, now),
            Command::DeletePool(pool, condition) => self.delete_pool(&pool, &condition, now),
            Command::ResizePool { pool, dedicated, low_priority, timeout, option, condition } => {
                self.resize_pool(&pool, (dedicated, low_priority), timeout, option, &condition, now)
            }
            Command::StopResize(pool, condition) => self.stop_resize(&pool, &condition, now),
            Command::UpdatePool(pool, change, condition) => self.update_pool(&pool, *change, &condition, now),
            Command::EnableScaling { pool, formula, interval, condition } => self.enable_scaling(&pool, formula, interval, &condition, now),
            Command::DisableScaling(pool) => self.disable_scaling(&pool, now),
            Command::EvaluateScaling(pool, formula) => self.evaluate_scaling(&pool, &formula, now),
            Command::SetPolicy(pool, policy) => self.set_policy(&pool, policy, now),
            Command::RemoveNodes { pool, nodes, option, timeout, condition } => {
                self.remove_nodes(&pool, &nodes, (option, timeout), &condition, now)
            }
            Command::SwitchScheduling { pool, node, enabled, option } => self.switch_scheduling(&pool, &node, enabled, option, now),
            Command::ActOnNode { pool, node, kind, option } => self.act_on_node(&pool, &node, kind, option, now),
            Command::CreateJob(job) => self.create_job(*job, now),
            Command::DisableJob(job, option, condition) => self.disable_job(&job, option, &condition, now),
            Command::EnableJob(job, condition) => self.enable_job(&job, &condition, now),
            Command::TerminateJob(job, reason, condition) => self.terminate_job(&job, reason, &condition, now),
            Command::DeleteJob(job, condition) => self.remove_job(&job, &condition, now),
            Command::ForceJob(job) => self.force_job(&job, now),
            Command::ForceSchedule(schedule) => self.force_schedule(&schedule, now),
            Command::UpdateJob(job, change, condition) => self.update_job(&job, *change, &condition, now),
            Command::CreateSchedule(schedule) => self.create_schedule(*schedule, now),
            Command::ChangeSchedule(id, change, condition) => self.change_schedule(&id, *change, &condition, now),
            Command::SwitchSchedule(id, enabled, condition) => self.switch_schedule(&id, enabled, &condition, now),
            Command::TerminateSchedule(id, condition) => self.terminate_schedule(&id, &condition, now),
            Command::DeleteSchedule(id, condition) => self.remove_schedule(&id, &condition, now),
            Command::PutApplication(id, change, condition) => self.put_application(id, *change, &condition, now),
            Command::CreateFunction(pool, id, settings) => self.create_function(&pool, id, settings, now),
            Command::ChangeFunction(pool, id, change, condition) => self.change_function(&pool, &id, change, &condition, now),
            Command::DeleteFunction(pool, id, condition) => self.delete_function(&pool, &id, &condition, now),
            Command::CreateTrigger(trigger) => self.create_trigger(*trigger, now),
            Command::ChangeTrigger(id, change, condition) => self.change_trigger(&id, *change, &condition, now),
            Command::DeleteTrigger(id, condition) => self.delete_trigger(&id, &condition, now),
            Command::AdvanceTrigger(id, uid, step) => self.advance_trigger(&id, uid, *step, now),
            Command::DeleteApplication(id, condition) => self.delete_application(&id, &condition, now),
            Command::BeginPackage(id, version, key) => self.begin_package(&id, version, key, now),
            Command::ActivatePackage(id, version, upload) => self.activate_package(&id, &version, upload, now),
            Command::DeletePackage(id, version) => self.delete_package(&id, &version, now),
            Command::CreateTasks(job, tasks) => self.create_tasks(&job, tasks, now),
            Command::Submit(submission) => self.submit(*submission, now),
            Command::UpdateTask(job, task, constraints, condition) => self.update_task(&job, &task, constraints, &condition, now),
            Command::ReactivateTask(job, task, condition) => self.reactivate_task(&job, &task, &condition, now),
            Command::TerminateTask(job, task, condition) => self.terminate_task(&job, &task, &condition, now),
            Command::DeleteTask(job, task, condition) => self.remove_task(&job, &task, &condition, now),
            Command::ForgetStream(job, task, stream) => self.forget_stream(&job, &task, stream, now),
            Command::ExpireStreams(tasks) => {
                self.expire_streams(&tasks)?;
                Ok(Done::Changed { version: self.version, at: now })
            }
        }
    }
}
