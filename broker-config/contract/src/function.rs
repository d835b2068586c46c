//! Functions of a pool: warm programs that answer invocations, and what nodes need to know to run them.
//!
//! Stored and shown as documents in camelCase; sent to agents inside [`PoolFunctions`].

use serde::{Deserialize, Serialize};

use crate::{ids::FunctionId, period::Period, spec::EnvironmentSetting};

/// An invocation runs at most this long where its function says nothing.
pub const TIMEOUT_DEFAULT: Period = Period::from_secs(30);
/// Time after which a host without invocations ends where its function says nothing.
pub const IDLE_DEFAULT: Period = Period::from_secs(600);
/// Retries of a failed invocation where its function says nothing.
pub const RETRIES_DEFAULT: u32 = 2;
/// Larger answers travel as a reference to a blob.
pub const ANSWER_INLINE_BYTES_MAX: usize = 256 * 1024;
/// The folder of function packages in Piecework's own bucket; the rest of a key is the SHA-256 of the zip.
pub const PACKAGES: &str = "functions/";
/// The end of the key of a package.
pub const PACKAGE_ENDING: &str = ".zip";

/// Headers of invocations, of their answers and of their dead letters.
pub mod header {
    /// The number of tries that failed before; absent in an invocation that was not tried yet.
    pub const FAILED: &str = "piecework-failed-attempts";
    /// `ok` or `error`.
    pub const STATUS: &str = "piecework-status";
    /// The code of an error, such as `FunctionTimedOut`.
    pub const ERROR: &str = "piecework-error";
    /// Time in the function in milliseconds, without the start of its program.
    pub const DURATION: &str = "piecework-duration-ms";
    /// The version of the function that answered.
    pub const VERSION: &str = "piecework-version";
    /// The URL of an answer that is too large for a message; the body is empty then.
    pub const BLOB_URL: &str = "piecework-answer-url";
    /// The length in bytes of such an answer.
    pub const BLOB_BYTES: &str = "piecework-answer-bytes";
    /// The text of an error.
    pub const MESSAGE: &str = "piecework-message";
    /// Why a message is a dead letter: the code of its error.
    pub const REASON: &str = "piecework-reason";
    /// The pool of a dead letter.
    pub const POOL: &str = "piecework-pool";
}

/// How a function's program gets events and gives answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Runtime {
    /// The program asks the AWS Lambda Runtime API for events.
    Lambda,
    /// One line of JSON on standard input for each event, one line of JSON on standard output for its answer.
    Lines,
    /// A process for each event, on its standard input; the answer is its standard output.
    Exec,
    /// The program listens on the port in `$PORT` and gets each event as a POST.
    Http,
}

/// The settings of one version of a function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FunctionSpec {
    pub runtime: Runtime,
    /// The value of `_HANDLER`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handler: Option<String>,
    /// Starts the program; runtime `lambda` has a default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command_line: Option<String>,
    /// The SHA-256 of the zip with the program, in hexadecimal digits; without it the command needs what the node has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
    /// Resident memory of the program at most; none when absent.
    #[serde(default, rename = "memoryMiB", skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u32>,
    pub timeout: Period,
    /// Invocations that run on one node at the same time at most; as many as it has slots when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency_per_node: Option<u32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub environment_settings: Vec<EnvironmentSetting>,
    /// Programs that each node keeps started.
    #[serde(default)]
    pub warm_instances: u32,
    pub max_retry_count: u32,
    pub idle_time: Period,
}

impl FunctionSpec {
    /// The key of the package in Piecework's own bucket.
    pub fn package_key(&self) -> Option<String> {
        self.package.as_ref().map(|hash| format!("{PACKAGES}{hash}{PACKAGE_ENDING}"))
    }
}

/// The version of a function that takes new invocations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Function {
    pub name: FunctionId,
    /// Counts the function's versions from 1.
    pub version: u32,
    /// Belongs to this version alone, also when another function of the same name comes later.
    pub uid: u64,
    pub spec: FunctionSpec,
}

/// All functions of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PoolFunctions {
    /// Changes with every change of one of them; zero for a pool that never had any.
    pub number: u64,
    pub functions: Vec<Function>,
}
