//! Control messages, answers to beats, and the node's order: work, hold, drain, rejoin, leave.

use std::time::Instant;

use broker_config::{
    amqp::{Delivery, Outgoing},
    message::{BeatReply, Control, ControlKind, FileRequest, NodeOrder, NodeReport, VERSION, Verdict},
    state::{DeallocationOption, NodeState},
    time::Timestamp,
    topology,
};

use crate::{agent::Agent, cleanup, files, join};

impl Agent {
    /// Control messages come from their exchange, answers to beats straight to the private queue.
    pub(super) fn on_control(&mut self, delivery: Delivery) {
        if delivery.exchange != topology::CONTROL {
            match delivery.message::<BeatReply>() {
                Ok(reply) => self.on_beat_reply(reply),
                Err(error) => tracing::warn!(%error, "an answer to a beat cannot be read"),
            }
            return;
        }
        let what = match delivery.message::<Control>() {
            Ok(Control { v: VERSION, what }) => what,
            Ok(Control { v, .. }) => return tracing::warn!(v, "a control message of an unknown version"),
            Err(error) => return tracing::warn!(%error, "a control message cannot be read"),
        };
        match what {
            ControlKind::Stop { run, verdict } => self.on_verdict(run, if verdict == Verdict::Fenced { verdict } else { Verdict::Stop }),
            ControlKind::Revoke { key } => self.revoked.insert(key, Instant::now()),
            ControlKind::Order(order) => self.apply_order(order),
            ControlKind::Recorded { runs } => runs.into_iter().for_each(|run| self.forget(run)),
            ControlKind::Beat => self.beat(),
            ControlKind::File(request) => self.on_file(request, delivery.reply_to, delivery.correlation_id),
            ControlKind::Forget { job, task } => {
                if task.is_none() {
                    self.chores.forget(&job);
                }
                let room = self.room.clone();
                tokio::task::spawn_blocking(move || cleanup::forget(&room.root, &job, task.as_ref()));
            }
        }
    }

    fn on_file(&mut self, request: FileRequest, reply_to: Option<String>, correlation: Option<String>) {
        let (Some(reply_to), Some(correlation)) = (reply_to, correlation) else {
            return tracing::warn!("a file request says not where to answer");
        };
        let (room, publisher) = (self.room.clone(), self.publisher.clone());
        tokio::spawn(async move {
            let reply = files::answer(room, request).await;
            let outgoing = match Outgoing::message("", reply_to, &reply) {
                Ok(outgoing) => outgoing.transient().optional().correlation(correlation),
                Err(error) => return tracing::error!(%error, "a file reply cannot be written"),
            };
            if let Err(error) = publisher.publish(outgoing).await {
                tracing::warn!(%error, "a file reply was lost");
            }
        });
    }

    pub(super) fn apply_order(&mut self, order: NodeOrder) {
        match order {
            NodeOrder::Leave => {
                self.is_dismissed = true;
                return;
            }
            NodeOrder::Rejoin => {
                if self.joining.is_empty() {
                    tracing::info!("joining again");
                    let joining = join::join(self.caller.clone(), self.settings.clone(), self.room.root.clone(), Some(self.room.epoch()));
                    self.joining.push(Box::pin(joining));
                }
                return;
            }
            NodeOrder::Work | NodeOrder::Hold | NodeOrder::Drain { .. } | NodeOrder::Restart { .. } => {}
        }
        let is_new = self.order != order;
        self.order = order;
        let accepts = order == NodeOrder::Work && self.is_ready && !self.is_disk_full && !self.is_leaving;
        if self.capacity.is_consuming() != accepts {
            self.accept(accepts);
        }
        if let NodeOrder::Drain { option } | NodeOrder::Restart { option } = order
            && is_new
        {
            tracing::info!(?order, runs = self.live.len(), "draining");
            self.is_drained_told = false;
            if matches!(option, DeallocationOption::Requeue | DeallocationOption::Terminate) {
                self.live.values().for_each(|live| live.reins.stop.cancel());
                self.stop_chores();
            }
        }
    }

    pub(super) fn accept(&mut self, accepts: bool) {
        self.capacity.accept(accepts);
        if !accepts {
            self.give_back();
        }
        if let Some(gate) = &self.wide_gate {
            gate.wish(&[(0, !accepts)]);
        }
    }

    /// Once all ends are told, tells that a drain is complete, or ends to be started again.
    pub(super) fn finish_drain(&mut self) {
        let is_empty = self.live.is_empty() && !self.has_chores() && self.wide.is_none() && self.outbox.is_told();
        match self.order {
            NodeOrder::Drain { .. } if is_empty && !self.is_drained_told => {
                self.is_drained_told = true;
                self.report(NodeState::Idle, None, true);
            }
            NodeOrder::Restart { .. } => self.is_restarting = is_empty,
            _ => {}
        }
    }

    pub(super) fn report(&mut self, state: NodeState, fault: Option<broker_config::message::Fault>, is_drained: bool) {
        self.outbox.report(NodeReport { state, start_task: None, fault, is_drained, at: Timestamp::now() });
    }
}
