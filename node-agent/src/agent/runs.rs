//! Runs from their start until the broker has confirmed their results.

use std::time::{Duration, Instant};

use broker_config::topology;
use clients::amqp::{CONFIRM_TIMEOUT, Outgoing, Publisher};
use contract::{
    body::Format,
    ids::{JobId, RunId, RunKey},
    message::{EventBatch, Finished, Started, TaskMessage, VERSION, Verdict},
    outcome::{Fault, JobTaskEnd, Outcome},
    spec::{NOTHING, TaskSpec},
    time::Timestamp,
};
use tokio::{
    sync::oneshot,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    agent::{Agent, Held, Live, Settlement},
    execution::{self, Ended, RunControl},
    outbox::BatchId,
    process::environment::TaskFacts,
};

const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Lets a waiting run begin, or hands it the result of its job's failed preparation.
type BeginSender = oneshot::Sender<Option<Box<JobTaskEnd>>>;

/// Returns whether a task needs neither a process nor files.
pub(super) fn is_noop(spec: &TaskSpec) -> bool {
    spec.command_line == NOTHING && spec.resource_files.is_empty() && spec.output_files.is_empty()
}

impl Agent {
    pub(super) fn start(&mut self, message: TaskMessage, run: RunId, held: Option<Held>, units: u32) {
        let key = message.key().with(run);
        let at = Timestamp::now();
        self.outbox.started(Started { uid: key.uid, attempt: key.attempt, fence: key.fence, run, at });
        let Some(spec) = message.spec else {
            let fault = Fault {
                code: "NodeError".to_owned(),
                message: "the task was delivered without its specification".to_owned(),
                details: vec![],
            };
            return self.report_end(key, at, Ended::bare(Outcome::Node(fault)), held);
        };
        if is_noop(&spec) {
            return self.report_end(key, at, Ended::bare(Outcome::Exit { code: 0 }), held);
        }
        let earlier = self.earlier_run(key);
        let run_control = self.hold(&message.job, key, held, units, at, None);
        let facts = TaskFacts { job: message.job, task: message.task, run: key };
        let (context, ends) = (self.context.clone(), self.ends.clone());
        tokio::spawn(async move {
            let end = execution::execute(context, facts, spec, run_control, earlier).await;
            // Fails only when the whole agent has ended.
            ends.send((run, end)).await.ok();
        });
    }

    /// Registers a run as alive. A run that waits for its job's preparation has a sender in `begin`.
    fn hold(
        &mut self,
        job: &JobId,
        key: RunKey,
        held: Option<Held>,
        units: u32,
        started_at: Timestamp,
        begin: Option<BeginSender>,
    ) -> RunControl {
        let run_control = RunControl::new();
        self.capacity.start(held.and_then(|held| held.hand()), units);
        self.live.insert(Live { key, job: job.clone(), held, units, started_at, run_control: run_control.clone(), begin });
        run_control
    }

    /// The token of an earlier run of the same task that is still being stopped; a further run waits, because both use
    /// one folder.
    fn earlier_run(&self, key: RunKey) -> Option<CancellationToken> {
        // A first attempt has no earlier run, and most runs are first attempts.
        let mut others = self.live.values().filter(|live| key.attempt > 1 && live.key.uid == key.uid);
        others.next().map(|live| live.run_control.over.clone())
    }

    /// Starts a run that waits for its job's preparation; it occupies its slots meanwhile.
    pub(super) fn start_waiting(&mut self, message: TaskMessage, run: RunId, held: Option<Held>, units: u32) {
        let key = message.key().with(run);
        let (begin, gone) = oneshot::channel();
        let earlier = self.earlier_run(key);
        let run_control = self.hold(&message.job, key, held, units, Timestamp::now(), Some(begin));
        let facts = TaskFacts { job: message.job, task: message.task, run: key };
        let (context, ends, spec) = (self.context.clone(), self.ends.clone(), message.spec.unwrap_or_default());
        tokio::spawn(async move {
            let end = tokio::select! {
                () = run_control.stop.cancelled() => Ended::bare(Outcome::Stopped),
                fate = gone => match fate {
                    Ok(None) if is_noop(&spec) => Ended::bare(Outcome::Exit { code: 0 }),
                    Ok(None) => execution::execute(context, facts, spec, run_control, earlier).await,
                    Ok(Some(end)) => Ended::bare(Outcome::Unprepared(end)),
                    // The sender is dropped only when the whole agent ends.
                    Err(_) => Ended::bare(Outcome::Stopped),
                },
            };
            ends.send((run, end)).await.ok();
        });
    }

    pub(super) fn on_ended(&mut self, run: RunId, end: Ended) {
        let Some(live) = self.live.remove(run) else { return };
        live.run_control.over.cancel();
        self.capacity.end(live.held.and_then(|held| held.hand()), live.units);
        // The result of a superseded run is reported too: its task may show the output.
        self.report_end(live.key, live.started_at, end, live.held);
    }

    pub(super) fn report_end(&mut self, key: RunKey, started_at: Timestamp, end: Ended, held: Option<Held>) {
        let Ended { outcome, stdout, stderr, usage, .. } = end;
        let ended_at = Timestamp::now();
        let RunKey { uid, attempt, fence, run } = key;
        self.outbox.finished(Box::new(Finished { uid, attempt, fence, run, started_at, ended_at, outcome, stdout, stderr, usage }), held);
    }

    /// Publishes what is queued; events that are queued meanwhile make the next batch.
    pub(super) fn flush(&mut self) {
        while let Some((id, events)) = self.outbox.batch() {
            let (pool, node) = (self.settings.pool.clone(), self.settings.node.clone());
            let batch = EventBatch { v: VERSION, pool, node, epoch: self.context.epoch(), events };
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
                if let Some(live) = self.live.get(run) {
                    live.run_control.stop.cancel();
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

/// Publishes one batch, again and again until the broker confirms it.
async fn publish(publisher: Publisher, key: String, body: Vec<u8>, id: BatchId) -> BatchId {
    let mut pause = PAUSE_FIRST;
    loop {
        let outgoing = Outgoing::raw(topology::EVENTS, key.clone(), body.clone(), Format::MessagePack);
        match timeout(CONFIRM_TIMEOUT * 2, publisher.publish(outgoing)).await {
            Ok(Ok(())) => return id,
            Ok(Err(error)) => tracing::warn!(%error, "the broker did not take a batch of events; sending it again"),
            Err(_) => tracing::warn!("the broker did not confirm a batch of events in time; sending it again"),
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}
