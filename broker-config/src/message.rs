//! Every message on the road, with the version it was written in.
//!
//! ```text
//! dispatcher ── TaskMessage ──► piecework.tasks ──► agents
//! agents ── EventBatch ──► piecework.events ──► dispatcher      agents ── Beat ──► piecework.beats ──► dispatcher
//! dispatcher ── Control ──► piecework.control ──► agents        (answers: BeatReply, AskReply, ... to reply_to)
//! agents, autoscaler ── Request ──► piecework.requests ──► dispatcher ── Reply ──► reply_to
//! ```
//! Bodies are MessagePack with named fields, or JSON. Unknown fields are ignored; a message whose `v`
//! is unknown is put aside to `piecework.dead`, never dropped. Every event is safe to receive twice.

use serde::{Deserialize, Serialize};

use crate::{
    chore::{Chore, ChoreEnd, ChoreKey},
    ids::{AttemptKey, Epoch, Fence, JobId, NodeId, PoolId, RunId, RunKey, TaskId, TaskUid},
    spec::{FillType, Package, QueuePolicy, StartTask, TaskSpec},
    state::{AllocationState, DeallocationOption, NodeState, PoolState, SchedulingState},
    time::Timestamp,
};

/// The version this build writes and reads.
pub const VERSION: u32 = 1;

/// Specs whose message would be larger than this travel with the answer to an ask.
pub const SPEC_BYTES_MAX: usize = 64 * 1024;

/// A stream of a short task that is smaller than this rides in its `Finished`.
pub const INLINE_STREAM_BYTES_MAX: usize = 4 * 1024;

/// The largest piece of a file that travels over the road in one message.
pub const FILE_CHUNK_BYTES_MAX: usize = 256 * 1024;

/// Events in one batch at most.
pub const EVENTS_PER_BATCH_MAX: usize = 256;

/// Runs listed in one beat at most, live and kept each.
pub const RUNS_PER_BEAT_MAX: usize = 4_096;

// ---- tasks -----------------------------------------------------------------------------------

/// Whether a delivery runs at once or is a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    /// The attempt's first publish: run it, unless it was redelivered.
    Now,
    /// Ask the dispatcher first.
    Ask,
}

/// One attempt of a task that may run now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskMessage {
    /// Format version.
    pub v: u32,
    /// The task's number.
    pub uid: TaskUid,
    /// The attempt, from 1.
    pub attempt: u32,
    /// The attempt's fence.
    pub fence: Fence,
    /// The job's name, for directories and the environment.
    pub job: JobId,
    /// The task's name.
    pub task: TaskId,
    /// Run or ask.
    pub start: Start,
    /// Slots the task takes; more than one only on the wide queue.
    pub slots: u32,
    /// What to run; absent when the answer to the ask brings it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<TaskSpec>,
}

impl TaskMessage {
    /// The attempt this message is about.
    pub fn key(&self) -> AttemptKey {
        AttemptKey { uid: self.uid, attempt: self.attempt, fence: self.fence }
    }
}

// ---- events ----------------------------------------------------------------------------------

/// What an agent tells, in the order it happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventBatch {
    /// Format version.
    pub v: u32,
    /// The pool.
    pub pool: PoolId,
    /// The node.
    pub node: NodeId,
    /// The agent's start.
    pub epoch: Epoch,
    /// At most [`EVENTS_PER_BATCH_MAX`].
    pub events: Vec<AgentEvent>,
}

/// One thing that happened on a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum AgentEvent {
    /// A run began.
    Started(Started),
    /// A run ended.
    Finished(Box<Finished>),
    /// The node's own state changed.
    Node(NodeReport),
    /// A job's preparation or release ended; told until a beat says that it is over.
    Chore(Box<ChoreEnd>),
}

/// A run began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// The task.
    pub uid: TaskUid,
    /// Its attempt.
    pub attempt: u32,
    /// The attempt's fence.
    pub fence: Fence,
    /// The execution.
    pub run: RunId,
    /// When, by the node's clock.
    pub at: Timestamp,
}

