//! The server of a command: the configured one, or a temporary stack for as long as the command runs.

use std::{io, time::Duration};

use anyhow::Context;
use broker_config::{
    removal,
    settings::{BlobSettings, BrokerSettings},
    topology,
};
use clients::{
    amqp::{AmqpError, Link},
    blobs::Blobs,
};
use tempfile::TempDir;

use crate::{
    client::Client,
    exit_codes::{Failure, USAGE},
    interrupts::Interrupts,
    settings::{self, Server, ServerArgs},
    stack::{Stack, StackSettings, named},
};

/// Times that a folder is removed at most.
const REMOVE_TRIES: u32 = 10;
/// Pause before it is looked at and removed again.
const REMOVE_AGAIN: Duration = Duration::from_millis(300);

/// The server of a command; close it when done.
pub(crate) struct Session {
    pub(crate) client: Client,
    blobs: Option<BlobSettings>,
    broker: Option<BrokerSettings>,
    own: Option<(Stack, TempDir)>,
    /// Set when the broker is external and had nothing of ours before.
    cleans_broker: bool,
}

impl Session {
    /// Opens the configured server, or starts a stack in a temporary folder; `None` when a signal came first.
    pub(crate) async fn open(args: &ServerArgs, interrupts: &mut Interrupts) -> anyhow::Result<Option<Session>> {
        match args.find()? {
            Some(Server { client, blobs, broker }) => Ok(Some(Session { client, blobs, broker, own: None, cleans_broker: false })),
            None => Session::start(StackSettings::default(), interrupts).await,
        }
    }

    /// Starts a stack with a temporary data folder; `None` when a signal came first, and what was begun is removed
    /// then.
    pub(crate) async fn start(given: StackSettings, interrupts: &mut Interrupts) -> anyhow::Result<Option<Session>> {
        let folder = tempfile::Builder::new().prefix("piecework-").tempdir().context("cannot make a temporary folder")?;
        let given_broker = given.broker.as_deref().map(settings::broker);
        let cleans_broker = match &given.broker {
            Some(url) => match interrupts.unless(is_used(url)).await {
                Some(is_used) => !is_used?,
                None => return Ok(None),
            },
            None => false,
        };
        let settings = StackSettings { data: folder.path().to_owned(), ..given };
        let stack = match Stack::start(settings, interrupts.wait()).await {
            Ok(Some(stack)) => stack,
            other => {
                let path = folder.path().to_owned();
                let made = || format!("the temporary folder {}, and queues on a broker that was given", path.display());
                interrupts.finish(made, remove(given_broker.filter(|_| cleans_broker), folder)).await;
                return other.map(|_| None);
            }
        };
        let (client, blobs) = (stack.client()?, Some(stack.ready.blobs()));
        let broker = Some(settings::broker(&stack.ready.broker));
        Ok(Some(Session { client, blobs, broker, own: Some((stack, folder)), cleans_broker }))
    }

    /// Whether the stack belongs to this command alone.
    pub(crate) fn is_own(&self) -> bool {
        self.own.is_some()
    }

    /// The broker, if its address is known.
    pub(crate) fn broker(&self) -> Option<&BrokerSettings> {
        self.broker.as_ref()
    }

    /// The blob store, if its address is known.
    pub(crate) fn blob_settings(&self) -> Option<&BlobSettings> {
        self.blobs.as_ref()
    }

    /// The blob store, and the bucket for users' files.
    pub(crate) fn blobs(&self) -> anyhow::Result<(Blobs, String)> {
        let hint = "give --server READY_FILE, or --s3 URL";
        let settings = self.blobs.clone().ok_or_else(|| Failure::new(USAGE, "the server's blob store is not known", hint))?;
        let bucket = settings.bucket.clone();
        Ok((Blobs::new(settings)?, bucket))
    }

    /// Stops and removes what was started for this session.
    pub(crate) async fn close(self) {
        if let Some((stack, folder)) = self.own {
            stack.stop(Duration::ZERO).await;
            remove(self.broker.filter(|_| self.cleans_broker), folder).await;
        }
    }
}

/// Removes what a stack leaves on an external broker, and its folder.
async fn remove(broker: Option<BrokerSettings>, folder: TempDir) {
    if let Some(broker) = broker
        && let Err(error) = remove_topology(broker).await
    {
        tracing::warn!(%error, "cannot remove the exchanges and queues from the broker; the next start there uses them");
    }
    let path = folder.path();
    for _ in 0..REMOVE_TRIES {
        // A part that was still starting may make a file once more: the folder is gone when it is not there after a pause.
        match removal::folder(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => tracing::debug!(%error, path = %path.display(), "the temporary folder is not removed yet"),
            Ok(()) => {}
        }
        tokio::time::sleep(REMOVE_AGAIN).await;
    }
    if path.exists() {
        tracing::warn!(path = %path.display(), "cannot remove the temporary folder of this run; remove it by hand");
    }
}

/// Whether a dispatcher ever used this broker.
async fn is_used(broker: &str) -> Result<bool, AmqpError> {
    let link = Link::open(named(broker, "piecework")).await?;
    let depth = link.depth(topology::EVENT_QUEUE).await;
    link.close().await;
    Ok(depth?.is_some())
}

/// Removes what the dispatcher declares for itself.
async fn remove_topology(broker: BrokerSettings) -> Result<(), AmqpError> {
    let link = Link::open(broker).await?;
    let left = link.undeclare_unused(&topology::base()).await;
    link.close().await;
    left
}
