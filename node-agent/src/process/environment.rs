//! The environment of a task: Azure Batch's variables, three of our own, the user's settings, and a minimal rest.
//!
//! A task gets nothing of the agent's environment but the language and `PATH`, which is extended by the shared folder
//! and the task's own folder: the agent's secrets do not reach tasks.

use std::{collections::BTreeMap, ffi::OsString, fs, path::Path, sync::Arc};

use contract::{
    ids::{JobId, NodeId, PoolId, RunKey, TaskId},
    spec::EnvironmentSetting,
};

use crate::{disk_limits::DiskLimits, packages::deployed::Deployed};

/// Variable of every process of a node; its value identifies the node's folder.
pub const MARKER: &str = "PIECEWORK_NODE";
/// Variable of every process of a run.
pub const RUN: &str = "PIECEWORK_RUN";

/// Variable of the W3C trace context.
const TRACEPARENT: &str = "TRACEPARENT";

/// File with the names and numbers of users.
const PASSWD: &str = "/etc/passwd";
const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Facts that are the same for all tasks of a node.
#[derive(Debug, Clone)]
pub struct NodeFacts {
    pub pool: PoolId,
    pub node: NodeId,
    pub account: String,
    pub account_url: String,
    /// False for low-priority nodes.
    pub is_dedicated: bool,
    pub root: Arc<Path>,
    /// The value of [`MARKER`].
    pub marker: String,
    /// With fewer free bytes than this the node takes no tasks.
    pub file_reserve_bytes: u64,
    pub disk_limits: DiskLimits,
    pub user: User,
}

/// The user that tasks run as: the agent's own, while nothing isolates them.
#[derive(Debug, Clone)]
pub struct User {
    /// The number of a user that has no name.
    pub name: String,
    pub is_root: bool,
}

impl User {
    /// The user of this process.
    pub fn own() -> User {
        let uid = rustix::process::geteuid().as_raw();
        let name = match fs::read_to_string(PASSWD) {
            Ok(text) => name_of(&text, uid).map(str::to_owned),
            Err(error) => {
                tracing::warn!(%error, path = PASSWD, uid, "cannot look up the name of this user; tasks get its number as USER and AZ_BATCH_TASK_USER");
                None
            }
        };
        User { name: name.unwrap_or_else(|| uid.to_string()), is_root: uid == 0 }
    }
}

fn name_of(passwd: &str, uid: u32) -> Option<&str> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then_some(name)
    })
}

/// Facts about one run; the start task has none.
#[derive(Debug, Clone)]
pub struct TaskFacts {
    pub job: JobId,
    pub task: TaskId,
    pub run: RunKey,
}

/// The variables of one process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment(BTreeMap<String, OsString>);

impl Environment {
    /// Builds the environment; the user's settings override all but the node's own names.
    pub fn new(node: &NodeFacts, task: Option<&TaskFacts>, task_folder: &Path, settings: &[EnvironmentSetting]) -> Environment {
        let mut variables = BTreeMap::new();
        let mut set = |name: &str, value: OsString| variables.insert(name.to_owned(), value);
        let wd = task_folder.join("wd");
        // As on Azure's nodes, programs among the resource files run by their bare names.
        let mut path = std::env::var_os("PATH").filter(|path| !path.is_empty()).unwrap_or_else(|| PATH_DEFAULT.into());
        for folder in [&node.root.join("shared"), &wd] {
            path.push(":");
            path.push(folder);
        }
        set("PATH", path);
        set("USER", node.user.name.clone().into());
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
        set("AZ_BATCH_TASK_USER", node.user.name.clone().into());
        set("AZ_BATCH_TASK_USER_IDENTITY", if node.user.is_root { "PoolAdmin" } else { "PoolNonAdmin" }.into());
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

    /// Hands on the W3C trace context of what asked for the process, unless the user's settings have one.
    pub fn add_trace(&mut self, traceparent: &str) {
        if !self.0.contains_key(TRACEPARENT) && !traceparent.contains('\0') {
            self.set(TRACEPARENT, traceparent);
        }
    }

    /// Sets a variable.
    pub fn set(&mut self, name: &str, value: impl Into<OsString>) {
        self.0.insert(name.to_owned(), value.into());
    }

    /// Adds the variables that name folders of packages.
    pub fn add_packages<'a>(&mut self, packages: impl IntoIterator<Item = &'a Deployed>) {
        for package in packages {
            self.0.extend(package.variables().into_iter().map(|(name, folder)| (name, folder.into())));
        }
    }

    /// The value of a variable, for command lines.
    pub fn get(&self, name: &str) -> Option<&OsString> {
        self.0.get(name)
    }

    /// The value of a variable, where it is UTF-8.
    pub fn text(&self, name: &str) -> Option<String> {
        self.0.get(name).map(|value| value.to_string_lossy().into_owned())
    }

    pub fn iter(&self) -> impl Iterator<Item = (&String, &OsString)> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use contract::ids::{Fence, RunId, TaskUid};

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
            disk_limits: DiskLimits::default(),
            user: User { name: "someone".into(), is_root: false },
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
            ("USER", "someone"),
            ("AZ_BATCH_TASK_USER", "someone"),
            ("AZ_BATCH_TASK_USER_IDENTITY", "PoolNonAdmin"),
        ] {
            assert_eq!(environment.text(name).as_deref(), Some(value), "{name}");
        }
        let path = environment.text("PATH").unwrap();
        assert!(path.ends_with(":/r/shared:/r/workitems/j/job-1/t/wd") && !path.starts_with(':'), "{path}");
        assert_eq!(environment.get("a=b"), None);
        assert_eq!(environment.get("CARGO_MANIFEST_DIR"), None);
    }

    #[test]
    fn users_are_named_as_the_system_names_them() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\n# note\n\nalice:x:1000:1000::/home/alice:/bin/sh\nbob:x:10:10::/:\n";
        assert_eq!([0, 1000, 10, 7].map(|uid| name_of(passwd, uid)), [Some("root"), Some("alice"), Some("bob"), None]);
    }
}
