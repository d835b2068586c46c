//! A whole stack: the real binary, `piecework up`, on ports and a folder of its own.
//!
//! With `PIECEWORK_TEST_AMQP_URL` the stacks run on that broker, each in a virtual host `it-1`, `it-2`, … of it.

use std::{
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use aws_sdk_s3::{
    Client,
    config::{BehaviorVersion, Credentials, Region},
};
use serde::Deserialize;
use tempfile::TempDir;

/// The binary under test.
pub const PIECEWORK: &str = env!("CARGO_BIN_EXE_piecework");

/// A stack must be able to run a task after this long.
const READY: Duration = Duration::from_secs(90);
/// A stack must have ended after this long.
const END: Duration = Duration::from_secs(60);

static NEXT_VHOST: AtomicU32 = AtomicU32::new(1);

/// Contents of the ready file.
#[derive(Debug, Clone, Deserialize)]
pub struct Ready {
    pub url: String,
    pub account: String,
    pub key: String,
    pub broker: String,
    pub s3: S3,
}

/// The blob store of a stack.
#[derive(Debug, Clone, Deserialize)]
#[allow(dead_code)]
pub struct S3 {
    pub endpoint: String,
    pub bucket: String,
    pub region: String,
    pub access_key: String,
    pub secret_key: String,
}

impl S3 {
    pub fn client(&self) -> Client {
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .endpoint_url(&self.endpoint)
            .region(Region::new(self.region.clone()))
            .credentials_provider(Credentials::new(&self.access_key, &self.secret_key, None, None, "test"))
            .force_path_style(true)
            .build();
        Client::from_conf(config)
    }
}

/// A running stack; dropping it ends it.
pub struct Stack {
    child: Option<Child>,
    pub ready: Ready,
    folder: TempDir,
    broker: Option<String>,
    flags: Vec<String>,
}

impl Stack {
    /// Starts a stack in a new folder and waits until it can run a task.
    pub fn start() -> Stack {
        Stack::start_with(&[])
    }

    /// Starts a stack by a program that runs the binary with the arguments that follow.
    pub fn start_by(program: fn() -> Command) -> Stack {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (child, ready) = launch_by(program(), folder.path(), None, None, &[]);
        Stack { child: Some(child), ready, folder, broker: None, flags: vec![] }
    }

    /// Starts a stack with more flags.
    pub fn start_with(flags: &[&str]) -> Stack {
        Stack::start_in(tempfile::tempdir().expect("a temporary folder"), flags)
    }

    /// Starts a stack on a data folder that `fill` fills first.
    pub fn start_after(fill: impl FnOnce(&Path)) -> Stack {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fill(&folder.path().join("data"));
        Stack::start_in(folder, &[])
    }

    /// Starts one in a folder that exists.
    pub fn start_in(folder: TempDir, flags: &[&str]) -> Stack {
        let flags: Vec<String> = flags.iter().map(ToString::to_string).collect();
        let broker = std::env::var("PIECEWORK_TEST_AMQP_URL").ok().map(|url| {
            let number = NEXT_VHOST.fetch_add(1, Ordering::Relaxed);
            url.replace("%2f", &format!("it-{number}"))
        });
        let (child, ready) = launch(folder.path(), broker.as_deref(), None, &flags);
        Stack { child: Some(child), ready, folder, broker, flags }
    }

    /// Starts one on a broker whose certificate comes from this authority.
    pub fn start_on(broker: &str, authority: &Path) -> Stack {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (child, ready) = launch(folder.path(), Some(broker), Some(authority), &[]);
        Stack { child: Some(child), ready, folder, broker: Some(broker.to_owned()), flags: vec![] }
    }

    /// Kills it without mercy, and starts it again on the same data.
    pub fn kill_and_restart(&mut self) {
        self.kill();
        self.restart();
    }

    /// Starts it again after it was killed.
    pub fn restart(&mut self) {
        fs::remove_file(self.folder.path().join("ready.json")).expect("a ready file");
        let (child, ready) = launch(self.folder.path(), self.broker.as_deref(), None, &self.flags);
        (self.child, self.ready) = (Some(child), ready);
    }

    /// Kills it without mercy.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("a child to kill");
            child.wait().expect("its end");
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("a running stack").id()
    }

    /// The `piecework` command, configured for this stack.
    pub fn command(&self) -> Command {
        let mut command = Command::new(PIECEWORK);
        command.env("PIECEWORK_SERVER", self.ready_file()).stdin(Stdio::null());
        command.current_dir(self.folder.path());
        command
    }

    /// A folder for the test's own files.
    pub fn scratch(&self) -> PathBuf {
        let path = self.folder.path().join("scratch");
        fs::create_dir_all(&path).expect("a folder");
        path
    }

    /// The file that names its addresses.
    pub fn ready_file(&self) -> PathBuf {
        self.folder.path().join("ready.json")
    }

    /// The log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("up.log")).expect("a log")
    }

    /// The stack's data folder.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Ends it as Ctrl-C does and asserts that nothing is left.
    pub fn stop(mut self) {
        let child = self.child.take().expect("a running stack");
        let marker = self.data();
        interrupt(child);
        let log = self.log();
        let (_, end) = log.rsplit_once("stopping;").expect("a word of the stop");
        let errors: Vec<&str> = end.lines().filter(|line| line.contains("ERROR")).collect();
        assert_eq!(errors, Vec::<&str>::new(), "an orderly stop is no error");
        assert_eq!(processes_naming(&marker), Vec::<String>::new(), "processes are left over");
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        if let Some(child) = self.child.take() {
            interrupt(child);
        }
    }
}

