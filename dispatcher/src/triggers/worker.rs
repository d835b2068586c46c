//! The worker of one trigger: events and pages of listings, one after the other, so that nothing is acted on twice.

use std::time::Duration;

use api::triggers::{cron::Cron, event, start};
use clients::amqp::{Consumer, Subscription};
use contract::time::Timestamp;
use engine::messaging::Queues;
use model::trigger::{Advance, ScheduleSource, Source, TriggerRow};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tracing::debug;

use crate::{
    submissions::Parts,
    triggers::{
        intake::{Hand, Intake},
        listing::Listing,
        progress::{Ended, Progress},
        waits::{at, stopped},
    },
};

/// Deliveries of one trigger in hand at most.
const PREFETCH: u16 = 128;
/// Before a queue that cannot be consumed is tried again; doubled with each try.
const PAUSE: Duration = Duration::from_secs(1);
/// Before it is tried again at most.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// A schedule looks at the wall clock at least this often.
const CLOCK_MAX: Duration = Duration::from_secs(30);
/// Between two looks at rows of a schedule that may be forgotten.
const SWEEP_INTERVAL: Duration = Duration::from_secs(3600);

/// What ends a worker's turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// The trigger is paused, or its events cannot be taken at present.
    Over,
    /// The trigger is gone, or the dispatcher stops.
    End,
}

/// What a worker does next.
enum Next {
    /// It looks again at what is due.
    Again,
    /// It acts on the events in hand.
    Flush,
    /// It looks at a page of its bucket.
    Look,
}

/// The worker of one trigger.
pub(super) struct Worker {
    parts: Parts,
    rule: watch::Receiver<TriggerRow>,
    stop: watch::Receiver<bool>,
    progress: Progress,
    /// The last due time of a schedule that was acted on here, and the last request to run.
    due: Option<Timestamp>,
    asked: Option<Timestamp>,
    /// When rows of a schedule are looked at next, whether they are to be forgotten.
    sweep_at: Instant,
}

impl Worker {
    pub(super) fn new(parts: Parts, rule: watch::Receiver<TriggerRow>, stop: watch::Receiver<bool>) -> Worker {
        let (id, uid) = (rule.borrow().id.clone(), rule.borrow().uid);
        let progress = Progress::new(parts.engine.clone(), (id, uid), stop.clone());
        // A request from before the start was carried out if something was started since.
        let last_event = rule.borrow().progress.last_event;
        let asked = rule.borrow().progress.asked.filter(|asked| last_event.is_some_and(|at| at >= *asked));
        Worker { parts, rule, stop, progress, due: None, asked, sweep_at: Instant::now() }
    }

    /// Works until the trigger is deleted or the dispatcher stops.
    pub(super) async fn run(mut self) {
        let mut tries = 0;
        loop {
            let row = self.rule.borrow_and_update().clone();
            if row.is_paused {
                if self.wait(Duration::MAX).await == Turn::End {
                    return;
                }
                continue;
            }
            let quiet = match &row.spec.source {
                Source::Schedule(schedule) => Some(self.tick(&row, schedule).await),
                // The API acts on requests itself.
                Source::Webhook(_) => Some(self.rest(&row).await),
                Source::Bucket(_) | Source::Exchange(_) => None,
            };
            match quiet {
                Some(Turn::End) => return,
                Some(Turn::Over) => continue,
                None => {}
            }
            let turn = match self.open(&row).await {
                Ok(consumer) => {
                    tries = 0;
                    self.follow(consumer).await
                }
                Err(reason) => {
                    debug!(trigger = %row.id, reason, "the events of a trigger cannot be taken yet");
                    if self.progress.fault(reason).await.is_err() {
                        return;
                    }
                    tries += 1;
                    self.wait(PAUSE_MAX.min(PAUSE * 2u32.pow(tries.min(8)))).await
                }
            };
            if turn == Turn::End {
                return;
            }
        }
    }