impl Started {
    /// The run this is about.
    pub fn run_key(&self) -> RunKey {
        RunKey { uid: self.uid, attempt: self.attempt, fence: self.fence, run: self.run }
    }
}

/// A run ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finished {
    /// The task.
    pub uid: TaskUid,
    /// Its attempt.
    pub attempt: u32,
    /// The attempt's fence.
    pub fence: Fence,
    /// The execution.
    pub run: RunId,
    /// When it started, by the node's clock.
    pub started_at: Timestamp,
    /// When it ended, outputs included.
    pub ended_at: Timestamp,
    /// How it ended.
    pub outcome: Outcome,
    /// What it wrote to stdout.
    #[serde(default)]
    pub stdout: Stream,
    /// What it wrote to stderr.
    #[serde(default)]
    pub stderr: Stream,
    /// What it used.
    #[serde(default)]
    pub usage: Usage,
}

impl Finished {
    /// The run this is about.
    pub fn run_key(&self) -> RunKey {
        RunKey { uid: self.uid, attempt: self.attempt, fence: self.fence, run: self.run }
    }
}

/// The true end of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Outcome {
    /// The process exited.
    Exit {
        /// Its code.
        code: i32,
    },
    /// A signal ended the process.
    Signal {
        /// Its number.
        number: i32,
    },
    /// The wall-clock limit ended it.
    Timeout {
        /// The limit.
        limit_ms: u64,
    },
    /// The dispatcher said stop; the dispatcher knows why.
    Stopped,
    /// An input could not be staged; the process never started.
    Staging(Fault),
    /// The program could not be started.
    Launch(Fault),
    /// The process ended but an output could not be uploaded.
    Upload {
        /// The process's exit code, if it exited.
        code: Option<i32>,
        /// What went wrong.
        fault: Fault,
    },
    /// The node ran out of disk or broke in another way; the task is not to blame.
    Node(Fault),
    /// The run never began: the preparation that it waited for failed on this node.
    Unprepared(Box<ChoreEnd>),
}

/// A reason a person understands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Azure Batch's code, such as `BlobNotFound`, `CommandProgramNotFound`, `FileUploadMiscError`.
    pub code: String,
    /// One sentence.
    pub message: String,
    /// Names and values: the file, the URL without its query, the status.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<(String, String)>,
}

/// Where the bytes of a stream are.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(tag = "at", rename_all = "lowercase")]
pub enum Stream {
    /// Nothing was written.
    #[default]
    Empty,
    /// Here.
    Inline {
        /// At most [`INLINE_STREAM_BYTES_MAX`]; lossy UTF-8 is never applied.
        #[serde(with = "bytes_or_text")]
        bytes: Vec<u8>,
    },
    /// In Piecework's own bucket.
    Blob {
        /// The key.
        key: String,
        /// Its length in bytes.
        bytes: u64,
    },
    /// On the node only, or gone with it.
    Node {
        /// Its length in bytes.
        bytes: u64,
    },
}

/// What a run used.
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

/// A node's own state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeReport {
    /// The state the agent is in.
    pub state: NodeState,
    /// How the start task ended, if it has.
    #[serde(default)]
    pub start_task: Option<StartTaskEnd>,
    /// Why the node is unusable.
    #[serde(default)]
    pub fault: Option<Fault>,
    /// True once a drain is complete: the node holds no run and consumes nothing.
    #[serde(default)]
    pub is_drained: bool,
    /// When, by the node's clock.
    pub at: Timestamp,
}

/// How the start task ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartTaskEnd {
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Timestamp,
    /// How it ended.
    pub outcome: Outcome,
    /// Retries spent.
    pub retries: u32,
    /// When the last of them began.
    #[serde(default)]
    pub retried_at: Option<Timestamp>,
}

// ---- beats -----------------------------------------------------------------------------------

