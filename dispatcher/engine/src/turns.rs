//! The engine's loop: many inputs in one transaction, and what happens to them when the store refuses it.
//!
//! ```text
//! inputs ─► open ─► take … take ─► finish ─► commit ─► send, answer, settle
//!             └──────────┴───────────┴──────────┴─► refused: commands are answered, deliveries run again in order
//! ```
//! A delivery is settled after the commit that stores it, and no delivery stays open. What runs again does so in
//! smaller portions. When the store refuses the first delivery of a transaction for a permanent reason, its events run
//! again one by one: those that can be stored are, and the delivery goes to the dead-letter queue.

use std::{
    ops::ControlFlow,
    thread,
    time::{Duration, Instant},
};

use clients::amqp::Tag;
use contract::{
    clock::{Clock, Now},
    ids::{AttemptKey, PoolId},
    message::{AgentEvent, EventBatch},
    time::Timestamp,
};
use model::{health::Unreadable, trigger::TriggerRow};
use store::{StoreError, errands::Place};
use tokio::sync::{
    mpsc::{self, error::TryRecvError},
    watch,
};
use tracing::{error, info, warn};

use crate::{
    messages::{Input, Output, Settled},
    tally::Batches,
    world::World,
};

/// Inputs in one transaction at most.
const BATCH_MAX: usize = 512;
/// First pause while the store refuses; doubled with each try.
const PAUSE: Duration = Duration::from_millis(20);
/// Longest pause while the store refuses.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Inputs that must be applied again after a refused transaction, because nobody sends them again.
enum Owed {
    /// A delivery, or one event of it; bounded by the consumer's prefetch.
    Events(Part),
    /// Results of publishes; bounded by the batches in flight.
    Published(Vec<(PoolId, AttemptKey, bool)>),
    /// Results of errands; bounded by the errands in memory.
    Errands(Vec<(Place, u64, bool)>),
}

/// The events of one delivery: all of them, or a single one after the delivery was refused as a whole.
struct Part {
    batch: EventBatch,
    tag: Tag,
    /// Whether the delivery is settled with this part.
    is_last: bool,
}

impl Part {
    /// Splits the delivery into one part for each event, so that one bad event does not spoil the others.
    fn split(self) -> Vec<Owed> {
        let Part { mut batch, tag, is_last } = self;
        let events = std::mem::take(&mut batch.events);
        let count = events.len();
        let alone = |(n, event)| {
            let batch = EventBatch { events: vec![event], ..batch.clone() };
            Owed::Events(Part { batch, tag, is_last: is_last && n + 1 == count })
        };
        events.into_iter().enumerate().map(alone).collect()
    }
}

impl Owed {
    fn tag(&self) -> Option<Tag> {
        match self {
            Owed::Events(part) => Some(part.tag),
            Owed::Published(_) | Owed::Errands(_) => None,
        }
    }

    /// The delivery that can be settled once this part is stored.
    fn settles(&self) -> Option<Tag> {
        match self {
            Owed::Events(part) => Some(part.tag).filter(|_| part.is_last),
            Owed::Published(_) | Owed::Errands(_) => None,
        }
    }

    fn input(&self) -> Input {
        match self {
            Owed::Events(part) => Input::Events { batch: part.batch.clone(), tag: part.tag },
            Owed::Published(results) => Input::Published(results.clone()),
            Owed::Errands(results) => Input::Errands(results.clone()),
        }
    }
}

/// Why a transaction was refused.
struct Refused {
    reason: String,
    /// Whether the same transaction may succeed later.
    may_pass: bool,
    /// Whether memory holds changes that the store does not.
    is_dirty: bool,
    /// Index of the input at fault; `None` when the reason concerns all of them.
    of: Option<usize>,
}

impl Refused {
    fn by(error: &StoreError, is_dirty: bool, of: Option<usize>) -> Refused {
        let reason = match std::error::Error::source(error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        };
        Refused { reason, may_pass: error.may_pass(), is_dirty, of }
    }
}

