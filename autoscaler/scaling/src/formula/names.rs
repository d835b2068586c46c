//! Names of the language: variables of the pool, functions, methods, members, constants.
//!
//! They are found in any letter case; a formula's own variables are case-sensitive.

use contract::state::DeallocationOption;

/// Variables that a formula may assign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Setting {
    Dedicated,
    /// The older name; a value under the newer name takes precedence.
    DedicatedAlias,
    LowPriority,
    /// The older name; a value under the newer name takes precedence.
    LowPriorityAlias,
    Option,
}

/// Measurements of a pool of which the dispatcher takes a sample every 30 seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Metric {
    ActiveTasks,
    RunningTasks,
    PendingTasks,
    SucceededTasks,
    FailedTasks,
    ActiveTaskSlots,
    RunningTaskSlots,
    PendingTaskSlots,
    CurrentDedicatedNodes,
    CurrentLowPriorityNodes,
    PreemptedNodeCount,
    UsableNodeCount,
    SampleNodeCount,
    /// Metrics of Azure's that the nodes do not measure: they have no samples.
    Unmeasured(&'static str),
}

/// Functions of the language.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    Avg,
    Max,
    Min,
    Sum,
    Range,
    Std,
    Norm,
    Len,
    Vec,
    Percentile,
    Val,
    Rand,
    Stop,
    Time,
    Lg,
    Ln,
    Log,
    Ceil,
    Floor,
    Round,
}

/// Methods of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    GetSample,
    GetSamplePercent,
    GetSamplePeriod,
    Count,
    HistoryBeginTime,
}

/// Parts of a timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Member {
    Year,
    Month,
    Day,
    Weekday,
    Hour,
    Minute,
    Second,
}

/// A resolved name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    Setting(Setting),
    Metric(Metric),
    SlotsPerNode,
    /// Ticks of 100 ns.
    Interval(i64),
    Word(DeallocationOption),
    /// A variable of the formula, by its index.
    Own(usize),
}

const SETTINGS: &[(&str, Setting)] = &[
    ("$TargetDedicatedNodes", Setting::Dedicated),
    ("$TargetDedicated", Setting::DedicatedAlias),
    ("$TargetLowPriorityNodes", Setting::LowPriority),
    ("$TargetLowPriority", Setting::LowPriorityAlias),
    ("$NodeDeallocationOption", Setting::Option),
];

pub(super) const METRICS: &[(&str, Metric)] = &[
    ("$ActiveTasks", Metric::ActiveTasks),
    ("$RunningTasks", Metric::RunningTasks),
    ("$PendingTasks", Metric::PendingTasks),
    ("$SucceededTasks", Metric::SucceededTasks),
    ("$FailedTasks", Metric::FailedTasks),
    ("$ActiveTaskSlots", Metric::ActiveTaskSlots),
    ("$RunningTaskSlots", Metric::RunningTaskSlots),
    ("$PendingTaskSlots", Metric::PendingTaskSlots),
    ("$CurrentDedicatedNodes", Metric::CurrentDedicatedNodes),
    ("$CurrentDedicated", Metric::CurrentDedicatedNodes),
    ("$CurrentLowPriorityNodes", Metric::CurrentLowPriorityNodes),
    ("$CurrentLowPriority", Metric::CurrentLowPriorityNodes),
    ("$PreemptedNodeCount", Metric::PreemptedNodeCount),
    ("$UsableNodeCount", Metric::UsableNodeCount),
    ("$SampleNodeCount", Metric::SampleNodeCount),
    ("$CPUPercent", Metric::Unmeasured("$CPUPercent")),
    ("$WallClockSeconds", Metric::Unmeasured("$WallClockSeconds")),
    ("$MemoryBytes", Metric::Unmeasured("$MemoryBytes")),
    ("$DiskBytes", Metric::Unmeasured("$DiskBytes")),
    ("$DiskReadBytes", Metric::Unmeasured("$DiskReadBytes")),
    ("$DiskWriteBytes", Metric::Unmeasured("$DiskWriteBytes")),
    ("$DiskReadOps", Metric::Unmeasured("$DiskReadOps")),
    ("$DiskWriteOps", Metric::Unmeasured("$DiskWriteOps")),
    ("$NetworkInBytes", Metric::Unmeasured("$NetworkInBytes")),
    ("$NetworkOutBytes", Metric::Unmeasured("$NetworkOutBytes")),
];

