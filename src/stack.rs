//! All parts in one process: embedded servers, dispatcher, autoscaler, agents as children.
//!
//! ```text
//! Stack::start   data folder ► broker, blobs ► dispatcher ► autoscaler ► healthy ► ready file
//! Stack::stop    autoscaler ► agents drain ► dispatcher ► blobs, broker
//! ```
//! `up` keeps one until Ctrl-C; `demo`, `map`, `run` and `bench` start one of their own when no server is configured.
//! A start that fails or is interrupted stops what has been started.

mod parts;

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, anyhow};
use broker_config::{
    private,
    settings::{BlobSettings, BrokerSettings, Secret},
};
use dispatcher::Progress;
use providers::{Process, ProcessSettings};
use tokio::{sync::watch, task::JoinSet};

use self::parts::{Part, Parts};
use crate::{
    access::scheme,
    blob_events, broker_admin,
    client::{Client, ClientError},
    data_folder::{DataFolder, Ports, Secrets, loopback},
    full_disk,
    ready::Ready,
    secrets, settings, umask,
};

/// A start that waits longer says for what.
const SAY_AFTER: Duration = Duration::from_secs(3);
/// Longest wait until the stack is healthy, from when its store is open.
const READY_MAX: Duration = Duration::from_secs(60);
/// Longest wait for the parts of an interrupted start to end.
const INTERRUPTED_STOP_MAX: Duration = Duration::from_secs(5);
/// Between two tries to write a ready file for which there was no room.
const READY_FILE_RETRY: Duration = Duration::from_secs(1);
const BROKER_USER: &str = "piecework";

/// Settings of a stack.
#[derive(Debug, Clone, Default)]
pub(crate) struct StackSettings {
    pub(crate) data: PathBuf,
    /// Where the API listens; a free loopback port when absent.
    pub(crate) listen: Option<SocketAddr>,
    /// Where the metrics are served; with the API when absent.
    pub(crate) metrics_listen: Option<SocketAddr>,
    pub(crate) account: Option<String>,
    pub(crate) key: Option<String>,
    /// A broker to use instead of the embedded one.
    pub(crate) broker: Option<String>,
    /// The administrator of that broker.
    pub(crate) broker_admin: Option<Secret>,
    /// A blob store to use instead of the embedded one.
    pub(crate) blobs: Option<BlobSettings>,
    /// The dispatcher's folder, when it is not in the data folder.
    pub(crate) store: Option<PathBuf>,
    pub(crate) ready_file: Option<PathBuf>,
    /// The URL that people and nodes are told, when it is not the address.
    pub(crate) public_url: Option<String>,
    pub(crate) access: dispatcher::Access,
    /// The umask of tasks, when it is not that of this process.
    pub(crate) task_umask: Option<u32>,
}

/// A running stack.
pub(crate) struct Stack {
    pub(crate) ready: Ready,
    parts: Parts,
    /// The one in the data folder first.
    pub(crate) ready_files: Vec<PathBuf>,
    /// Writes of ready files that had no room.
    late: JoinSet<()>,
    data: DataFolder,
}

impl Stack {
    /// Starts everything and returns once a task could run; `None` when `interrupted` was ready first.
    pub(crate) async fn start(given: StackSettings, interrupted: impl Future<Output = ()>) -> anyhow::Result<Option<Stack>> {
        secrets::conceal()?;
        // Clients that hold connections must not take the descriptors that files and agents need.
        node_agent::raise_limits();
        let data = DataFolder::open(&given.data)?;
        let mut parts = Parts::default();
        let started = tokio::select! {
            started = begin(&mut parts, &data, &given) => Some(started),
            () = interrupted => None,
        };
        if let Some(Ok(ready)) = started {
            let ready_files = [Some(data.join("ready.json")), given.ready_file].into_iter().flatten().collect();
            let mut stack = Stack { ready, parts, ready_files, late: JoinSet::new(), data };
            return match stack.announce(&given.access, given.public_url.is_some()).await {
                Ok(()) => Ok(Some(stack)),
                Err(error) => {
                    stack.stop(Duration::ZERO).await;
                    Err(error)
                }
            };
        }
        if tokio::time::timeout(INTERRUPTED_STOP_MAX, parts.stop(Duration::ZERO)).await.is_err() {
            tracing::warn!("some parts of the interrupted start did not end in time; leaving them");
        }
        started.map_or(Ok(None), |failed| failed.map(|_| None))
    }