/// An agent is alive and holds these runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beat {
    /// Format version.
    pub v: u32,
    /// The pool.
    pub pool: PoolId,
    /// The node.
    pub node: NodeId,
    /// The agent's start.
    pub epoch: Epoch,
    /// Runs that are under way.
    pub live: Vec<RunKey>,
    /// Runs that ended and whose record is not known to be safe.
    pub kept: Vec<RunKey>,
    /// Slots without a run.
    pub free_slots: u32,
    /// True while the agent accepts deliveries.
    pub is_consuming: bool,
    /// Chores that run, or ended and are not known to be over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chores: Vec<ChoreKey>,
}

/// The answer to a beat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BeatReply {
    /// Format version.
    pub v: u32,
    /// The dispatcher's start; a new one means that events may have to be told again.
    pub boot: u64,
    /// One for each run that is not simply fine.
    pub verdicts: Vec<(RunId, Verdict)>,
    /// What the node shall do.
    pub order: NodeOrder,
    /// Releases that the beat did not name and that shall run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub releases: Vec<Chore>,
    /// Chores of the beat that are over: recorded, or not wanted any more. What runs is ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub over: Vec<ChoreKey>,
}

/// What the dispatcher says of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Go on; or: the end is not recorded yet.
    Ok,
    /// End it, report `Stopped`.
    Stop,
    /// Another run owns the task: end it, forget it.
    Fenced,
    /// The end is recorded: forget it.
    Recorded,
}

/// What the dispatcher wants of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "lowercase")]
pub enum NodeOrder {
    /// Take tasks.
    Work,
    /// Take no new tasks, keep the running ones.
    Hold,
    /// Take no new tasks, deal with the running ones, then report drained.
    Drain {
        /// How to deal with them.
        option: DeallocationOption,
    },
    /// The same, then end: its supervisor starts it again.
    Restart {
        /// How to deal with the runs.
        option: DeallocationOption,
    },
    /// This node or epoch is not known: join again.
    Rejoin,
    /// A newer agent has this node's name, or the node was removed: stop everything and exit.
    Leave,
}

// ---- control ---------------------------------------------------------------------------------

/// What the dispatcher tells agents unasked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Control {
    /// Format version.
    pub v: u32,
    /// What it is.
    pub what: ControlKind,
}

/// The control messages; each is an early copy of what the next beat answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "control", rename_all = "lowercase")]
pub enum ControlKind {
    /// End a run.
    Stop {
        /// The run.
        run: RunId,
        /// `Stop` or `Fenced`.
        verdict: Verdict,
    },
    /// Do not start this attempt should it be delivered within [`REVOKE_MS`].
    Revoke {
        /// The attempt.
        key: AttemptKey,
    },
    /// The node's order changed.
    Order(NodeOrder),
    /// Runs whose ends are recorded.
    Recorded {
        /// The runs.
        runs: Vec<RunId>,
    },
    /// Beat at once: the answer has something to do.
    Beat,
    /// Answer with a [`FileReply`] to `reply_to`.
    File(FileRequest),
    /// Remove the directories of tasks that were deleted.
    Forget {
        /// The job.
        job: JobId,
        /// One task, or all of the job's.
        task: Option<TaskId>,
    },
}

/// How long an agent remembers a revoked attempt.
pub const REVOKE_MS: u64 = 60_000;

