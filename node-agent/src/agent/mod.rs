//! The agent's loop: one owner of all state, one thing at a time.
//!
//! ```text
//! pool queue ─► deliveries ─► runs ─► outbox ─► events (confirmed) ─► ack
//! control queue ─► orders: stop, revoke, recorded, drain, files        beats ─► answered there too
//! ```
//! Nothing in here blocks: runs, uploads, file requests and questions are futures that come back.

mod beats;
mod chores;
mod deliveries;
mod lifecycle;
mod orders;
mod runs;

use std::{
    collections::HashMap,
    future::Future,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use broker_config::{
    amqp::{Acker, AmqpError, Caller, Consumer, Delivery, Link, PRIORITY_LEVELS_MAX, Publisher, SlotConsumer, Subscription, Tag},
    chore::ChoreEnd,
    ids::{AttemptKey, JobId, RunId, RunKey},
    message::{Answer, Joined, NodeOrder, StartTaskEnd, TaskMessage},
    spec::FillType,
    time::Timestamp,
    topology,
};
use futures::{StreamExt, stream::FuturesUnordered};
use tokio::{
    sync::{mpsc, oneshot},
    time::{MissedTickBehavior, interval},
};

use crate::{
    capacity::Capacity,
    chores::Chores,
    error::AgentError,
    execution::{Ended, Reins},
    gate::Gate,
    guardian::Guard,
    outbox::{BatchId, Outbox},
    revoked::Revoked,
    room::Room,
    settings::{Ending, Settings},
};

/// Ends of runs that the loop has not read yet.
const ENDS_MAX: usize = 1024;
/// Deliveries that are handled before the loop looks elsewhere.
const BURST_MAX: usize = 256;
/// Between two looks at what changes slowly.
const HOUSEKEEPING: Duration = Duration::from_millis(250);
/// How long a polite end may take.
const FAREWELL_MAX: Duration = Duration::from_secs(15);

type Later<T> = FuturesUnordered<Pin<Box<dyn Future<Output = T> + Send>>>;

/// Where a delivery is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lane {
    Slot(u32),
    Wide,
}

/// A delivery that is not settled yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Held {
    lane: Lane,
    tag: Tag,
}

impl Held {
    fn hand(&self) -> Option<(u32, Tag)> {
        match self.lane {
            Lane::Slot(slot) => Some((slot, self.tag)),
            Lane::Wide => None,
        }
    }
}

/// A run under way.
struct Live {
    key: RunKey,
    job: JobId,
    held: Option<Held>,
    units: u32,
    started_at: Timestamp,
    reins: Reins,
    is_fenced: bool,
    /// Lets it begin, or tells it that its job's preparation failed.
    go: Option<oneshot::Sender<Option<Box<ChoreEnd>>>>,
}

/// A delivery the dispatcher is being asked about.
struct Asked {
    message: TaskMessage,
    run: RunId,
    held: Held,
    is_cancelled: bool,
}

/// A delivery of several slots that waits for them.
struct Wide {
    message: TaskMessage,
    held: Held,
    since: Instant,
    is_asked: bool,
}

/// The agent's state.
pub(crate) struct Agent {
    settings: Settings,
    room: Arc<Room>,
    link: Link,
    publisher: Publisher,
    caller: Caller,
    joined: Joined,
    node_key: String,
    guard: Guard,
    capacity: Capacity,
    tasks: Option<Consumer>,
    tasks_acker: Option<Acker>,
    gate: Option<Gate>,
    wide_tasks: Option<Consumer>,
    wide_acker: Option<Acker>,
    wide_gate: Option<Gate>,
    control: Consumer,
    generation: u64,
    wide: Option<Wide>,
    wide_rests_until: Option<Instant>,
    waiting: Vec<(TaskMessage, Held)>,
    asked: HashMap<AttemptKey, Asked>,
    asks: Later<(AttemptKey, Option<Answer>)>,
    live: HashMap<RunId, Live>,
    by_attempt: HashMap<AttemptKey, RunId>,
    ends: mpsc::Sender<(RunId, Ended)>,
    chores: Chores,
    choring: Later<Box<ChoreEnd>>,
    outbox: Outbox<Held>,
    publishing: Later<BatchId>,
    revoked: Revoked,
    order: NodeOrder,
    is_drained_told: bool,
    is_ready: bool,
    is_disk_full: bool,
    boot: Option<u64>,
    beating: Later<()>,
    joining: Later<Result<Joined, AgentError>>,
    is_dismissed: bool,
    is_restarting: bool,
    is_leaving: bool,
}

