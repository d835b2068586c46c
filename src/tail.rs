//! Reads a task's file in pieces, also while it grows.

use bytes::Bytes;

use crate::client::{Client, ClientError, path};

/// Bytes asked for at once.
const RANGE_BYTES: u64 = 4 * 1024 * 1024;

/// A file and the number of bytes read so far.
pub(crate) struct Tail {
    path: String,
    offset: u64,
    must_exist: bool,
}

impl Tail {
    /// A file of a task, from its start; one that does not exist yet is empty.
    pub(crate) fn new(job: &str, task: &str, file: &str) -> Tail {
        Tail { path: path(&["jobs", job, "tasks", task, "files", file]), offset: 0, must_exist: false }
    }

    /// A file that does not exist is an error.
    pub(crate) fn must_exist(self) -> Tail {
        Tail { must_exist: true, ..self }
    }

    /// Skips all but the last `keep` bytes.
    pub(crate) async fn seek_end(&mut self, client: &Client, keep: u64) -> Result<(), ClientError> {
        self.offset = self.length(client).await?.saturating_sub(keep);
        Ok(())
    }

    /// The next bytes; empty at the present end.
    pub(crate) async fn next(&mut self, client: &Client) -> Result<Bytes, ClientError> {
        let more = match client.file_range(&self.path, self.offset, RANGE_BYTES).await {
            // The file has no bytes beyond this offset.
            Err(ClientError::Refused { status: 416, .. }) => Bytes::new(),
            Err(error) if self.is_absent(&error) => Bytes::new(),
            more => more?,
        };
        self.offset += more.len() as u64;
        Ok(more)
    }

    async fn length(&self, client: &Client) -> Result<u64, ClientError> {
        match client.file_length(&self.path).await {
            Err(error) if self.is_absent(&error) => Ok(0),
            length => length,
        }
    }

    /// While a task waits it has no node (409), and before it starts no file (404).
    fn is_absent(&self, error: &ClientError) -> bool {
        !self.must_exist && matches!(error, ClientError::Refused { status: 404 | 409, .. })
    }
}
