//! Azure's versions of the API: which are let in, and what the older and newer ones lack.
//!
//! One model serves them all: everything is taken from every client, and what its version lacks is left out of answers.

use std::sync::{LazyLock, OnceLock};

use crate::{
    http::query::Query,
    refusal::{Code, Refusal},
};

/// A version, by its date as a number: 2024-02-01.19.0 is 20240201.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(u32);

/// What a field belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A pool.
    Pool,
    /// A node.
    Node,
    /// How many nodes are in which state.
    NodeCounts,
    /// A job.
    Job,
    /// A job schedule.
    Schedule,
    /// A task.
    Task,
}

impl Kind {
    /// Azure's word for it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Pool => "CloudPool",
            Kind::Node => "ComputeNode",
            Kind::NodeCounts => "NodeCounts",
            Kind::Job => "CloudJob",
            Kind::Schedule => "CloudJobSchedule",
            Kind::Task => "CloudTask",
        }
    }
}

/// Since or until when something is part of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// In this version and later.
    Since(Version),
    /// In versions before this one.
    Until(Version),
}

impl When {
    fn holds(self, version: Version) -> bool {
        match self {
            When::Since(first) => version >= first,
            When::Until(end) => version < end,
        }
    }
}

use When::{Since, Until};

/// Task slots, which were called tasks before.
pub const V12: Version = Version(20_200_901);
const V14: Version = Version(20_210_601);
const V15: Version = Version(20_220_101);
const V16: Version = Version(20_221_001);
const V17: Version = Version(20_230_501);
const V18: Version = Version(20_231_101);
const V19: Version = Version(20_240_201);
const V20: Version = Version(20_240_701);
const V2025: Version = Version(20_250_601);

/// Fields that not every version has; a slash leads into an object.
#[rustfmt::skip]
pub const FIELDS: &[(Kind, &str, When)] = &[
    (Kind::Pool, "taskSlotsPerNode", Since(V12)),
    (Kind::Pool, "maxTasksPerNode", Until(V12)),
    (Kind::Pool, "targetNodeCommunicationMode", Since(V16)),
    (Kind::Pool, "currentNodeCommunicationMode", Since(V16)),
    (Kind::Pool, "networkConfiguration/enableAcceleratedNetworking", Since(V17)),
    (Kind::Pool, "virtualMachineConfiguration/nodePlacementConfiguration", Since(V14)),
    (Kind::Pool, "virtualMachineConfiguration/osDisk", Since(V14)),
    (Kind::Pool, "virtualMachineConfiguration/osDisk/caching", Since(V18)),
    (Kind::Pool, "virtualMachineConfiguration/osDisk/diskSizeGB", Since(V18)),
    (Kind::Pool, "virtualMachineConfiguration/osDisk/managedDisk", Since(V18)),
    (Kind::Pool, "virtualMachineConfiguration/osDisk/writeAcceleratorEnabled", Since(V18)),
    (Kind::Pool, "virtualMachineConfiguration/securityProfile", Since(V18)),
    (Kind::Pool, "virtualMachineConfiguration/serviceArtifactReference", Since(V18)),
    (Kind::Pool, "resourceTags", Since(V18)),
    (Kind::Pool, "upgradePolicy", Since(V19)),
    (Kind::Pool, "taskSchedulingPolicy/jobDefaultOrder", Since(V2025)),
    (Kind::Pool, "startTask/containerSettings/containerHostBatchBindMounts", Since(V20)),
    (Kind::Pool, "applicationLicenses", Until(V2025)),
    (Kind::Pool, "certificateReferences", Until(V2025)),
    (Kind::Pool, "cloudServiceConfiguration", Until(V2025)),
    (Kind::Pool, "resourceTags", Until(V2025)),
    (Kind::Pool, "targetNodeCommunicationMode", Until(V2025)),
    (Kind::Pool, "currentNodeCommunicationMode", Until(V2025)),
    (Kind::Node, "runningTaskSlotsCount", Since(V12)),
    (Kind::Node, "virtualMachineInfo", Since(V14)),
    (Kind::NodeCounts, "upgradingOS", Since(V19)),
    (Kind::NodeCounts, "deallocated", Since(V20)),
    (Kind::NodeCounts, "deallocating", Since(V20)),
    (Kind::Job, "maxParallelTasks", Since(V14)),
    (Kind::Job, "allowTaskPreemption", Since(V15)),
    (Kind::Job, "jobManagerTask/requiredSlots", Since(V12)),
    (Kind::Job, "jobManagerTask/containerSettings/containerHostBatchBindMounts", Since(V20)),
    (Kind::Job, "jobManagerTask/authenticationTokenSettings", Until(V2025)),
    (Kind::Schedule, "jobSpecification/maxParallelTasks", Since(V14)),
    (Kind::Schedule, "jobSpecification/allowTaskPreemption", Since(V15)),
    (Kind::Schedule, "jobSpecification/jobManagerTask/requiredSlots", Since(V12)),
    (Kind::Schedule, "jobSpecification/jobManagerTask/containerSettings/containerHostBatchBindMounts", Since(V20)),
    (Kind::Schedule, "jobSpecification/jobManagerTask/authenticationTokenSettings", Until(V2025)),
    (Kind::Task, "requiredSlots", Since(V12)),
    (Kind::Task, "containerSettings/containerHostBatchBindMounts", Since(V20)),
    (Kind::Task, "authenticationTokenSettings", Until(V2025)),
];

/// Where jobs and job schedules bring a pool along, which has the fields of [`Kind::Pool`].
const POOLS_WITHIN: [(Kind, &str); 2] =
    [(Kind::Job, "poolInfo/autoPoolSpecification/pool"), (Kind::Schedule, "jobSpecification/poolInfo/autoPoolSpecification/pool")];

