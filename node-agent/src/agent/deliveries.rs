//! What to do with a delivery: run it at once, ask about it, give it back, or put it aside.

use std::time::{Duration, Instant};

use broker_config::{
    amqp::{Caller, Delivery},
    ids::{AttemptKey, RunId},
    message::{Answer, Ask, Outcome, Reply, ReplyMessage, Request, RequestKind, Start, TaskMessage, VERSION},
    topology,
};
use tokio::time::sleep;

use crate::{
    agent::{Agent, Asked, Held, Lane, Settlement, Wide},
    execution::Ended,
};

/// One question.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// The longest the dispatcher can make a delivery wait before it is asked again.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// How long a wide task keeps slots aside before it is given back.
const WIDE_HOLD_MAX: Duration = Duration::from_secs(30);
/// How long the wide queue rests after that, so that another node may take the task.
const WIDE_REST: Duration = Duration::from_secs(2);

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
        let held = Held { lane: Lane::Slot(delivery.slot), tag };
        let Some(message) = self.read(&delivery, held) else { return };
        let is_question = message.start == Start::Ask || delivery.redelivered || message.spec.is_none() || message.slots > 1;
        let is_ours = self.by_attempt.contains_key(&message.key()) || self.asked.contains_key(&message.key());
        // What arrives while a wide task has the slots goes back before it is asked about: an answer starts it.
        if !is_ours && (!self.capacity.is_consuming() || (is_question && !self.capacity.fits())) {
            self.settle(held, Settlement::Back);
        } else if is_question {
            self.ask(message, held);
        } else {
            self.start_or_wait(message, held);
        }
    }

    /// A task message that may be considered; anything else is settled.
    fn read(&mut self, delivery: &Delivery, held: Held) -> Option<TaskMessage> {
        if delivery.exchange != topology::TASKS {
            tracing::warn!(exchange = delivery.exchange, "not a task: only the task exchange may start command lines");
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
                tracing::warn!(%error, "put aside a task message that cannot be read");
                self.settle(held, Settlement::Dead);
                None
            }
        }
    }

    /// Every hand on the old channel is empty; runs go on, and what is asked about may come again.
    pub(super) fn on_new_channel(&mut self, generation: u64) {
        tracing::info!(generation, "the channel was made anew");
        self.generation = generation;
        self.capacity.lost_channel();
        self.waiting.retain(|(_, held)| held.lane == Lane::Wide);
    }

    fn start_or_wait(&mut self, message: TaskMessage, held: Held) {
        if self.outbox.has_room(self.live.len()) && (self.capacity.has_room() || is_noop(&message)) {
            self.start(message, RunId::random(), Some(held), 1);
        } else if self.capacity.has_room() {
            // Too many ends are unanswered; the delivery stays in hand until there is room.
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

    fn ask(&mut self, message: TaskMessage, held: Held) {
        let key = message.key();
        if let Some(asked) = self.asked.get_mut(&key) {
            // It came again while the question is open: the newest delivery counts.
            let old = std::mem::replace(&mut asked.held, held);
            asked.is_cancelled = false;
            self.settle(old, Settlement::Done);
            return;
        }
        let run = RunId::random();
        self.asked.insert(key, Asked { message, run, held, is_cancelled: false });
        self.question(key, run, Duration::ZERO);
    }

    fn question(&mut self, key: AttemptKey, run: RunId, after: Duration) {
        let ask = Ask { run: key.with(run), node: self.settings.node.clone(), epoch: self.room.epoch(), prepares: true };
        self.asks.push(Box::pin(question(self.caller.clone(), ask, after)));
    }

    pub(super) fn on_answer(&mut self, key: AttemptKey, answer: Option<Answer>) {
        let Some(asked) = self.asked.get(&key) else { return };
        let (run, held, is_cancelled) = (asked.run, asked.held, asked.is_cancelled);
        let is_wide = held.lane == Lane::Wide;
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
            Some(Answer::Drop) if !is_cancelled => self.settle(held, Settlement::Done),
            Some(Answer::Drop | Answer::Wait { .. }) | None => {}
        }
        if is_wide && self.wide.as_ref().is_some_and(|wide| wide.held == held) {
            self.wide = None;
            self.capacity.reserve(0);
        }
    }

    fn resume(&mut self, run: RunId, held: Held) {
        if let Some(live) = self.live.get_mut(&run) {
            let old = live.held.replace(held);
            self.capacity.adopt(held.hand());
            if let Some(old) = old.filter(|old| *old != held) {
                self.settle(old, Settlement::Done);
            }
        } else {
            // It has ended meanwhile; its end is told by itself.
            self.settle(held, Settlement::Done);
        }
    }

    pub(super) fn report_unstarted(&mut self, message: &TaskMessage, run: RunId, outcome: Outcome) {
        let now = broker_config::time::Timestamp::now();
        self.tell_end(message.key().with(run), now, Ended::bare(outcome), None);
    }

    pub(super) fn on_wide_delivery(&mut self, delivery: Delivery) {
        let held = Held { lane: Lane::Wide, tag: delivery.tag };
        let Some(message) = self.read(&delivery, held) else { return };
        if !self.capacity.is_consuming() || message.slots > self.capacity.total() {
            self.rest_wide(held);
            return;
        }
        let is_own = self.by_attempt.contains_key(&message.key()) || self.asked.contains_key(&message.key());
        if is_own {
            return self.ask(message, held);
        }
        self.wide = Some(Wide { message, held, since: Instant::now(), is_asked: false });
    }

    /// Asks for the wide task once its slots are set aside; gives it back when that takes too long.
    pub(super) fn try_wide(&mut self) {
        let Some(wide) = &mut self.wide else { return };
        if wide.is_asked {
            return;
        }
        let (message, held) = (wide.message.clone(), wide.held);
        if self.capacity.is_consuming() && self.capacity.reserve(message.slots.max(1)) {
            wide.is_asked = true;
            self.ask(message, held);
        } else if wide.since.elapsed() > WIDE_HOLD_MAX || !self.capacity.is_consuming() {
            self.wide = None;
            self.capacity.reserve(0);
            self.rest_wide(held);
        }
    }

    fn rest_wide(&mut self, held: Held) {
        if let Some(gate) = &self.wide_gate {
            gate.wish(&[(0, true)]);
        }
        self.wide_rests_until = Some(Instant::now() + WIDE_REST);
        self.settle(held, Settlement::Back);
    }

    pub(super) fn wake_wide(&mut self) {
        if self.capacity.is_consuming() && self.wide_rests_until.is_some_and(|until| until <= Instant::now()) {
            self.wide_rests_until = None;
            if let Some(gate) = &self.wide_gate {
                gate.wish(&[(0, false)]);
            }
        }
    }

    /// Gives back everything that has not started.
    pub(super) fn give_back(&mut self) {
        for (_, held) in std::mem::take(&mut self.waiting) {
            self.settle(held, Settlement::Back);
        }
        let open: Vec<Held> = self
            .asked
            .values_mut()
            .filter(|asked| !asked.is_cancelled)
            .map(|asked| {
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

/// Asks until there is an answer.
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
            Ok(Reply::Refused(fault)) => tracing::warn!(code = fault.code, "the dispatcher refused a question"),
            Ok(other) => tracing::warn!(?other, "no answer to a question"),
            Err(error) => tracing::debug!(%error, "cannot ask yet"),
        }
        sleep(pause).await;
        pause *= 2;
        if pause > PAUSE_MAX {
            // Back to the loop, which asks again with the epoch of the day unless the delivery is gone.
            return (key, None);
        }
    }
}
