//! Runtime `lines`: a line of JSON in, a line of JSON out.

use std::io;

use serde::Deserialize;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    process::{ChildStdin, ChildStdout},
};

use crate::{
    process::launch::Pipes,
    warm::event::{ANSWER_BYTES_MAX, Event, Failure, Said, too_large},
};

/// An answer that is the function's own error, as AWS Lambda's clients write it.
#[derive(Deserialize)]
struct ErrorLine {
    #[serde(rename = "errorMessage")]
    message: String,
}

/// The pipes of a program.
pub struct Lines {
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Lines {
    pub fn new(pipes: Pipes) -> io::Result<Lines> {
        Ok(Lines { stdin: ChildStdin::from_std(pipes.stdin)?, stdout: BufReader::new(ChildStdout::from_std(pipes.stdout)?) })
    }

    pub async fn call(&mut self, event: &Event) -> Said {
        let line = match one_line(&event.body) {
            Ok(line) => line,
            Err(error) => {
                let message = format!("the event is not JSON, which a function with runtime lines takes alone: {error}");
                return Said::Refused(Failure::lasting("FunctionEventInvalid", message));
            }
        };
        let Lines { stdin, stdout } = self;
        let write = async {
            stdin.write_all(&line).await?;
            stdin.flush().await
        };
        let mut answer = Vec::new();
        let mut reader = stdout.take(ANSWER_BYTES_MAX as u64 + 1);
        let (written, read) = tokio::join!(write, reader.read_until(b'\n', &mut answer));
        if answer.len() > ANSWER_BYTES_MAX {
            return Said::Broken(too_large());
        }
        if written.is_err() || read.is_err() || answer.pop() != Some(b'\n') {
            return Said::Gone;
        }
        match serde_json::from_slice::<ErrorLine>(&answer) {
            Ok(error) => Said::Error { message: error.message, body: answer },
            Err(_) => Said::Answer { body: answer, content_type: "application/json".to_owned() },
        }
    }
}

/// The event on one line, with its end.
fn one_line(body: &[u8]) -> Result<Vec<u8>, serde_json::Error> {
    let mut line = match body.contains(&b'\n') {
        true => serde_json::to_vec(&serde_json::from_slice::<serde_json::Value>(body)?)?,
        false => {
            serde_json::from_slice::<serde::de::IgnoredAny>(body)?;
            body.to_vec()
        }
    };
    line.push(b'\n');
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_becomes_one_line_or_is_refused() {
        assert_eq!(one_line(br#"{"a": 1}"#).unwrap(), b"{\"a\": 1}\n");
        assert_eq!(one_line(b"{\n \"a\": [1,\n2]}\n").unwrap(), b"{\"a\":[1,2]}\n");
        for bad in [&b""[..], b"{", b"a\nb", b"\x80", b"1 2"] {
            assert!(one_line(bad).is_err());
        }
    }
}
