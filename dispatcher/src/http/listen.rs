//! Connections: accepted up to a bound, by TLS where asked for, with limits on headers and time, closed gently at the end.

use std::{sync::Arc, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::{Semaphore, watch},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use crate::http::{
    own_words::{OwnWords, Talk, Told},
    tls,
};

/// Connections at once.
const CONNECTIONS_MAX: usize = 4_096;
/// A connection without a request is closed after this long.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// A request's headers may take this long from their first byte on: sending slowly holds a connection no longer.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// A request's headers may have this many bytes.
pub const HEADER_BYTES_MAX: usize = 64 * 1024;
/// A TLS handshake must be over after this long.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Requests may run on for this long after the end was asked for.
const GOODBYE: Duration = Duration::from_secs(10);
/// After an accept failed, because the process is out of files, for example.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `shutdown` is ready, then lets requests under way end.
pub async fn serve(listener: TcpListener, router: Router, tls: Option<tls::Current>, shutdown: impl Future<Output = ()>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let (closing, closed) = watch::channel(false);
    let mut connections = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        let place = tokio::select! {
            () = &mut shutdown => break,
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a connection's task failed");
                }
                continue;
            }
            place = places.clone().acquire_owned() => place.expect("the semaphore is never closed"),
        };
        let stream = tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        let (router, closed) = (router.clone(), closed.clone());
        let config = tls.as_ref().map(|current| current.borrow().clone());
        connections.spawn(async move {
            let _place = place;
            let Some(config) = config else { return talk(stream, router, closed).await };
            match tokio::time::timeout(HANDSHAKE_TIMEOUT, TlsAcceptor::from(config).accept(stream)).await {
                Ok(Ok(stream)) => talk(stream, router, closed).await,
                Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
                Err(_) => tracing::debug!("a TLS handshake took too long"),
            }
        });
    }
    drop(listener);
    closing.send_replace(true);
    let all = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(GOODBYE, all).await.is_err() {
        tracing::warn!("requests were cut off after {GOODBYE:?}");
        connections.shutdown().await;
    }
}

/// One connection, until it ends or is asked to.
async fn talk(stream: impl AsyncRead + AsyncWrite + Unpin + Send, router: Router, mut closed: watch::Receiver<bool>) {
    let (talk, router) = (Talk::default(), TowerToHyperService::new(router));
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
