//! Deliveries of the pool's queues: each runs at once, becomes a question to the dispatcher, or goes back to its queue
//! or to the dead letters.

use std::time::{Duration, Instant};

use broker_config::topology;
use clients::amqp::{Caller, Delivery};
use contract::{
    ids::{AttemptKey, RunId},
    message::{Answer, Ask, Reply, ReplyMessage, Request, RequestKind, Start, TaskMessage, VERSION},
    outcome::Outcome,
};
use tokio::time::sleep;

use crate::{
    agent::{Agent, Asked, Held, Settlement, Source},
    execution::Ended,
};

/// Timeout of one question to the dispatcher.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Longest pause between two questions about one delivery, whatever the dispatcher answers.
const WAIT_MAX: Duration = Duration::from_secs(60);

impl Agent {
    pub(super) fn on_delivery(&mut self, delivery: Delivery) {
        let tag = delivery.tag;
        if tag.generation < self.generation {
            return;
        }
        if tag.generation > self.generation {
            self.on_new_channel(tag.generation);
        }
        self.capacity.delivered(delivery.slot, tag);
        let held = Held { source: Source::Slot(delivery.slot), tag };
        if delivery.exchange == topology::INVOKE {
            return self.on_invocation(delivery, held);
        }
        let Some(message) = self.read(&delivery, held) else { return };
        let is_question = message.start == Start::Ask || delivery.redelivered || message.spec.is_none() || message.slots > 1;
        let is_ours = self.live.has_attempt(&message.key()) || self.asked.contains_key(&message.key());
        // While a wide task has the slots, deliveries go back before they become questions: an answer would start them.
        if !is_ours && (!self.capacity.is_consuming() || (is_question && !self.capacity.fits())) {
            self.settle(held, Settlement::Back);
        } else if is_question {
            self.ask(message, Some(held));
        } else {
            self.start_or_wait(message, held);
        }
    }

    /// Parses a task message. A delivery that is no task message, or cannot be parsed, is settled here.
    pub(super) fn read(&mut self, delivery: &Delivery, held: Held) -> Option<TaskMessage> {
        if delivery.exchange != topology::TASKS {
            tracing::warn!(
                exchange = delivery.exchange,
                "moved a delivery to the dead letters: only the task exchange may start command lines"
            );
            self.settle(held, Settlement::Dead);
            return None;
        }
        match delivery.message::<TaskMessage>() {
            Ok(message) if self.revoked.holds(&message.key(), Instant::now()) => {
                self.settle(held, Settlement::Done);
                None
            }
            Ok(message) => Some(message),
            Err(error) => {
                tracing::warn!(%error, "moved a task message that cannot be parsed to the dead letters");
                self.settle(held, Settlement::Dead);
                None
            }
        }
    }

    /// Forgets the deliveries of the old channel, which the broker delivers again. Runs go on, and open questions may
    /// meet their delivery again.
    pub(super) fn on_new_channel(&mut self, generation: u64) {
        tracing::info!(generation, "the channel to the broker was opened again; unfinished deliveries come again, and runs go on");
        self.generation = generation;
        self.capacity.lost_channel();
        self.waiting.retain(|(_, held)| held.source == Source::Wide);
        self.functions.lost_channel();
    }

    fn start_or_wait(&mut self, message: TaskMessage, held: Held) {
        if self.outbox.has_room(self.live.len()) && (self.capacity.has_room() || is_noop(&message)) {
            self.start(message, RunId::random(), Some(held), 1);
        } else if self.capacity.has_room() {
            // Too many results are unanswered; the delivery stays unacknowledged until the outbox has room.
            self.waiting.push((message, held));
        } else {
            self.settle(held, Settlement::Back);
        }
    }

    pub(super) fn try_waiting(&mut self) {
        while !self.waiting.is_empty() && self.outbox.has_room(self.live.len()) {
            let (message, held) = self.waiting.remove(0);
            self.start_or_wait(message, held);
        }
    }

    /// Asks the dispatcher about a delivery, or about a task that slots are kept for, which has no delivery here.
    pub(super) fn ask(&mut self, message: TaskMessage, held: Option<Held>) {
        let key = message.key();
        if let Some(asked) = self.asked.get_mut(&key) {
            // The task was delivered again while the question is open; the newest delivery counts.
            let old = std::mem::replace(&mut asked.held, held);
            asked.is_cancelled = false;
            self.settle_if(old, Settlement::Done);
            return;
        }
        let run = RunId::random();
        self.asked.insert(key, Asked { message, run, held, is_cancelled: false });
        self.question(key, run, Duration::ZERO);
    }

