//! OS threads that start processes and wait for them: the cheapest way there is, one thread per busy slot.
//!
//! Threads are made when there is work and none is free, and end after a while without any.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Small, for all they do is call the system.
const STACK_BYTES: usize = 256 * 1024;
/// A thread without work ends after this long.
const IDLE_MAX: Duration = Duration::from_secs(20);

type Work = Box<dyn FnOnce() + Send>;

/// The threads.
#[derive(Clone)]
pub struct Threads(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    threads_max: usize,
    nice: Option<i32>,
}

#[derive(Default)]
struct State {
    work: VecDeque<Work>,
    threads: usize,
    idle: usize,
}

impl Threads {
    /// At most this many threads, at this niceness, which the processes they start inherit.
    pub fn new(threads_max: usize, nice: Option<i32>) -> Threads {
        let state = Mutex::new(State::default());
        Threads(Arc::new(Shared { state, wake: Condvar::new(), threads_max: threads_max.max(1), nice }))
    }

    /// Hands over work; it waits when all threads are busy, and the caller has as many pieces as slots.
    pub fn run(&self, work: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
        let mut state = self.0.lock();
        state.work.push_back(Box::new(work));
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
                Err(error) => tracing::warn!(%error, "no further thread for processes"),
            }
        }
        Ok(())
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
            tracing::warn!(%error, nice, "cannot change the priority of tasks");
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
        let threads = Threads::new(3, None);
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
}
