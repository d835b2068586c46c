//! Conditions on lists, independent of the text they came from and of the database they run on.

/// A condition; fields are column names from a white list, values are always bound.
#[derive(Debug, Clone, PartialEq)]
pub enum Filter {
    /// All of them.
    And(Vec<Filter>),
    /// Any of them.
    Or(Vec<Filter>),
    /// A comparison; a missing value passes none but `Ne`.
    Compare(Field, Operator, Value),
    /// A prefix, compared without case.
    StartsWith(Field, String),
}

/// What can be compared: columns that exist in the list's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Field {
    Id,
    State,
    StateAt,
    CreatedAt,
    ModifiedAt,
    StartedAt,
    EndedAt,
    ExitCode,
    /// 1 for success, 0 for failure.
    HasSucceeded,
    Allocation,
    AllocationAt,
    BootedAt,
    AllocatedAt,
    /// The pool of a job.
    Pool,
    VmSize,
    /// 1 when nodes may talk to each other.
    InterNode,
    /// 1 for pools that follow a formula.
    Scales,
    /// Of a job schedule.
    NotUntil,
    NotAfter,
    /// Of a node's start task.
    StartState,
    /// Of a job's preparation on a node, which is named by `Id` and `Pool`.
    Preparation(JobTaskPart),
    /// Of its release there.
    Release(JobTaskPart),
}

/// What can be compared of a preparation or release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JobTaskPart {
    State,
    StartedAt,
    EndedAt,
    /// Of a command that exited.
    ExitCode,
    /// 1 for success, 0 for failure.
    HasSucceeded,
}

/// How values are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operator {
    Eq,
    Ne,
    Gt,
    Ge,
    Lt,
    Le,
}

/// What a field is compared with.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Text, compared without case; states in their wire spelling.
    Text(String),
    /// A number; times in milliseconds since 1970.
    Number(i64),
}