pub(super) const TICKS_PER_MS: i64 = 10_000;
const SECOND: i64 = 1_000 * TICKS_PER_MS;
const DAY: i64 = 24 * 3_600 * SECOND;

const INTERVALS: &[(&str, i64)] = &[
    ("TimeInterval_Zero", 0),
    ("TimeInterval_100ns", 1),
    ("TimeInterval_Microsecond", 10),
    ("TimeInterval_Millisecond", TICKS_PER_MS),
    ("TimeInterval_Second", SECOND),
    ("TimeInterval_Minute", 60 * SECOND),
    ("TimeInterval_Hour", 3_600 * SECOND),
    ("TimeInterval_Day", DAY),
    ("TimeInterval_Week", 7 * DAY),
    ("TimeInterval_Year", 365 * DAY),
];

/// Name, function, and how many arguments it takes.
const FUNCTIONS: &[(&str, Function, usize, usize)] = &[
    ("avg", Function::Avg, 1, usize::MAX),
    ("max", Function::Max, 1, usize::MAX),
    ("min", Function::Min, 1, usize::MAX),
    ("sum", Function::Sum, 1, usize::MAX),
    ("range", Function::Range, 1, usize::MAX),
    ("std", Function::Std, 1, usize::MAX),
    ("norm", Function::Norm, 1, usize::MAX),
    ("len", Function::Len, 1, usize::MAX),
    ("vec", Function::Vec, 1, usize::MAX),
    ("percentile", Function::Percentile, 2, 2),
    ("val", Function::Val, 2, 2),
    ("rand", Function::Rand, 0, 0),
    ("stop", Function::Stop, 0, 0),
    ("time", Function::Time, 0, 1),
    ("lg", Function::Lg, 1, 1),
    ("ln", Function::Ln, 1, 1),
    ("log", Function::Log, 1, 1),
    ("ceil", Function::Ceil, 1, 1),
    ("floor", Function::Floor, 1, 1),
    ("round", Function::Round, 1, 1),
];

const METHODS: &[(&str, Method, usize, usize)] = &[
    ("GetSample", Method::GetSample, 1, 3),
    ("GetSamplePercent", Method::GetSamplePercent, 1, 2),
    ("GetSamplePeriod", Method::GetSamplePeriod, 0, 0),
    ("Count", Method::Count, 0, 0),
    ("HistoryBeginTime", Method::HistoryBeginTime, 0, 0),
];

const MEMBERS: &[(&str, Member)] = &[
    ("year", Member::Year),
    ("month", Member::Month),
    ("day", Member::Day),
    ("weekday", Member::Weekday),
    ("hour", Member::Hour),
    ("minute", Member::Minute),
    ("second", Member::Second),
];

fn find<T: Copy>(table: &[(&str, T)], name: &str) -> Option<T> {
    table.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
}

/// The variable of this name that a formula may assign.
pub(super) fn setting(name: &str) -> Option<Setting> {
    find(SETTINGS, name)
}

/// Resolves a name of the language itself.
pub(super) fn known(name: &str) -> Option<Name> {
    let slots = || name.eq_ignore_ascii_case("$TaskSlotsPerNode").then_some(Name::SlotsPerNode);
    setting(name)
        .map(Name::Setting)
        .or_else(|| find(METRICS, name).map(Name::Metric))
        .or_else(slots)
        .or_else(|| find(INTERVALS, name).map(Name::Interval))
        .or_else(|| DeallocationOption::parse(name).map(Name::Word))
}

/// A function and how many arguments it takes.
pub(super) fn function(name: &str) -> Option<(Function, usize, usize)> {
    let found = FUNCTIONS.iter().find(|(known, ..)| known.eq_ignore_ascii_case(name));
    found.map(|(_, function, least, most)| (*function, *least, *most))
}

/// A method and how many arguments it takes.
pub(super) fn method(name: &str) -> Option<(Method, usize, usize)> {
    METHODS.iter().find(|(known, ..)| known.eq_ignore_ascii_case(name)).map(|(_, method, least, most)| (*method, *least, *most))
}

/// The part of a timestamp of this name.
pub(super) fn member(name: &str) -> Option<Member> {
    find(MEMBERS, name)
}

impl Metric {
    /// The metric's name in formulas.
    pub fn name(self) -> &'static str {
        METRICS.iter().find(|(_, metric)| *metric == self).map_or("", |(name, _)| name)
    }
}
