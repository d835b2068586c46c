//! Heartbeats, and what their answers say.

use std::time::{Duration, Instant};

use broker_config::{
    amqp::Outgoing,
    message::{Beat, BeatReply, RUNS_PER_BEAT_MAX, VERSION},
    topology,
};
use tokio::time::timeout;

use crate::agent::Agent;

/// A beat that is not out by then is worthless.
const BEAT_TIMEOUT: Duration = Duration::from_secs(5);
/// So many ends without an answer are reason enough for an early beat.
pub(super) const KEPT_BEFORE_BEAT: usize = 2_048;

impl Agent {
    /// Sends one beat, unless the last is still on its way.
    pub(super) fn beat(&mut self) {
        if !self.beating.is_empty() {
            return;
        }
        let beat = Beat {
            v: VERSION,
            pool: self.settings.pool.clone(),
            node: self.settings.node.clone(),
            epoch: self.room.epoch(),
            live: self.live.values().take(RUNS_PER_BEAT_MAX).map(|live| live.key).collect(),
            kept: self.outbox.kept(),
            free_slots: self.capacity.free(),
            is_consuming: self.is_ready && self.capacity.is_consuming(),
            chores: self.chores.shown(),
        };
        let mut outgoing = match Outgoing::message(topology::BEATS, "beat", &beat) {
            Ok(outgoing) => outgoing.transient().optional(),
            Err(error) => return tracing::error!(%error, "a beat cannot be written"),
        };
        if let Some(queue) = self.control.queue_name().borrow().clone() {
            outgoing = outgoing.reply_to(queue);
        }
        let publisher = self.publisher.clone();
        self.beating.push(Box::pin(async move {
            match timeout(BEAT_TIMEOUT, publisher.publish(outgoing)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "a beat was lost"),
                Err(_) => tracing::debug!("a beat was not taken in time"),
            }
        }));
    }

    pub(super) fn on_beat_reply(&mut self, reply: BeatReply) {
        if self.boot != Some(reply.boot) {
            let is_new = self.boot.replace(reply.boot).is_some();
            if is_new {
                let count = self.outbox.tell_again(Instant::now(), true);
                self.tell_chores(true);
                tracing::info!(count, "a new dispatcher is told again");
            }
        }
        for (run, verdict) in reply.verdicts {
            self.on_verdict(run, verdict);
        }
        self.on_chores(reply.over, reply.releases);
        self.apply_order(reply.order);
        if self.outbox.kept_count() > KEPT_BEFORE_BEAT {
            self.beat();
        }
    }
}