fn launch(folder: &Path, broker: Option<&str>, authority: Option<&Path>, flags: &[String]) -> (Child, Ready) {
    launch_by(Command::new(PIECEWORK), folder, broker, authority, flags)
}

fn launch_by(mut command: Command, folder: &Path, broker: Option<&str>, authority: Option<&Path>, flags: &[String]) -> (Child, Ready) {
    let file = folder.join("ready.json");
    let log = fs::File::options().create(true).append(true).open(folder.join("up.log")).expect("a log");
    command.args(["up", "--listen", "127.0.0.1:0", "--data"]).arg(folder.join("data")).arg("--ready-file").arg(&file);
    if let Some(broker) = broker {
        command.args(["--broker", broker]);
        // The broker's administrator, where the tests have one.
        if let Ok(admin) = std::env::var("PIECEWORK_TEST_AMQP_ADMIN_URL") {
            command.env("PIECEWORK_BROKER_ADMIN", admin);
        }
    }
    if let Some(authority) = authority {
        command.env("SSL_CERT_FILE", authority);
    }
    command.args(flags);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).env("PIECEWORK_LOG", "info");
    let mut child = command.spawn().expect("the binary to start");
    let deadline = Instant::now() + READY;
    loop {
        if let Ok(text) = fs::read_to_string(&file) {
            return (child, serde_json::from_str(&text).expect("a ready file"));
        }
        let ended = child.try_wait().expect("a child");
        if ended.is_some() || Instant::now() > deadline {
            let log = fs::read_to_string(folder.join("up.log")).unwrap_or_default();
            if ended.is_none() {
                child.kill().expect("a child to kill");
                child.wait().expect("its end");
            }
            panic!("the stack did not become ready ({ended:?}):\n{log}");
        }
        thread::sleep(Duration::from_millis(20));
    }
}

fn interrupt(mut child: Child) {
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("a child to interrupt");
    if wait_for(END, || child.try_wait().expect("a child")).is_none() {
        child.kill().expect("a child to kill");
        child.wait().expect("its end");
        if !thread::panicking() {
            panic!("the stack did not end in {END:?}");
        }
    }
}

/// Processes whose command line or environment names a path.
pub fn processes_naming(path: &Path) -> Vec<String> {
    let needle = path.to_string_lossy().into_owned();
    let mut found = Vec::new();
    let own = std::process::id().to_string();
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.bytes().all(|byte| byte.is_ascii_digit()) || name == own {
            continue;
        }
        for file in ["cmdline", "environ"] {
            let mut bytes = Vec::new();
            let is_read = fs::File::open(entry.path().join(file)).and_then(|mut file| file.read_to_end(&mut bytes)).is_ok();
            if is_read && String::from_utf8_lossy(&bytes).contains(&needle) {
                let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
                found.push(format!("{name}: {}", String::from_utf8_lossy(&command).replace('\0', " ")));
                break;
            }
        }
    }
    found
}

/// Looks again and again until there is something, or the time is over.
pub fn wait_for<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() > deadline {
            return None;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Stdout and stderr of a command, for messages of failed assertions.
pub fn text(output: &Output) -> (String, String) {
    (String::from_utf8_lossy(&output.stdout).into_owned(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Says loudly that a test did not run; in CI that is a failure.
pub fn skip(test: &str, why: &str) {
    assert!(std::env::var_os("PIECEWORK_CI").is_none(), "{test} may not be skipped in CI: {why}");
    // Written past the test harness, which would keep it to itself.
    writeln!(std::io::stderr(), "SKIPPED {test}: {why}").expect("a terminal or a log");
}