    fn question(&mut self, key: AttemptKey, run: RunId, after: Duration) {
        let ask = Ask {
            run: key.with(run),
            node: self.settings.node.clone(),
            epoch: self.context.epoch(),
            prepares: true,
            pool: Some(self.settings.pool.clone()),
        };
        self.asks.push(Box::pin(question(self.caller.clone(), ask, after)));
    }

    pub(super) fn on_answer(&mut self, key: AttemptKey, answer: Option<Answer>) {
        let Some(asked) = self.asked.get(&key) else { return };
        let (run, held, is_cancelled) = (asked.run, asked.held, asked.is_cancelled);
        let is_wide = held.is_none_or(|held| held.source == Source::Wide);
        match answer {
            None if !is_cancelled => return self.question(key, run, PAUSE_FIRST),
            Some(Answer::Wait { ms }) if !is_cancelled => return self.question(key, run, Duration::from_millis(ms).min(WAIT_MAX)),
            _ => {}
        }
        let Some(Asked { mut message, .. }) = self.asked.remove(&key) else { return };
        match answer {
            Some(Answer::Run { spec, preparation }) => {
                if let Some(spec) = spec {
                    message.spec = Some(*spec);
                }
                if is_cancelled {
                    self.report_unstarted(&message, run, Outcome::Stopped);
                } else {
                    let units = if is_wide { message.slots.max(1) } else { 1 };
                    self.start_prepared(message, run, held, units, preparation);
                }
            }
            Some(Answer::Resume { run }) => self.resume(run, held),
            Some(Answer::Drop) if !is_cancelled => self.settle_if(held, Settlement::Done),
            Some(Answer::Drop | Answer::Wait { .. }) | None => {}
        }
        if is_wide && self.wide.waiting.as_ref().is_some_and(|wide| wide.message.key() == key) {
            self.end_wide();
        }
    }

    fn resume(&mut self, run: RunId, held: Option<Held>) {
        let Some(held) = held else { return };
        if let Some(live) = self.live.get_mut(run) {
            let old = live.held.replace(held);
            self.capacity.adopt(held.hand());
            if let Some(old) = old.filter(|old| *old != held) {
                self.settle(old, Settlement::Done);
            }
        } else {
            // The run has ended meanwhile; its result is reported by itself.
            self.settle(held, Settlement::Done);
        }
    }

    pub(super) fn report_unstarted(&mut self, message: &TaskMessage, run: RunId, outcome: Outcome) {
        let now = contract::time::Timestamp::now();
        self.report_end(message.key().with(run), now, Ended::bare(outcome), None);
    }

    /// Returns every delivery that has not started to its queue.
    pub(super) fn return_unstarted(&mut self) {
        self.return_invocations();
        for (_, held) in std::mem::take(&mut self.waiting) {
            self.settle(held, Settlement::Back);
        }
        let open: Vec<Held> = self
            .asked
            .values_mut()
            .filter(|asked| !asked.is_cancelled)
            .filter_map(|asked| {
                asked.is_cancelled = true;
                asked.held
            })
            .collect();
        for held in open {
            self.settle(held, Settlement::Back);
        }
    }
}

fn is_noop(message: &TaskMessage) -> bool {
    message.spec.as_ref().is_some_and(super::runs::is_noop)
}

/// Repeats one question until the dispatcher answers or the pauses between questions reach [`PAUSE_MAX`].
async fn question(caller: Caller, ask: Ask, after: Duration) -> (AttemptKey, Option<Answer>) {
    let key = ask.run.key();
    if !after.is_zero() {
        sleep(after).await;
    }
    let mut pause = PAUSE_FIRST;
    let request = Request { v: VERSION, what: RequestKind::Ask(ask) };
    loop {
        match caller.call::<_, ReplyMessage>(topology::REQUESTS, "asks".to_owned(), &request, ANSWER_TIMEOUT).await.map(|reply| reply.what)
        {
            Ok(Reply::Answer(answer)) => return (key, Some(answer)),
            Ok(Reply::Refused(fault)) => {
                tracing::warn!(code = fault.code, "the dispatcher refused to say whether a delivered task may start; asking again")
            }
            Ok(other) => tracing::warn!(?other, "the dispatcher's reply does not say whether a delivered task may start; asking again"),
            Err(error) => tracing::debug!(%error, "cannot ask the dispatcher whether a delivered task may start; asking again"),
        }
        sleep(pause).await;
        pause *= 2;
        if pause > PAUSE_MAX {
            // The loop asks again with its current epoch unless the delivery is gone.
            return (key, None);
        }
    }
}
