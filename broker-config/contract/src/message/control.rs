//! Messages that the dispatcher sends to agents unasked: cancellations, drains, file requests.

use serde::{Deserialize, Serialize};

use crate::{
    ids::{AttemptKey, JobId, JobUid, RunId, TaskId, TaskUid},
    message::heartbeat::{NodeOrder, Verdict},
    outcome::{Fault, bytes_or_text},
    time::Timestamp,
};

// ---- control ---------------------------------------------------------------------------------

/// A message of the dispatcher to one agent, or to all agents of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Control {
    /// Format version.
    pub v: u32,
    pub what: ControlKind,
}

/// The control messages; each is an early copy of the next heartbeat's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "control", rename_all = "lowercase")]
pub enum ControlKind {
    /// The agent ends a run.
    Stop {
        run: RunId,
        /// `Stop` or `Fenced`.
        verdict: Verdict,
    },
    /// The agent does not start this attempt if it is delivered within [`REVOKE_MS`].
    Revoke { key: AttemptKey },
    /// The node's order changed.
    Order(NodeOrder),
    /// The dispatcher has recorded the ends of these runs.
    Recorded { runs: Vec<RunId> },
    /// The agent sends a heartbeat at once, because the answer has something to do.
    #[serde(rename = "beat")]
    Heartbeat,
    /// The agent answers with a [`FileReply`] to `reply_to`.
    File(FileRequest),
    /// The agent removes the directories of deleted tasks.
    Forget {
        job: JobId,
        /// The task whose folders go; `None` means all tasks of the job.
        task: Option<TaskId>,
        /// The last deleted task: later ones of the same name keep their directories.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        last: Option<TaskUid>,
        /// The job's number: a later job of the same name keeps the directories of its preparation and release.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        job_uid: Option<JobUid>,
    },
}

/// How long an agent remembers a revoked attempt.
pub const REVOKE_MS: u64 = 60_000;

/// An operation on a file of a node; paths are relative to the node's root and use `/`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "file", rename_all = "lowercase")]
pub enum FileRequest {
    /// Lists the entries below a directory.
    List {
        /// A directory.
        path: String,
        /// Includes entries of subdirectories.
        recursive: bool,
        /// The reply says whether there were more.
        entries_max: u32,
        /// Returns only names after this one.
        after: Option<String>,
    },
    /// Returns the properties of one entry.
    Stat { path: String },
    /// Reads at most [`FILE_CHUNK_BYTES_MAX`] of a file.
    Read {
        path: String,
        /// First byte.
        offset: u64,
        /// In bytes.
        length: u64,
    },
    /// Uploads the file as it is now to Piecework's own bucket.
    Upload {
        path: String,
        /// The key of the new blob.
        key: String,
    },
    /// Uploads the agent's own log to a container of the blob store, in the background.
    UploadLogs {
        /// `s3://bucket/prefix`, or the endpoint's own URL.
        container_url: String,
        /// The folder below the container.
        directory: String,
        /// Logs that end before are left out.
        from: Timestamp,
        /// Logs that begin after are left out.
        until: Option<Timestamp>,
    },
    /// Removes a file or directory.
    Delete {
        path: String,
        /// Removes the contents of a directory, too.
        recursive: bool,
    },
}

/// The reply to a [`FileRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "lowercase")]
pub enum FileReply {
    /// Entries in name order.
    Entries {
        entries: Vec<FileEntry>,
        /// More entries follow.
        has_more: bool,
    },
    /// Reply to `Stat`, `Upload` and `Delete`.
    Entry(FileEntry),
    /// Bytes of a file.
    Chunk {
        /// Properties of the whole file.
        entry: FileEntry,
        #[serde(with = "bytes_or_text")]
        bytes: Vec<u8>,
    },
    /// The upload of the logs has started.
    Uploading {
        /// The number of files.
        files: u32,
    },
    /// No entry has this path.
    NotFound,
    /// The path leaves the node's root, or the entry is of the wrong kind.
    Refused(Fault),
}

/// Properties of a file on a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Relative to the requested directory, with `/`.
    pub name: String,
    pub is_directory: bool,
    /// In bytes.
    pub length: u64,
    pub modified_at: Timestamp,
    /// The last change where the creation is unknown.
    pub created_at: Timestamp,
    /// As in `0o100644`.
    pub mode: u32,
}
