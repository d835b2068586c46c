//! Control messages, replies to heartbeats, and the dispatcher's order for this node: work, hold, drain, restart,
//! dismiss, join again.

use std::time::Instant;

use broker_config::topology;
use clients::amqp::{Delivery, Outgoing};
use contract::{
    message::{Control, ControlKind, FileRequest, HeartbeatReply, NodeOrder, NodeReport, VERSION, Verdict},
    state::{DeallocationOption, NodeState},
    time::Timestamp,
};

use crate::{
    agent::{Agent, Life},
    cleanup, files, join,
    off_loop::off_loop,
    owner::Gone,
};

impl Agent {
    /// Control messages come through their exchange, replies to heartbeats directly to the private queue.
    pub(super) fn on_control(&mut self, delivery: Delivery) {
        if delivery.exchange != topology::CONTROL {
            match delivery.message::<HeartbeatReply>() {
                Ok(reply) => self.on_heartbeat_reply(reply),
                Err(error) => tracing::warn!(%error, "ignored a heartbeat reply that cannot be parsed"),
            }
            return;
        }
        let what = match delivery.message::<Control>() {
            Ok(Control { v: VERSION, what }) => what,
            Ok(Control { v, .. }) => return tracing::warn!(v, "ignored a control message of an unknown version"),
            Err(error) => return tracing::warn!(%error, "ignored a control message that cannot be parsed"),
        };
        match what {
            ControlKind::Stop { run, verdict } => self.on_verdict(run, if verdict == Verdict::Fenced { verdict } else { Verdict::Stop }),
            ControlKind::Revoke { key } => {
                self.revoked.insert(key, Instant::now());
                if self.sets_aside() == Some(key) {
                    self.drop_wide();
                }
            }
            ControlKind::Order(order) => self.apply_order(order),
            ControlKind::Recorded { runs } => runs.into_iter().for_each(|run| self.forget(run)),
            ControlKind::Heartbeat => self.heartbeat(),
            ControlKind::File(request) => self.on_file(request, delivery.reply_to, delivery.correlation_id),
            ControlKind::Forget { job, task, last, job_uid } => {
                // Processes that a later job of the same name has started are spared.
                let ends_leftovers = task.is_none() && !self.job_tasks.forget(&job, job_uid);
                let context = self.context.clone();
                tokio::spawn(async move {
                    let (root, retention, gone) = (context.root.clone(), context.retention.clone(), Gone { last, job: job_uid });
                    let orphans = context.orphans.clone();
                    if task.is_none() {
                        retention.unpin(&root.job_folder(&job), job_uid);
                    }
                    let forget = move || {
                        if ends_leftovers {
                            orphans.release_job(&job);
                        }
                        cleanup::forget(&root, &retention, &job, task.as_ref(), &gone);
                    };
                    if let Err(error) = off_loop(forget).await {
                        tracing::warn!(%error, "the folder of a deleted task stays until its retention time has passed");
                    }
                    context.trash.notify_one();
                });
            }
        }
    }

    fn on_file(&mut self, request: FileRequest, reply_to: Option<String>, correlation: Option<String>) {
        let (Some(reply_to), Some(correlation)) = (reply_to, correlation) else {
            return tracing::warn!("ignored a file request without a reply_to");
        };
        let (context, publisher) = (self.context.clone(), self.publisher.clone());
        tokio::spawn(async move {
            let reply = files::answer(context, request).await;
            let outgoing = match Outgoing::message("", reply_to, &reply) {
                Ok(outgoing) => outgoing.transient().optional().correlation(correlation),
                Err(error) => return tracing::error!(%error, "cannot serialize the reply to a file request; its sender gets no reply"),
            };
            if let Err(error) = publisher.publish(outgoing).await {
                tracing::warn!(%error, "the reply to a file request was lost; its sender gets no reply");
            }
        });
    }

    pub(super) fn apply_order(&mut self, order: NodeOrder) {
        match order {
            NodeOrder::Leave => {
                self.life = Life::Dismissed;
                return;
            }
            NodeOrder::Rejoin => {
                if self.joining.is_empty() {
                    tracing::info!("the dispatcher does not know this epoch; joining again");
                    let joining =
                        join::join(self.caller.clone(), self.settings.clone(), self.context.root.clone(), Some(self.context.epoch()));
                    self.joining.push(Box::pin(joining));
                }
                return;
            }
            NodeOrder::Work | NodeOrder::Hold | NodeOrder::Drain { .. } | NodeOrder::Restart { .. } => {}
        }
        let is_new = self.order != order;
        self.order = order;
        let accepts = order == NodeOrder::Work && self.is_ready() && !self.is_disk_full && self.life == Life::Working;
        if self.capacity.is_consuming() != accepts {
            self.accept(accepts);
        }
        if let NodeOrder::Drain { option } | NodeOrder::Restart { option } = order
            && is_new
        {
            tracing::info!(?order, runs = self.live.len(), "draining: no more tasks are taken");
            self.is_drain_reported = false;
            if matches!(option, DeallocationOption::Requeue | DeallocationOption::Terminate) {
                self.live.values().for_each(|live| live.run_control.stop.cancel());
                self.stop_job_tasks();
            }
        }
    }

    pub(super) fn accept(&mut self, accepts: bool) {
        self.capacity.accept(accepts);
        if !accepts {
            self.return_unstarted();
        }
        if let Some(wide_tasks) = &self.wide_tasks {
            wide_tasks.pause.set(&[(0, !accepts)]);
        }
    }

    /// Reports that a drain is complete, once.
    pub(super) fn finish_drain(&mut self) {
        if matches!(self.order, NodeOrder::Drain { .. }) && !self.is_drain_reported && self.is_drained() {
            self.is_drain_reported = true;
            self.report(NodeState::Idle, None, true);
        }
    }

    /// Whether the dispatcher ordered a restart and nothing holds it up any longer.
    pub(super) fn may_restart(&self) -> bool {
        matches!(self.order, NodeOrder::Restart { .. }) && self.is_drained()
    }

    /// Whether nothing runs or waits to run, and the broker has confirmed all results.
    fn is_drained(&self) -> bool {
        self.is_empty() && self.wide.waiting.is_none() && self.outbox.is_all_confirmed()
    }

    pub(super) fn report(&mut self, state: NodeState, fault: Option<contract::outcome::Fault>, is_drained: bool) {
        self.outbox.report(NodeReport { state, start_task: None, fault, is_drained, at: Timestamp::now(), number: 0 });
    }
}