    /// Checks whether it is well, and writes the ready files; one without room on its disk is written as soon as there is.
    async fn announce(&mut self, access: &dispatcher::Access, is_behind_something: bool) -> anyhow::Result<()> {
        // With TLS, or behind a proxy, our own address need not be one that clients may use.
        if access.tls.is_none() && !is_behind_something {
            match self.client()?.get::<serde_json::Value>("/piecework/health", &[]).await {
                Ok(_) => {}
                // The stack serves requests, but not all; the answer holds the reason.
                Err(error @ ClientError::Refused { status: 503, .. }) => {
                    tracing::warn!(%error, "the stack has started, but it is not healthy")
                }
                Err(error) => return Err(error).context("the stack is not healthy"),
            }
        }
        for path in &self.ready_files {
            match self.ready.write(path) {
                Err(error) if full_disk::is_cause(&error) => {
                    tracing::warn!(error = format!("{error:#}"), "the ready file is written when there is room");
                    self.late.spawn(write_with_room(self.ready.clone(), path.clone()));
                }
                written => written?,
            }
        }
        Ok(())
    }

    /// A client of this stack.
    pub(crate) fn client(&self) -> anyhow::Result<Client> {
        Client::new(&self.ready.url, &self.ready.account, &Secret::new(self.ready.key.clone()))
    }

    /// The file that keeps the account's key.
    pub(crate) fn secrets_file(&self) -> PathBuf {
        self.data.secrets_file()
    }

    /// Resolves with the reason when a part ends by itself.
    pub(crate) async fn ended(&mut self) -> anyhow::Error {
        self.parts.ended().await
    }

    /// Stops everything; agents get `patience` to return their tasks to the queue.
    pub(crate) async fn stop(self, patience: Duration) {
        if !full_disk::is_full(&self.data.join(".")) {
            return self.stop_parts(patience).await;
        }
        tracing::warn!("the disk is full, so nothing can be given back: running tasks are ended, and run again after the next start");
        self.stop_parts(Duration::ZERO).await;
    }

    async fn stop_parts(mut self, patience: Duration) {
        self.late.shutdown().await;
        for path in &self.ready_files {
            if let Err(error) = std::fs::remove_file(path) {
                tracing::debug!(path = %path.display(), %error, "the ready file has been removed already");
            }
        }
        self.parts.stop(patience).await;
    }
}

/// Tries until the disk takes the file.
async fn write_with_room(ready: Ready, path: PathBuf) {
    loop {
        tokio::time::sleep(READY_FILE_RETRY).await;
        match ready.write(&path) {
            Ok(()) => return tracing::info!(path = %path.display(), "the ready file is written"),
            Err(error) if full_disk::is_cause(&error) => {}
            Err(error) => return tracing::error!(error = format!("{error:#}"), "the ready file cannot be written"),
        }
    }
}

