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

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::events::{Asked, Happening};

    fn event(number: usize) -> Event {
        Event {
            what: Happening::Deleted,
            bucket: "b".to_owned(),
            key: number.to_string(),
            content: None,
            at_ms: 0,
            sequencer: String::new(),
            asked: Asked { id: String::new(), arn: String::new() },
            region: String::new(),
        }
    }

    #[test]
    fn a_slow_callback_loses_the_newest_events_and_never_holds_up_the_writer() {
        let (tell, told) = channel();
        let (release, held) = channel::<()>();
        let held = Mutex::new(held);
        let (mut teller, thread) = Teller::start(Some(Arc::new(move |event: Event| {
            tell.send(event.key).unwrap();
            // Ends at once when the test has dropped its half.
            let _ = held.lock().unwrap().recv();
        })))
        .unwrap();
        teller.tell(event(0));
        assert_eq!(told.recv().unwrap(), "0");
        // The callback holds the first event, so the queue is empty.
        for number in 1..=EVENTS_MAX + 3 {
            teller.tell(event(number));
        }
        assert_eq!(teller.dropped, 3);
        drop(release);
        drop(teller);
        thread.unwrap().join().unwrap();
        let rest: Vec<_> = told.iter().collect();
        assert_eq!((rest.len(), rest.last().map(String::as_str)), (EVENTS_MAX, Some(EVENTS_MAX.to_string().as_str())));
    }

    #[test]
    fn a_callback_that_panics_is_called_again() {
        let (tell, told) = channel();
        let (mut teller, thread) = Teller::start(Some(Arc::new(move |event: Event| {
            tell.send(event.key.clone()).unwrap();
            assert_ne!(event.key, "0", "a panic that the test wants");
        })))
        .unwrap();
        teller.tell(event(0));
        teller.tell(event(1));
        drop(teller);
        thread.unwrap().join().unwrap();
        assert_eq!(told.iter().collect::<Vec<_>>(), ["0", "1"]);
    }
}
