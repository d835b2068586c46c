//! The whole house in one process: embedded servers, dispatcher, autoscaler, agents as children.
//!
//! ```text
//! Stack::start   data folder ► broker, blobs ► dispatcher ► autoscaler ► healthy ► ready file
//! Stack::stop    autoscaler ► agents drain ► dispatcher ► blobs, broker
//! ```
//! `up` keeps one until Ctrl-C; `demo`, `map`, `run` and `bench` start one of their own when no server is configured.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, anyhow};
use autoscaler::{Process, ProcessSettings};
use broker_config::settings::{BlobSettings, BrokerSettings, Secret};
use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
};

use crate::{
    access::scheme,
    blob_events,
    client::Client,
    data_folder::{DataFolder, Ports, Secrets, loopback},
    exit_codes::{Failure, PART_ENDED},
    ready::Ready,
    settings,
};

/// The stack must be healthy after this long.
const READY_MAX: Duration = Duration::from_secs(60);
/// Each part must end after this long.
const STOP_MAX: Duration = Duration::from_secs(15);
const BROKER_USER: &str = "piecework";

/// How a stack is set up.
#[derive(Debug, Clone, Default)]
pub(crate) struct StackSettings {
    pub(crate) data: PathBuf,
    /// Where the door listens; a free loopback port when absent.
    pub(crate) listen: Option<SocketAddr>,
    pub(crate) account: Option<String>,
    pub(crate) key: Option<String>,
    /// A broker to use instead of the embedded one.
    pub(crate) broker: Option<String>,
    /// A blob store to use instead of the embedded one.
    pub(crate) blobs: Option<BlobSettings>,
    /// The dispatcher's folder, when it is not in the data folder.
    pub(crate) store: Option<PathBuf>,
    pub(crate) ready_file: Option<PathBuf>,
    /// The URL that people and nodes are told, when it is not the address.
    pub(crate) public_url: Option<String>,
    pub(crate) access: dispatcher::Access,
}

/// A running stack.
pub(crate) struct Stack {
    pub(crate) ready: Ready,
    broker: Option<embedded_broker::Broker>,
    blobs: Option<embedded_blobs::Blobs>,
    blob_events: Part,
    nodes: Arc<Process>,
    parts: Parts,
    /// The one in the data folder first.
    pub(crate) ready_files: Vec<PathBuf>,
    _data: DataFolder,
}

/// Parts of floor 1 that run as tasks of this process, each with its own stop.
struct Parts {
    dispatcher: Part,
    autoscaler: Part,
}

struct Part {
    name: &'static str,
    stop: watch::Sender<bool>,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Part {
    fn start<F>(name: &'static str, run: impl FnOnce(Stop) -> F) -> Part
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let (stop, stopped) = watch::channel(false);
        Part { name, task: tokio::spawn(run(Stop(stopped))), stop }
    }

    /// Resolves with the reason when the part ends by itself.
    async fn ended(&mut self) -> anyhow::Error {
        let reason = match (&mut self.task).await {
            Ok(Ok(())) => anyhow!("it stopped"),
            Ok(Err(error)) => error,
            Err(error) => error.into(),
        };
        let failure = Failure::new(PART_ENDED, format!("the {} ended by itself: {reason:#}", self.name), "the log says more");
        reason.context(failure)
    }

    async fn stop(self) {
        self.stop.send_replace(true);
        let abort = self.task.abort_handle();
        match tokio::time::timeout(STOP_MAX, self.task).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => tracing::warn!(part = self.name, error = format!("{error:#}"), "part ended with an error"),
            Ok(Err(error)) => tracing::warn!(part = self.name, %error, "part failed"),
            Err(_) => {
                tracing::warn!(part = self.name, "part does not end; leaving it");
                abort.abort();
            }
        }
    }
}

struct Stop(watch::Receiver<bool>);

impl Stop {
    async fn wait(mut self) {
        if self.0.wait_for(|stop| *stop).await.is_err() {
            tracing::debug!("whoever could stop this part is gone, so it stops");
        }
    }
}