/// Starts everything; each part is recorded as soon as it runs.
async fn begin(parts: &mut Parts, data: &DataFolder, given: &StackSettings) -> anyhow::Result<Ready> {
    if given.listen.is_some() {
        let store = given.store.clone().unwrap_or_else(|| data.join("dispatcher"));
        private::folder(&store).with_context(|| format!("cannot use {}", store.display()))?;
        // Without TLS, because it is not set up yet.
        full_disk::wait_for_room(&store, given.listen.filter(|_| given.access.tls.is_none())).await?;
    }
    let secrets = data.secrets(given.account.clone(), given.key.clone())?;
    let kept = data.ports();
    let (on_event, events) = blob_events::channel();
    (parts.broker, parts.blobs) =
        tokio::try_join!(start_broker(given, data, &secrets, kept.broker), start_blobs(given, data, &secrets, kept.blobs, on_event))?;
    let ports = Ports {
        broker: parts.broker.as_ref().map_or(kept.broker, |broker| broker.address().port()),
        blobs: parts.blobs.as_ref().map_or(kept.blobs, |blobs| blobs.address().port()),
    };
    match data.keep_ports(ports) {
        Err(error) if full_disk::is_cause(&error) => {
            tracing::warn!(error = format!("{error:#}"), "the next start may serve the broker and the blob store at other ports")
        }
        kept => kept?,
    }
    let broker_url = match (&parts.broker, &given.broker) {
        (Some(broker), _) => broker.url(),
        (None, Some(url)) => url.clone(),
        (None, None) => return Err(anyhow!("no broker")),
    };
    // Another store tells its events itself, or not at all; this relay would end at once.
    if parts.blobs.is_some() {
        let followed = named(&broker_url, "piecework blob-events");
        parts.blob_events = Some(Part::start("blob events", |stop| blob_events::relay(followed, events, stop.wait())));
    }
    let blob_settings = match (&parts.blobs, &given.blobs) {
        (_, Some(given)) => given.clone(),
        (Some(blobs), None) => embedded_blob_settings(blobs, &secrets),
        (None, None) => return Err(anyhow!("no blob store")),
    };

    let nodes = Arc::new(Process::open(process_settings(data, &broker_url, &blob_settings, given.task_umask)?).await?);
    parts.nodes = Some(nodes.clone());
    let (progress, mut seen) = watch::channel(Progress::default());
    let broker_users = match &parts.broker {
        Some(broker) => Some(broker_admin::of_embedded(broker.users())),
        None => broker_admin::of_rabbitmq(given.broker_admin.as_ref(), &broker_url)?,
    };
    let settings = dispatcher::Settings {
        listen: given.listen.unwrap_or_else(|| loopback(0)),
        metrics_listen: given.metrics_listen,
        public_url: given.public_url.clone(),
        data: given.store.clone().unwrap_or_else(|| data.join("dispatcher")),
        account: secrets.account.clone(),
        keys: vec![Secret::new(secrets.key.clone())],
        broker: named(&broker_url, "piecework dispatcher"),
        broker_users,
        blobs: blob_settings.clone(),
        join_secret: None,
        timers: Default::default(),
        heartbeat_ms: HEARTBEAT_MS,
        access: given.access.clone(),
    };
    let run = |stop: parts::Stop| async move { Ok(dispatcher::run(settings, progress, stop.wait()).await?) };
    let dispatcher = parts.dispatcher.insert(Part::start("dispatcher", run));
    let address = tokio::select! {
        address = ready_address(&mut seen) => address?,
        reason = dispatcher.ended() => return Err(reason),
    };
    let scaled = autoscaler::Settings::new(named(&broker_url, "piecework autoscaler"));
    parts.autoscaler = Some(Part::start("autoscaler", |stop| async move { Ok(autoscaler::run(scaled, nodes, stop.wait()).await?) }));
    Ok(Ready {
        url: given.public_url.clone().unwrap_or_else(|| format!("{}://{}", scheme(&given.access), reachable(address))),
        account: secrets.account,
        key: secrets.key,
        broker: broker_url,
        s3: (&blob_settings).into(),
    })
}