/// State of the engine's thread.
pub(super) struct Loop {
    world: World,
    clock: Clock,
    input: mpsc::Receiver<Input>,
    output: mpsc::Sender<Vec<Output>>,
    settled: mpsc::Sender<Vec<Settled>>,
    names: watch::Sender<Vec<PoolId>>,
    triggers: watch::Sender<Vec<TriggerRow>>,
    /// Why the store refuses transactions at present.
    refusal: watch::Sender<Option<String>>,
    unreadable: watch::Sender<Vec<Unreadable>>,
    owed: Vec<Owed>,
    /// Deliveries with an event that cannot be stored, while other events of them still have to be.
    spoiled: Vec<Tag>,
    is_stale: bool,
    /// Inputs that one transaction applies again at most.
    portion: usize,
    refusals: u32,
    batches: Batches,
}

impl Loop {
    pub(super) fn new(
        world: World,
        clock: Clock,
        input: mpsc::Receiver<Input>,
        (output, settled): (mpsc::Sender<Vec<Output>>, mpsc::Sender<Vec<Settled>>),
        (names, triggers): (watch::Sender<Vec<PoolId>>, watch::Sender<Vec<TriggerRow>>),
        (refusal, unreadable): (watch::Sender<Option<String>>, watch::Sender<Vec<Unreadable>>),
    ) -> Loop {
        Loop {
            world,
            clock,
            input,
            output,
            settled,
            names,
            triggers,
            refusal,
            unreadable,
            owed: Vec::new(),
            spoiled: Vec::new(),
            is_stale: false,
            portion: BATCH_MAX,
            refusals: 0,
            batches: Batches::new(),
        }
    }

    /// Runs until it is stopped or every handle is dropped.
    pub(super) fn run(mut self) {
        let first = self.world.take_outputs();
        if self.output.try_send(first).is_err() {
            warn!("the first publishes wait in the outbox");
        }
        while self.turn().is_continue() {}
        if !self.owed.is_empty() {
            warn!(count = self.owed.len(), "events are not stored yet; the broker delivers them again to the next dispatcher");
        }
    }

    /// Runs one transaction.
    fn turn(&mut self) -> ControlFlow<()> {
        let portion = self.portion.min(self.owed.len());
        let is_idle = self.owed.is_empty() && !self.is_stale && !self.world.has_slices_left();
        let mut next = if portion < self.owed.len() {
            None
        } else if is_idle {
            let Some(first) = self.input.blocking_recv() else { return ControlFlow::Break(()) };
            Some(first)
        } else {
            match self.input.try_recv() {
                Ok(first) => Some(first),
                Err(TryRecvError::Empty) => None,
                Err(TryRecvError::Disconnected) => return ControlFlow::Break(()),
            }
        };
        let (present, began) = (self.clock.now(), Instant::now());
        let now = present.time;
        let mut result = self.open(present);
        let mut taken: Vec<Owed> = self.owed.drain(..portion).collect();
        for (index, owed) in taken.iter().enumerate() {
            take(&mut self.world, owed.input(), owed.tag().map(|_| index), now, &mut result);
        }
        let mut stop = false;
        let mut count = taken.len();
        while let Some(item) = next.take() {
            stop |= matches!(item, Input::Stop);
            if let Some(item) = self.keep(item, result.is_err(), &mut taken) {
                let of = matches!(item, Input::Events { .. }).then(|| taken.len() - 1);
                take(&mut self.world, item, of, now, &mut result);
            }
            count += 1;
            if count < BATCH_MAX && !stop {
                next = self.input.try_recv().ok();
            }
        }
        let result = result.and_then(|()| self.close(now));
        self.batches.all.increment(1);
        self.batches.inputs.record(count as f64);
        self.batches.seconds.record(began.elapsed());
        let flow = match result {
            Ok(()) => self.committed(taken),
            Err(refused) => self.refused(refused, taken),
        };
        if stop { ControlFlow::Break(()) } else { flow }
    }

