//! Accepts connections: limits on number, headers and time, TLS where configured, graceful shutdown.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use axum::Router;
use hyper::{
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::watch,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    connections::{Connections, Limits, Place},
    protocol_errors::{OwnWords, Told},
    tls,
};

/// Limits on open connections. Clients behind one proxy share an address.
pub const LIMITS: Limits = Limits { all: 4_096, per_address: 1_024 };
/// A connection without a request is closed after this long.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Time limit for a request's headers from their first byte on, however slowly they arrive.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Size limit of a request's headers.
pub const HEADER_BYTES_MAX: usize = 64 * 1024;
/// Time limit of a TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long open requests may continue after a shutdown began.
const GOODBYE: Duration = Duration::from_secs(10);
/// Refused connections are logged this often at most.
const REFUSAL_TOLD: Duration = Duration::from_secs(30);
/// Pause after a failed accept, for example because the process has no free file descriptor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `shutdown` is ready, then lets open requests finish.
pub async fn serve(listener: TcpListener, router: Router, tls: Option<tls::Current>, shutdown: impl Future<Output = ()>) {
    let open = Connections::new(LIMITS);
    let mut refusals = Refusals::default();
    let (closing, closed) = watch::channel(false);
    let mut connections = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        let (stream, address) = tokio::select! {
            () = &mut shutdown => break,
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "serving an API connection failed inside the dispatcher; its client has to connect again");
                }
                continue;
            }
            accepted = listener.accept() => match accepted {
                Ok((stream, address)) => (stream, address.ip()),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection at the API's address; trying again");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        let Some(place) = open.enter(address) else {
            refusals.note(address);
            continue;
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        let (router, closed) = (router.clone(), closed.clone());
        let config = tls.as_ref().map(|current| current.borrow().clone());
        connections.spawn(async move {
            let Some(config) = config else { return talk(stream, router, closed, place).await };
            let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, TlsAcceptor::from(config).accept(stream));
            let shaken = tokio::select! {
                shaken = handshake => shaken,
                () = place.leave.notified() => return tracing::debug!("a TLS handshake made room for another connection"),
            };
            match shaken {
                Ok(Ok(stream)) => talk(stream, router, closed, place).await,
                Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
                Err(_) => tracing::debug!("a TLS handshake took too long"),
            }
        });
    }
    drop(listener);
    closing.send_replace(true);
    let all = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(GOODBYE, all).await.is_err() {
        tracing::warn!("requests that were still running {GOODBYE:?} after the stop of the API are cut off");
        connections.shutdown().await;
    }
}

/// Refused connections since the last log line.
#[derive(Default)]
struct Refusals {
    count: u64,
    told_at: Option<Instant>,
}

impl Refusals {
    fn note(&mut self, address: IpAddr) {
        self.count += 1;
        if self.told_at.is_none_or(|at| at.elapsed() >= REFUSAL_TOLD) {
            let count = std::mem::take(&mut self.count);
            tracing::warn!(%address, count, ?LIMITS, "connections are refused: as many as may be are open and busy with requests");
            self.told_at = Some(Instant::now());
        }
    }
}

/// Serves one connection until it ends or is asked to close.
async fn talk(stream: impl AsyncRead + AsyncWrite + Unpin + Send, router: Router, mut closed: watch::Receiver<bool>, place: Place) {
    let (talk, router) = (place.talk.clone(), TowerToHyperService::new(router));
    let service = service_fn(|request| {
        talk.begin();
        let (answer, talk) = (router.call(request), talk.clone());
        async move { answer.await.map(|answer| answer.map(|body| Told::new(body, talk))) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE_TIMEOUT)
        .max_buf_size(HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(OwnWords::new(stream, talk.clone(), HEADER_TIMEOUT)), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => Some(ended),
        _ = closed.changed() => None,
        () = place.leave.notified() => {
            // A client that has sent half a request is not waited for; a complete request is answered.
            if place.talk.quiet_since().is_some() {
                return tracing::debug!("a silent connection made room for another");
            }
            None
        }
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}