/// The API's address once the dispatcher is healthy. The time that it waits for a locked store has a bound of its own.
async fn ready_address(seen: &mut watch::Receiver<Progress>) -> anyhow::Result<SocketAddr> {
    loop {
        let progress = *seen.borrow_and_update();
        let changed = match progress {
            Progress::Ready(address) => return Ok(address),
            Progress::OpensStore => seen.changed().await,
            Progress::Connects => {
                let connected = tokio::time::timeout(SAY_AFTER, seen.changed()).await;
                match connected {
                    Ok(changed) => changed,
                    Err(_) => {
                        tracing::warn!("still waiting for the broker and the blob store to answer");
                        tokio::time::timeout(READY_MAX, seen.changed())
                            .await
                            .map_err(|_| anyhow!("the broker or the blob store did not answer in {READY_MAX:?}; are their URLs right?"))?
                    }
                }
            }
        };
        if changed.is_err() {
            // The dispatcher has ended; the reason of its end is the better error.
            return std::future::pending().await;
        }
    }
}

/// Time between the heartbeats of an agent on this machine.
pub(crate) const HEARTBEAT_MS: u64 = 2_000;

/// The broker's settings with a connection name for its operators.
pub(crate) fn named(url: &str, name: &str) -> BrokerSettings {
    BrokerSettings { name: name.to_owned(), ..settings::broker(url) }
}

/// A part's folder, restricted to its owner if an earlier build left it open.
fn made(data: &DataFolder, name: &str) -> anyhow::Result<PathBuf> {
    let path = data.join(name);
    private::folder(&path).with_context(|| format!("cannot use {}", path.display()))?;
    Ok(path)
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
    let folder = made(data, "broker")?;
    let settings = embedded_broker::Settings::new(loopback(port), folder, BROKER_USER, secrets.broker_password.clone());
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
    let mut settings = embedded_blobs::Settings::new(loopback(port), made(data, "blobs")?, access, secret);
    settings.on_event = Some(on_event);
    let catalogue = settings.data.join("catalog.sqlite");
    let start = || embedded_blobs::Blobs::start(settings.clone());
    let started = dispatcher::wait_while_locked(&catalogue, None, embedded_blobs::Error::is_locked, start).await;
    Ok(Some(started.context("the embedded blob store did not start")?))
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

/// How agents are started: by this executable.
fn process_settings(data: &DataFolder, broker: &str, blobs: &BlobSettings, task_umask: Option<u32>) -> anyhow::Result<ProcessSettings> {
    let task_umask = task_umask.map(|mask| (umask::VARIABLE.into(), umask::format(mask).into()));
    Ok(ProcessSettings {
        program: std::env::current_exe().context("this executable cannot be found")?,
        arguments: vec!["agent".into()],
        environment: [("PIECEWORK_TASK_NICE".into(), "5".into())].into_iter().chain(task_umask).collect(),
        broker: Secret::new(broker),
        s3: Some(Secret::new(settings::format_s3(blobs)?)),
        state: data.join("nodes"),
    })
}

/// An address that clients on this machine can use.
fn reachable(address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() { SocketAddr::from(([127, 0, 0, 1], address.port())) } else { address }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit_codes::{self, PART_ENDED};

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn whatever_part_ends_first_is_named_and_the_rest_stops_in_order() {
        type Pick = fn(&mut Stack) -> &mut Part;
        let parts: [(&str, Pick); 3] = [
            ("dispatcher", |stack| stack.parts.dispatcher.as_mut().unwrap()),
            ("autoscaler", |stack| stack.parts.autoscaler.as_mut().unwrap()),
            ("blob events", |stack| stack.parts.blob_events.as_mut().unwrap()),
        ];
        let folder = tempfile::tempdir().unwrap();
        for (name, part) in parts {
            let settings = StackSettings { data: folder.path().to_owned(), ..StackSettings::default() };
            let mut stack = Stack::start(settings, std::future::pending()).await.unwrap().unwrap();
            part(&mut stack).task.as_ref().unwrap().abort();
            let reason = stack.ended().await;
            assert_eq!(exit_codes::of(&reason), PART_ENDED);
            assert!(reason.to_string().contains(name), "{reason}");
            // No future is polled after its end, and the data folder is free for the next start.
            stack.stop(Duration::ZERO).await;
        }
    }
}