/// What stands when the agent has joined.
pub(crate) struct Parts {
    pub settings: Settings,
    pub room: Arc<Room>,
    pub link: Link,
    pub caller: Caller,
    pub joined: Joined,
    pub guard: Guard,
    pub control: Consumer,
}

impl Agent {
    pub(crate) fn new(parts: Parts) -> (Agent, mpsc::Receiver<(RunId, Ended)>) {
        let Parts { settings, room, link, caller, joined, guard, control } = parts;
        let (ends, ended) = mpsc::channel(ENDS_MAX);
        let agent = Agent {
            node_key: topology::node_key(&settings.pool, &settings.node),
            capacity: Capacity::new(joined.slots.max(1)),
            publisher: link.publisher(),
            order: joined.order,
            settings,
            room,
            link,
            caller,
            joined,
            guard,
            tasks: None,
            tasks_acker: None,
            gate: None,
            wide_tasks: None,
            wide_acker: None,
            wide_gate: None,
            control,
            generation: 0,
            wide: None,
            wide_rests_until: None,
            waiting: Vec::new(),
            asked: HashMap::new(),
            asks: Later::new(),
            live: HashMap::new(),
            by_attempt: HashMap::new(),
            ends,
            chores: Chores::default(),
            choring: Later::new(),
            outbox: Outbox::default(),
            publishing: Later::new(),
            revoked: Revoked::default(),
            is_drained_told: false,
            is_ready: false,
            is_disk_full: false,
            boot: None,
            beating: Later::new(),
            joining: Later::new(),
            is_dismissed: false,
            is_restarting: false,
            is_leaving: false,
        };
        (agent, ended)
    }

    /// Works until told to end.
    pub(crate) async fn run(
        mut self,
        mut ended: mpsc::Receiver<(RunId, Ended)>,
        shutdown: impl Future<Output = Ending>,
    ) -> Result<(), AgentError> {
        tokio::pin!(shutdown);
        let mut packages = self.begin_packages();
        let mut is_deploying = packages.is_some();
        let mut start_task = None;
        if !is_deploying {
            start_task = self.begin().await?;
        }
        let mut is_starting = start_task.is_some();
        let mut beat = interval(Duration::from_millis(self.joined.beat_ms.max(50)));
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut housekeeping = interval(HOUSEKEEPING);
        housekeeping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut farewell: Option<Instant> = None;
        loop {
            tokio::select! {
                biased;
                ending = &mut shutdown, if farewell.is_none() => {
                    if ending == Ending::Now {
                        break;
                    }
                    self.say_farewell();
                    farewell = Some(Instant::now());
                }
                Some((run, end)) = ended.recv() => {
                    self.on_ended(run, end);
                    for _ in 0..BURST_MAX {
                        let Ok((run, end)) = ended.try_recv() else { break };
                        self.on_ended(run, end);
                    }
                }
                Some(end) = self.choring.next() => self.on_chore_ended(end),
                Some(batch) = self.publishing.next() => self.on_confirmed(batch),
                Some(delivery) = next(&mut self.tasks) => {
                    self.on_delivery(delivery);
                    for _ in 0..BURST_MAX {
                        let Some(delivery) = self.tasks.as_mut().and_then(Consumer::try_next) else { break };
                        self.on_delivery(delivery);
                    }
                }
                Some(delivery) = next(&mut self.wide_tasks) => self.on_wide_delivery(delivery),
                Some(delivery) = self.control.next() => self.on_control(delivery),
                Some((key, answer)) = self.asks.next() => self.on_answer(key, answer),
                Some(joined) = self.joining.next() => self.on_rejoined(joined?),
                Some(()) = self.beating.next() => {}
                _ = beat.tick() => self.beat(),
                _ = housekeeping.tick() => self.keep_house(),
                end = finished(&mut packages), if is_deploying => {
                    is_deploying = false;
                    if self.on_packages(end) {
                        start_task = self.begin().await?;
                        is_starting = start_task.is_some();
                    }
                }
                end = finished(&mut start_task), if is_starting => {
                    is_starting = false;
                    if self.on_start_task(end) {
                        self.consume().await?;
                    }
                }
            }
            self.settle_down();
            if self.is_dismissed {
                self.leave();
                return Err(AgentError::Dismissed);
            }
            if self.is_restarting && farewell.is_none() {
                tracing::info!("ending to be started again");
                self.leave();
                return Err(AgentError::Restarts);
            }
            if let Some(since) = farewell
                && ((self.live.is_empty() && !self.has_chores() && self.outbox.is_told()) || since.elapsed() > FAREWELL_MAX)
            {
                break;
            }
        }
        self.leave();
        Ok(())
    }

