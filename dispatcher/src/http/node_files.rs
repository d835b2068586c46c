//! Files of a live node, asked for over the road.

use axum::body::Body;
use broker_config::{
    ids::{NodeId, PoolId},
    message::{FileEntry, FileReply, FileRequest},
};

use crate::{
    http::{
        answer::Answer,
        call::Call,
        entrance::Door,
        file_answer::{self, Range, Wanted, missing},
        transfer,
    },
    refusal::{Code, Refusal},
};

/// A directory of a node; paths below it are what clients name.
pub struct Place {
    /// The pool.
    pub pool: PoolId,
    /// The node.
    pub node: NodeId,
    /// From the node's root; empty for the root itself.
    pub directory: String,
}

/// An answer that does not fit its question.
pub fn unexpected(reply: &FileReply) -> Refusal {
    tracing::error!(?reply, "an agent answered another question");
    Refusal::new(Code::InternalError, "The node answered something else than what it was asked.")
}

impl Place {
    /// A path below the directory, from the node's root.
    pub fn path(&self, below: &str) -> String {
        if self.directory.is_empty() { below.to_owned() } else { format!("{}/{below}", self.directory) }
    }

    /// Properties of an entry; nothing when it does not exist.
    pub async fn stat(&self, door: &Door, below: &str) -> Result<Option<FileEntry>, Refusal> {
        match door.files.ask(&self.pool, &self.node, FileRequest::Stat { path: self.path(below) }).await? {
            FileReply::Entry(entry) => Ok(Some(entry)),
            FileReply::NotFound => Ok(None),
            reply => Err(unexpected(&reply)),
        }
    }

    /// A page of entries and whether more follow; nothing when the directory does not exist.
    pub async fn entries(&self, door: &Door, wanted: &Wanted) -> Result<Option<(Vec<FileEntry>, bool)>, Refusal> {
        let request = FileRequest::List {
            path: self.directory.clone(),
            recursive: wanted.recursive,
            entries_max: wanted.paging.rows_max as u32,
            after: wanted.paging.after.clone(),
        };
        match door.files.ask(&self.pool, &self.node, request).await? {
            FileReply::Entries { entries, has_more } => Ok(Some((entries, has_more))),
            FileReply::NotFound => Ok(None),
            reply => Err(unexpected(&reply)),
        }
    }

    /// Bytes of a file.
    pub async fn content(&self, door: &Door, call: &Call, below: &str) -> Result<Answer, Refusal> {
        let range = Range::read(&call.headers)?;
        if call.condition != Default::default() {
            let entry = self.stat(door, below).await?.ok_or_else(|| missing(below))?;
            if let Some(answer) = file_answer::not_modified(call, &entry)? {
                return Ok(answer);
            }
        }
        let (entry, body, length) = transfer::fetch(door, self, below, range).await?;
        Ok(file_answer::content(call, &entry, body, length))
    }

    /// Properties of a file.
    pub async fn properties(&self, door: &Door, call: &Call, below: &str) -> Result<Answer, Refusal> {
        let entry = self.stat(door, below).await?.ok_or_else(|| missing(below))?;
        let unmodified = file_answer::not_modified(call, &entry)?;
        Ok(unmodified.unwrap_or_else(|| file_answer::properties(call, &entry)))
    }

    /// Removes an entry.
    pub async fn remove(&self, door: &Door, call: &Call, below: &str) -> Result<Answer, Refusal> {
        let recursive = call.query.flag("recursive")?;
        let request = FileRequest::Delete { path: self.path(below), recursive };
        match door.files.ask(&self.pool, &self.node, request).await? {
            FileReply::Entry(_) => Ok(Answer { body: Body::empty(), ..Answer::empty(200) }),
            FileReply::NotFound => Err(missing(below)),
            reply => Err(unexpected(&reply)),
        }
    }
}

async fn root(door: &Door, call: &Call) -> Result<Place, Refusal> {
    let row = door.node(&call.pool()?, &call.node()?).await?;
    Ok(Place { pool: row.pool, node: row.id, directory: String::new() })
}

/// Entries below a node's root.
pub async fn list(door: &Door, call: &Call) -> Result<Answer, Refusal> {
    let wanted = Wanted::read(call)?;
    let (entries, has_more) = root(door, call).await?.entries(door, &wanted).await?.unwrap_or_default();
    Ok(file_answer::list(call, &wanted, &entries, has_more))
}

/// Bytes of a node's file.
pub async fn get(door: &Door, call: &Call) -> Result<Answer, Refusal> {
    let path = file_answer::path(call.value(2))?;
    root(door, call).await?.content(door, call, path).await
}

/// Properties of a node's file.
pub async fn head(door: &Door, call: &Call) -> Result<Answer, Refusal> {
    let path = file_answer::path(call.value(2))?;
    root(door, call).await?.properties(door, call, path).await
}

/// Removes a node's file.
pub async fn delete(door: &Door, call: &Call) -> Result<Answer, Refusal> {
    let path = file_answer::path(call.value(2))?;
    root(door, call).await?.remove(door, call, path).await
}