/// The fields of pools inside jobs and job schedules.
static WITHIN: LazyLock<Vec<(Kind, String, When)>> = LazyLock::new(|| {
    let of_pools = FIELDS.iter().filter(|(of, ..)| *of == Kind::Pool);
    let within = |(_, path, when): &(Kind, &str, When)| POOLS_WITHIN.map(|(of, pool)| (of, format!("{pool}/{path}"), *when));
    of_pools.flat_map(within).collect()
});

/// Operations that newer versions have given up; those that older ones did not have yet are served to all.
#[rustfmt::skip]
pub const OPERATIONS: &[(&str, When)] = &[
    ("compute_node.get_remote_desktop", Until(V2025)),
    ("certificate.add", Until(V2025)),
    ("certificate.list", Until(V2025)),
    ("certificate.cancel_deletion", Until(V2025)),
    ("certificate.delete", Until(V2025)),
    ("certificate.get", Until(V2025)),
];

impl Version {
    /// Everything there is, for our own operations, which have no version.
    pub const ALL: Version = Version(u32::MAX);

    /// Reads `api-version`; every version of Azure's form is let in.
    pub fn read(query: &Query) -> Result<Version, Refusal> {
        let Some(text) = query.text("api-version")? else {
            return Err(Refusal::new(
                Code::MissingRequiredQueryParameter,
                "A query parameter that's mandatory for this request is not specified.",
            )
            .with("QueryParameterName", "api-version")
            .hint("Add api-version=2024-02-01.19.0."));
        };
        parse(text).ok_or_else(|| {
            Refusal::new(Code::UnsupportedRequestVersion, "The specified api-version is not supported.")
                .with("api-version", text.chars().take(64).collect::<String>())
                .hint("2024-02-01.19.0, 2024-07-01.20.0 and 2025-06-01 are served.")
        })
    }

    /// Fields of an answer that this version does not know.
    fn lacks(self, kind: Kind) -> Vec<&'static str> {
        let within = WITHIN.iter().map(|(of, path, when)| (*of, path.as_str(), *when));
        let all = FIELDS.iter().copied().chain(within);
        all.filter(|(of, _, when)| *of == kind && !when.holds(self)).map(|(_, path, _)| path).collect()
    }

    /// Refuses an operation that this version has given up.
    pub fn check(self, operation: &'static str, path: &str) -> Result<(), Refusal> {
        if OPERATIONS.iter().all(|(name, when)| *name != operation || when.holds(self)) {
            return Ok(());
        }
        Err(Refusal::new(Code::ResourceNotFound, "The specified resource does not exist.")
            .with("Path", path)
            .with("Operation", operation)
            .hint("This api-version does not have the operation any more."))
    }
}

/// What one version lacks: looked up once for a request, and asked for each row.
#[derive(Debug, Default)]
pub struct Lacks([OnceLock<Vec<&'static str>>; 6]);

impl Lacks {
    /// The fields that a version lacks; always the same version.
    pub fn of(&self, version: Version, kind: Kind) -> &[&'static str] {
        self.0[kind as usize].get_or_init(|| version.lacks(kind))
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.0 / 10_000, self.0 / 100 % 100, self.0 % 100)
    }
}

/// A date since 2014, and before date-only versions two numbers: `2024-02-01.19.0`.
fn parse(text: &str) -> Option<Version> {
    let (date, minor) = text.split_once('.').map_or((text, None), |(date, minor)| (date, Some(minor)));
    let digits = |text: &str, length| text.len() == length && text.bytes().all(|byte| byte.is_ascii_digit());
    let parts: Vec<_> = date.split('-').collect();
    let is_date = parts.len() == 3 && digits(parts[0], 4) && digits(parts[1], 2) && digits(parts[2], 2) && parts[0] >= "2014";
    let is_minor = minor.is_none_or(|minor| {
        minor.split_once('.').is_some_and(|(major, minor)| [major, minor].iter().all(|part| digits(part, 1) || digits(part, 2)))
    });
    if !is_date || !is_minor {
        return None;
    }
    parts.concat().parse().ok().map(Version)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::routes::ROUTES;

    #[test]
    fn versions_of_azures_shape_are_let_in() {
        for (version, wanted) in [
            ("api-version=2024-02-01.19.0", Ok(V19)),
            ("api-version=2025-06-01", Ok(V2025)),
            ("Api-Version=2020-03-01.11.0", Ok(Version(20_200_301))),
            ("", Err(Code::MissingRequiredQueryParameter)),
            ("api-version=", Err(Code::MissingRequiredQueryParameter)),
            ("api-version=latest", Err(Code::UnsupportedRequestVersion)),
            ("api-version=2024-02-01.x", Err(Code::UnsupportedRequestVersion)),
            ("api-version=1999-01-01.1.0", Err(Code::UnsupportedRequestVersion)),
        ] {
            assert_eq!(Version::read(&Query::parse(Some(version))).map_err(|refusal| refusal.code), wanted, "{version}");
        }
        assert_eq!(V2025.to_string(), "2025-06-01");
    }

    #[test]
    fn operations_of_the_table_are_routed() {
        for (name, _) in OPERATIONS {
            assert!(ROUTES.iter().any(|route| route.name == *name), "{name}");
        }
    }

    #[test]
    fn our_own_operations_have_what_the_newest_version_has() {
        assert!(Version::ALL.lacks(Kind::Job).iter().all(|path| V2025.lacks(Kind::Job).contains(path)));
        assert!(V19.lacks(Kind::Pool).contains(&"taskSchedulingPolicy/jobDefaultOrder"));
        assert!(V19.lacks(Kind::Task) == ["containerSettings/containerHostBatchBindMounts"]);
    }
}