    /// Remembers an input that must not be lost, or returns it to be applied. While the store refuses, every input is
    /// remembered or answered.
    fn keep(&mut self, item: Input, is_refused: bool, owed: &mut Vec<Owed>) -> Option<Input> {
        match item {
            Input::Events { batch, tag } if is_refused => owed.push(Owed::Events(Part { batch, tag, is_last: true })),
            Input::Events { batch, tag } => {
                owed.push(Owed::Events(Part { batch: batch.clone(), tag, is_last: true }));
                return Some(Input::Events { batch, tag });
            }
            Input::Published(results) if is_refused => owed.push(Owed::Published(results)),
            Input::Errands(results) if is_refused => owed.push(Owed::Errands(results)),
            item if is_refused => self.world.refuse(item),
            item => return Some(item),
        }
        None
    }

    /// Opens a transaction; memory is loaded again first when it is ahead of the store.
    fn open(&mut self, now: Now) -> Result<(), Refused> {
        let clean = |error| Refused::by(&error, false, None);
        if self.is_stale {
            self.world.reload(now).map_err(clean)?;
            self.is_stale = false;
        }
        self.world.begin(now.moment).map_err(clean)
    }

    fn close(&mut self, now: Timestamp) -> Result<(), Refused> {
        let shared = |error| Refused::by(&error, true, None);
        self.world.sweep(now).map_err(shared)?;
        self.world.refit(now).map_err(shared)?;
        self.world.tell_over().map_err(shared)?;
        self.world.finish(now).map_err(shared)?;
        whole(&mut self.world)?;
        self.world.commit().map_err(shared)
    }

    fn committed(&mut self, taken: Vec<Owed>) -> ControlFlow<()> {
        if self.refusals > 0 {
            info!(tries = self.refusals, "the store takes changes again");
            self.refusals = 0;
            self.refusal.send_replace(None);
        }
        self.portion = BATCH_MAX.min(self.portion * 2);
        if !self.world.has_pools(&self.names.borrow()) {
            self.names.send_replace(self.world.pool_names());
        }
        if std::mem::take(&mut self.world.are_triggers_new) {
            self.triggers.send_replace(self.world.triggers.values().cloned().collect());
        }
        let named = self.world.named();
        self.unreadable.send_if_modified(|known| {
            let is_new = *known != *named;
            if is_new {
                *known = named.to_vec();
            }
            is_new
        });
        send(&mut self.world, &self.clock, &self.output);
        let done = taken.iter().filter_map(Owed::settles);
        let settled = done.map(|tag| if self.spoiled.contains(&tag) { Settled::Dead(tag) } else { Settled::Done(tag) }).collect();
        self.spoiled.retain(|tag| taken.iter().all(|owed| owed.settles() != Some(*tag)));
        let flow = self.settle(settled);
        self.world.answer();
        flow
    }

