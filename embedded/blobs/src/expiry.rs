//! Applies lifecycle rules: checks them periodically, and deletes due objects in small writes.
//! Started by the server beside its connections; ends with them.

use std::time::{Duration, UNIX_EPOCH};

use tokio::time::{MissedTickBehavior, interval};

use crate::catalog::Readers;
use crate::configurations::{self, Kind};
use crate::error::Error;
use crate::lifecycle::{Lifecycle, Rule, due_objects, due_uploads};
use crate::multipart;
use crate::objects;
use crate::settings::Clock;
use crate::writer::Writer;

/// Objects or uploads that one write deletes at most, so that clients' writes are not held up.
const DUE_MAX: usize = 256;

/// The periodic check of lifecycle rules.
#[derive(Clone)]
pub(crate) struct Expiry {
    pub(crate) readers: Readers,
    pub(crate) writer: Writer,
    pub(crate) clock: Clock,
    pub(crate) period: Duration,
}

impl Expiry {
    /// Checks the rules periodically, until the task is dropped.
    pub(crate) async fn run(self) {
        let mut ticks = interval(self.period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            match self.expire_due().await {
                Ok((0, 0)) => {}
                Ok((objects, uploads)) => {
                    tracing::info!(objects, uploads, "lifecycle rules deleted objects and aborted unfinished uploads")
                }
                Err(Error::Stopping) => return,
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "lifecycle rules could not be applied; the next check tries again"
                    )
                }
            }
        }
    }

    async fn expire_due(&self) -> Result<(usize, usize), Error> {
        let since = (self.clock)().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now_ms = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
        let configured = self.readers.run(|connection| configurations::all::<Lifecycle>(connection, Kind::Lifecycle)).await?;
        let (mut objects, mut uploads) = (0, 0);
        for (bucket, lifecycle) in configured {
            for rule in lifecycle.rules.into_iter().filter(|rule| rule.is_enabled) {
                objects += self.expire(bucket, &rule, now_ms).await?;
                uploads += self.abort(bucket, &rule, now_ms).await?;
            }
        }
        Ok((objects, uploads))
    }

    async fn expire(&self, bucket: i64, rule: &Rule, now_ms: i64) -> Result<usize, Error> {
        let mut expired = 0;
        let mut above = String::new();
        loop {
            let (asked, from) = (rule.clone(), above);
            let due = self.readers.run(move |connection| due_objects(connection, bucket, &asked, now_ms, &from, DUE_MAX)).await?;
            let Some(last) = due.last() else { return Ok(expired) };
            above = last.key.clone();
            let is_last = due.len() < DUE_MAX;
            expired += self
                .writer
                .run(move |connection, after| {
                    let mut gone = 0;
                    for due in due {
                        gone += usize::from(objects::expire(connection, after, bucket, &due.key, due.content)?);
                    }
                    Ok(gone)
                })
                .await?;
            if is_last {
                return Ok(expired);
            }
        }
    }

    async fn abort(&self, bucket: i64, rule: &Rule, now_ms: i64) -> Result<usize, Error> {
        let mut aborted = 0;
        loop {
            let asked = rule.clone();
            let due = self.readers.run(move |connection| due_uploads(connection, bucket, &asked, now_ms, DUE_MAX)).await?;
            if due.is_empty() {
                return Ok(aborted);
            }
            aborted += due.len();
            let drop_all = move |connection: &rusqlite::Connection, after: &mut crate::writer::After| {
                due.into_iter().try_for_each(|upload| multipart::abort(connection, after, upload))
            };
            self.writer.run(drop_all).await?;
        }
    }
}
