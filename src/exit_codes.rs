//! Exit codes of the command line, documented in `piecework --help` and stable.

use std::fmt;

use dispatcher::DispatcherError;

use crate::client::error::ClientError;

/// Everything went well.
pub(crate) const OK: u8 = 0;
/// At least one task failed, or something else went wrong.
pub(crate) const FAILED: u8 = 1;
/// The command line cannot be understood.
pub(crate) const USAGE: u8 = 2;
/// The server, broker or blob store cannot be reached.
pub(crate) const UNREACHABLE: u8 = 3;
/// The account or key is wrong.
pub(crate) const DENIED: u8 = 4;
/// The pool, node, job, task or file does not exist.
pub(crate) const NOT_FOUND: u8 = 5;
/// The resource exists already, or its state does not allow the request.
pub(crate) const CONFLICT: u8 = 6;
/// The server refused the request for another reason.
pub(crate) const REFUSED: u8 = 7;
/// The data folder is used by another `piecework up`, the broker by another dispatcher, or the store by another process.
pub(crate) const IN_USE: u8 = 8;
/// A part of the stack ended by itself.
pub(crate) const PART_ENDED: u8 = 10;
/// Interrupted by Ctrl-C.
pub(crate) const INTERRUPTED: u8 = 130;

/// The exit codes as `piecework --help` shows them.
pub(crate) const HELP: &str = "Exit codes: 0 well, 1 a task or something else failed, 2 wrong usage, 3 server not reachable, 4 wrong account or key, \
5 not found, 6 exists already or wrong state, 7 refused, 8 data folder, store or broker in use, 10 a part of the stack ended, 130 interrupted. \
`run` ends with its task's own exit code.";

/// A failure that a person can do something about.
#[derive(Debug, thiserror::Error)]
pub(crate) struct Failure {
    /// The exit code of the process.
    pub(crate) code: u8,
    pub(crate) what: String,
    /// Advice to the user; may be empty.
    pub(crate) hint: &'static str,
}

impl Failure {
    /// A failure with a hint.
    pub(crate) fn new(code: u8, what: impl Into<String>, hint: &'static str) -> Failure {
        Failure { code, what: what.into(), hint }
    }

    /// A wrong command line that clap cannot detect.
    pub(crate) fn usage(what: impl Into<String>) -> Failure {
        Failure::new(USAGE, what, "")
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.hint {
            "" => f.write_str(&self.what),
            hint => write!(f, "{}\n  {hint}", self.what),
        }
    }
}

impl ClientError {
    /// The exit code for this error.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            ClientError::Unreachable { .. } => UNREACHABLE,
            ClientError::Refused { status: 401 | 403, .. } => DENIED,
            ClientError::Refused { status: 404, .. } => NOT_FOUND,
            ClientError::Refused { status: 409 | 412, .. } => CONFLICT,
            ClientError::Refused { status: 503, .. } => UNREACHABLE,
            _ => REFUSED,
        }
    }
}

/// The exit code of an error.
pub(crate) fn of(error: &anyhow::Error) -> u8 {
    // Whatever part it ended.
    let is_in_use = |cause: &(dyn std::error::Error + 'static)| cause.downcast_ref().is_some_and(DispatcherError::is_in_use);
    if error.chain().any(is_in_use) {
        return IN_USE;
    }
    // A failure that was added as context is not in the chain as itself.
    if let Some(failure) = error.downcast_ref::<Failure>() {
        return failure.code;
    }
    for cause in error.chain() {
        if let Some(client) = cause.downcast_ref::<ClientError>() {
            return client.exit_code();
        }
    }
    FAILED
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_cause_with_a_code_decides() {
        let error = anyhow::Error::new(Failure::new(IN_USE, "in use", "stop the other")).context("starting");
        assert_eq!(of(&error), IN_USE);
        let error = anyhow::anyhow!("it broke").context(Failure::new(PART_ENDED, "a part ended", ""));
        assert_eq!(of(&error), PART_ENDED);
        assert_eq!(of(&anyhow::anyhow!("anything")), FAILED);
    }

    #[test]
    fn every_code_is_in_the_help() {
        for code in [OK, FAILED, USAGE, UNREACHABLE, DENIED, NOT_FOUND, CONFLICT, REFUSED, IN_USE, PART_ENDED, INTERRUPTED] {
            assert!(HELP.contains(&format!("{code} ")), "{code}");
        }
    }
}