/// What to do with a file of a node; paths are relative to the node's root and use `/`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "file", rename_all = "lowercase")]
pub enum FileRequest {
    /// Entries below a directory.
    List {
        /// The directory.
        path: String,
        /// Descend.
        recursive: bool,
        /// Entries at most; the answer says whether there were more.
        entries_max: u32,
        /// Only names after this one.
        after: Option<String>,
    },
    /// Properties of one entry.
    Stat {
        /// The entry.
        path: String,
    },
    /// Bytes of a file, at most [`FILE_CHUNK_BYTES_MAX`].
    Read {
        /// The file.
        path: String,
        /// First byte.
        offset: u64,
        /// Bytes wanted.
        length: u64,
    },
    /// Upload the file as it is now to Piecework's own bucket.
    Upload {
        /// The file.
        path: String,
        /// The key.
        key: String,
    },
    /// Upload the agent's own log to a container of the blob store, in the background.
    UploadLogs {
        /// `s3://bucket/prefix`, or the endpoint's own URL.
        container_url: String,
        /// The folder below it.
        directory: String,
        /// Logs that end before are left out.
        from: Timestamp,
        /// Logs that begin after are left out.
        until: Option<Timestamp>,
    },
    /// Remove a file or directory.
    Delete {
        /// The entry.
        path: String,
        /// Remove what is below, too.
        recursive: bool,
    },
}

/// The answer to a [`FileRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "lowercase")]
pub enum FileReply {
    /// Entries in name order.
    Entries {
        /// The entries.
        entries: Vec<FileEntry>,
        /// Whether more follow.
        has_more: bool,
    },
    /// Properties, for `Stat`, `Upload` and `Delete`.
    Entry(FileEntry),
    /// Bytes and the properties of the whole file.
    Chunk {
        /// The file.
        entry: FileEntry,
        /// The bytes.
        #[serde(with = "bytes_or_text")]
        bytes: Vec<u8>,
    },
    /// So many logs are on their way.
    Uploading {
        /// Files.
        files: u32,
    },
    /// Nothing has this path.
    NotFound,
    /// The path leaves the node's root, or is not what the request needs.
    Refused(Fault),
}

/// Properties of a file on a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Relative to the requested directory, with `/`.
    pub name: String,
    /// Whether it is a directory.
    pub is_directory: bool,
    /// Bytes.
    pub length: u64,
    /// Last change.
    pub modified_at: Timestamp,
    /// Creation, or the last change where that is not known.
    pub created_at: Timestamp,
    /// As in `0o100644`.
    pub mode: u32,
}

// ---- requests --------------------------------------------------------------------------------

/// A question to the dispatcher, answered with a [`Reply`] to `reply_to`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Format version.
    pub v: u32,
    /// What it is.
    pub what: RequestKind,
}

/// The questions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum RequestKind {
    /// An agent joins its pool.
    Join(Join),
    /// May this delivery run?
    Ask(Ask),
    /// May this run upload its outputs?
    MayPublish {
        /// The run.
        run: RunKey,
        /// Who asks.
        node: NodeId,
        /// Its start.
        epoch: Epoch,
    },
    /// All pools as they are.
    Snapshot,
    /// Write node rows before creating the nodes.
    CreateNodes {
        /// The pool.
        pool: PoolId,
        /// How many.
        count: u32,
    },
    /// Cordon and drain a node.
    DrainNode {
        /// The pool.
        pool: PoolId,
        /// The node.
        node: NodeId,
        /// How to deal with its tasks.
        option: DeallocationOption,
    },
    /// The provider has removed a node, or never had it.
    NodeGone {
        /// The pool.
        pool: PoolId,
        /// The node.
        node: NodeId,
        /// Why, for the record.
        reason: String,
    },
    /// The provider has stopped an empty node and keeps it.
    NodeStopped {
        /// The pool.
        pool: PoolId,
        /// The node.
        node: NodeId,
    },
    /// The decision of an evaluation, for people to read.
    Decision {
        /// The pool.
        pool: PoolId,
        /// Nodes wanted.
        target: u32,
        /// In words.
        reason: String,
        /// What went wrong while making nodes, if anything.
        fault: Option<Fault>,
    },
}

/// An agent joins its pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Join {
    /// The pool.
    pub pool: PoolId,
    /// The node.
    pub node: NodeId,
    /// The join token, or on rejoining the node's credential.
    pub token: String,
    /// The epoch it had, when it rejoins without having been restarted; its runs are then kept.
    pub epoch: Option<Epoch>,
    /// The address other nodes reach it at.
    pub address: String,
    /// Processors.
    pub cores: u32,
    /// The agent's version.
    pub version: String,
}

