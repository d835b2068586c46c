//! Runtime `http`: the program listens on the port in `$PORT` and gets each event as a POST with the headers of a
//! CloudEvent in binary form.

use std::{io, net::Ipv4Addr, time::Duration};

use contract::{ids::FunctionId, time::Timestamp};
use futures::StreamExt;
use tokio::{
    net::{TcpListener, TcpStream},
    time::sleep,
};

use crate::warm::event::{ANSWER_BYTES_MAX, Event, Failure, Said, too_large};

/// Period of tries to reach a program that starts.
const CONNECT_PERIOD: Duration = Duration::from_millis(20);
const OCTETS: &str = "application/octet-stream";

/// A program that listens.
pub struct HttpProgram {
    client: reqwest::Client,
    url: String,
}

impl HttpProgram {
    /// A port that was free a moment ago.
    pub async fn free_port() -> io::Result<u16> {
        Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?.local_addr()?.port())
    }

    /// Waits until the program listens; the caller bounds the wait.
    pub async fn connect(port: u16) -> Result<HttpProgram, Failure> {
        let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build();
        let client = client.map_err(|error| Failure::new("NodeError", format!("cannot create an HTTP client: {error}")))?;
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_err() {
            sleep(CONNECT_PERIOD).await;
        }
        Ok(HttpProgram { client, url: format!("http://127.0.0.1:{port}/") })
    }

    pub async fn call(&mut self, function: &FunctionId, event: &Event) -> Said {
        let mut request = self
            .client
            .post(&self.url)
            .header("content-type", event.content_type.as_deref().unwrap_or(OCTETS))
            .header("ce-specversion", "1.0")
            .header("ce-id", event.message_id.as_ref().unwrap_or(&event.id))
            .header("ce-type", "piecework.invocation")
            .header("ce-source", format!("/piecework/functions/{function}"))
            .header("ce-time", Timestamp::now().to_string())
            .body(event.body.clone());
        if let Some(traceparent) = &event.traceparent {
            request = request.header("traceparent", traceparent);
        }
        let answer = match request.send().await {
            Ok(answer) => answer,
            Err(error) => return broken(&error),
        };
        let status = answer.status();
        let content_type = answer.headers().get("content-type").and_then(|value| value.to_str().ok()).unwrap_or(OCTETS).to_owned();
        let (mut body, mut chunks) = (Vec::new(), answer.bytes_stream());
        while let Some(chunk) = chunks.next().await {
            match chunk {
                Ok(chunk) if body.len() + chunk.len() <= ANSWER_BYTES_MAX => body.extend_from_slice(&chunk),
                Ok(_) => return Said::Broken(too_large()),
                Err(error) => return broken(&error),
            }
        }
        if status.is_success() {
            Said::Answer { body, content_type }
        } else {
            Said::Error { message: format!("the program answered with HTTP status {}", status.as_u16()), body }
        }
    }
}

fn broken(error: &reqwest::Error) -> Said {
    Said::Broken(Failure::new("FunctionCrashed", format!("the program did not answer its request: {error}")))
}
