//! The agent's loop: one owner of all state, one thing at a time.
//!
//! ```text
//! pool queue ─► deliveries ─► runs ─► outbox ─► events (confirmed) ─► ack
//! control queue ─► orders: stop, revoke, recorded, drain, files        heartbeats ─► answered there too
//! ```
//! Nothing in here blocks or touches a file: runs, uploads, file requests and questions are futures that the loop
//! polls.
//! Should the loop hang all the same, the guardian gets no more messages from it and kills the agent.

mod deliveries;
mod heartbeats;
mod invocations;
mod job_tasks;
mod lifecycle;
mod live_runs;
mod orders;
mod runs;
mod subscribing;
mod wide;

use std::{
    collections::HashMap,
    future::Future,
    pin::Pin,
    sync::{Arc, atomic::AtomicU64},
    time::{Duration, Instant},
};

use broker_config::topology;
use clients::amqp::{Acker, AmqpError, Caller, Consumer, Delivery, Link, Publisher};
use contract::{
    function::PoolFunctions,
    ids::{AttemptKey, RunId},
    message::{Answer, Joined, NodeOrder, StartTaskEnd, TaskMessage},
    outcome::JobTaskEnd,
};
use futures::{StreamExt, stream::FuturesUnordered};
use tokio::{
    sync::{mpsc, oneshot},
    time::{MissedTickBehavior, interval},
};

use crate::{
    agent::live_runs::{Held, Live, LiveRuns, Source},
    capacity::Capacity,
    consumer_pause::ConsumerPause,
    context::NodeContext,
    error::AgentError,
    execution::Ended,
    functions::Functions,
    guardian::Guard,
    heartbeat::{HEARTBEAT_MIN_MS, HeartbeatThread},
    job_tasks::JobTasks,
    outbox::{BatchId, Outbox},
    revoked::Revoked,
    settings::{Ending, Settings},
    warm::Warm,
};

/// Results of runs that the loop has not read yet, at most.
const ENDS_MAX: usize = 1024;
/// Deliveries or results that are handled in one step of the loop at most.
const BURST_MAX: usize = 256;
/// Period of the agent's housekeeping.
const HOUSEKEEPING: Duration = Duration::from_millis(250);
/// Longest shutdown that drains; after it the remaining processes are killed.
const SHUTDOWN_MAX: Duration = Duration::from_secs(15);

type Later<T> = FuturesUnordered<Pin<Box<dyn Future<Output = T> + Send>>>;

/// The consumers of a pool's two queues: tasks of one slot, and wider ones.
type Subscribed = (Consumer, Consumer);

/// A consumer of one of the pool's queues, with what settles its deliveries and pauses its slots.
struct Consuming {
    consumer: Consumer,
    acker: Acker,
    pause: ConsumerPause,
}

impl Consuming {
    fn new(consumer: Consumer, slots: u32) -> Consuming {
        Consuming { acker: consumer.acker(), pause: ConsumerPause::new(consumer.slots(), slots), consumer }
    }
}

/// A delivery, or a kept task, with an open question to the dispatcher.
struct Asked {
    message: TaskMessage,
    run: RunId,
    /// Absent for a task that the dispatcher keeps slots for.
    held: Option<Held>,
    is_cancelled: bool,
}

/// A task of several slots that waits for them.
struct Wide {
    message: TaskMessage,
    held: Option<Held>,
    since: Instant,
    is_asked: bool,
    /// Whether the dispatcher keeps this node's slots for the task.
    is_kept: bool,
}

/// State of the wide queue: the task that waits for slots, and the pause of the consumer.
#[derive(Default)]
struct WideQueue {
    waiting: Option<Wide>,
    paused: Option<WidePause>,
    /// Length of the next pause; it doubles with each delivery that is returned unstarted.
    next_pause: Duration,
}

/// A pause of the consumer of the wide queue.
struct WidePause {
    until: Instant,
    /// The pause ends early when this many slots are free.
    slots: u32,
}

/// Whether the agent goes on, and how it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Working,
    /// Since when it takes no tasks and waits for the results of its stopped runs to be confirmed.
    ShuttingDown(Instant),
    /// The dispatcher does not want the node any longer.
    Dismissed,
}

