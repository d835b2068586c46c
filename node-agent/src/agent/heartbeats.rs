//! Builds heartbeats and acts on the dispatcher's replies.

use std::time::{Duration, Instant};

use broker_config::metrics::{INVOCATIONS_RUNNING, NO_LABELS, RUNS};
use contract::message::{Heartbeat, HeartbeatReply, NodeReport, RUNS_PER_HEARTBEAT_MAX, VERSION};

use crate::{agent::Agent, heartbeat::Shown};

/// More unacknowledged results than this make the next heartbeat early.
pub(super) const KEPT_BEFORE_HEARTBEAT: usize = 2_048;

impl Agent {
    /// Hands the next heartbeat to the thread that sends it.
    pub(super) fn heartbeat(&mut self) {
        RUNS.of(NO_LABELS).set(self.live.len() as f64);
        INVOCATIONS_RUNNING.of(NO_LABELS).set(self.functions.running() as f64);
        let heartbeat = Heartbeat {
            v: VERSION,
            pool: self.settings.pool.clone(),
            node: self.settings.node.clone(),
            epoch: self.context.epoch(),
            live: self.live.values().take(RUNS_PER_HEARTBEAT_MAX).map(|live| live.key).collect(),
            kept: self.outbox.kept(),
            free_slots: self.capacity.free(),
            is_consuming: self.is_ready() && self.capacity.is_consuming(),
            job_tasks: self.job_tasks.shown(),
            report: self.outbox.state().map(|state| NodeReport { is_drained: self.is_drain_reported, ..state.clone() }),
            sets_aside: self.sets_aside(),
            invocations: self.functions.running() as u32,
        };
        self.heartbeat_thread.show(Shown { heartbeat, reply_to: self.control.queue_name().borrow().clone() });
    }

    pub(super) fn on_heartbeat_reply(&mut self, reply: HeartbeatReply) {
        if self.boot != Some(reply.boot) {
            let is_new = self.boot.replace(reply.boot).is_some();
            if is_new {
                let count = self.outbox.resend(Instant::now(), true);
                self.resend_job_tasks(true);
                tracing::info!(count, "the dispatcher restarted; sending all unacknowledged results again");
            }
        }
        for (run, verdict) in reply.verdicts {
            self.on_verdict(run, verdict);
        }
        self.on_job_tasks(reply.over, reply.releases);
        self.apply_order(reply.order);
        if self.functions.differs(reply.functions) {
            self.ask_functions(Duration::ZERO);
        }
        if reply.set_aside_in_vain.is_some() && reply.set_aside_in_vain == self.sets_aside() {
            self.drop_wide();
        }
        self.on_keep(reply.keep.map(|message| *message));
        if self.outbox.kept_count() > KEPT_BEFORE_HEARTBEAT {
            self.heartbeat();
        }
    }
}
