//! The thread that calls the owner's callback. The writer queues events after each commit, without ever waiting:
//! when the callback is so slow that the queue is full, events are dropped, counted and logged.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use crate::events::{Event, OnEvent};

/// Events that wait for the callback, at most.
const EVENTS_MAX: usize = 8 * 1024;

/// The writer's end of the queue; the thread ends when it is dropped and the queue is empty.
#[derive(Debug)]
pub(crate) struct Notifier {
    queue: Option<SyncSender<Event>>,
    dropped: u64,
}

impl Notifier {
    /// Starts the thread, if there is a callback.
    pub(crate) fn start(on_event: Option<OnEvent>) -> io::Result<(Self, Option<JoinHandle<()>>)> {
        let Some(on_event) = on_event else { return Ok((Self { queue: None, dropped: 0 }, None)) };
        let (queue, events) = sync_channel(EVENTS_MAX);
        let thread = std::thread::Builder::new().name("blobs-events".to_owned()).spawn(move || {
            for event in events {
                if catch_unwind(AssertUnwindSafe(|| on_event(event))).is_err() {
                    tracing::warn!("the callback for blob events panicked; this event is lost");
                }
            }
        })?;
        Ok((Self { queue: Some(queue), dropped: 0 }, Some(thread)))
    }

    /// True when there is a callback.
    pub(crate) fn has_callback(&self) -> bool {
        self.queue.is_some()
    }

    /// Queues an event, or drops it when the queue is full.
    pub(crate) fn notify(&mut self, event: Event) {
        let Some(queue) = &self.queue else { return };
        match queue.try_send(event) {
            Ok(()) if self.dropped > 0 => {
                tracing::warn!(dropped = self.dropped, "blob events were dropped, because their callback was too slow");
                self.dropped = 0;
            }
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                if self.dropped == 0 {
                    tracing::warn!("the callback for blob events is too slow; events are dropped until it catches up");
                }
                self.dropped += 1;
            }
            Err(TrySendError::Disconnected(_)) => tracing::warn!("the thread for blob events has ended; an event is lost"),
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
        let (sender, received) = channel();
        let (release, held) = channel::<()>();
        let held = Mutex::new(held);
        let (mut notifier, thread) = Notifier::start(Some(Arc::new(move |event: Event| {
            sender.send(event.key).unwrap();
            // Ends at once when the test has dropped its half.
            let _ = held.lock().unwrap().recv();
        })))
        .unwrap();
        notifier.notify(event(0));
        assert_eq!(received.recv().unwrap(), "0");
        // The callback holds the first event, so the queue is empty.
        for number in 1..=EVENTS_MAX + 3 {
            notifier.notify(event(number));
        }
        assert_eq!(notifier.dropped, 3);
        drop(release);
        drop(notifier);
        thread.unwrap().join().unwrap();
        let rest: Vec<_> = received.iter().collect();
        assert_eq!((rest.len(), rest.last().map(String::as_str)), (EVENTS_MAX, Some(EVENTS_MAX.to_string().as_str())));
    }

    #[test]
    fn a_callback_that_panics_is_called_again() {
        let (sender, received) = channel();
        let (mut notifier, thread) = Notifier::start(Some(Arc::new(move |event: Event| {
            sender.send(event.key.clone()).unwrap();
            assert_ne!(event.key, "0", "a panic that the test wants");
        })))
        .unwrap();
        notifier.notify(event(0));
        notifier.notify(event(1));
        drop(notifier);
        thread.unwrap().join().unwrap();
        assert_eq!(received.iter().collect::<Vec<_>>(), ["0", "1"]);
    }
}
