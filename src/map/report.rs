//! Reports the results: printed outputs in the inputs' order, failures with the end of their stderr, a summary.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    time::Duration,
};

use serde_json::json;

use super::item::Item;
use crate::{
    client::Client,
    output::{Output, bytes, plain},
    tail::Tail,
};

/// Bytes of a stdout that is printed at most.
pub(crate) const STREAM_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Bytes and lines of a failure's stderr.
const STDERR_BYTES: u64 = 4 * 1024;
const STDERR_LINES: usize = 10;

/// The result of one input.
#[derive(Debug)]
pub(crate) enum Outcome {
    Done { bytes: u64 },
    Printed(Vec<u8>),
    Failed { reason: String, stderr: String },
}

impl Outcome {
    pub(crate) fn failed(reason: impl Into<String>) -> Outcome {
        Outcome::Failed { reason: reason.into(), stderr: String::new() }
    }
}

/// The results of all inputs, by task.
pub(crate) struct Report {
    outcomes: BTreeMap<String, Outcome>,
    skipped: usize,
}

impl Report {
    pub(crate) fn new(skipped: usize) -> Report {
        Report { outcomes: BTreeMap::new(), skipped }
    }

    pub(crate) fn note(&mut self, id: String, outcome: Outcome) {
        self.outcomes.insert(id, outcome);
    }

    pub(crate) fn knows(&self, id: &str) -> bool {
        self.outcomes.contains_key(id)
    }

    pub(crate) fn ended(&self) -> usize {
        self.outcomes.len()
    }

    pub(crate) fn failed(&self) -> usize {
        self.outcomes.values().filter(|outcome| matches!(outcome, Outcome::Failed { .. })).count()
    }

    pub(crate) fn show(&self, items: &[Item], took: Duration, out: &dyn Output) -> io::Result<()> {
        let (mut failures, mut total) = (vec![], 0);
        for item in items {
            match self.outcomes.get(&item.id) {
                Some(Outcome::Printed(text)) => {
                    let mut to = io::stdout().lock();
                    to.write_all(text)?;
                    to.flush()?;
                }
                Some(Outcome::Done { bytes }) => total += bytes,
                Some(Outcome::Failed { reason, stderr }) => {
                    eprintln!("failed: {}: {}", plain(&item.name), plain(reason));
                    for line in stderr.lines() {
                        eprintln!("    {}", plain(line));
                    }
                    failures.push(json!({ "input": item.name, "reason": reason, "stderr": stderr }));
                }
                None => {}
            }
        }
        let done = self.ended() - failures.len();
        let open = items.len() - self.ended();
        let mut sum = format!("{done} of {} done", items.len());
        for (count, what) in [(failures.len(), "failed"), (open, "not finished"), (self.skipped, "there already")] {
            if count > 0 {
                sum.push_str(&format!(", {count} {what}"));
            }
        }
        eprintln!("{sum}, {} written, in {:.1} s", bytes(total), took.as_secs_f64());
        let is_printed = self.outcomes.values().any(|outcome| matches!(outcome, Outcome::Printed(_)));
        if is_printed {
            return Ok(());
        }
        out.summary(&json!({
            "done": done, "failed": failures.len(), "unfinished": open, "skipped": self.skipped,
            "bytes": total, "seconds": took.as_secs_f64(), "failures": failures,
        }))
    }
}

/// The end of a failed task's stderr; empty when the file is gone.
pub(crate) async fn stderr_end(client: &Client, job: &str, task: &str) -> String {
    let text = stream_of(client, job, task, "stderr.txt", STDERR_BYTES).await;
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(STDERR_LINES)..].join("\n")
}

/// The last bytes of a task's file; empty when the file is gone.
pub(crate) async fn stream_of(client: &Client, job: &str, task: &str, file: &str, bytes_max: u64) -> Vec<u8> {
    let mut tail = Tail::new(job, task, file);
    let read = async {
        tail.seek_end(client, bytes_max).await?;
        let mut text = vec![];
        loop {
            let more = tail.next(client).await?;
            if more.is_empty() || text.len() as u64 >= bytes_max {
                return Ok::<_, crate::client::ClientError>(text);
            }
            text.extend_from_slice(&more);
        }
    };
    read.await.unwrap_or_else(|error| {
        tracing::warn!(job, task, file, error = %error, "cannot read a file of a task; the report shows it as empty");
        vec![]
    })
}
