//! The owner of a task folder, and which owners were deleted: names are reused, numbers never.

use contract::ids::{JobUid, TaskUid};

/// The owner of a task folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    Task(TaskUid),
    /// A job, whose preparation or release uses the folder.
    Job(JobUid),
}

/// A deletion: everything of one name up to these numbers. Older dispatchers send no numbers.
#[derive(Debug, Clone, Copy, Default)]
pub struct Gone {
    pub last: Option<TaskUid>,
    /// Present when the whole job was deleted.
    pub job: Option<JobUid>,
}

impl Gone {
    /// Whether this owner was deleted; `None` when the deletion has no number for it.
    pub fn covers(&self, owner: Owner) -> Option<bool> {
        match owner {
            Owner::Task(uid) => self.last.map(|last| uid <= last),
            Owner::Job(uid) => self.job.map(|job| uid <= job),
        }
    }
}

impl Owner {
    /// The text that a mark stores.
    pub fn text(self) -> String {
        match self {
            Owner::Task(uid) => uid.0.to_string(),
            Owner::Job(uid) => format!("job-{}", uid.0),
        }
    }

    /// Parses the text of a mark.
    pub fn parse(text: &str) -> Option<Owner> {
        match text.strip_prefix("job-") {
            Some(number) => number.parse().ok().map(|number| Owner::Job(JobUid(number))),
            None => text.parse().ok().map(|number| Owner::Task(TaskUid(number))),
        }
    }
}
