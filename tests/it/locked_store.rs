//! A start while another process has locked a database: it waits, says why, and goes on when the lock is gone.

use std::{
    fs::{self, File},
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use rusqlite::Connection;

use crate::stack::{PIECEWORK, processes_naming, wait_for};

/// For a start, which waits for a lock in steps of seconds, and for a stop.
const WAIT_MAX: Duration = Duration::from_secs(120);

/// An `up` on a folder; its log is a file beside it.
struct Up {
    child: Child,
    data: PathBuf,
    log: PathBuf,
}

impl Up {
    fn start(folder: &Path) -> Up {
        let (data, log) = (folder.join("data"), folder.join("up.log"));
        let mut command = Command::new(PIECEWORK);
        command.args(["up", "--listen", "127.0.0.1:0", "--data"]).arg(&data);
        command.env("PIECEWORK_LOG", "info").stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log).unwrap());
        Up { child: command.spawn().unwrap(), data, log }
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    fn is_ready(&self) -> bool {
        self.data.join("ready.json").exists()
    }

    /// Waits for a line of the log that names the locked file.
    fn waits_for(&mut self, file: &str) -> String {
        let found = wait_for(WAIT_MAX, || {
            assert_eq!(self.child.try_wait().unwrap(), None, "it ended: {}", self.log());
            self.log().lines().find(|line| line.contains("cannot start yet") && line.contains(file)).map(str::to_owned)
        });
        found.unwrap_or_else(|| panic!("no word of {file} in {}", self.log()))
    }

    fn becomes_ready(&mut self) {
        let ready = wait_for(WAIT_MAX, || {
            assert_eq!(self.child.try_wait().unwrap(), None, "it ended: {}", self.log());
            self.is_ready().then_some(())
        });
        assert!(ready.is_some(), "not ready: {}", self.log());
    }

    fn stop(mut self) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), rustix::process::Signal::TERM).unwrap();
        let status = wait_for(WAIT_MAX, || self.child.try_wait().unwrap());
        assert!(status.is_some_and(|status| status.success() || status.code() == Some(130)), "{status:?}: {}", self.log());
        wait_for(WAIT_MAX, || processes_naming(&self.data).is_empty().then_some(())).expect("no process that is left over");
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        // After a test that failed; its agents end with it.
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
        }
    }
}

fn locked(path: &Path) -> Connection {
    let other = Connection::open(path).unwrap();
    other.busy_timeout(WAIT_MAX).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    other
}

/// The address in a line of the log, as `Some(127.0.0.1:PORT)`.
fn address(line: &str) -> String {
    let (_, rest) = line.split_once("127.0.0.1:").unwrap_or_else(|| panic!("no address: {line}"));
    format!("127.0.0.1:{}", rest.chars().take_while(char::is_ascii_digit).collect::<String>())
}

#[test]
fn a_start_waits_for_a_database_that_another_process_has_locked() {
    let folder = tempfile::tempdir().unwrap();
    let mut up = Up::start(folder.path());
    up.becomes_ready();
    up.stop();

    let store = locked(&folder.path().join("data/dispatcher/store.sqlite"));
    let mut up = Up::start(folder.path());
    let line = up.waits_for("store.sqlite");

    let mut stream = TcpStream::connect(address(&line)).unwrap();
    stream.set_read_timeout(Some(WAIT_MAX)).unwrap();
    stream.write_all(b"GET /piecework/health HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("store.sqlite"), "{answer}");

    let second = Command::new(PIECEWORK).args(["up", "--listen", "127.0.0.1:0", "--data"]).arg(&up.data).output().unwrap();
    let reason = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(second.status.code() == Some(8) && reason.contains("in use by another `piecework up`"), "{reason}");

    assert!(!up.is_ready());
    drop(store);
    up.becomes_ready();
    up.stop();

    // The blob store's database is waited for as well, and a stop does not wait for the lock.
    let _catalogue = locked(&folder.path().join("data/blobs/catalog.sqlite"));
    let mut up = Up::start(folder.path());
    up.waits_for("catalog.sqlite");
    up.stop();
}
