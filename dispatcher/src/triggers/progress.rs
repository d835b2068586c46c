//! Stores what a trigger's worker did, and tries again while the store takes no changes.

use std::time::Duration;

use contract::ids::TriggerId;
use engine::{Engine, command::Command};
use model::{
    condition::Condition,
    refusal::{Code, Refusal},
    trigger::{Advance, TriggerChange},
};
use tokio::{sync::watch, time::sleep};
use tracing::{debug, warn};

/// Before a step that could not be stored is tried again; doubled with each try.
const PAUSE: Duration = Duration::from_millis(100);
/// Before it is tried again at most.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// The worker must end: its trigger is gone, or the dispatcher stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ended;

/// Where a worker's steps are stored.
pub(super) struct Progress {
    engine: Engine,
    id: TriggerId,
    uid: u64,
    stop: watch::Receiver<bool>,
    /// The last fault that was stored, so that one that lasts is stored once.
    fault: String,
}

impl Progress {
    pub(super) fn new(engine: Engine, (id, uid): (TriggerId, u64), stop: watch::Receiver<bool>) -> Progress {
        Progress { engine, id, uid, stop, fault: String::new() }
    }

    /// Stores a step; returns once it is stored.
    pub(super) async fn store(&mut self, step: Advance) -> Result<(), Ended> {
        let mut tries = 0;
        loop {
            let command = Command::AdvanceTrigger(self.id.clone(), self.uid, Box::new(step.clone()));
            let refusal = match self.engine.call(command).await {
                Ok(_) => return Ok(()),
                Err(refusal) if refusal.code == Code::TriggerNotFound => return Err(Ended),
                Err(refusal) => refusal,
            };
            debug!(trigger = %self.id, %refusal, "what a trigger did is not stored yet; it is tried again");
            tokio::select! {
                () = sleep(PAUSE_MAX.min(PAUSE * 2u32.pow(tries))) => {}
                _ = self.stop.wait_for(|stop| *stop) => return Err(Ended),
            }
            tries = (tries + 1).min(16);
        }
    }

    /// Stores a fault, unless it is the same as before.
    pub(super) async fn fault(&mut self, reason: String) -> Result<(), Ended> {
        if self.fault == reason {
            return Ok(());
        }
        self.fault.clone_from(&reason);
        self.store(Advance { error: Some(reason), ..Advance::default() }).await
    }

    /// A fault that comes after this one is stored, even if it is the same.
    pub(super) fn recovered(&mut self) {
        self.fault.clear();
    }

    /// Pauses the trigger because something is wrong with it.
    pub(super) async fn halt(&mut self, reason: String) -> Result<(), Ended> {
        warn!(trigger = %self.id, reason, "a trigger is paused");
        self.fault(reason).await?;
        let pause = Command::ChangeTrigger(self.id.clone(), Box::new(TriggerChange::Pause), Condition::default());
        match self.engine.call(pause).await {
            Ok(_) => Ok(()),
            Err(Refusal { code: Code::TriggerNotFound, .. }) => Err(Ended),
            Err(refusal) => {
                debug!(trigger = %self.id, %refusal, "a trigger could not be paused yet");
                Ok(())
            }
        }
    }
}