impl Stack {
    /// Starts everything and returns once a task could run.
    pub(crate) async fn start(given: StackSettings) -> anyhow::Result<Stack> {
        let data = DataFolder::open(&given.data)?;
        let secrets = data.secrets(given.account.clone(), given.key.clone())?;
        let kept = data.ports();
        let (on_event, events) = blob_events::channel();
        let (broker, blobs) = tokio::try_join!(
            start_broker(&given, &data, &secrets, kept.broker),
            start_blobs(&given, &data, &secrets, kept.blobs, on_event)
        )?;
        let ports = Ports {
            broker: broker.as_ref().map_or(kept.broker, |broker| broker.address().port()),
            blobs: blobs.as_ref().map_or(kept.blobs, |blobs| blobs.address().port()),
        };
        data.keep_ports(ports)?;
        let broker_url = match (&broker, &given.broker) {
            (Some(broker), _) => broker.url(),
            (None, Some(url)) => url.clone(),
            (None, None) => return Err(anyhow!("no broker")),
        };
        let followed = named(&broker_url, "piecework blob events");
        let blob_events = Part::start("blob events", |stop| blob_events::relay(followed, events, stop.wait()));
        let blob_settings = match (&blobs, &given.blobs) {
            (_, Some(given)) => given.clone(),
            (Some(blobs), None) => embedded_blob_settings(blobs, &secrets),
            (None, None) => return Err(anyhow!("no blob store")),
        };

        let nodes = Arc::new(Process::open(process_settings(&data, &broker_url, &blob_settings)?).await?);
        let (ready, is_ready) = oneshot::channel();
        let dispatcher = dispatcher::Settings {
            listen: given.listen.unwrap_or_else(|| loopback(0)),
            public_url: given.public_url.clone(),
            data: given.store.clone().unwrap_or_else(|| data.join("dispatcher")),
            account: secrets.account.clone(),
            keys: vec![Secret::new(secrets.key.clone())],
            broker: named(&broker_url, "piecework dispatcher"),
            blobs: blob_settings.clone(),
            join_secret: None,
            timers: Default::default(),
            beat_ms: BEAT_MS,
            access: given.access.clone(),
        };
        let mut dispatcher = Part::start("dispatcher", |stop| async move { Ok(dispatcher::run(dispatcher, ready, stop.wait()).await?) });
        let address = tokio::select! {
            // A dispatcher that ends drops its sender first; why it ended is the better answer.
            Ok(address) = is_ready => address,
            reason = dispatcher.ended() => return Err(reason),
            () = tokio::time::sleep(READY_MAX) => anyhow::bail!("the dispatcher was not healthy after {READY_MAX:?}"),
        };
        let (scaled, provider) = (autoscaler::Settings::new(named(&broker_url, "piecework autoscaler")), nodes.clone());
        let autoscaler = Part::start("autoscaler", |stop| async move { Ok(autoscaler::run(scaled, provider, stop.wait()).await?) });

        let ready = Ready {
            url: given.public_url.clone().unwrap_or_else(|| format!("{}://{}", scheme(&given.access), reachable(address))),
            account: secrets.account,
            key: secrets.key,
            broker: broker_url,
            s3: (&blob_settings).into(),
        };
        let ready_files = [Some(data.join("ready.json")), given.ready_file.clone()].into_iter().flatten().collect();
        let stack = Stack { ready, broker, blobs, blob_events, nodes, parts: Parts { dispatcher, autoscaler }, ready_files, _data: data };
        // By TLS or through something in front of us, our own address need not be one that clients may use.
        if given.access.tls.is_none() && given.public_url.is_none() {
            let client = stack.client()?;
            let _: serde_json::Value = client.get("/piecework/health", &[]).await.context("the stack is not healthy")?;
        }
        for path in &stack.ready_files {
            stack.ready.write(path)?;
        }
        Ok(stack)
    }