/// May this delivery run?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// The attempt, and the run that would execute it.
    pub run: RunKey,
    /// Who asks.
    pub node: NodeId,
    /// Its start.
    pub epoch: Epoch,
    /// Whether the agent knows preparations; tasks that need one wait for an agent that does.
    #[serde(default)]
    pub prepares: bool,
}

/// The answer to a [`Request`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplyMessage {
    /// Format version.
    pub v: u32,
    /// What it is.
    pub what: Reply,
}

/// The answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    /// Welcome.
    Joined(Joined),
    /// What to do with the delivery.
    Answer(Answer),
    /// Whether the run may upload.
    MayPublish {
        /// Yes or no; no means that it was fenced.
        allowed: bool,
    },
    /// All pools.
    Snapshot {
        /// The dispatcher's start.
        boot: u64,
        /// The pools.
        pools: Vec<PoolSnapshot>,
    },
    /// The new nodes.
    Nodes {
        /// Names and join tokens.
        nodes: Vec<NodeTicket>,
    },
    /// Done.
    Done,
    /// Not done, and why.
    Refused(Fault),
}

/// What an agent learns when it joins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    /// Its epoch.
    pub epoch: Epoch,
    /// The node's credential for the next join.
    pub credential: String,
    /// The account, for the environment.
    pub account: String,
    /// The account's URL, for the environment.
    pub account_url: String,
    /// Slots of the node.
    pub slots: u32,
    /// Spread or pack.
    pub fill: FillType,
    /// The node's rank in the pool, for packing.
    pub rank: u32,
    /// What to run first.
    pub start_task: Option<StartTask>,
    /// Time between beats.
    pub beat_ms: u64,
    /// The dispatcher takes the node for lost after this long without a beat.
    pub lease_ms: u64,
    /// Whether the node was bought to stay.
    pub is_dedicated: bool,
    /// What the node shall do.
    pub order: NodeOrder,
    /// Whether the node is set up anew: its folders are emptied before anything runs.
    #[serde(default)]
    pub is_reimaged: bool,
    /// Packages of the pool, unpacked before anything runs.
    #[serde(default)]
    pub packages: Vec<Package>,
}

/// What to do with a delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "lowercase")]
pub enum Answer {
    /// Run it: the asking run owns the task now.
    Run {
        /// What to run, if the message left it out.
        spec: Option<Box<TaskSpec>>,
        /// What to run first, once for all tasks of the job; the run is alive meanwhile.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        preparation: Option<Box<Chore>>,
    },
    /// Another run of this agent is already at it: keep the delivery for that run.
    Resume {
        /// The run that goes on.
        run: RunId,
    },
    /// Void: acknowledge it and forget it.
    Drop,
    /// Keep it and ask again after this long.
    Wait {
        /// The time.
        ms: u64,
    },
}

/// A pool for the autoscaler.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolSnapshot {
    /// The pool.
    pub pool: PoolId,
    /// Its state.
    pub state: PoolState,
    /// Whether its size is changing.
    pub allocation: AllocationState,
    /// Nodes wanted, set by hand; ignored when a policy is set.
    pub target_dedicated: u32,
    /// Nodes wanted that may be taken back.
    pub target_low_priority: u32,
    /// What becomes of tasks when the pool shrinks by hand.
    pub deallocation: DeallocationOption,
    /// The built-in policy, when it is set.
    pub policy: Option<QueuePolicy>,
    /// Slots of a node.
    pub slots_per_node: u32,
    /// Slots wanted by tasks that may run and do not.
    pub waiting_slots: u64,
    /// Slots wanted by tasks that run.
    pub running_slots: u64,
    /// For how long tasks have waited without a break, in milliseconds.
    pub waiting_for_ms: u64,
    /// Every node.
    pub nodes: Vec<NodeSnapshot>,
}

