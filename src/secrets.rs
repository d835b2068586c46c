//! Reads secrets and keeps them from other processes: variables are read once and removed, files and stdin are read
//! once, and the long-lived parts close their memory to other processes of their user, as tasks are.

use std::{
    collections::HashMap,
    env, fs,
    io::{self, BufRead, Read},
    path::Path,
    sync::OnceLock,
};

use anyhow::Context;
use broker_config::settings::{AgentSecrets, SECRET_VARIABLES};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};

use crate::exit_codes::Failure;

/// Longest secret in a file, and longest line of secrets.
const BYTES_MAX: u64 = 64 * 1024;

static TAKEN: OnceLock<HashMap<&str, String>> = OnceLock::new();

/// Removes the secret variables from the environment and remembers them. Only `main` calls it, before it starts a thread.
#[allow(unsafe_code, reason = "removing a variable is unsafe where another thread may read one; there is no other thread yet")]
pub(crate) fn take_variables() {
    let mut taken = HashMap::new();
    for name in SECRET_VARIABLES {
        if let Ok(value) = env::var(name) {
            taken.insert(name, value);
        }
        // SAFETY: this process has a single thread so far.
        unsafe { env::remove_var(name) };
    }
    if TAKEN.set(taken).is_err() {
        tracing::debug!("the secret variables were taken before");
    }
}

/// Value of a secret variable, from the copy taken at start or from the environment.
pub(crate) fn variable(name: &str) -> Option<String> {
    TAKEN.get().and_then(|taken| taken.get(name).cloned()).or_else(|| env::var(name).ok())
}

/// All secret variables that were set, for programs of the operator that are written to use them.
pub(crate) fn variables() -> impl Iterator<Item = (&'static str, String)> {
    SECRET_VARIABLES.into_iter().filter_map(|name| Some((name, variable(name)?)))
}

/// Closes memory, environment and descriptors of this process to other processes of its user.
pub(crate) fn conceal() -> anyhow::Result<()> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable).context("the memory of this process cannot be closed to other processes")
}

/// Reads a secret from a file, without surrounding white space. Links and pipes are followed: the operator named the
/// file.
pub(crate) fn read_file(path: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let file = fs::File::open(path).and_then(|file| file.take(BYTES_MAX + 1).read_to_string(&mut text));
    file.with_context(|| format!("cannot read {}", path.display()))?;
    if text.len() as u64 > BYTES_MAX {
        return Err(Failure::usage(format!("{} is longer than {BYTES_MAX} bytes", path.display())).into());
    }
    Ok(text.trim().to_owned())
}

/// Reads the line of secrets that an agent's parent writes first.
pub(crate) fn read_line(stdin: &mut impl BufRead) -> anyhow::Result<AgentSecrets> {
    let mut line = vec![];
    stdin.take(BYTES_MAX).read_until(b'\n', &mut line).context("cannot read the secrets on stdin")?;
    if line.last() != Some(&b'\n') {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof)).context("no line of secrets came on stdin");
    }
    // The error does not quote the line: it may hold a secret all the same.
    serde_json::from_slice(&line)
        .map_err(|_| Failure::usage("the first line on stdin is no JSON object of `token`, `broker` and `s3`").into())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use rustix::process::dumpable_behavior;

    use super::*;

    #[test]
    fn a_concealed_process_cannot_be_read_by_its_user_and_reads_itself() {
        conceal().unwrap();
        assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
        let file = tempfile::tempfile().unwrap();
        let handle = format!("/proc/self/fd/{}", file.as_raw_fd());
        assert!(fs::File::open(handle).is_ok(), "uploads go by such names");
    }

    #[test]
    fn a_line_of_secrets_is_read_up_to_its_end_and_what_is_wrong_is_not_repeated() {
        let mut stdin = &b"{\"token\":\"t\",\"broker\":\"amqp://b\",\"s3\":null,\"more\":1}\nrest"[..];
        let secrets = read_line(&mut stdin).unwrap();
        assert_eq!((secrets.token.expose(), secrets.broker.expose(), secrets.s3.is_none()), ("t", "amqp://b", true));
        assert_eq!(stdin, b"rest");
        for wrong in ["{\"token\":\"canary\"}\n", "canary\n", "{\"token\":\"canary\",\"broker\":\"canary\",\"s3\":null}", ""] {
            let error = format!("{:#}", read_line(&mut wrong.as_bytes()).unwrap_err());
            assert!(!error.contains("canary"), "{error}");
        }
    }

    #[test]
    fn a_secret_in_a_file_comes_without_white_space_and_has_a_bound() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        fs::write(&path, " amqp://b\n").unwrap();
        assert_eq!(read_file(&path).unwrap(), "amqp://b");
        fs::write(&path, vec![b'x'; BYTES_MAX as usize + 1]).unwrap();
        assert!(read_file(&path).is_err());
    }
}
