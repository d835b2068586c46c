//! Runs from their start to their told and acknowledged end.

use std::time::{Duration, Instant};

use broker_config::{
    amqp::{CONFIRM_TIMEOUT, Outgoing, Publisher},
    body::Format,
    chore::ChoreEnd,
    ids::{JobId, RunId, RunKey},
    message::{EventBatch, Fault, Finished, Outcome, Started, TaskMessage, VERSION, Verdict},
    spec::TaskSpec,
    time::Timestamp,
    topology,
};
use tokio::{
    sync::oneshot,
    time::{sleep, timeout},
};

use crate::{
    agent::{Agent, Held, Live, Settlement},
    execution::{self, Ended, Reins},
    outbox::BatchId,
    process::environment::TaskFacts,
};

/// The command line that completes without a process.
const NOOP: &str = ":";
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Lets a waiting run begin, or tells it how its job's preparation failed.
type Go = oneshot::Sender<Option<Box<ChoreEnd>>>;

/// Whether a task needs neither a process nor files.
pub(super) fn is_noop(spec: &TaskSpec) -> bool {
    spec.command_line == NOOP && spec.resource_files.is_empty() && spec.output_files.is_empty()
}

impl Agent {
    pub(super) fn start(&mut self, message: TaskMessage, run: RunId, held: Option<Held>, units: u32) {
        let key = message.key().with(run);
        let at = Timestamp::now();
        self.outbox.started(Started { uid: key.uid, attempt: key.attempt, fence: key.fence, run, at });
        let Some(spec) = message.spec else {
            let fault =
                Fault { code: "NodeError".to_owned(), message: "the task came without its specification".to_owned(), details: vec![] };
            return self.tell_end(key, at, Ended::bare(Outcome::Node(fault)), held);
        };
        if is_noop(&spec) {
            return self.tell_end(key, at, Ended::bare(Outcome::Exit { code: 0 }), held);
        }
        let reins = self.hold(&message.job, key, held, units, at, None);
        let facts = TaskFacts { job: message.job, task: message.task, run: key };
        let (room, ends) = (self.room.clone(), self.ends.clone());
        tokio::spawn(async move {
            let end = execution::execute(room, facts, spec, reins).await;
            // Nobody listens only when the whole agent has ended.
            ends.send((run, end)).await.ok();
        });
    }

    /// The run is alive from now on; `go` lets one that waits begin.
    fn hold(&mut self, job: &JobId, key: RunKey, held: Option<Held>, units: u32, started_at: Timestamp, go: Option<Go>) -> Reins {
        let reins = Reins::new();
        self.capacity.start(held.and_then(|held| held.hand()), units);
        self.by_attempt.insert(key.key(), key.run);
        self.live.insert(key.run, Live { key, job: job.clone(), held, units, started_at, reins: reins.clone(), is_fenced: false, go });
        reins
    }

    /// Starts a run that waits for its job's preparation; it takes its slots meanwhile.
    pub(super) fn start_waiting(&mut self, message: TaskMessage, run: RunId, held: Held, units: u32) {
        let key = message.key().with(run);
        let (go, gone) = oneshot::channel();
        let reins = self.hold(&message.job, key, Some(held), units, Timestamp::now(), Some(go));
        let facts = TaskFacts { job: message.job, task: message.task, run: key };
        let (room, ends, spec) = (self.room.clone(), self.ends.clone(), message.spec.unwrap_or_default());
        tokio::spawn(async move {
            let end = tokio::select! {
                () = reins.stop.cancelled() => Ended::bare(Outcome::Stopped),
                fate = gone => match fate {
                    Ok(None) if is_noop(&spec) => Ended::bare(Outcome::Exit { code: 0 }),
                    Ok(None) => execution::execute(room, facts, spec, reins).await,
                    Ok(Some(end)) => Ended::bare(Outcome::Unprepared(end)),
                    // Only the end of the whole agent lets go of the other side.
                    Err(_) => Ended::bare(Outcome::Stopped),
                },
            };
            ends.send((run, end)).await.ok();
        });
    }

    pub(super) fn on_ended(&mut self, run: RunId, end: Ended) {
        let Some(live) = self.live.remove(&run) else { return };
        self.by_attempt.remove(&live.key.key());
        self.capacity.end(live.held.and_then(|held| held.hand()), live.units);
        if live.is_fenced {
            if let Some(held) = live.held {
                self.settle(held, Settlement::Done);
            }
            return;
        }
        self.tell_end(live.key, live.started_at, end, live.held);
    }

    pub(super) fn tell_end(&mut self, key: RunKey, started_at: Timestamp, end: Ended, held: Option<Held>) {
        let Ended { outcome, stdout, stderr, usage } = end;
        let ended_at = Timestamp::now();
        let RunKey { uid, attempt, fence, run } = key;
        self.outbox.finished(Box::new(Finished { uid, attempt, fence, run, started_at, ended_at, outcome, stdout, stderr, usage }), held);
    }

    /// Sends what there is; what piles up meanwhile goes as the next batch.
    pub(super) fn flush(&mut self) {
        while let Some((id, events)) = self.outbox.batch() {
            let (pool, node) = (self.settings.pool.clone(), self.settings.node.clone());
            let batch = EventBatch { v: VERSION, pool, node, epoch: self.room.epoch(), events };
            let body = Format::MessagePack.write(&batch).expect("events are plain data, which MessagePack can hold");
            self.publishing.push(Box::pin(publish(self.publisher.clone(), self.node_key.clone(), body, id)));
        }
    }

    pub(super) fn on_confirmed(&mut self, id: BatchId) {
        for held in self.outbox.confirmed(id, Instant::now()) {
            self.settle(held, Settlement::Done);
        }
    }

    pub(super) fn on_verdict(&mut self, run: RunId, verdict: Verdict) {
        match verdict {
            Verdict::Ok => {}
            Verdict::Stop | Verdict::Fenced => {
                if let Some(live) = self.live.get_mut(&run) {
                    live.is_fenced |= verdict == Verdict::Fenced;
                    live.reins.stop.cancel();
                } else if verdict == Verdict::Fenced {
                    self.forget(run);
                }
            }
            Verdict::Recorded => self.forget(run),
        }
    }

    pub(super) fn forget(&mut self, run: RunId) {
        if let Some(held) = self.outbox.forget(run) {
            self.settle(held, Settlement::Done);
        }
    }
}

/// Publishes one batch until the broker has it.
async fn publish(publisher: Publisher, key: String, body: Vec<u8>, id: BatchId) -> BatchId {
    let mut pause = PAUSE_FIRST;
    loop {
        let outgoing = Outgoing::raw(topology::EVENTS, key.clone(), body.clone(), Format::MessagePack);
        match timeout(CONFIRM_TIMEOUT * 2, publisher.publish(outgoing)).await {
            Ok(Ok(())) => return id,
            Ok(Err(error)) => tracing::warn!(%error, "events are told again"),
            Err(_) => tracing::warn!("events were not taken in time; they are told again"),
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}
