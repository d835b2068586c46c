//! Answers 503 with a reason at the API's address while the start waits for something: a full disk, a locked store.

use std::{convert::Infallible, io, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tracing::debug;

/// Time that a client has for its request and our answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes of a request that are read before it is answered.
const REQUEST_BYTES_MAX: usize = 8 * 1024;
/// Between two tries to accept a connection, when the first one failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Answers every request with 503, in the form of a running server's health, until it is dropped. Without a listener
/// it only waits.
pub async fn answer_unavailable(listener: Option<&TcpListener>, part: &str, reason: &str) -> Infallible {
    let Some(listener) = listener else { return std::future::pending().await };
    loop {
        match listener.accept().await {
            Ok((stream, _)) => match tokio::time::timeout(ANSWER_TIMEOUT, answer(stream, part, reason)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => debug!(%error, "a client closed its connection before the 503 answer"),
                Err(_) => debug!("a client was too slow to get the 503 answer"),
            },
            Err(error) => {
                debug!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn answer(mut stream: TcpStream, part: &str, reason: &str) -> io::Result<()> {
    let mut request = Vec::new();
    while request.len() < REQUEST_BYTES_MAX && !request.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut request).await? == 0 {
            break;
        }
    }
    let body = serde_json::json!({ "status": "unavailable", "problems": [{ "part": part, "reason": reason }] }).to_string();
    let head = format!(
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: {}\r\nRetry-After: 5\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}
