//! Runs the test suites of other AMQP clients against the broker: pika, amqplib and Celery.
//! PIECEWORK_TEST_AMQP_URL names another broker to judge, such as RabbitMQ.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use embedded_broker::{Broker, Settings};
use tokio::{process::Command, time::timeout};

/// Time limit of one suite.
const SUITE_TIMEOUT: Duration = Duration::from_secs(180);
/// Time limit of a broker's stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// Runs a suite against the broker and checks that it passed at least so many checks.
async fn judge(mut command: Command, checks_min: usize) {
    let folder = tempfile::tempdir().unwrap();
    let (url, broker) = match std::env::var("PIECEWORK_TEST_AMQP_URL") {
        Ok(url) => (url, None),
        Err(_) => {
            let settings = Settings::new("127.0.0.1:0".parse().unwrap(), folder.path(), "guest", "guest");
            let broker = Broker::start(settings).await.unwrap();
            (broker.url(), Some(broker))
        }
    };
    command.arg(&url).stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(SUITE_TIMEOUT, command.output()).await.expect("the suite hangs").unwrap();
    if let Some(broker) = broker {
        timeout(STOP_TIMEOUT, broker.stop()).await.expect("the broker does not stop");
    }
    let output_text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output_text}\n{}", String::from_utf8_lossy(&output.stderr));
    let passed = output_text.lines().filter(|line| line.starts_with("ok ")).count();
    assert!(passed >= checks_min, "only {passed} checks:\n{output_text}");
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
async fn pika_finds_what_it_expects_of_a_broker() {
    let Some(python) = std::env::var_os("PIECEWORK_TEST_PYTHON") else {
        return skip("the pika suite", "PIECEWORK_TEST_PYTHON names no python with pika");
    };
    let mut command = Command::new(python);
    command.arg("-B").arg(script("suite.py"));
    judge(command, 18).await;
}

#[tokio::test]
async fn amqplib_finds_what_it_expects_of_a_broker() {
    // The path in CI; the environment can name another.
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/node/node_modules");
    let modules = std::env::var_os("PIECEWORK_TEST_NODE_MODULES").map_or(default, PathBuf::from);
    if !modules.join("amqplib").is_dir() {
        return skip("the amqplib suite", "PIECEWORK_TEST_NODE_MODULES names no folder with amqplib");
    }
    let mut command = Command::new("node");
    command.arg(script("suite.cjs")).arg(modules.canonicalize().unwrap());
    judge(command, 20).await;
}

#[tokio::test]
async fn celery_finds_what_it_expects_of_quorum_queues() {
    let Some(python) = std::env::var_os("PIECEWORK_TEST_CELERY_PYTHON") else {
        return skip("the Celery suite", "PIECEWORK_TEST_CELERY_PYTHON names no python with celery");
    };
    let mut command = Command::new(python);
    command.arg("-B").arg(script("celery_suite.py"));
    judge(command, 6).await;
}
