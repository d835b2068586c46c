//! Runs the test suites of other S3 clients, unmodified, against the store: boto3, awscli and rclone.
//! The `PIECEWORK_TEST_S3_…` variables name another store; `PIECEWORK_TEST_S3_LISTED` the boto3 checks that it is known to fail.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use embedded_blobs::{Blobs, Settings};
use tempfile::TempDir;
use tokio::{process::Command, time::timeout};

/// Time limit of one suite.
const SUITE_TIMEOUT: Duration = Duration::from_secs(300);
/// Time limit of a server's stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// The store under test.
struct Store {
    endpoint: String,
    access_key: String,
    secret_key: String,
    region: String,
    server: Option<Blobs>,
    _folder: TempDir,
}

impl Store {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        if let Ok(endpoint) = std::env::var("PIECEWORK_TEST_S3_ENDPOINT") {
            let var = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"));
            return Self {
                endpoint,
                access_key: var("PIECEWORK_TEST_S3_ACCESS_KEY"),
                secret_key: var("PIECEWORK_TEST_S3_SECRET_KEY"),
                region: std::env::var("PIECEWORK_TEST_S3_REGION").unwrap_or_else(|_| "us-east-1".to_owned()),
                server: None,
                _folder: folder,
            };
        }
        let settings = Settings::new("127.0.0.1:0".parse().unwrap(), folder.path(), "judge", "a-secret-of-the-judge");
        let server = Blobs::start(settings).await.unwrap();
        Self {
            endpoint: server.endpoint(),
            access_key: "judge".to_owned(),
            secret_key: "a-secret-of-the-judge".to_owned(),
            region: "us-east-1".to_owned(),
            server: Some(server),
            _folder: folder,
        }
    }

    /// Runs a suite and checks that all its checks pass, and that it has at least this many.
    async fn judge(self, mut command: Command, checks_min: usize) {
        command
            .env("AWS_ACCESS_KEY_ID", &self.access_key)
            .env("AWS_SECRET_ACCESS_KEY", &self.secret_key)
            .env("AWS_DEFAULT_REGION", &self.region)
            .env("AWS_CONFIG_FILE", "/dev/null")
            .env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env("LC_ALL", "C.UTF-8")
            .env("NO_PROXY", "*")
            // Debian's rclone 1.60 fails on any value of it.
            .env_remove("AWS_CA_BUNDLE")
            .env_remove("AWS_PROFILE")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let output = timeout(SUITE_TIMEOUT, command.output()).await.expect("the suite hangs").unwrap();
        if let Some(server) = self.server {
            timeout(STOP_TIMEOUT, server.stop()).await.expect("the server does not stop");
        }
        let output_text = String::from_utf8_lossy(&output.stdout);
        print!("{output_text}");
        assert!(output.status.success(), "{output_text}\n{}", String::from_utf8_lossy(&output.stderr));
        let passed = output_text.lines().filter(|line| line.starts_with("ok ") || line.starts_with("listed ")).count();
        assert!(passed >= checks_min, "only {passed} checks:\n{output_text}");
    }
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name)
}

fn skip(test: &str, why: &str) {
    assert!(std::env::var_os("PIECEWORK_CI").is_none(), "{test} may not be skipped in CI: {why}");
    // Written directly to stderr, because the test harness captures output.
    writeln!(std::io::stderr(), "SKIPPED {test}: {why}").expect("a terminal or a log");
}

#[tokio::test]
async fn boto3_finds_what_it_expects_of_s3() {
    let Some(python) = std::env::var_os("PIECEWORK_TEST_PYTHON") else {
        return skip("the boto3 suite", "PIECEWORK_TEST_PYTHON names no python with boto3");
    };
    let store = Store::start().await;
    let mut command = Command::new(python);
    command.arg("-B").arg(script("suite.py")).arg(&store.endpoint).args(std::env::var_os("PIECEWORK_TEST_S3_LISTED"));
    store.judge(command, 31).await;
}

#[tokio::test]
async fn awscli_finds_what_it_expects_of_s3() {
    let Some(python) = std::env::var_os("PIECEWORK_TEST_AWS") else {
        return skip("the awscli suite", "PIECEWORK_TEST_AWS names no python with awscli");
    };
    let (store, scratch) = (Store::start().await, tempfile::tempdir().unwrap());
    let mut command = Command::new("bash");
    command.arg(script("aws.sh")).arg(python).arg(&store.endpoint).arg(scratch.path());
    store.judge(command, 21).await;
}

#[tokio::test]
async fn rclone_finds_what_it_expects_of_s3() {
    let is_there = std::process::Command::new("rclone").arg("version").stdout(Stdio::null()).status().is_ok_and(|status| status.success());
    if !is_there {
        return skip("the rclone suite", "there is no rclone");
    }
    let (store, scratch) = (Store::start().await, tempfile::tempdir().unwrap());
    let mut command = Command::new("bash");
    command.arg(script("rclone.sh")).arg(&store.endpoint).arg(scratch.path());
    store.judge(command, 17).await;
}
