//! Threads that start processes and wait for them, one for each busy slot: the cheapest way that was measured.
//!
//! Threads are made on demand and end after a while without work. Work that panics costs neither its thread nor the
//! panic's message.

use std::{
    any::Any,
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use thiserror::Error;
use tokio::sync::oneshot;

use crate::process::umask;

/// Small, because the threads only make system calls.
const STACK_BYTES: usize = 256 * 1024;
/// An idle thread ends after this long.
const IDLE_MAX: Duration = Duration::from_secs(20);

type Work = Box<dyn FnOnce() + Send>;

/// The message of work that panicked, which is a bug of the program.
#[derive(Debug, Error)]
#[error("internal error: {0}")]
pub struct Panicked(String);

impl Panicked {
    fn new(payload: &(dyn Any + Send)) -> Panicked {
        let text = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        Panicked(text.unwrap_or("it did not say why").to_owned())
    }
}

/// A pool of threads.
#[derive(Clone)]
pub struct Threads(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    threads_max: usize,
    nice: Option<i32>,
    umask: Option<u32>,
}

#[derive(Default)]
struct State {
    work: VecDeque<Work>,
    threads: usize,
    idle: usize,
}

impl Threads {
    /// Makes a pool of at most this many threads, at this niceness and with this umask, which the started processes
    /// inherit.
    pub fn new(threads_max: usize, nice: Option<i32>, umask: Option<u32>) -> Threads {
        let state = Mutex::new(State::default());
        Threads(Arc::new(Shared { state, wake: Condvar::new(), threads_max: threads_max.max(1), nice, umask }))
    }

    /// A second pool of the same kind, so that neither waits for the other.
    pub fn beside(&self, threads_max: usize) -> Threads {
        Threads::new(threads_max, self.0.nice, self.0.umask)
    }

    /// Runs work on a thread; it waits while all threads are busy, so callers have at most as many pieces as slots.
    pub fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> std::io::Result<oneshot::Receiver<Result<T, Panicked>>> {
        let (done, result) = oneshot::channel();
        let mut state = self.0.lock();
        state.work.push_back(Box::new(move || {
            let result = catch_unwind(AssertUnwindSafe(work)).map_err(|payload| Panicked::new(&*payload));
            // Fails only when the whole agent has ended.
            done.send(result).ok();
        }));
        if state.idle >= state.work.len() {
            self.0.wake.notify_one();
        } else if state.threads < self.0.threads_max {
            let shared = self.0.clone();
            let spawned = std::thread::Builder::new().name("process".into()).stack_size(STACK_BYTES).spawn(move || shared.serve());
            match spawned {
                Ok(_) => state.threads += 1,
                Err(error) if state.threads == 0 => {
                    state.work.pop_back();
                    return Err(error);
                }
                Err(error) => tracing::warn!(%error, "cannot start a thread for processes; the work waits for a busy one"),
            }
        }
        Ok(result)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self) {
        if let Some(nice) = self.nice
            && let Err(error) = rustix::process::setpriority_process(None, nice)
        {
            tracing::warn!(%error, nice, "cannot set the niceness of tasks; they run with the agent's own");
        }
        if let Some(mask) = self.umask {
            umask::of_this_thread(mask);
        }
        let mut state = self.lock();
        loop {
            if let Some(work) = state.work.pop_front() {
                drop(state);
                work();
                state = self.lock();
                continue;
            }
            state.idle += 1;
            let (next, waited) = self.wake.wait_timeout(state, IDLE_MAX).unwrap_or_else(PoisonError::into_inner);
            state = next;
            state.idle -= 1;
            if waited.timed_out() && state.work.is_empty() {
                state.threads -= 1;
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn as_many_pieces_run_at_once_as_there_are_threads() {
        let threads = Threads::new(3, None, None);
        let barrier = Arc::new(std::sync::Barrier::new(3));
        let (done, ended) = mpsc::channel();
        for round in 0..9 {
            let (barrier, done) = (barrier.clone(), done.clone());
            threads
                .run(move || {
                    barrier.wait();
                    done.send(round).unwrap();
                })
                .unwrap();
        }
        let mut rounds: Vec<i32> = ended.iter().take(9).collect();
        rounds.sort_unstable();
        assert_eq!(rounds, (0..9).collect::<Vec<_>>());
        assert!(threads.0.lock().threads <= 3);
    }

    #[test]
    fn work_that_panics_says_why_and_its_thread_goes_on() {
        let threads = Threads::new(1, None, None);
        for number in 1..=2 {
            let failed = threads.run(move || assert!(number > 2, "work {number} fails")).unwrap();
            let error = failed.blocking_recv().unwrap().unwrap_err();
            assert_eq!(error.to_string(), format!("internal error: work {number} fails"));
        }
        assert_eq!(threads.run(|| 7).unwrap().blocking_recv().unwrap().unwrap(), 7);
        assert_eq!(threads.0.lock().threads, 1);
    }
}
