//! Replaces the HTTP library's own error answers with Azure Batch's error body.
//!
//! When the library cannot parse a request, it writes an answer without a body by itself. It can do so only while no
//! answer of a handler is being written, and that is when this stream replaces what it writes.
//!
//! ```text
//! quiet ──request──► answering ──body over──► ending ──flushed──► quiet
//! ```

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use axum::body::Body;
use bytes::Bytes;
use http::header;
use hyper::body::{Frame, SizeHint};
use model::refusal::{Code, Refusal};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Sleep,
};

use crate::error::{ErrorBody, RequestId};

const QUIET: u8 = 0;
const ANSWERING: u8 = 1;
const ENDING: u8 = 2;

/// The state of a connection, shared by its stream and its answers.
#[derive(Debug, Clone)]
pub struct Talk(Arc<State>);

#[derive(Debug)]
struct State {
    stage: AtomicU8,
    opened: Instant,
    /// Milliseconds from the start of the connection to the end of the last answer.
    answered_ms: AtomicU64,
}

impl Default for Talk {
    fn default() -> Talk {
        Talk(Arc::new(State { stage: AtomicU8::new(QUIET), opened: Instant::now(), answered_ms: AtomicU64::new(0) }))
    }
}

impl Talk {
    /// Records that a request has arrived.
    pub fn begin(&self) {
        self.0.stage.store(ANSWERING, Ordering::Release);
    }

    /// Since when no request is open; `None` while one is.
    pub fn quiet_since(&self) -> Option<Instant> {
        let answered = Duration::from_millis(self.0.answered_ms.load(Ordering::Relaxed));
        self.is_quiet().then(|| self.0.opened + answered)
    }

    fn end(&self) {
        self.0.answered_ms.store(self.0.opened.elapsed().as_millis() as u64, Ordering::Relaxed);
        self.0.stage.store(ENDING, Ordering::Release);
    }

    fn flushed(&self) {
        // Unless another request has begun meanwhile.
        let _ = self.0.stage.compare_exchange(ENDING, QUIET, Ordering::AcqRel, Ordering::Acquire);
    }

    fn is_quiet(&self) -> bool {
        self.0.stage.load(Ordering::Acquire) == QUIET
    }
}

/// The body of a handler's answer.
pub struct Told {
    body: Body,
    talk: Talk,
}

impl Told {
    /// A body whose end marks the end of the answer.
    pub fn new(body: Body, talk: Talk) -> Told {
        Told { body, talk }
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        self.talk.end();
    }
}

impl hyper::body::Body for Told {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A stream that replaces the library's error answers, and limits the time for a request's headers.
pub struct OwnWords<S> {
    stream: S,
    talk: Talk,
    pending: Vec<u8>,
    patience: Duration,
    head: Option<Pin<Box<Sleep>>>,
}

impl<S> OwnWords<S> {
    /// `patience` is the time limit for a request's headers from their first byte on.
    pub fn new(stream: S, talk: Talk, patience: Duration) -> OwnWords<S> {
        OwnWords { stream, talk, pending: Vec::new(), patience, head: None }
    }
}

impl<S: AsyncWrite + Unpin> OwnWords<S> {
    fn drain(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.pending.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(context, &self.pending))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.pending.drain(..written);
        }
        Poll::Ready(Ok(()))
    }
}

/// The replacement for the library's answer with this head.
fn in_our_words(head: &[u8]) -> Option<Vec<u8>> {
    let status: u16 = std::str::from_utf8(head.get(9..12)?).ok()?.parse().ok()?;
    let (code, message) = match status {
        431 => (Code::InvalidHeaderValue, "The request's headers are too many or too long."),
        414 => (Code::RequestUrlFailedToParse, "The requested URL is too long."),
        400 => (Code::InvalidInput, "The request is not HTTP: its first line or one of its headers cannot be read."),
        _ => return None,
    };
    let id = RequestId::random();
    let refusal = Refusal::new(code, message);
    let body = serde_json::to_vec(&ErrorBody::new(&refusal, Some(""), id)).ok()?;
    let reason = http::StatusCode::from_u16(status).ok()?.canonical_reason().unwrap_or_default();
    let date = httpdate::fmt_http_date(std::time::SystemTime::now());
    let head = format!(
        "HTTP/1.1 {status} {reason}\r\nconnection: close\r\n{}: application/json;odata=minimalmetadata\r\nx-content-type-options: nosniff\r\n\
         request-id: {id}\r\n{}: {}\r\ndate: {date}\r\n\r\n",
        header::CONTENT_TYPE,
        header::CONTENT_LENGTH,
        body.len(),
    );
    tracing::debug!(request = %id, status, "refused what is not HTTP");
    Some([head.into_bytes(), body].concat())
}

impl<S: AsyncRead + Unpin> AsyncRead for OwnWords<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(context, buffer);
        if !this.talk.is_quiet() {
            this.head = None;
            return read;
        }
        if buffer.filled().len() > before && this.head.is_none() {
            this.head = Some(Box::pin(tokio::time::sleep(this.patience)));
        }
        if read.is_pending()
            && let Some(head) = &mut this.head
            && head.as_mut().poll(context).is_ready()
        {
            tracing::debug!(after = ?this.patience, "a request's headers did not arrive in time");
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for OwnWords<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.drain(context))?;
        if self.talk.is_quiet()
            && let Some(ours) = in_our_words(bytes)
        {
            // The connection is about to close, so nothing is replaced from here on.
            self.talk.begin();
            self.pending = ours;
            return Poll::Ready(Ok(bytes.len()));
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.drain(context))?;
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        self.talk.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.drain(context))?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const SHORT: Duration = Duration::from_millis(200);

    #[tokio::test]
    async fn headers_that_trickle_in_are_given_up() {
        let (mut client, server) = tokio::io::duplex(64);
        let mut stream = OwnWords::new(server, Talk::default(), SHORT);
        let trickle = tokio::spawn(async move {
            while client.write_all(b"a").await.is_ok() {
                tokio::time::sleep(SHORT / 10).await;
            }
        });
        let error = loop {
            if let Err(error) = stream.read_u8().await {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(stream);
        trickle.await.unwrap();
    }

    #[tokio::test]
    async fn a_body_may_come_slowly() {
        let (mut client, server) = tokio::io::duplex(64);
        let talk = Talk::default();
        let mut stream = OwnWords::new(server, talk.clone(), Duration::ZERO);
        client.write_all(b"a").await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'a');
        talk.begin();
        let body = tokio::spawn(async move { stream.read_u8().await });
        tokio::task::yield_now().await;
        client.write_all(b"b").await.unwrap();
        assert_eq!(body.await.unwrap().unwrap(), b'b');
    }
}
