//! Conditions on lists, independent of OData and of the database.

/// A condition. Fields are column names from a fixed list, and values are always bound as parameters.
#[derive(Debug, Clone, PartialEq)]
pub enum Filter {
    /// All of them hold.
    And(Vec<Filter>),
    /// At least one of them holds.
    Or(Vec<Filter>),
    /// A comparison. A missing value passes `Ne` only.
    Compare(Field, Operator, Value),
    /// The field begins with the text, compared without case.
    StartsWith(Field, String),
}

/// A field that can be compared; each list has some of them.
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
    /// 1 when nodes of the pool may communicate with each other.
    InterNode,
    /// 1 for pools with an autoscale formula.
    Scales,
    /// Start of a job schedule.
    NotUntil,
    NotAfter,
    /// State of a node's start task.
    StartState,
    /// A part of a job's preparation on a node. In that list `Id` and `Pool` name the node.
    Preparation(JobTaskPart),
    /// A part of a job's release on a node.
    Release(JobTaskPart),
}

/// A part of a preparation or release that can be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JobTaskPart {
    State,
    StartedAt,
    EndedAt,
    /// Exit code of a command that exited.
    ExitCode,
    /// 1 for success, 0 for failure.
    HasSucceeded,
}

/// A comparison operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operator {
    Eq,
    Ne,
    Gt,
    Ge,
    Lt,
    Le,
}

/// The value that a field is compared with.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Text, compared without case. States have their wire spelling.
    Text(String),
    /// A number; times are milliseconds since 1970.
    Number(i64),
}
