//! Handles Ctrl-C and SIGTERM for commands that clean up after themselves, from before anything is made.

use std::{future::Future, io};

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Streams of both signals; one that comes between two waits is not missed.
pub(crate) struct Interrupts {
    interrupt: Signal,
    term: Signal,
}

impl Interrupts {
    /// Installs the handlers; from now on neither signal ends the process by itself.
    pub(crate) fn listen() -> io::Result<Interrupts> {
        Ok(Interrupts { interrupt: signal(SignalKind::interrupt())?, term: signal(SignalKind::terminate())? })
    }

    /// Waits for a signal.
    pub(crate) async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.term.recv() => {}
        }
    }

    /// Runs the work until it is done; `None` when a signal came first, and the work is dropped then.
    pub(crate) async fn unless<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            done = work => Some(done),
            () = self.wait() => None,
        }
    }
}
