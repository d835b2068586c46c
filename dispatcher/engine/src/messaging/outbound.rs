//! Publishes the engine's outputs: task messages with confirms, answers and orders without. Queues and errands have
//! their own tasks.

use std::collections::HashMap;

use broker_config::topology;
use clients::{
    amqp::{AmqpError, Link, Outgoing, Publisher},
    blobs::Blobs,
};
use contract::{
    body::{BodyError, Format},
    ids::{AttemptKey, PoolId},
    message::{SPEC_BYTES_MAX, Start},
};
use model::submission::Answer;
use store::errands::{Errand, Place};
use tokio::{sync::mpsc, task::JoinSet};
use tracing::{debug, warn};

use super::{
    declarer::{self, Declarer, Order},
    errands, starts,
};
use crate::{
    Engine,
    messages::{Input, Output, TaskPublish},
};

/// Answers to submissions, with the numbers of their errands.
pub(super) type AnswerSender = mpsc::Sender<Vec<(u64, Answer)>>;

/// Publish batches in flight at most; a batch waits for its confirms while the next one is written.
const BATCHES_MAX: usize = 8;

pub(super) async fn run(
    link: Link,
    blobs: Blobs,
    (declarer, answers): (Declarer, AnswerSender),
    engine: Engine,
    mut outputs: mpsc::Receiver<Vec<Output>>,
) {
    let publisher = link.publisher();
    let mut batches: JoinSet<()> = JoinSet::new();
    let mut running: JoinSet<()> = JoinSet::new();
    while let Some(outputs) = outputs.recv().await {
        for output in outputs {
            match output {
                Output::Publish(releases) => {
                    while batches.len() >= BATCHES_MAX {
                        note(batches.join_next().await);
                    }
                    batches.spawn(release(link.clone(), publisher.clone(), engine.clone(), releases));
                }
                Output::Reply(back, reply) => tell(&publisher, Outgoing::message("", back.reply_to, &*reply), back.correlation_id).await,
                Output::HeartbeatAnswered(back, reply) => {
                    tell(&publisher, Outgoing::message("", back.reply_to, &*reply), back.correlation_id).await
                }
                Output::Control { key, control } => tell(&publisher, Outgoing::message(topology::CONTROL, key, &control), None).await,
                Output::Declare(pool, then) => declarer.put(&engine, pool, Order::Declare(then)).await,
                Output::Errands(errands) => {
                    let mut rest = Vec::with_capacity(errands.len());
                    let (mut told, mut starts) = (Vec::new(), Vec::new());
                    for (id, errand) in errands {
                        match errand {
                            Errand::Undeclare { pool } => declarer.put(&engine, pool, Order::Undeclare(id)).await,
                            Errand::Tell(answer) => told.push((id, answer)),
                            Errand::Start(start) => starts.push((id, start)),
                            errand => rest.push((id, errand)),
                        }
                    }
                    put_answers(&answers, &engine, told).await;
                    if !starts.is_empty() {
                        running.spawn(starts::run(publisher.clone(), engine.clone(), starts));
                    }
                    let (bucket, broker) = rest.into_iter().partition::<Vec<_>, _>(|(_, errand)| errand.place() == Place::Bucket);
                    for errands in [bucket, broker] {
                        if !errands.is_empty() {
                            running.spawn(errands::run(link.clone(), blobs.clone(), engine.clone(), errands));
                        }
                    }
                }
            }
        }
        while let Some(done) = batches.try_join_next() {
            note(Some(done));
        }
        // The engine bounds how many errands run at once.
        while running.try_join_next().is_some() {}
    }
    while batches.join_next().await.is_some() {}
}

/// Answers go to who sends them; those that find no room are tried again later.
async fn put_answers(sender: &AnswerSender, engine: &Engine, answers: Vec<(u64, Answer)>) {
    if answers.is_empty() {
        return;
    }
    if let Err(mpsc::error::TrySendError::Full(answers) | mpsc::error::TrySendError::Closed(answers)) = sender.try_send(answers) {
        let results = answers.into_iter().map(|(id, _)| (Place::Replies, id, false)).collect();
        if engine.put(Input::Errands(results)).await.is_err() {
            debug!("the engine stopped before it learnt of answers that were not sent; they are sent after the next start");
        }
    }
}

fn note(done: Option<Result<(), tokio::task::JoinError>>) {
    if let Some(Err(error)) = done {
        warn!(%error, "a publish batch broke; its tasks stay in the outbox");
    }
}

/// Publishes without confirm: answers and orders repeat what the next heartbeat answer says, so a lost one does no
/// harm.
async fn tell(publisher: &Publisher, outgoing: Result<Outgoing, BodyError>, correlation_id: Option<String>) {
    let outgoing = match outgoing {
        Ok(outgoing) => outgoing.transient().optional(),
        Err(error) => {
            warn!(%error, "an answer cannot be written");
            return;
        }
    };
    if let Err(error) = publisher.send(Outgoing { correlation_id, ..outgoing }).await {
        debug!(%error, "an answer was not sent");
    }
}

fn outgoing(release: TaskPublish) -> Result<Outgoing, BodyError> {
    let TaskPublish { pool, is_wide, mut message } = release;
    let key = if is_wide { topology::wide_key(&pool) } else { topology::pool_key(&pool) };
    let mut body = Format::MessagePack.write(&message)?;
    if body.len() > SPEC_BYTES_MAX {
        (message.spec, message.start) = (None, Start::Ask);
        body = Format::MessagePack.write(&message)?;
    }
    let id = format!("{}:{}:{}", message.uid.0, message.attempt, message.fence.0);
    Ok(Outgoing { message_id: Some(id), body, ..Outgoing::message(topology::TASKS, key, &())? })
}

async fn release(link: Link, publisher: Publisher, engine: Engine, releases: Vec<TaskPublish>) {
    let mut keys: Vec<(PoolId, AttemptKey)> = Vec::with_capacity(releases.len());
    let mut messages = Vec::with_capacity(releases.len());
    let mut results = Vec::with_capacity(releases.len());
    for release in releases {
        let (pool, key) = (release.pool.clone(), release.message.key());
        match outgoing(release) {
            Ok(message) => {
                keys.push((pool, key));
                messages.push(message);
            }
            Err(error) => {
                warn!(%error, uid = key.uid.0, "a task message cannot be written");
                results.push((pool, key, false));
            }
        }
    }
    let mut unroutable: HashMap<PoolId, ()> = HashMap::new();
    for ((pool, key), result) in keys.into_iter().zip(publisher.publish_all(messages).await) {
        if let Err(error) = &result {
            debug!(%error, uid = key.uid.0, "a task was not published");
            if matches!(error, AmqpError::Returned { .. }) {
                unroutable.insert(pool.clone(), ());
            }
        }
        results.push((pool, key, result.is_ok()));
    }
    // Somebody deleted the queue; it is declared again before the retry.
    for pool in unroutable.keys() {
        warn!(%pool, "the pool's queue is missing and is declared again");
        if let Err(error) = declarer::declare(&link, pool).await {
            warn!(%pool, %error, "the pool's queues cannot be declared");
        }
    }
    if engine.put(Input::Published(results)).await.is_err() {
        debug!("the engine stopped before it got the result of a publish; tasks in the outbox are published again at the next start");
    }
}
