//! The environment of a task: Azure Batch's variables, our own three, the user's, and a minimal rest.
//!
//! Nothing of the agent's environment reaches a task but `PATH` and the language: its secrets stay its own.

use std::{collections::BTreeMap, ffi::OsString, path::Path, sync::Arc};

use broker_config::{
    ids::{JobId, NodeId, PoolId, RunKey, TaskId},
    spec::EnvironmentSetting,
};

use crate::packages::Deployed;

/// The variable every process of a node carries; its value belongs to the node's folder.
pub const MARKER: &str = "PIECEWORK_NODE";
/// The variable every process of a run carries.
pub const RUN: &str = "PIECEWORK_RUN";

const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What is the same for all tasks of a node.
#[derive(Debug, Clone)]
pub struct NodeFacts {
    /// The pool.
    pub pool: PoolId,
    /// The node.
    pub node: NodeId,
    /// The account.
    pub account: String,
    /// Its URL.
    pub account_url: String,
    /// Whether the node was bought to stay.
    pub is_dedicated: bool,
    /// The node's folder.
    pub root: Arc<Path>,
    /// The value of [`MARKER`].
    pub marker: String,
    /// Below this much free space the node takes no tasks.
    pub file_reserve_bytes: u64,
}

/// Which task an environment is for; the start task has none.
#[derive(Debug, Clone)]
pub struct TaskFacts {
    /// The job.
    pub job: JobId,
    /// The task.
    pub task: TaskId,
    /// The run.
    pub run: RunKey,
}

/// The variables of one process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment(BTreeMap<String, OsString>);

impl Environment {
    /// Builds the environment; the user's settings win over all but the node's own names.
    pub fn new(node: &NodeFacts, task: Option<&TaskFacts>, task_folder: &Path, settings: &[EnvironmentSetting]) -> Environment {
        let mut variables = BTreeMap::new();
        let mut set = |name: &str, value: OsString| variables.insert(name.to_owned(), value);
        let wd = task_folder.join("wd");
        set("PATH", std::env::var_os("PATH").unwrap_or_else(|| PATH_DEFAULT.into()));
        set("LANG", std::env::var_os("LANG").unwrap_or_else(|| "C.UTF-8".into()));
        set("HOME", wd.clone().into());
        for setting in settings {
            if !setting.name.is_empty() && !setting.name.contains(['=', '\0']) {
                set(&setting.name, setting.value.clone().unwrap_or_default().replace('\0', "").into());
            }
        }
        set("AZ_BATCH_ACCOUNT_NAME", node.account.clone().into());
        set("AZ_BATCH_ACCOUNT_URL", node.account_url.clone().into());
        set("AZ_BATCH_POOL_ID", node.pool.as_str().into());
        set("AZ_BATCH_NODE_ID", node.node.as_str().into());
        set("AZ_BATCH_NODE_IS_DEDICATED", node.is_dedicated.to_string().into());
        set("AZ_BATCH_NODE_ROOT_DIR", node.root.as_os_str().to_owned());
        set("AZ_BATCH_NODE_SHARED_DIR", node.root.join("shared").into());
        set("AZ_BATCH_NODE_STARTUP_DIR", node.root.join("startup").into());
        set("AZ_BATCH_NODE_STARTUP_WORKING_DIR", node.root.join("startup/wd").into());
        set("AZ_BATCH_NODE_MOUNTS_DIR", node.root.join("fsmounts").into());
        set("AZ_BATCH_TASK_DIR", task_folder.into());
        set("AZ_BATCH_TASK_WORKING_DIR", wd.into());
        set("AZ_BATCH_TASK_RESERVED_EPHEMERAL_DISK_SPACE_BYTES", node.file_reserve_bytes.to_string().into());
        set(MARKER, node.marker.clone().into());
        if let Some(TaskFacts { job, task, run }) = task {
            set("AZ_BATCH_JOB_ID", job.as_str().into());
            set("AZ_BATCH_TASK_ID", task.as_str().into());
            set("PIECEWORK_ATTEMPT", run.attempt.to_string().into());
            set("PIECEWORK_FENCE", run.fence.0.to_string().into());
            set(RUN, run.run.to_string().into());
        }
        Environment(variables)
    }

    /// Adds the variables that name the folder of the job's preparation task.
    pub fn add_preparation(&mut self, folder: &Path) {
        self.0.insert("AZ_BATCH_JOB_PREP_DIR".to_owned(), folder.into());
        self.0.insert("AZ_BATCH_JOB_PREP_WORKING_DIR".to_owned(), folder.join("wd").into());
    }

    /// Adds the variables that name folders of packages.
    pub fn add_packages<'a>(&mut self, packages: impl IntoIterator<Item = &'a Deployed>) {
        for package in packages {
            self.0.extend(package.variables().into_iter().map(|(name, folder)| (name, folder.into())));
        }
    }

    /// One variable, for command lines.
    pub fn get(&self, name: &str) -> Option<&OsString> {
        self.0.get(name)
    }

    /// One variable as text.
    pub fn text(&self, name: &str) -> Option<String> {
        self.0.get(name).map(|value| value.to_string_lossy().into_owned())
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &OsString)> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use broker_config::ids::{Fence, RunId, TaskUid};

    use super::*;

    #[test]
    fn the_node_and_the_task_are_named_and_nothing_else_leaks() {
        let node = NodeFacts {
            pool: "p".parse().unwrap(),
            node: "n".parse().unwrap(),
            account: "acc".into(),
            account_url: "http://h/".into(),
            is_dedicated: true,
            root: Path::new("/r").into(),
            marker: "m".into(),
            file_reserve_bytes: 7,
        };
        let run = RunKey { uid: TaskUid(1), attempt: 2, fence: Fence(3), run: RunId(4) };
        let task = TaskFacts { job: "j".parse().unwrap(), task: "t".parse().unwrap(), run };
        let settings = [("AZ_BATCH_TASK_ID", Some("forged")), ("MINE", Some("1")), ("EMPTY", None), ("a=b", Some("x"))]
            .map(|(name, value)| EnvironmentSetting { name: name.into(), value: value.map(str::to_owned) });
        let environment = Environment::new(&node, Some(&task), Path::new("/r/workitems/j/job-1/t"), &settings);
        for (name, value) in [
            ("AZ_BATCH_TASK_ID", "t"),
            ("AZ_BATCH_TASK_WORKING_DIR", "/r/workitems/j/job-1/t/wd"),
            ("AZ_BATCH_NODE_SHARED_DIR", "/r/shared"),
            ("HOME", "/r/workitems/j/job-1/t/wd"),
            ("MINE", "1"),
            ("EMPTY", ""),
            ("PIECEWORK_ATTEMPT", "2"),
            ("PIECEWORK_NODE", "m"),
        ] {
            assert_eq!(environment.text(name).as_deref(), Some(value), "{name}");
        }
        assert_eq!(environment.get("a=b"), None);
        assert_eq!(environment.get("CARGO_MANIFEST_DIR"), None);
    }
}
