//! Handles Ctrl-C and SIGTERM for commands that clean up after themselves, from before anything is made.

use std::{future::Future, io, pin::pin};

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Streams of both signals; one that comes between two waits is not missed.
pub(crate) struct Interrupts {
    interrupt: Signal,
    term: Signal,
    /// Whether one has come.
    has_come: bool,
}

impl Interrupts {
    /// Installs the handlers; from now on neither signal ends the process by itself.
    pub(crate) fn listen() -> io::Result<Interrupts> {
        Ok(Interrupts { interrupt: signal(SignalKind::interrupt())?, term: signal(SignalKind::terminate())?, has_come: false })
    }

    /// Waits for a signal.
    pub(crate) async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.term.recv() => {}
        }
        self.has_come = true;
    }

    /// Removes what a command has made, which `made` names. The first signal meanwhile is answered by what goes on; the
    /// next one ends it at once, and what is left is named: `None` then.
    pub(crate) async fn finish<T>(&mut self, made: impl Fn() -> String, removal: impl Future<Output = T>) -> Option<T> {
        if self.has_come {
            eprintln!("interrupted; removing {}", made());
        }
        let mut removal = pin!(removal);
        if let Some(done) = self.unless(&mut removal).await {
            return Some(done);
        }
        eprintln!("still removing {} (Ctrl-C again ends at once and leaves it)", made());
        let done = self.unless(removal).await;
        if done.is_none() {
            eprintln!("ended at once; this may be left: {}", made());
        }
        done
    }

    /// Runs the work until it is done; `None` when a signal came first, and the work is dropped then.
    pub(crate) async fn unless<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            done = work => Some(done),
            () = self.wait() => None,
        }
    }
}
