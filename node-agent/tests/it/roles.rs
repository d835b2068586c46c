//! The processes the tests need: this test binary, started again as a guardian or as a whole agent.

use std::{ffi::OsString, process::ExitCode, time::Duration};

use broker_config::settings::{BrokerSettings, Secret};
use node_agent::{Ending, Settings};

/// The command line of a role.
pub fn command(role: &str) -> Vec<OsString> {
    let program = std::env::current_exe().unwrap();
    let mut command = vec![program.into_os_string()];
    command.extend(["--exact", &format!("roles::{role}"), "--ignored", "--nocapture", "--test-threads=1"].map(OsString::from));
    command
}

#[test]
#[ignore = "a role for other tests, which start it as a process"]
fn guardian() {
    assert_eq!(node_agent::guardian(), ExitCode::SUCCESS);
}

#[test]
#[ignore = "a role for other tests, which start it as a process"]
fn agent() {
    let variable = |name: &str| std::env::var(name).unwrap();
    let settings = Settings {
        broker: BrokerSettings { url: Secret::new(variable("TEST_BROKER")), name: "agent".into() },
        blobs: std::env::var("TEST_BLOBS").ok().map(crate::harness::blob_settings),
        pool: variable("TEST_POOL").parse().unwrap(),
        node: variable("TEST_NODE").parse().unwrap(),
        token: Secret::new("token"),
        root: variable("TEST_ROOT").into(),
        address: "127.0.0.1".into(),
        guardian: command("guardian"),
        nice: None,
        task_umask: None,
        is_alone: true,
        file_reserve_bytes: 0,
        disk_limits: Default::default(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // The test kills it long before.
    let limit = async {
        tokio::time::sleep(Duration::from_secs(120)).await;
        Ending::Now
    };
    runtime.block_on(node_agent::run(settings, limit)).unwrap();
}
