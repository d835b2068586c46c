//! Ids as types, parsed once at the API.
//!
//! Names that users give (`PoolId`, `JobId`, `ScheduleId`, `TaskId`, `NodeId`) keep their case and compare
//! without it, as Azure Batch does. Numbers that Piecework gives (`TaskUid`, `Fence`, `RunId`, `Epoch`) are never reused.

use std::{fmt, hash::Hash, str::FromStr};

use rand::RngExt;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use thiserror::Error;

/// The longest id that a user may give, in characters.
pub const ID_LENGTH_MAX: usize = 64;

/// The rule that an id breaks.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum IdError {
    #[error("id is empty")]
    Empty,
    /// Longer than [`ID_LENGTH_MAX`].
    #[error("id has {length} characters, the most is {ID_LENGTH_MAX}")]
    TooLong {
        /// In characters.
        length: usize,
    },
    /// A character outside `[A-Za-z0-9_-]`.
    #[error("id holds {character:?}; letters, digits, '-' and '_' are allowed")]
    Character {
        /// The first one that is not allowed.
        character: char,
    },
    /// Not a run id: 32 hexadecimal digits.
    #[error("run id is not 32 hexadecimal digits")]
    Run,
}

fn check(text: &str) -> Result<(), IdError> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    // Fast path: ids are parsed by the thousand, and nearly all are valid.
    if (1..=ID_LENGTH_MAX).contains(&text.len()) && text.bytes().all(is_plain) {
        return Ok(());
    }
    if text.is_empty() {
        return Err(IdError::Empty);
    }
    let length = text.chars().count();
    if length > ID_LENGTH_MAX {
        return Err(IdError::TooLong { length });
    }
    let allowed = |c: &char| c.is_ascii_alphanumeric() || "-_".contains(*c);
    match text.chars().find(|c| !allowed(c)) {
        Some(character) => Err(IdError::Character { character }),
        None => Ok(()),
    }
}

/// Separates a schedule's name and the number in the names of its jobs.
const JOB_MARK: &str = ":job-";

/// Splits the name of a schedule's job into the schedule's name and the job's number.
fn numbered(text: &str) -> Option<(&str, u64)> {
    let (schedule, number) = text.split_once(JOB_MARK)?;
    let is_plain = !number.starts_with('0') && number.bytes().all(|byte| byte.is_ascii_digit());
    let number = number.parse().ok().filter(|_| is_plain)?;
    check(schedule).ok().map(|()| (schedule, number))
}

fn check_job(text: &str) -> Result<(), IdError> {
    match numbered(text) {
        Some(_) => Ok(()),
        None => check(text),
    }
}

/// Versions of packages may also contain dots, but `.` and `..` are refused.
fn check_version(text: &str) -> Result<(), IdError> {
    match check(&text.replace('.', "_")) {
        Ok(()) if text.bytes().all(|byte| byte == b'.') => Err(IdError::Character { character: '.' }),
        checked => checked,
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $check:path) => {
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $name(std::sync::Arc<str>);

        impl $name {
            /// The id in its original case.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                $check(text).map(|()| Self(text.into()))
            }
        }
        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                self.0.eq_ignore_ascii_case(&other.0)
            }
        }
        impl Eq for $name {}
        impl Hash for $name {
            fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
                for byte in self.0.bytes() {
                    state.write_u8(byte.to_ascii_lowercase());
                }
                state.write_u8(0xff);
            }
        }
        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
                Some(self.cmp(other))
            }
        }
        impl Ord for $name {
            fn cmp(&self, other: &Self) -> std::cmp::Ordering {
                let lower = |text: &str| text.bytes().map(|b| b.to_ascii_lowercase()).collect::<Vec<_>>();
                lower(&self.0).cmp(&lower(&other.0))
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(&self.0)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                String::deserialize(from)?.parse().map_err(de::Error::custom)
            }
        }
    };
}

name!(
    /// The id of a pool.
    PoolId,
    check
);
name!(
    /// The id of a job; jobs of a schedule are named `{schedule}:job-{n}`.
    JobId,
    check_job
);
name!(
    /// The id of a job schedule.
    ScheduleId,
    check
);
name!(
    /// The id of a task, unique in its job.
    TaskId,
    check
);
name!(
    /// The id of a node, unique in its pool; providers tag machines with it.
    NodeId,
    check
);
name!(
    /// The id of an application.
    ApplicationId,
    check
);
name!(
    /// The id of a function, unique in its pool; the AMQP `type` of its invocations.
    FunctionId,
    check
);
name!(
    /// The id of a trigger.
    TriggerId,
    check
);
name!(
    /// A version of an application package.
    PackageVersion,
    check_version
);

impl JobId {
    /// The name of a schedule's job number `number`, counted from 1.
    pub fn of_schedule(schedule: &ScheduleId, number: u64) -> JobId {
        JobId(format!("{schedule}{JOB_MARK}{}", number.max(1)).into())
    }

