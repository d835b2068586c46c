//! The running server: opens the folder, then accepts connections on a runtime and threads of its own.
//! Stops when it is asked to, or when its handle is dropped.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use crate::attributes::now_ms;
use crate::catalog::Catalog;
use crate::connections::{Connections, Place};
use crate::error::Error;
use crate::expiry::Expiry;
use crate::files::Files;
use crate::gateway::Gateway;
use crate::multipart;
use crate::notifier::Notifier;
use crate::reaper::Reaper;
use crate::service::Service;
use crate::settings::Settings;
use crate::stall::Stalling;
use crate::writer::{Follow, Writer};

const WORKERS: usize = 2;
const BLOCKING_THREADS_MAX: usize = 32;
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// Shortest interval between two checks of the lifecycle rules.
const LIFECYCLE_PERIOD_MIN: Duration = Duration::from_millis(10);
/// Interval between checks that all threads run.
const CHECK_PAUSE: Duration = Duration::from_millis(250);
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A handle to a running server.
#[derive(Debug)]
pub struct Blobs {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    /// The end of the server; closed without a value when its thread panicked.
    ended: watch::Receiver<Option<Ended>>,
}

/// The reason of an unplanned end; absent after a stop.
type Ended = Option<String>;

impl Blobs {
    /// Starts a server; it accepts requests when this returns.
    pub async fn start(settings: Settings) -> Result<Self, Error> {
        let (ready, is_ready) = oneshot::channel();
        let (stop, stopping) = oneshot::channel();
        let (gone, ended) = watch::channel(None);
        std::thread::Builder::new()
            .name("blobs".to_owned())
            .spawn(move || drop(gone.send_replace(Some(run(settings, ready, stopping)))))
            .map_err(Error::Threads)?;
        let address = is_ready.await.map_err(|_| Error::Stopping)??;
        Ok(Self { address, stop: Some(stop), ended })
    }

    /// The bound address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL for S3 clients, to be used with path-style addressing.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Waits for an unplanned end of the server and returns its reason; clients are not served any more then.
    pub async fn ended(&mut self) -> String {
        match self.ended.wait_for(|ended| matches!(ended, Some(Some(_)))).await {
            Ok(ended) => ended.clone().flatten().unwrap_or_default(),
            Err(_) => "its thread panicked".to_owned(),
        }
    }

    /// Lets running requests finish for a few seconds, then stops everything.
    pub async fn stop(mut self) {
        self.stop.take();
        if self.ended.wait_for(Option::is_some).await.is_err() {
            tracing::error!("the embedded blob store's thread panicked");
        }
    }
}

type Ready = oneshot::Sender<Result<SocketAddr, Error>>;

fn run(settings: Settings, ready: Ready, stopping: oneshot::Receiver<()>) -> Ended {
    let opened = open(&settings).and_then(|parts| {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .max_blocking_threads(BLOCKING_THREADS_MAX)
            .thread_name("blobs-io")
            .enable_all()
            .build()
            .map_err(Error::Threads)?;
        Ok((parts, runtime))
    });
    let ((service, expiry, parts), runtime) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            if ready.send(Err(error)).is_err() {
                tracing::warn!("the start of the embedded blob store was cancelled");
            }
            return None;
        }
    };
    let mut expiring = runtime.spawn(expiry.run());
    let reason = runtime.block_on(async {
        let failed = async {
            tokio::select! {
                name = ended_thread(&parts.threads) => format!("its thread {name} ended"),
                ended = &mut expiring => format!("the task that applies its lifecycle rules ended: {ended:?}"),
            }
        };
        serve(&settings, service, ready, stopping, failed).await
    });
    if let Some(reason) = &reason {
        tracing::error!(reason, "the embedded blob store ends, because one of its parts has failed");
    }
    expiring.abort();
    runtime.shutdown_timeout(STOP_TIMEOUT);
    for thread in parts.threads {
        if thread.join().is_err() {
            tracing::error!("a thread of the embedded blob store panicked");
        }
    }
    drop(parts.lock);
    reason
}

/// Returns the name of the first thread that ends, by a panic or otherwise.
async fn ended_thread(threads: &[JoinHandle<()>]) -> String {
    loop {
        if let Some(ended) = threads.iter().find(|thread| thread.is_finished()) {
            return ended.thread().name().unwrap_or("without a name").to_owned();
        }
        tokio::time::sleep(CHECK_PAUSE).await;
    }
}

/// The parts of the server that must outlive the runtime.
struct Parts {
    threads: Vec<JoinHandle<()>>,
    lock: std::fs::File,
}

