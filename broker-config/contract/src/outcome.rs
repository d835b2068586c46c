//! The end of a run: its outcome, faults, streams and usage.

use serde::{Deserialize, Serialize};

use crate::{ids::JobUid, time::Timestamp};

/// The code of runs that were ended because they used too much of the node's disk.
pub const DISK_FULL: &str = "DiskFull";

/// The kind of a job task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobTaskKind {
    /// Runs before the job's first task on the node.
    Preparation,
    /// Runs after the job's last task on the node.
    Release,
}

/// Identifies a job task on its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct JobTaskKey {
    pub job: JobUid,
    pub kind: JobTaskKind,
    /// Counts the requests to run it on the node, from 1.
    pub number: u32,
}

/// The end of a job task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobTaskEnd {
    pub key: JobTaskKey,
    /// By the node's clock.
    pub started_at: Timestamp,
    pub ended_at: Timestamp,
    /// The outcome of the last try.
    pub outcome: Outcome,
    /// Tries after the first.
    #[serde(default)]
    pub retries: u32,
    /// Start of the last retry.
    #[serde(default)]
    pub retried_at: Option<Timestamp>,
}

impl JobTaskEnd {
    /// True when the command exited with zero.
    pub fn has_succeeded(&self) -> bool {
        self.outcome == Outcome::Exit { code: 0 }
    }
}

/// A smaller stream of a short task is sent inside its `Finished`.
pub const INLINE_STREAM_BYTES_MAX: usize = 4 * 1024;

/// The largest piece of a file in one message.
pub const FILE_CHUNK_BYTES_MAX: usize = 256 * 1024;

/// The outcome of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Outcome {
    /// The process exited.
    Exit { code: i32 },
    /// A signal ended the process.
    Signal { number: i32 },
    /// The agent ended the run at the wall-clock limit.
    Timeout { limit_ms: u64 },
    /// The agent ended the run by the dispatcher's request; the dispatcher has the reason.
    Stopped,
    /// An input could not be staged; the process never started.
    Staging(Fault),
    /// The program could not be started; or, as `DiskFull`, the run used too much of the disk.
    Launch(Fault),
    /// The process ended but an output could not be uploaded.
    Upload {
        /// The process's exit code, if it exited.
        code: Option<i32>,
        /// The upload's error.
        fault: Fault,
    },
    /// The node ran out of disk or failed in another way; the task is not to blame.
    Node(Fault),
    /// The run never began: the job preparation that it waited for failed on this node.
    Unprepared(Box<JobTaskEnd>),
}

impl Outcome {
    /// True when the command never ran.
    pub fn is_before_start(&self) -> bool {
        match self {
            Outcome::Staging(_) => true,
            Outcome::Launch(fault) => fault.code != DISK_FULL,
            _ => false,
        }
    }
}

/// A code and message for users.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Azure Batch's code, such as `BlobNotFound`, `CommandProgramNotFound`, `FileUploadMiscError`.
    pub code: String,
    /// A sentence for people.
    pub message: String,
    /// Names and values: the file, the URL without its query, the status.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<(String, String)>,
}

/// The place of a stream's bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(tag = "at", rename_all = "lowercase")]
pub enum Stream {
    /// Nothing was written.
    #[default]
    Empty,
    /// In this message.
    Inline {
        /// At most [`INLINE_STREAM_BYTES_MAX`]; lossy UTF-8 is never applied.
        #[serde(with = "bytes_or_text")]
        bytes: Vec<u8>,
    },
    /// In Piecework's own bucket.
    Blob {
        key: String,
        /// Length in bytes.
        bytes: u64,
    },
    /// On the node only, or lost with it.
    Node {
        /// Length in bytes.
        bytes: u64,
    },
}

/// Resources used by a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// CPU time in user mode.
    pub user_ms: u64,
    /// CPU time in kernel mode.
    pub kernel_ms: u64,
    /// Peak resident memory of the process.
    pub memory_peak_bytes: u64,
    /// Bytes staged in.
    pub in_bytes: u64,
    /// Bytes staged out.
    pub out_bytes: u64,
}

/// Bytes as MessagePack binary, and as a list of numbers in JSON.
pub(crate) mod bytes_or_text {
    use serde::{Deserializer, Serializer, de};

    pub fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(bytes)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Vec<u8>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }
            fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
                Ok(bytes)
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Vec<u8>, E> {
                Ok(text.as_bytes().to_vec())
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<u8>, A::Error> {
                let mut bytes = Vec::with_capacity(seq.size_hint().unwrap_or(0).min(super::FILE_CHUNK_BYTES_MAX));
                while let Some(byte) = seq.next_element()? {
                    bytes.push(byte);
                }
                Ok(bytes)
            }
        }
        from.deserialize_any(Visitor)
    }
}
