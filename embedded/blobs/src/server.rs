//! The running server: opens the folder, then accepts connections on a runtime and threads of its own.
//! Started by whoever embeds it; stops when asked to, or when the handle is dropped.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use crate::attributes::now_ms;
use crate::catalog::Catalog;
use crate::door::Door;
use crate::error::Error;
use crate::expiry::Expiry;
use crate::files::Files;
use crate::multipart;
use crate::reaper::Reaper;
use crate::service::Service;
use crate::settings::Settings;
use crate::stall::Stalling;
use crate::teller::Teller;
use crate::writer::{Follow, Writer};

const WORKERS: usize = 2;
const BLOCKING_THREADS_MAX: usize = 32;
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// A look is not worth more often than this.
const LIFECYCLE_PERIOD_MIN: Duration = Duration::from_millis(10);
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A handle to a running server.
#[derive(Debug)]
pub struct Blobs {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    stopped: oneshot::Receiver<()>,
}

impl Blobs {
    /// Starts a server; it accepts requests when this returns.
    pub async fn start(settings: Settings) -> Result<Self, Error> {
        let (ready, is_ready) = oneshot::channel();
        let (stop, stopping) = oneshot::channel();
        let (gone, stopped) = oneshot::channel();
        std::thread::Builder::new()
            .name("blobs".to_owned())
            .spawn(move || {
                run(settings, ready, stopping);
                // The receiver may be gone, when the handle was dropped rather than stopped.
                let _ = gone.send(());
            })
            .map_err(Error::Threads)?;
        let address = is_ready.await.map_err(|_| Error::Stopping)??;
        Ok(Self { address, stop: Some(stop), stopped })
    }

    /// The address it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL for S3 clients, to be used with path-style addressing.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Lets running requests finish for a few seconds, then stops everything.
    pub async fn stop(mut self) {
        self.stop.take();
        if (&mut self.stopped).await.is_err() {
            tracing::warn!("the server had stopped before it was asked to");
        }
    }
}

type Ready = oneshot::Sender<Result<SocketAddr, Error>>;

fn run(settings: Settings, ready: Ready, stopping: oneshot::Receiver<()>) {
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
                tracing::warn!("nobody waited for the server to start");
            }
            return;
        }
    };
    let expiring = runtime.spawn(expiry.run());
    runtime.block_on(serve(&settings, service, ready, stopping));
    expiring.abort();
    runtime.shutdown_timeout(STOP_TIMEOUT);
    for thread in parts.threads {
        if thread.join().is_err() {
            tracing::error!("a thread of the server panicked");
        }
    }
    drop(parts.lock);
}

/// What must outlive the runtime.
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
        tracing::info!(stale, orphans, "swept unfinished uploads and files that nothing names");
    }
    let Catalog { connection, readers, first_number, lock } = catalog;
    let (reaper, reaping) = Reaper::start(files.clone()).map_err(Error::Threads)?;
    let (teller, telling) = Teller::start(settings.on_event.clone()).map_err(Error::Threads)?;
    let follow = Follow { reaper: reaper.clone(), teller, region: settings.region.clone(), next_sequence: first_number };
    let (writer, writing) = Writer::start(connection, follow).map_err(Error::Threads)?;
    let expiry = Expiry {
        readers: readers.clone(),
        writer: writer.clone(),
        clock: settings.clock.clone(),
        period: settings.limits.lifecycle_period.max(LIFECYCLE_PERIOD_MIN),
    };
    let service = Service::new(settings, readers, writer, files, reaper, first_number);
    Ok((service, expiry, Parts { threads: [Some(writing), Some(reaping), telling].into_iter().flatten().collect(), lock }))
}

async fn serve(settings: &Settings, service: Service, ready: Ready, mut stopping: oneshot::Receiver<()>) {
    let bound = TcpListener::bind(settings.listen).await.and_then(|listener| {
        let address = listener.local_addr()?;
        Ok((listener, address))
    });
    let listener = match bound {
        Ok((listener, address)) => {
            if ready.send(Ok(address)).is_err() {
                return;
            }
            listener
        }
        Err(source) => {
            if ready.send(Err(Error::Listen { address: settings.listen, source })).is_err() {
                tracing::warn!("nobody waited for the server to start");
            }
            return;
        }
    };
    let door = Door::new(settings, service);
    let slots = Arc::new(Semaphore::new(settings.limits.connections_max));
    let (closing, is_closing) = watch::channel(());
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(settings.limits.head_timeout);
    loop {
        let accepted = tokio::select! {
            _ = &mut stopping => break,
            accepted = accept(&listener, &slots) => accepted,
        };
        let (stream, slot) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let connection = http.serve_connection(TokioIo::new(Stalling::new(stream, settings.limits.body_timeout)), door.clone());
        tokio::spawn(talk(connection, is_closing.clone(), slot));
    }
    drop(listener);
    drop((closing, is_closing));
    let everyone = u32::try_from(settings.limits.connections_max).unwrap_or(u32::MAX);
    if tokio::time::timeout(STOP_TIMEOUT, slots.acquire_many(everyone)).await.is_err() {
        tracing::warn!("requests were still running when the server stopped");
    }
}

/// Serves one connection; when the server closes, it ends after the request in hand.
async fn talk(
    connection: http1::Connection<TokioIo<Stalling<TcpStream>>, Door>,
    mut is_closing: watch::Receiver<()>,
    slot: OwnedSemaphorePermit,
) {
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        _ = is_closing.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
    drop(slot);
}

async fn accept(listener: &TcpListener, slots: &Arc<Semaphore>) -> std::io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let slot = slots.clone().acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, slot))
}