fn open(settings: &Settings) -> Result<(Service, Expiry, Parts), Error> {
    let catalog = Catalog::open(&settings.data)?;
    let files = Files::open(&settings.data)?;
    let age_max = i64::try_from(settings.limits.upload_age_max.as_millis()).unwrap_or(i64::MAX);
    let stale = multipart::drop_stale(&catalog.connection, now_ms().saturating_sub(age_max))?;
    let orphans = files.sweep(|file| catalog.is_named(file))?;
    if stale + orphans as usize > 0 {
        tracing::info!(stale, orphans, "removed stale uploads and files without an object");
    }
    let Catalog { connection, readers, first_number, lock } = catalog;
    let (reaper, reaping) = Reaper::start(files.clone()).map_err(Error::Threads)?;
    let (notifier, notifying) = Notifier::start(settings.on_event.clone()).map_err(Error::Threads)?;
    let follow = Follow { reaper: reaper.clone(), notifier, region: settings.region.clone(), next_sequence: first_number };
    let (writer, writing) = Writer::start(connection, follow).map_err(Error::Threads)?;
    let expiry = Expiry {
        readers: readers.clone(),
        writer: writer.clone(),
        clock: settings.clock.clone(),
        period: settings.limits.lifecycle_period.max(LIFECYCLE_PERIOD_MIN),
    };
    let service = Service::new(settings, readers, writer, files, reaper, first_number);
    Ok((service, expiry, Parts { threads: [Some(writing), Some(reaping), notifying].into_iter().flatten().collect(), lock }))
}

/// Serves until it is stopped or `failed` resolves; returns the reason in the second case.
async fn serve(
    settings: &Settings,
    service: Service,
    ready: Ready,
    mut stopping: oneshot::Receiver<()>,
    failed: impl Future<Output = String>,
) -> Ended {
    let bound = TcpListener::bind(settings.listen).await.and_then(|listener| {
        let address = listener.local_addr()?;
        Ok((listener, address))
    });
    let listener = match bound {
        Ok((listener, address)) => {
            if ready.send(Ok(address)).is_err() {
                return None;
            }
            listener
        }
        Err(source) => {
            if ready.send(Err(Error::Listen { address: settings.listen, source })).is_err() {
                tracing::warn!("the start of the embedded blob store was cancelled");
            }
            return None;
        }
    };
    let gateway = Gateway::new(settings, service);
    let connections = Connections::new(settings.limits.connections_max);
    let mut serving = JoinSet::new();
    let (closing, is_closing) = watch::channel(());
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(settings.limits.head_timeout);
    let mut failed = std::pin::pin!(failed);
    let reason = loop {
        let accepted = tokio::select! {
            _ = &mut stopping => break None,
            reason = &mut failed => break Some(reason),
            Some(ended) = serving.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "the task of a blob client's connection failed");
                }
                continue;
            }
            accepted = accept(&listener) => accepted,
        };
        let stream = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a client's connection could not be accepted; trying again");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let place = tokio::select! {
            place = connections.enter() => place,
            _ = &mut stopping => break None,
            reason = &mut failed => break Some(reason),
        };
        let stream = TokioIo::new(Stalling::new(stream, settings.limits.body_timeout));
        serving.spawn(serve_connection(stream, http.clone(), gateway.clone(), is_closing.clone(), place));
    };
    drop(listener);
    drop((closing, is_closing));
    let everyone = async { while serving.join_next().await.is_some() {} };
    if tokio::time::timeout(STOP_TIMEOUT, everyone).await.is_err() {
        tracing::warn!("requests of blob clients were still running when the embedded blob store stopped; they are cut off");
    }
    reason
}

/// Serves one connection; at shutdown it ends after the current request.
async fn serve_connection(
    stream: TokioIo<Stalling<TcpStream>>,
    http: http1::Builder,
    gateway: Gateway,
    mut is_closing: watch::Receiver<()>,
    place: Arc<Place>,
) {
    let service = service_fn(|request| {
        let (busy, answer) = (place.begin(), gateway.call(request));
        async move { answer.await.map(|answer| answer.map(|body| busy.answered_by(body))) }
    });
    let mut connection = std::pin::pin!(http.serve_connection(stream, service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        _ = is_closing.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        () = place.leave.notified() => {
            // A partly received request is dropped; a complete one is answered.
            if place.is_quiet() {
                return tracing::debug!("a silent connection was closed to make room for another");
            }
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a blob client's connection ended with an error");
    }
}

async fn accept(listener: &TcpListener) -> std::io::Result<TcpStream> {
    let (stream, _) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_server_that_lost_a_thread_says_which_and_ends() {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings::new(([127, 0, 0, 1], 0).into(), folder.path(), "access", "secret");
        let (service, _expiry, _parts) = open(&settings).unwrap();
        let lost = std::thread::Builder::new().name("lost".to_owned()).spawn(|| {}).unwrap();
        let threads = [lost];
        let (ready, is_ready) = oneshot::channel();
        let (_stop, stopping) = oneshot::channel();
        let reason = serve(&settings, service, ready, stopping, ended_thread(&threads)).await;
        assert_eq!(reason.as_deref(), Some("lost"));
        let address = is_ready.await.unwrap().unwrap();
        assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
    }

    #[tokio::test]
    async fn a_server_that_is_stopped_did_not_end_by_itself() {
        let folder = tempfile::tempdir().unwrap();
        let mut blobs = Blobs::start(Settings::new(([127, 0, 0, 1], 0).into(), folder.path(), "access", "secret")).await.unwrap();
        let early = tokio::time::timeout(Duration::from_millis(50), blobs.ended()).await;
        assert!(early.is_err(), "it runs: {early:?}");
        blobs.stop().await;
    }
}
