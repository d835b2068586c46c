//! The thread that calls the owner's callback. Fed by the writer after each commit, without ever waiting:
//! when the callback falls so far behind that the queue is full, events are dropped, counted and logged.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use crate::events::{Event, OnEvent};

/// Events that wait for the callback at most.
const EVENTS_MAX: usize = 8 * 1024;

/// The writer's end of the queue; the thread ends when it is dropped and the queue is empty.
#[derive(Debug)]
pub(crate) struct Teller {
    queue: Option<SyncSender<Event>>,
    dropped: u64,
}

impl Teller {
    /// Starts the thread, when there is somebody to tell.
    pub(crate) fn start(on_event: Option<OnEvent>) -> io::Result<(Self, Option<JoinHandle<()>>)> {
        let Some(on_event) = on_event else { return Ok((Self { queue: None, dropped: 0 }, None)) };
        let (queue, events) = sync_channel(EVENTS_MAX);
        let thread = std::thread::Builder::new().name("blobs-events".to_owned()).spawn(move || {
            for event in events {
                if catch_unwind(AssertUnwindSafe(|| on_event(event))).is_err() {
                    tracing::warn!("the callback for events panicked");
                }
            }
        })?;
        Ok((Self { queue: Some(queue), dropped: 0 }, Some(thread)))
    }

    /// True when somebody listens.
    pub(crate) fn is_heard(&self) -> bool {
        self.queue.is_some()
    }

    /// Hands an event over, or drops it when the callback is too far behind.
    pub(crate) fn tell(&mut self, event: Event) {
        let Some(queue) = &self.queue else { return };
        match queue.try_send(event) {
            Ok(()) if self.dropped > 0 => {
                tracing::warn!(dropped = self.dropped, "events were dropped, because the callback was too slow");
                self.dropped = 0;
            }
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                if self.dropped == 0 {
                    tracing::warn!("the callback for events is too slow, dropping events");
                }
                self.dropped += 1;
            }
            Err(TrySendError::Disconnected(_)) => tracing::warn!("the thread that tells of events has ended"),
        }
    }
}