/// All state of the agent; the loop is its only owner.
pub(crate) struct Agent {
    settings: Settings,
    context: Arc<NodeContext>,
    link: Link,
    publisher: Publisher,
    caller: Caller,
    joined: Joined,
    node_key: String,
    guard: Guard,
    capacity: Capacity,
    /// Tasks of one slot; absent until the node may take tasks, as is the next.
    tasks: Option<Consuming>,
    wide_tasks: Option<Consuming>,
    control: Consumer,
    generation: u64,
    wide: WideQueue,
    waiting: Vec<(TaskMessage, Held)>,
    asked: HashMap<AttemptKey, Asked>,
    asks: Later<(AttemptKey, Option<Answer>)>,
    live: LiveRuns,
    ends: mpsc::Sender<(RunId, Ended)>,
    job_tasks: JobTasks,
    running_job_tasks: Later<Box<JobTaskEnd>>,
    outbox: Outbox<Held>,
    publishing: Later<BatchId>,
    revoked: Revoked,
    functions: Functions<Held>,
    warm: Arc<Warm>,
    /// Invocations by their number, and whether the broker took what follows them.
    concluding: Later<(u64, bool)>,
    asking_functions: Later<Option<PoolFunctions>>,
    order: NodeOrder,
    is_drain_reported: bool,
    is_disk_full: bool,
    /// Measured by another task, because a disk may hang.
    free_bytes: Arc<AtomicU64>,
    boot: Option<u64>,
    heartbeat_thread: HeartbeatThread,
    joining: Later<Result<Joined, AgentError>>,
    subscribing: Later<Result<Subscribed, AmqpError>>,
    life: Life,
}

/// Parts that exist once the agent has joined.
pub(crate) struct Parts {
    pub settings: Settings,
    pub context: Arc<NodeContext>,
    pub link: Link,
    pub caller: Caller,
    pub joined: Joined,
    pub guard: Guard,
    pub control: Consumer,
    pub heartbeat_thread: HeartbeatThread,
    pub free_bytes: Arc<AtomicU64>,
}

impl Agent {
    pub(crate) fn new(parts: Parts) -> (Agent, mpsc::Receiver<(RunId, Ended)>) {
        let Parts { settings, context, link, caller, joined, guard, control, heartbeat_thread, free_bytes } = parts;
        let (ends, ended) = mpsc::channel(ENDS_MAX);
        let warm = Warm::new(joined.slots);
        let agent = Agent {
            node_key: topology::node_key(&settings.pool, &settings.node),
            capacity: Capacity::new(joined.slots.max(1)),
            publisher: link.publisher(),
            order: joined.order,
            settings,
            context,
            link,
            caller,
            joined,
            guard,
            tasks: None,
            wide_tasks: None,
            control,
            generation: 0,
            wide: WideQueue::default(),
            waiting: Vec::new(),
            asked: HashMap::new(),
            asks: Later::new(),
            live: LiveRuns::default(),
            ends,
            job_tasks: JobTasks::default(),
            running_job_tasks: Later::new(),
            outbox: Outbox::default(),
            publishing: Later::new(),
            revoked: Revoked::default(),
            functions: Functions::default(),
            warm,
            concluding: Later::new(),
            asking_functions: Later::new(),
            is_drain_reported: false,
            is_disk_full: false,
            free_bytes,
            boot: None,
            heartbeat_thread,
            joining: Later::new(),
            subscribing: Later::new(),
            life: Life::Working,
        };
        (agent, ended)
    }