    fn refused(&mut self, Refused { reason, may_pass, is_dirty, of }: Refused, mut taken: Vec<Owed>) -> ControlFlow<()> {
        error!(reason, "a transaction was not stored; changes are refused, and events are kept and tried again");
        self.batches.refused.increment(1);
        self.refusal.send_if_modified(|refusal| refusal.replace(reason.clone()).as_ref() != Some(&reason));
        let mut flow = ControlFlow::Continue(());
        if is_dirty {
            self.world.abandon(&reason);
            self.is_stale = true;
            self.portion = if may_pass { (taken.len() / 2).max(1) } else { 1 };
            let is_at_fault = of == Some(0) && !may_pass && !taken.is_empty();
            let first = is_at_fault.then(|| taken.remove(0));
            // Results need not be applied again: the reloaded memory already derives them from the store.
            taken.retain(|owed| owed.tag().is_some());
            if let Some(Owed::Events(part)) = first {
                flow = self.set_aside(part, &reason, &mut taken);
            }
        }
        taken.append(&mut self.owed);
        // Commands that arrive during the pause are answered at once instead of waiting.
        while let Ok(item) = self.input.try_recv() {
            if matches!(item, Input::Stop) {
                flow = ControlFlow::Break(());
            }
            self.keep(item, true, &mut taken);
        }
        // After a lost connection the broker delivers unacknowledged messages again.
        let newest = taken.iter().filter_map(Owed::tag).map(|tag| tag.generation).max();
        taken.retain(|owed| owed.tag().is_none_or(|tag| Some(tag.generation) == newest));
        self.spoiled.retain(|tag| taken.iter().any(|owed| owed.tag() == Some(*tag)));
        self.owed = taken;
        thread::sleep(PAUSE_MAX.min(PAUSE * 2u32.pow(self.refusals.min(8))));
        self.refusals += 1;
        flow
    }

    /// Splits a delivery that can never be stored as a whole; gives up an event that cannot be stored alone.
    fn set_aside(&mut self, part: Part, reason: &str, taken: &mut Vec<Owed>) -> ControlFlow<()> {
        let Part { batch: EventBatch { pool, node, events, .. }, tag, is_last } = &part;
        if events.len() > 1 {
            warn!(%pool, %node, count = events.len(), reason, "an event of a delivery cannot be stored; its events run again one by one");
            taken.splice(0..0, part.split());
            return ControlFlow::Continue(());
        }
        let event = events.first().map_or_else(|| "no event".to_owned(), describe);
        error!(%pool, %node, event, reason, "an event cannot be stored; its delivery goes to the dead queue when its other events are stored");
        self.batches.refused_events.increment(1);
        if *is_last {
            self.spoiled.retain(|spoiled| spoiled != tag);
            return self.settle(vec![Settled::Dead(*tag)]);
        }
        self.spoiled.push(*tag);
        ControlFlow::Continue(())
    }

    /// Acknowledges or dead-letters deliveries. The channel has room for all that the prefetch allows.
    fn settle(&self, deliveries: Vec<Settled>) -> ControlFlow<()> {
        if !deliveries.is_empty() && self.settled.blocking_send(deliveries).is_err() {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }
}

/// The event in words, for the log.
fn describe(event: &AgentEvent) -> String {
    match event {
        AgentEvent::Started(started) => format!("start of task {}, attempt {}", started.uid.0, started.attempt),
        AgentEvent::Finished(finished) => format!("end of task {}, attempt {}", finished.uid.0, finished.attempt),
        AgentEvent::Node(_) => "report of the node".to_owned(),
        AgentEvent::JobTask(end) => format!("end of a preparation or release of job {}", end.key.job.0),
    }
}

fn take(world: &mut World, input: Input, of: Option<usize>, now: Timestamp, result: &mut Result<(), Refused>) {
    if result.is_ok() {
        *result = world.take(input, now).map_err(|error| Refused::by(&error, true, of)).and_then(|()| whole(world));
    }
}

/// Refuses a transaction that contains half of a command.
fn whole(world: &mut World) -> Result<(), Refused> {
    match world.half_done.take() {
        None => Ok(()),
        Some(reason) => Err(Refused { reason, may_pass: true, is_dirty: true, of: None }),
    }
}

/// Sends outputs. Publishes that find the queue full stay in the outbox and are published again as questions.
fn send(world: &mut World, clock: &Clock, output: &mpsc::Sender<Vec<Output>>) {
    let outputs = world.take_outputs();
    if outputs.is_empty() {
        return;
    }
    if let Err(mpsc::error::TrySendError::Full(outputs)) = output.try_send(outputs) {
        warn!("the publisher queue is full; publishes wait in the outbox and are tried again");
        world.not_sent(outputs, clock.now());
    }
}