    /// A client of this stack.
    pub(crate) fn client(&self) -> anyhow::Result<Client> {
        Client::new(&self.ready.url, &self.ready.account, &Secret::new(self.ready.key.clone()))
    }

    /// Resolves with the reason when a part ends by itself.
    pub(crate) async fn ended(&mut self) -> anyhow::Error {
        tokio::select! {
            reason = self.parts.dispatcher.ended() => reason,
            reason = self.parts.autoscaler.ended() => reason,
        }
    }

    /// Stops everything; agents get `patience` to give back what they run, for the next start.
    pub(crate) async fn stop(self, patience: Duration) {
        for path in &self.ready_files {
            if let Err(error) = std::fs::remove_file(path) {
                tracing::debug!(path = %path.display(), %error, "ready file is gone already");
            }
        }
        self.parts.autoscaler.stop().await;
        self.nodes.stop(patience).await;
        self.parts.dispatcher.stop().await;
        let stop_blobs = async {
            if let Some(blobs) = self.blobs {
                blobs.stop().await;
            }
        };
        // The relay ends once the store has told its last event.
        tokio::join!(stop_blobs, self.blob_events.stop());
        if let Some(broker) = self.broker {
            broker.stop().await;
        }
    }
}

/// Time between the beats of an agent on this machine.
pub(crate) const BEAT_MS: u64 = 2_000;

/// The broker's settings with a name its operators see.
pub(crate) fn named(url: &str, name: &str) -> BrokerSettings {
    BrokerSettings { name: name.to_owned(), ..settings::broker(url) }
}

async fn start_broker(
    given: &StackSettings,
    data: &DataFolder,
    secrets: &Secrets,
    port: u16,
) -> anyhow::Result<Option<embedded_broker::Broker>> {
    if given.broker.is_some() {
        return Ok(None);
    }
    let settings = embedded_broker::Settings::new(loopback(port), data.join("broker"), BROKER_USER, secrets.broker_password.clone());
    Ok(Some(embedded_broker::Broker::start(settings).await.context("the embedded broker did not start")?))
}

async fn start_blobs(
    given: &StackSettings,
    data: &DataFolder,
    secrets: &Secrets,
    port: u16,
    on_event: embedded_blobs::OnEvent,
) -> anyhow::Result<Option<embedded_blobs::Blobs>> {
    if given.blobs.is_some() {
        return Ok(None);
    }
    let (access, secret) = (secrets.s3_access_key.clone(), secrets.s3_secret_key.clone());
    let mut settings = embedded_blobs::Settings::new(loopback(port), data.join("blobs"), access, secret);
    settings.on_event = Some(on_event);
    Ok(Some(embedded_blobs::Blobs::start(settings).await.context("the embedded blob store did not start")?))
}

fn embedded_blob_settings(blobs: &embedded_blobs::Blobs, secrets: &Secrets) -> BlobSettings {
    BlobSettings {
        endpoint: blobs.endpoint(),
        region: "us-east-1".to_owned(),
        access_key: secrets.s3_access_key.clone(),
        secret_key: Secret::new(secrets.s3_secret_key.clone()),
        bucket: "piecework".to_owned(),
        own_bucket: "piecework-own".to_owned(),
    }
}

/// How agents are started: this executable, with addresses and secrets in the environment rather than the list of processes.
fn process_settings(data: &DataFolder, broker: &str, blobs: &BlobSettings) -> anyhow::Result<ProcessSettings> {
    Ok(ProcessSettings {
        program: std::env::current_exe().context("this executable cannot be found")?,
        arguments: vec!["agent".into()],
        environment: vec![
            ("PIECEWORK_BROKER".into(), broker.into()),
            ("PIECEWORK_S3".into(), settings::format_s3(blobs)?.into()),
            ("PIECEWORK_TASK_NICE".into(), "5".into()),
        ],
        state: data.join("nodes"),
    })
}

/// An address that clients on this machine can use.
fn reachable(address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() { SocketAddr::from(([127, 0, 0, 1], address.port())) } else { address }
}