    /// Waits for a change of the trigger, at most for this long.
    async fn wait(&mut self, most: Duration) -> Turn {
        let pause = async {
            match Instant::now().checked_add(most) {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = self.rule.changed() => if changed.is_err() { Turn::End } else { Turn::Over },
            () = pause => Turn::Over,
            () = stopped(&mut self.stop) => Turn::End,
        }
    }

    /// Acts on what is due by a schedule, or waits until something is. What was missed is made up for once.
    async fn tick(&mut self, row: &TriggerRow, schedule: &ScheduleSource) -> Turn {
        let cron = match Cron::parse(&schedule.expression, &schedule.time_zone) {
            Ok(cron) => cron,
            Err(reason) => return if self.progress.fault(reason).await.is_err() { Turn::End } else { self.wait(PAUSE_MAX).await },
        };
        let now = Timestamp::now();
        let since = self.due.or(row.progress.last_due).unwrap_or(row.created_at);
        let asked = row.progress.asked.filter(|asked| self.asked.is_none_or(|last| last < *asked));
        let due = cron.last(since, now);
        let Some(at) = due.or(asked) else {
            if Instant::now() >= self.sweep_at {
                return self.rest(row).await;
            }
            // The wall clock may be set meanwhile.
            let wait = cron.next(now).map_or(CLOCK_MAX, |next| Duration::from_millis(next.since(now).unsigned_abs()).min(CLOCK_MAX));
            return self.wait(wait).await;
        };
        let starts = match start::starts(row, vec![event::due(row.id.as_str(), at)]) {
            Ok(starts) => starts,
            Err(refusal) => {
                let halted = self.progress.halt(format!("The template cannot be filled: {refusal}.")).await;
                return if halted.is_err() { Turn::End } else { self.wait(PAUSE_MAX).await };
            }
        };
        if self.progress.store(Advance { starts, due, event_at: Some(at), ..Advance::default() }).await.is_err() {
            return Turn::End;
        }
        match due {
            Some(_) => self.due = due,
            None => self.asked = asked,
        }
        Turn::Over
    }

    /// Forgets what is old, and waits.
    async fn rest(&mut self, row: &TriggerRow) -> Turn {
        if Instant::now() >= self.sweep_at {
            self.sweep_at = Instant::now() + SWEEP_INTERVAL;
            let swept = Listing::new(row).sweep(&self.parts, row, &mut self.progress).await;
            return if swept.is_err() { Turn::End } else { Turn::Over };
        }
        self.wait(SWEEP_INTERVAL).await
    }

    async fn open(&self, row: &TriggerRow) -> Result<Consumer, String> {
        let queues = Queues::new(self.parts.link.clone());
        queues.follow(row).await.map_err(|error| format!("Its queue cannot be bound: {error}."))?;
        let consumer = self.parts.link.subscribe(Subscription::plain(row.queue(), PREFETCH)).await;
        consumer.map_err(|error| format!("Its queue cannot be consumed: {error}."))
    }

    async fn follow(&mut self, mut consumer: Consumer) -> Turn {
        let mut generation = consumer.generation();
        generation.mark_unchanged();
        let intake = Intake::new(self.parts.clone(), consumer.acker(), self.stop.clone());
        let mut hand = Hand::default();
        let mut listing = Listing::new(&self.rule.borrow());
        loop {
            let row = self.rule.borrow_and_update().clone();
            if row.is_paused {
                return Turn::Over;
            }
            if listing.is_behind(&row, Timestamp::now()) && self.look(&mut listing, &row).await.is_err() {
                return Turn::End;
            }
            let due = hand.due(&row);
            let look_at = listing.due(&row, Timestamp::now());
            let next = tokio::select! {
                biased;
                () = stopped(&mut self.stop) => return Turn::End,
                changed = self.rule.changed() => {
                    if changed.is_err() {
                        return Turn::End;
                    }
                    Next::Again
                }
                changed = generation.changed() => {
                    // The broker may have lost what foreign exchanges were bound to. What is in hand is acted on all the
                    // same: when it comes again, it has been seen.
                    if changed.is_err() || Queues::new(self.parts.link.clone()).follow(&row).await.is_err() {
                        return Turn::Over;
                    }
                    Next::Again
                }
                () = at(due) => Next::Flush,
                delivery = consumer.next(), if !hand.is_full() => {
                    let Some(delivery) = delivery else { return Turn::End };
                    intake.take(&row, delivery, &mut hand).await;
                    while !hand.is_full() && let Some(delivery) = consumer.try_next() {
                        intake.take(&row, delivery, &mut hand).await;
                    }
                    Next::Again
                }
                () = at(look_at) => Next::Look,
            };
            let flow = match next {
                Next::Again => Ok(()),
                Next::Flush => intake.flush(&row, &mut hand, &mut self.progress).await,
                Next::Look => self.look(&mut listing, &row).await,
            };
            if flow.is_err() {
                return Turn::End;
            }
        }
    }

    /// Looks at the next page of the bucket, or at the next slice of what is to be forgotten.
    async fn look(&mut self, listing: &mut Listing, row: &TriggerRow) -> Result<(), Ended> {
        match &row.spec.source {
            Source::Bucket(bucket) => listing.page(&self.parts, row, bucket, &mut self.progress).await,
            Source::Exchange(_) | Source::Schedule(_) | Source::Webhook(_) => listing.sweep(&self.parts, row, &mut self.progress).await,
        }
    }
}
