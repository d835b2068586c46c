//! A directory on a live node, read over the broker.

use axum::body::Body;
use contract::{
    ids::{NodeId, PoolId},
    message::{FileEntry, FileReply, FileRequest},
};
use model::refusal::{Code, Refusal};

use crate::{
    answer::Answer,
    call::Call,
    file_answer::{self, Wanted, missing},
    state::ApiState,
};

/// A directory of a node; clients name paths below it.
pub struct Place {
    pub pool: PoolId,
    pub node: NodeId,
    /// Path from the node's root; empty for the root itself.
    pub directory: String,
}

/// Error for an answer that does not match its question.
pub fn unexpected(reply: &FileReply) -> Refusal {
    tracing::error!(?reply, "a node agent's reply to a file request does not match the request; the client gets an error 500");
    Refusal::new(Code::InternalError, "The node answered something else than what it was asked.")
}

impl Place {
    /// A path below the directory, from the node's root.
    pub fn path(&self, below: &str) -> String {
        if self.directory.is_empty() { below.to_owned() } else { format!("{}/{below}", self.directory) }
    }

    /// Properties of an entry; `None` when it does not exist.
    pub async fn stat(&self, api: &ApiState, below: &str) -> Result<Option<FileEntry>, Refusal> {
        match api.files.ask(&self.pool, &self.node, FileRequest::Stat { path: self.path(below) }).await? {
            FileReply::Entry(entry) => Ok(Some(entry)),
            FileReply::NotFound => Ok(None),
            reply => Err(unexpected(&reply)),
        }
    }

    /// A page of entries, and whether more follow; `None` when the directory does not exist.
    pub async fn entries(&self, api: &ApiState, wanted: &Wanted) -> Result<Option<(Vec<FileEntry>, bool)>, Refusal> {
        let request = FileRequest::List {
            path: self.directory.clone(),
            recursive: wanted.recursive,
            entries_max: wanted.paging.rows_max as u32,
            after: wanted.paging.after.clone(),
        };
        match api.files.ask(&self.pool, &self.node, request).await? {
            FileReply::Entries { entries, has_more } => Ok(Some((entries, has_more))),
            FileReply::NotFound => Ok(None),
            reply => Err(unexpected(&reply)),
        }
    }

    /// Properties of a file.
    pub async fn properties(&self, api: &ApiState, call: &Call, below: &str) -> Result<Answer, Refusal> {
        let entry = self.stat(api, below).await?.ok_or_else(|| missing(below))?;
        let unmodified = file_answer::not_modified(call, &entry)?;
        Ok(unmodified.unwrap_or_else(|| file_answer::properties(call, &entry)))
    }

    /// Removes an entry.
    pub async fn remove(&self, api: &ApiState, call: &Call, below: &str) -> Result<Answer, Refusal> {
        let recursive = call.query.flag("recursive")?;
        let request = FileRequest::Delete { path: self.path(below), recursive };
        match api.files.ask(&self.pool, &self.node, request).await? {
            FileReply::Entry(_) => Ok(Answer { body: Body::empty(), ..Answer::empty(200) }),
            FileReply::NotFound => Err(missing(below)),
            reply => Err(unexpected(&reply)),
        }
    }
}