    /// The schedule that created the job, if one did.
    pub fn schedule(&self) -> Option<ScheduleId> {
        numbered(&self.0).map(|(schedule, _)| ScheduleId(schedule.into()))
    }

    /// The folder of the job's tasks, below a node's `workitems`: `{job}/job-1` or `{schedule}/job-{n}`.
    pub fn folder(&self) -> String {
        match numbered(&self.0) {
            Some((schedule, number)) => format!("{schedule}/job-{number}"),
            None => format!("{self}/job-1"),
        }
    }
}

/// A task's number; never reused, grows with creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TaskUid(pub u64);

/// A job's number; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobUid(pub u64);

/// Orders all decisions about one task: a larger fence makes every smaller one void.
///
/// The upper 24 bits are the store's epoch, so that fences issued after a restore win.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fence(pub u64);

impl Fence {
    /// The next larger fence.
    pub fn next(self) -> Fence {
        Fence(self.0 + 1)
    }
}

/// One start of a node's agent; a newer epoch voids the runs of the older ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

/// One execution of a task, chosen at random by the agent that starts it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(pub u128);

impl RunId {
    /// A new id from the system's random numbers.
    pub fn random() -> RunId {
        RunId(rand::rng().random())
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", (self.0 >> 96) as u32)
    }
}

impl FromStr for RunId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<RunId, IdError> {
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(IdError::Run);
        }
        u128::from_str_radix(text, 16).map(RunId).map_err(|_| IdError::Run)
    }
}

impl Serialize for RunId {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RunId {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<RunId, D::Error> {
        String::deserialize(from)?.parse().map_err(de::Error::custom)
    }
}

/// Identifies one attempt of one task everywhere outside the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AttemptKey {
    pub uid: TaskUid,
    /// Counted from 1.
    pub attempt: u32,
    /// The fence that the attempt was released with.
    pub fence: Fence,
}

/// Identifies one execution of one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RunKey {
    pub uid: TaskUid,
    pub attempt: u32,
    /// The fence that the attempt was released with.
    pub fence: Fence,
    pub run: RunId,
}

impl RunKey {
    /// The attempt that this run executes.
    pub fn key(&self) -> AttemptKey {
        AttemptKey { uid: self.uid, attempt: self.attempt, fence: self.fence }
    }
}

impl AttemptKey {
    /// The key of one execution of this attempt.
    pub fn with(self, run: RunId) -> RunKey {
        RunKey { uid: self.uid, attempt: self.attempt, fence: self.fence, run }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_keep_case_and_compare_without_it() {
        let (a, b): (PoolId, PoolId) = ("Pool-A".parse().unwrap(), "pool-a".parse().unwrap());
        assert_eq!(a, b);
        assert_eq!(a.as_str(), "Pool-A");
    }

    #[test]
    fn forbidden_ids_are_refused_with_their_reason() {
        assert_eq!("".parse::<TaskId>().unwrap_err(), IdError::Empty);
        assert_eq!("a b".parse::<TaskId>().unwrap_err(), IdError::Character { character: ' ' });
        assert_eq!("x".repeat(65).parse::<TaskId>().unwrap_err(), IdError::TooLong { length: 65 });
        assert!("s:job-1".parse::<TaskId>().is_err());
    }

    #[test]
    fn only_names_that_a_schedule_gives_hold_a_colon() {
        let schedule: ScheduleId = "s".repeat(64).parse().unwrap();
        let job = JobId::of_schedule(&schedule, 12);
        assert_eq!(job.as_str().parse::<JobId>().unwrap(), job);
        assert_eq!((job.schedule(), job.folder()), (Some(schedule.clone()), format!("{schedule}/job-12")));
        let plain: JobId = "job-12".parse().unwrap();
        assert_eq!((plain.schedule(), plain.folder().as_str()), (None, "job-12/job-1"));
        for text in ["a:b", "a:", ":job-1", "a:job-", "a:job-0", "a:job-01", "a:job-+1", "a:job-1x", "a:job-1:job-1", "a b:job-1"] {
            assert!(text.parse::<JobId>().is_err(), "{text}");
        }
        assert!(format!("{}:job-1", "x".repeat(65)).parse::<JobId>().is_err());
    }

    #[test]
    fn versions_of_packages_hold_dots_but_are_no_paths() {
        for text in ["1.0", "v2", ".1", "1..2"] {
            assert!(text.parse::<PackageVersion>().is_ok(), "{text}");
        }
        for text in ["", ".", "..", "1/2", "1 0"] {
            assert!(text.parse::<PackageVersion>().is_err(), "{text}");
        }
    }

    #[test]
    fn run_ids_survive_text() {
        let run = RunId::random();
        assert_eq!(run.to_string().parse::<RunId>().unwrap(), run);
    }
}
