//! Sends answers to submissions: written from rows when they leave, published with a confirm, and repeated until they have one.

use std::collections::HashMap;

use api::submissions::show::{self, TAIL_BYTES_MAX};
use clients::{
    amqp::{AmqpError, Outgoing, Publisher},
    blobs::{BlobError, Blobs},
};
use contract::{
    body::{BodyError, Format},
    ids::{JobId, TaskUid},
    outcome::Stream,
};
use engine::Input;
use model::{
    refusal::{Code, Refusal},
    submission::{Answer, News, Reply},
};
use serde_json::Value;
use store::{errands::Place, rows::TaskRow};
use tokio::{sync::mpsc, task::JoinSet};
use tracing::{debug, warn};

use crate::submissions::parts::Parts;

/// Names for direct reply-to begin with this: they stand for a channel, and are no queues.
const DIRECT_REPLY_TO: &str = "amq.rabbitmq.reply-to.";
/// Batches of answers under way at most.
const BATCHES_MAX: usize = 8;

/// Sends what comes until the engine's outputs end.
pub(super) async fn run(parts: Parts, mut waiting: mpsc::Receiver<Vec<(u64, Answer)>>) {
    let publisher = parts.link.publisher();
    let mut batches: JoinSet<()> = JoinSet::new();
    while let Some(answers) = waiting.recv().await {
        while batches.len() >= BATCHES_MAX {
            batches.join_next().await;
        }
        batches.spawn(send(parts.clone(), publisher.clone(), answers));
        while batches.try_join_next().is_some() {}
    }
    while batches.join_next().await.is_some() {}
}

/// A message with an answer: `type` says of which kind it is.
pub(super) fn outgoing(reply: &Reply, kind: &str, body: &Value) -> Result<Outgoing, BodyError> {
    let format = if reply.is_json { Format::Json } else { Format::MessagePack };
    let mut outgoing = Outgoing::raw("", reply.queue.clone(), format.write(body)?, format).of_kind(kind);
    outgoing.correlation_id = reply.correlation_id.clone();
    if let Some(ignored) = &reply.ignored {
        outgoing = outgoing.header("piecework-ignored", ignored);
    }
    // RabbitMQ gives back every mandatory message to such a name as one that no queue takes, and delivers it all the same.
    Ok(if reply.queue.starts_with(DIRECT_REPLY_TO) { outgoing.optional() } else { outgoing })
}

async fn send(parts: Parts, publisher: Publisher, answers: Vec<(u64, Answer)>) {
    let uids = answers.iter().filter_map(|(_, answer)| match answer.news {
        News::Ended { uid, .. } => uid,
        News::Accepted { .. } => None,
    });
    let uids: Vec<TaskUid> = uids.collect();
    let rows = if uids.is_empty() { Ok(Vec::new()) } else { parts.read.tasks_by_number(uids).await };
    let mut results = Vec::with_capacity(answers.len());
    let (mut ids, mut messages) = (Vec::new(), Vec::new());
    match rows {
        Ok(rows) => {
            let rows: HashMap<TaskUid, (JobId, TaskRow)> = rows.into_iter().map(|(job, row)| (row.uid, (job, row))).collect();
            for (id, answer) in &answers {
                match write(&parts, answer, &rows).await {
                    Ok(message) => {
                        ids.push((*id, &answer.reply.queue));
                        messages.push(message);
                    }
                    Err(error) => {
                        warn!(queue = answer.reply.queue, %error, "an answer to a submission cannot be written and is not sent");
                        results.push((Place::Replies, *id, true));
                    }
                }
            }
        }
        Err(error) => {
            warn!(%error, count = answers.len(), "answers to submissions wait: the tasks' rows cannot be read");
            results.extend(answers.iter().map(|(id, _)| (Place::Replies, *id, false)));
        }
    }
    let sent = if messages.is_empty() { Vec::new() } else { publisher.publish_all(messages).await };
    for ((id, queue), sent) in ids.into_iter().zip(sent) {
        results.push((Place::Replies, id, is_over(queue, sent)));
    }
    if parts.engine.put(Input::Errands(results)).await.is_err() {
        debug!("the engine stopped before it learnt of answers; they are sent again after the next start");
    }
}

/// Whether an answer needs no further try.
fn is_over(queue: &str, sent: Result<(), AmqpError>) -> bool {
    match sent {
        Ok(()) => true,
        Err(AmqpError::Returned { .. }) => {
            debug!(queue, "the queue for an answer is gone; the answer is dropped");
            true
        }
        Err(error) if error.is_transient() => {
            debug!(queue, %error, "an answer was not sent yet; it is tried again");
            false
        }
        Err(AmqpError::Closed) => false,
        Err(error) => {
            warn!(queue, %error, "an answer cannot be sent and is dropped");
            true
        }
    }
}

async fn write(parts: &Parts, answer: &Answer, rows: &HashMap<TaskUid, (JobId, TaskRow)>) -> Result<Outgoing, BodyError> {
    let base = &parts.base;
    match &answer.news {
        News::Accepted { job, tasks, is_list } => outgoing(&answer.reply, "accepted", &show::accepted(base, job, tasks, *is_list)),
        News::Ended { job, task, uid } => match uid.and_then(|uid| rows.get(&uid)) {
            Some((job, row)) => {
                let (stdout, stderr) = tokio::join!(tail(&parts.blobs, &row.stdout), tail(&parts.blobs, &row.stderr));
                outgoing(&answer.reply, "completed", &show::ended(base, job, row, &stdout, &stderr))
            }
            None => {
                let refusal = Refusal::new(Code::TaskNotFound, "The specified task does not exist.").with("JobId", job);
                let refusal = refusal.with("TaskId", task).hint("It was deleted before its end could be told.");
                outgoing(&answer.reply, "refused", &show::refused(base, &refusal))
            }
        },
    }
}

/// The end of a stream that was kept; nothing of one that is on its node alone, or in a bucket that does not answer.
async fn tail(blobs: &Blobs, stream: &Stream) -> Vec<u8> {
    match stream {
        Stream::Empty | Stream::Node { .. } => Vec::new(),
        Stream::Inline { bytes } => bytes.clone(),
        Stream::Blob { key, bytes } => {
            // One byte more shows where a character begins.
            let from = bytes.saturating_sub(TAIL_BYTES_MAX as u64 + 1);
            let read: Result<_, BlobError> = blobs.get(&blobs.settings().own_bucket, key, Some(from..*bytes), TAIL_BYTES_MAX + 1).await;
            match read {
                Ok(bytes) => bytes.to_vec(),
                Err(error) => {
                    warn!(key, %error, "the end of a stream cannot be read; an answer comes without it");
                    Vec::new()
                }
            }
        }
    }
}
