//! The only thread that changes the catalogue. Writes that arrive during a commit share the next one.
//! Each write is independent inside the group: a refused one is rolled back and the others are not.

use std::io;
use std::thread::JoinHandle;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use crate::error::Error;
use crate::events::Event;
use crate::files::Fresh;
use crate::notifier::Notifier;
use crate::reaper::{Cleanup, Reaper};

const QUEUE_MAX: usize = 1024;
const GROUP_MAX: usize = 256;

type Reply = Box<dyn FnOnce(Result<(), &str>) + Send>;
type Job = Box<dyn FnOnce(&Connection, After) -> (Option<After>, Reply) + Send>;

/// Follow-up work of a write, done after its commit.
#[derive(Debug, Default)]
pub(crate) struct After {
    cleanups: Vec<Cleanup>,
    fresh: Vec<Fresh>,
    events: Vec<Event>,
    has_callback: bool,
    sequence: i64,
}

impl After {
    /// True when there is a callback for events.
    pub(crate) fn has_callback(&self) -> bool {
        self.has_callback
    }

    /// The write's number in the order of commits.
    pub(crate) fn sequence(&self) -> i64 {
        self.sequence
    }

    /// Adds an event for the callback.
    pub(crate) fn event(&mut self, event: Event) {
        self.events.push(event);
    }

    /// Adds work for the reaper.
    pub(crate) fn cleanup(&mut self, cleanup: Cleanup) {
        self.cleanups.push(cleanup);
    }

    /// Keeps a file that the write has named in a row.
    pub(crate) fn keep(&mut self, fresh: impl IntoIterator<Item = Fresh>) {
        self.fresh.extend(fresh);
    }
}

/// The parts that the thread needs after a commit.
#[derive(Debug)]
pub(crate) struct Follow {
    pub(crate) reaper: Reaper,
    pub(crate) notifier: Notifier,
    pub(crate) region: String,
    pub(crate) next_sequence: i64,
}

impl Follow {
    fn after(&mut self) -> After {
        self.next_sequence += 1;
        After { has_callback: self.notifier.has_callback(), sequence: self.next_sequence - 1, ..After::default() }
    }
}

/// A handle to the writer's queue.
#[derive(Clone, Debug)]
pub(crate) struct Writer {
    jobs: mpsc::Sender<Job>,
}

impl Writer {
    /// Starts the thread; it ends when the last handle is dropped.
    pub(crate) fn start(connection: Connection, follow: Follow) -> io::Result<(Self, JoinHandle<()>)> {
        let (jobs, queue) = mpsc::channel(QUEUE_MAX);
        let thread = std::thread::Builder::new().name("blobs-writer".to_owned()).spawn(move || work(queue, &connection, follow))?;
        Ok((Self { jobs }, thread))
    }

    /// Runs one write and returns once it is safe on disk.
    pub(crate) async fn run<T, W>(&self, write: W) -> Result<T, Error>
    where
        T: Send + 'static,
        W: FnOnce(&Connection, &mut After) -> Result<T, Error> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |connection, mut after| {
            let outcome = write(connection, &mut after);
            let after = outcome.is_ok().then_some(after);
            let reply: Reply = Box::new(move |commit| {
                let outcome = match commit {
                    Ok(()) => outcome,
                    Err(reason) => Err(Error::Commit { reason: reason.to_owned() }),
                };
                if reply.send(outcome).is_err() {
                    tracing::debug!("a write finished after its client had disconnected");
                }
            });
            (after, reply)
        });
        self.jobs.send(job).await.map_err(|_| Error::Stopping)?;
        answer.await.map_err(|_| Error::Stopping)?
    }
}

fn work(mut queue: mpsc::Receiver<Job>, connection: &Connection, mut follow: Follow) {
    while let Some(first) = queue.blocking_recv() {
        let mut done = Vec::with_capacity(1);
        let mut kept = Vec::new();
        let commit = commit_group(connection, first, (&mut queue, &mut follow), &mut done, &mut kept);
        if let Err(error) = &commit {
            tracing::error!(%error, "a commit of the embedded blob store failed; its writes are answered with errors");
            if !connection.is_autocommit()
                && let Err(error) = connection.execute_batch("ROLLBACK")
            {
                tracing::error!(%error, "a failed commit of the embedded blob store could not be rolled back");
            }
        }
        let reason = commit.as_ref().err().map(ToString::to_string);
        for reply in done {
            reply(reason.as_deref().map_or(Ok(()), Err));
        }
        for after in kept {
            // After a failed commit it is unknown which rows reached the disk, so the files stay for the sweep at the next start.
            after.fresh.into_iter().for_each(Fresh::keep);
            if commit.is_ok() {
                after.cleanups.into_iter().for_each(|cleanup| follow.reaper.queue(cleanup));
                for event in after.events {
                    follow.notifier.notify(Event { region: follow.region.clone(), ..event });
                }
            }
        }
    }
    follow.reaper.finish();
}

fn commit_group(
    connection: &Connection,
    first: Job,
    (queue, follow): (&mut mpsc::Receiver<Job>, &mut Follow),
    done: &mut Vec<Reply>,
    kept: &mut Vec<After>,
) -> rusqlite::Result<()> {
    connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
    let mut next = Some(first);
    while let Some(job) = next.take() {
        connection.prepare_cached("SAVEPOINT one")?.execute([])?;
        let (after, reply) = job(connection, follow.after());
        done.push(reply);
        match after {
            Some(after) => kept.push(after),
            None => {
                connection.prepare_cached("ROLLBACK TO one")?.execute([])?;
            }
        }
        connection.prepare_cached("RELEASE one")?.execute([])?;
        if done.len() < GROUP_MAX {
            next = queue.try_recv().ok();
        }
    }
    connection.prepare_cached("COMMIT")?.execute([])?;
    Ok(())
}