    /// Runs the loop until shutdown, dismissal or a restart that the dispatcher ordered.
    pub(crate) async fn run(
        mut self,
        mut ended: mpsc::Receiver<(RunId, Ended)>,
        shutdown: impl Future<Output = Ending>,
    ) -> Result<(), AgentError> {
        tokio::pin!(shutdown);
        self.guard.expect(Duration::from_millis(self.joined.lease_ms));
        let mut packages = self.begin_packages();
        let mut is_deploying = packages.is_some();
        let mut start_task = None;
        if !is_deploying {
            start_task = self.begin();
        }
        let mut is_starting = start_task.is_some();
        let mut heartbeat = interval(Duration::from_millis(self.joined.heartbeat_ms.max(HEARTBEAT_MIN_MS)));
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut housekeeping = interval(HOUSEKEEPING);
        housekeeping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                ending = &mut shutdown, if self.life == Life::Working => {
                    if ending == Ending::Now {
                        break;
                    }
                    self.begin_shutdown();
                }
                Some((run, end)) = ended.recv() => {
                    self.on_ended(run, end);
                    for _ in 0..BURST_MAX {
                        let Ok((run, end)) = ended.try_recv() else { break };
                        self.on_ended(run, end);
                    }
                }
                Some(end) = self.running_job_tasks.next() => self.on_job_task_ended(end),
                Some((number, is_done)) = self.concluding.next() => self.on_concluded(number, is_done),
                Some(answer) = self.asking_functions.next() => self.on_functions(answer),
                Some(batch) = self.publishing.next() => self.on_confirmed(batch),
                Some(delivery) = next(&mut self.tasks) => {
                    self.on_delivery(delivery);
                    for _ in 0..BURST_MAX {
                        let Some(delivery) = self.tasks.as_mut().and_then(|tasks| tasks.consumer.try_next()) else { break };
                        self.on_delivery(delivery);
                    }
                }
                Some(delivery) = next(&mut self.wide_tasks) => self.on_wide_delivery(delivery),
                Some(delivery) = self.control.next() => self.on_control(delivery),
                Some((key, answer)) = self.asks.next() => self.on_answer(key, answer),
                Some(subscribed) = self.subscribing.next() => self.on_subscribed(subscribed?),
                Some(joined) = self.joining.next() => self.on_rejoined(joined?),
                _ = heartbeat.tick() => self.heartbeat(),
                _ = housekeeping.tick() => self.housekeep(),
                end = finished(&mut packages), if is_deploying => {
                    is_deploying = false;
                    if self.on_packages(end) {
                        start_task = self.begin();
                        is_starting = start_task.is_some();
                    }
                }
                end = finished(&mut start_task), if is_starting => {
                    is_starting = false;
                    if self.on_start_task(end) {
                        self.consume();
                    }
                }
            }
            self.after_step();
            match self.life {
                Life::Dismissed => {
                    self.leave().await;
                    return Err(AgentError::Dismissed);
                }
                Life::Working if self.may_restart() => {
                    tracing::info!(
                        "the dispatcher ordered a restart and no run is left; ending the agent so that its supervisor starts it again"
                    );
                    self.leave().await;
                    return Err(AgentError::Restarts);
                }
                Life::ShuttingDown(since) if (self.is_empty() && self.outbox.is_all_confirmed()) || since.elapsed() > SHUTDOWN_MAX => {
                    break;
                }
                Life::Working | Life::ShuttingDown(_) => {}
            }
        }
        self.leave().await;
        Ok(())
    }

    /// Starts the start task, and takes tasks at once unless they must wait for it.
    fn begin(&mut self) -> Option<oneshot::Receiver<StartTaskEnd>> {
        let start_task = self.begin_start_task();
        if self.may_consume_early() {
            self.consume();
        }
        start_task
    }

    /// Follows every step of the loop: starts what can start, balances the slots, publishes queued events.
    fn after_step(&mut self) {
        self.try_waiting();
        self.try_wide();
        self.begin_releases();
        if let Some(tasks) = &self.tasks {
            tasks.pause.set(&self.capacity.balance());
        }
        self.finish_drain();
        self.flush();
    }

    /// Whether the pool's queues are consumed, which begins once packages and start task allow it.
    fn is_ready(&self) -> bool {
        self.tasks.is_some()
    }

    /// Whether no run, job task or invocation is left.
    fn is_empty(&self) -> bool {
        self.live.is_empty() && !self.has_job_tasks() && self.functions.is_idle()
    }

    fn settle_if(&mut self, held: Option<Held>, how: Settlement) {
        if let Some(held) = held {
            self.settle(held, how);
        }
    }

    fn settle(&mut self, held: Held, how: Settlement) {
        let consuming = match held.source {
            Source::Slot(slot) => {
                self.capacity.settled(slot, held.tag);
                &self.tasks
            }
            Source::Wide => &self.wide_tasks,
        };
        let Some(Consuming { acker, .. }) = consuming else { return };
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

async fn next(consuming: &mut Option<Consuming>) -> Option<Delivery> {
    match consuming {
        Some(consuming) => consuming.consumer.next().await,
        None => std::future::pending().await,
    }
}

async fn finished<T>(work: &mut Option<oneshot::Receiver<T>>) -> Option<T> {
    match work {
        Some(end) => end.await.ok(),
        None => std::future::pending().await,
    }
}
