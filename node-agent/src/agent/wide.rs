//! Tasks of several slots: the agent reserves slots for one of them and asks the dispatcher once they are free.
//!
//! ```text
//! wide delivery ──► slots reserved for a short while ──enough are free──► question to the dispatcher
//!                            └── too long: returned, and the wide queue pauses, longer each time
//! kept by the dispatcher ──► slots reserved until the question, or until the dispatcher keeps nothing any more
//! ```
//! A task that the dispatcher keeps slots for needs no delivery here: a node that gets its delivery later is answered
//! with drop.

use std::time::{Duration, Instant};

use clients::amqp::Delivery;
use contract::{ids::AttemptKey, message::TaskMessage};

use crate::agent::{Agent, Held, Settlement, Source, Wide, WidePause};

/// Slots that the dispatcher keeps are given up after this long without a message about them.
const KEEP_MAX: Duration = Duration::from_secs(60);
/// Longest time that a delivery reserves slots before it is returned.
const HOLD_MAX: Duration = Duration::from_secs(30);
/// First pause of the wide queue after a returned delivery, so that another node may take the task.
const WIDE_PAUSE: Duration = Duration::from_secs(2);
/// Longest pause after several deliveries in a row that were returned.
const WIDE_PAUSE_MAX: Duration = Duration::from_secs(64);

impl Agent {
    pub(super) fn on_wide_delivery(&mut self, delivery: Delivery) {
        let held = Held { source: Source::Wide, tag: delivery.tag };
        let Some(message) = self.read(&delivery, held) else { return };
        if !self.capacity.is_consuming() || message.slots > self.capacity.total() {
            return self.pause_wide(Some(held), message.slots, WIDE_PAUSE);
        }
        let is_own = self.live.has_attempt(&message.key()) || self.asked.contains_key(&message.key());
        if is_own {
            return self.ask(message, Some(held));
        }
        match &mut self.wide.waiting {
            Some(wide) if wide.message.key() == message.key() => {
                let old = wide.held.replace(held);
                self.settle_if(old, Settlement::Done);
            }
            Some(wide) if wide.is_kept => self.pause_wide(Some(held), message.slots, WIDE_PAUSE),
            _ => self.wide.waiting = Some(Wide { message, held: Some(held), since: Instant::now(), is_asked: false, is_kept: false }),
        }
    }

    /// Takes over what the dispatcher keeps this node's slots for, if anything.
    pub(super) fn on_keep(&mut self, keep: Option<TaskMessage>) {
        let Some(message) = keep.filter(|_| self.capacity.is_consuming()) else {
            if self.wide.waiting.as_ref().is_some_and(|wide| wide.is_kept && !wide.is_asked) {
                tracing::info!("the dispatcher does not keep slots of this node any longer");
                self.return_wide();
            }
            return;
        };
        let key = message.key();
        let is_known = self.live.has_attempt(&key) || self.asked.contains_key(&key) || self.revoked.holds(&key, Instant::now());
        if is_known || message.slots > self.capacity.total() {
            return;
        }
        match &mut self.wide.waiting {
            Some(wide) if wide.message.key() == key => (wide.is_kept, wide.since) = (true, Instant::now()),
            // The open question is answered soon, and the next heartbeat repeats the order.
            Some(wide) if wide.is_asked => {}
            _ => {
                tracing::info!(job = %message.job, task = %message.task, slots = message.slots, "the dispatcher keeps slots of this node for a wide task");
                self.return_wide();
                self.wide.waiting = Some(Wide { message, held: None, since: Instant::now(), is_asked: false, is_kept: true });
                // Other nodes may take what the wide queue holds meanwhile.
                self.pause_wide(None, u32::MAX, WIDE_PAUSE);
            }
        }
    }

    /// The attempt that slots are reserved for while no question about it is open.
    pub(super) fn sets_aside(&self) -> Option<AttemptKey> {
        self.wide.waiting.as_ref().filter(|wide| !wide.is_asked).map(|wide| wide.message.key())
    }

    /// Gives up the wide task: the dispatcher does not want it to run here.
    pub(super) fn drop_wide(&mut self) {
        if self.sets_aside().is_some() {
            let held = self.end_wide();
            self.settle_if(held, Settlement::Done);
        }
    }

    /// Asks about the wide task once its slots are free; returns its delivery when that takes too long.
    pub(super) fn try_wide(&mut self) {
        let is_consuming = self.capacity.is_consuming();
        let Some(wide) = self.wide.waiting.as_mut().filter(|wide| !wide.is_asked) else { return };
        let patience = if wide.is_kept { KEEP_MAX } else { HOLD_MAX };
        if is_consuming && self.capacity.reserve(wide.message.slots.max(1)) {
            wide.is_asked = true;
            let (message, held) = (wide.message.clone(), wide.held);
            self.wide.next_pause = WIDE_PAUSE;
            self.ask(message, held);
        } else if !is_consuming {
            self.return_wide();
        } else if wide.since.elapsed() > patience {
            let (slots, pause) = (wide.message.slots, self.wide.next_pause.max(WIDE_PAUSE));
            self.wide.next_pause = (pause * 2).min(WIDE_PAUSE_MAX);
            let held = self.end_wide();
            self.pause_wide(held, slots, pause);
        }
    }

    /// Ends the reservation of slots; the caller settles the returned delivery.
    pub(super) fn end_wide(&mut self) -> Option<Held> {
        self.capacity.reserve(0);
        self.wide.waiting.take().and_then(|wide| wide.held)
    }

    fn return_wide(&mut self) {
        let slots = self.wide.waiting.as_ref().map_or(0, |wide| wide.message.slots);
        if let held @ Some(_) = self.end_wide() {
            self.pause_wide(held, slots, WIDE_PAUSE);
        }
    }

    /// Pauses the wide queue for a while, or until this many slots are free.
    fn pause_wide(&mut self, held: Option<Held>, slots: u32, pause: Duration) {
        if let Some(wide_tasks) = &self.wide_tasks {
            wide_tasks.pause.set(&[(0, true)]);
        }
        self.wide.paused = Some(WidePause { until: Instant::now() + pause, slots });
        self.settle_if(held, Settlement::Back);
    }

    pub(super) fn wake_wide(&mut self) {
        let is_kept = self.wide.waiting.as_ref().is_some_and(|wide| wide.is_kept);
        let free = self.capacity.free();
        let is_over = |pause: &WidePause| pause.until <= Instant::now() || free >= pause.slots;
        if self.capacity.is_consuming() && !is_kept && self.wide.paused.as_ref().is_some_and(is_over) {
            self.wide.paused = None;
            if let Some(wide_tasks) = &self.wide_tasks {
                wide_tasks.pause.set(&[(0, false)]);
            }
        }
    }
}
