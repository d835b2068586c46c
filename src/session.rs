//! A server to work with: the configured one, or a stack of our own for as long as the work takes.

use std::time::Duration;

use anyhow::Context;
use broker_config::{
    blobs::Blobs,
    settings::{BlobSettings, BrokerSettings},
};
use tempfile::TempDir;

use crate::{
    client::Client,
    exit_codes::{Failure, USAGE},
    settings::{self, Server, ServerArgs},
    stack::{Stack, StackSettings},
};

/// Something to work with; close it when done.
pub(crate) struct Session {
    pub(crate) client: Client,
    blobs: Option<BlobSettings>,
    broker: Option<BrokerSettings>,
    own: Option<(Stack, TempDir)>,
}

impl Session {
    /// The configured server, or a stack of our own in a temporary folder.
    pub(crate) async fn open(args: &ServerArgs) -> anyhow::Result<Session> {
        match args.find()? {
            Some(Server { client, blobs, broker }) => Ok(Session { client, blobs, broker, own: None }),
            None => Session::start(StackSettings::default()).await,
        }
    }

    /// A stack of our own; its data folder is temporary.
    pub(crate) async fn start(given: StackSettings) -> anyhow::Result<Session> {
        let folder = tempfile::Builder::new().prefix("piecework-").tempdir().context("cannot make a temporary folder")?;
        let stack = Stack::start(StackSettings { data: folder.path().to_owned(), ..given }).await?;
        let (client, blobs) = (stack.client()?, Some(stack.ready.blobs()));
        let broker = Some(settings::broker(&stack.ready.broker));
        Ok(Session { client, blobs, broker, own: Some((stack, folder)) })
    }

    /// Whether nobody else uses it.
    pub(crate) fn is_own(&self) -> bool {
        self.own.is_some()
    }

    /// The broker, where it is known.
    pub(crate) fn broker(&self) -> Option<&BrokerSettings> {
        self.broker.as_ref()
    }

    /// The blob store, where it is known.
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

    /// Stops what was started for this session, and leaves nothing behind.
    pub(crate) async fn close(self) {
        if let Some((stack, folder)) = self.own {
            stack.stop(Duration::ZERO).await;
            if let Err(error) = folder.close() {
                tracing::warn!(%error, "temporary folder not removed");
            }
        }
    }
}