    /// Starts the start task, and takes tasks at once unless they wait for it.
    async fn begin(&mut self) -> Result<Option<oneshot::Receiver<StartTaskEnd>>, AmqpError> {
        let start_task = self.begin_start_task();
        if self.may_consume_early() {
            self.consume().await?;
        }
        Ok(start_task)
    }

    /// After every step: balance the slots, ask for what can be asked, send what there is.
    fn settle_down(&mut self) {
        self.try_waiting();
        self.try_wide();
        self.begin_releases();
        if let Some(gate) = &self.gate {
            gate.wish(&self.capacity.balance());
        }
        self.finish_drain();
        self.flush();
    }

    async fn consume(&mut self) -> Result<(), AmqpError> {
        let slots = self.capacity.total();
        // Brokers pay for every level of priority, so there are few.
        let consumers = match self.joined.fill {
            FillType::Spread => SlotConsumer::spread(slots),
            FillType::Pack => {
                let priority = Some(-(self.joined.rank.min(PRIORITY_LEVELS_MAX - 1) as i32));
                (0..slots).map(|slot| SlotConsumer { slot, priority }).collect()
            }
        };
        let mut narrow = Subscription::plain(topology::pool_queue(&self.settings.pool), 1);
        narrow.slots = consumers;
        narrow.buffer = slots as usize + 1;
        let tasks = self.link.subscribe(narrow).await?;
        let wide = self.link.subscribe(Subscription::plain(topology::wide_queue(&self.settings.pool), 1)).await?;
        self.tasks_acker = Some(tasks.acker());
        self.gate = Some(Gate::new(tasks.slots(), slots));
        self.generation = *tasks.generation().borrow();
        self.wide_acker = Some(wide.acker());
        self.wide_gate = Some(Gate::new(wide.slots(), 1));
        (self.tasks, self.wide_tasks) = (Some(tasks), Some(wide));
        self.is_ready = true;
        self.apply_order(self.order);
        Ok(())
    }

    fn settle(&mut self, held: Held, how: Settlement) {
        let acker = match held.lane {
            Lane::Slot(slot) => {
                self.capacity.settled(slot, held.tag);
                &self.tasks_acker
            }
            Lane::Wide => &self.wide_acker,
        };
        let Some(acker) = acker else { return };
        match how {
            Settlement::Done => acker.ack(held.tag),
            Settlement::Back => acker.nack(held.tag, true),
            Settlement::Dead => acker.reject_to_dead(held.tag),
        }
    }
}

enum Settlement {
    Done,
    Back,
    Dead,
}

async fn next(consumer: &mut Option<Consumer>) -> Option<Delivery> {
    match consumer {
        Some(consumer) => consumer.next().await,
        None => std::future::pending().await,
    }
}

async fn finished<T>(work: &mut Option<oneshot::Receiver<T>>) -> Option<T> {
    match work {
        Some(end) => end.await.ok(),
        None => std::future::pending().await,
    }
}