/// A node for the autoscaler.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSnapshot {
    /// The node.
    pub node: NodeId,
    /// Its state.
    pub state: NodeState,
    /// Whether it may be given tasks.
    pub scheduling: SchedulingState,
    /// Runs it holds.
    pub runs: u32,
    /// For how long it has held none, in milliseconds.
    pub idle_ms: u64,
    /// For how long it has been in its state, in milliseconds.
    pub state_ms: u64,
    /// Whether it is being drained.
    pub is_draining: bool,
    /// Whether it has confirmed that it holds nothing.
    pub is_drained: bool,
    /// Whether it was bought to stay; others may be taken back.
    pub is_dedicated: bool,
    /// The join token while it is being created: creation may be tried again.
    pub token: Option<String>,
    /// What its provider shall do with its machine now.
    #[serde(default)]
    pub power: Option<Power>,
}

/// What a provider shall do with a node's machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Power {
    /// Stop it and keep it: the node is empty.
    Stop,
    /// Start it, if it is stopped.
    Start,
}

/// A node to be created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeTicket {
    /// Its name, the provider's tag.
    pub node: NodeId,
    /// What it joins with.
    pub token: String,
}

/// Bytes as MessagePack binary, and as a list of numbers in JSON.
mod bytes_or_text {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{body::Format, chore::ChoreKind, ids::JobUid};

    #[test]
    fn the_end_of_a_chore_survives_both_formats_also_inside_an_outcome() {
        let key = ChoreKey { job: JobUid(3), kind: ChoreKind::Preparation, number: 2 };
        let outcome = Outcome::Exit { code: 1 };
        let end = ChoreEnd { key, started_at: Timestamp(1), ended_at: Timestamp(2), outcome, retries: 1, retried_at: Some(Timestamp(1)) };
        let event = AgentEvent::Chore(Box::new(end.clone()));
        let outcome = Outcome::Unprepared(Box::new(end));
        for format in [Format::MessagePack, Format::Json] {
            assert_eq!(format.read::<AgentEvent>(&format.write(&event).unwrap()).unwrap(), event, "{format:?}");
            assert_eq!(format.read::<Outcome>(&format.write(&outcome).unwrap()).unwrap(), outcome, "{format:?}");
        }
        let order = ControlKind::Beat;
        assert_eq!(Format::Json.write(&order).unwrap(), br#"{"control":"beat"}"#);
    }

    #[test]
    fn messages_survive_both_formats_and_unknown_fields_are_ignored() {
        let finished = AgentEvent::Finished(Box::new(Finished {
            uid: TaskUid(7),
            attempt: 1,
            fence: Fence(1 << 40),
            run: RunId::random(),
            started_at: Timestamp(1),
            ended_at: Timestamp(2),
            outcome: Outcome::Upload {
                code: Some(0),
                fault: Fault { code: "FileUploadMiscError".into(), message: "no".into(), details: vec![("a".into(), "b".into())] },
            },
            stdout: Stream::Inline { bytes: vec![0xff, 0, 1] },
            stderr: Stream::Empty,
            usage: Usage::default(),
        }));
        let batch =
            EventBatch { v: VERSION, pool: "p".parse().unwrap(), node: "n".parse().unwrap(), epoch: Epoch(3), events: vec![finished] };
        for format in [Format::MessagePack, Format::Json] {
            let bytes = format.write(&batch).unwrap();
            assert_eq!(format.read::<EventBatch>(&bytes).unwrap(), batch, "{format:?}");
        }
        let reply: BeatReply =
            Format::Json.read(br#"{"v":1,"boot":1,"verdicts":[],"order":{"order":"drain","option":"requeue"},"extra":1}"#).unwrap();
        assert_eq!(reply.order, NodeOrder::Drain { option: DeallocationOption::Requeue });
        assert!(reply.releases.is_empty() && reply.over.is_empty(), "an older dispatcher has no chores");
    }
}
