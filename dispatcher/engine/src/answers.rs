//! Answers and outputs that leave after a transaction, and what replaces them when the store refuses the transaction or
//! the broker's queue is full.

use contract::clock::Now;
use scheduler::Event;

use crate::{
    messages::{Input, Output},
    refusals::not_stored,
    world::World,
};

impl World {
    pub(super) fn answer(&mut self) {
        for (reply, result) in self.answers.drain(..) {
            // The receiver is gone when the API handler has timed out; its client was told so.
            let _ = reply.send(result);
        }
        if !self.measuring.is_empty() {
            let figures = self.figures();
            for reply in self.measuring.drain(..) {
                let _ = reply.send(figures.clone());
            }
        }
        for (pools, reply) in std::mem::take(&mut self.reading) {
            let _ = reply.send(self.node_activity(pools));
        }
    }

    pub(super) fn take_outputs(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.outputs)
    }

    /// Drops the effects of the open transaction. Waiting commands are answered with the reason; agents ask again by
    /// themselves.
    pub(super) fn abandon(&mut self, reason: &str) {
        if let Err(error) = self.store.rollback() {
            tracing::warn!(%error, "the store could not roll back a transaction");
        }
        for (reply, _) in self.answers.drain(..) {
            // The receiver is gone when the API handler has timed out; its client was told so.
            let _ = reply.send(Err(not_stored().with("Reason", reason)));
        }
        self.outputs.clear();
        self.releases.clear();
        self.fresh.clear();
        self.unreadable.clear();
        self.used.clear();
        self.tally.forget();
        self.measuring.clear();
        self.reading.clear();
        self.half_done = None;
    }

    pub(super) fn refuse(&mut self, input: Input) {
        if let Input::Command { reply, .. } = input {
            let _ = reply.send(Err(not_stored()));
        }
    }

    /// Marks the publishes for which the publisher queue had no room as failed, so that they are repeated.
    pub(super) fn not_sent(&mut self, outputs: Vec<Output>, now: Now) {
        for output in outputs {
            match output {
                Output::Publish(releases) => {
                    for release in releases {
                        if let Some(pool) = self.pools.get_mut(&release.pool) {
                            pool.core.step(Event::PublishFailed(release.message.key()), now, &mut Vec::new());
                        }
                    }
                }
                Output::Errands(errands) => {
                    for (id, errand) in errands {
                        self.errand_failed(errand.place(), id);
                    }
                }
                Output::Declare(_, Some((reply, done))) => {
                    let _ = reply.send(Ok(done));
                }
                _ => {}
            }
        }
    }
}
