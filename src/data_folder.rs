//! The data folder of `up`: one user at a time, secrets made once, ports kept between runs.
//!
//! ```text
//! DATA/  lock   secrets.json (version 1)   ports.json   ready.json   broker/   blobs/   dispatcher/   nodes/
//! ```
//! All of it is for its owner alone. A folder that holds other files as well keeps its own mode; our files in it do
//! not.

use std::{
    fs::{self, File},
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
};

use anyhow::Context;
use base64::{Engine, engine::general_purpose::STANDARD};
use broker_config::private;
use rand::RngExt;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::{
    exit_codes::{Failure, IN_USE},
    ready::write_private,
};

const VERSION: u32 = 1;
/// Names in a data folder; a file that is being replaced has a further ending.
const NAMES: [&str; 8] = ["lock", "secrets.json", "ports.json", "ready.json", "broker", "blobs", "dispatcher", "nodes"];
/// Bytes of an account key, as Azure's have.
const KEY_BYTES: usize = 64;

/// A data folder that is locked by this process until this is dropped.
pub(crate) struct DataFolder {
    path: PathBuf,
    _lock: File,
}

/// Secrets that are made once and then kept.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Secrets {
    v: u32,
    pub(crate) account: String,
    pub(crate) key: String,
    pub(crate) broker_password: String,
    pub(crate) s3_access_key: String,
    pub(crate) s3_secret_key: String,
}

/// Ports of the embedded servers in the last run.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Ports {
    pub(crate) broker: u16,
    pub(crate) blobs: u16,
}

impl DataFolder {
    /// Creates the folder if it is missing and locks it; a running `up` in it is an error of its own.
    pub(crate) fn open(path: &Path) -> anyhow::Result<DataFolder> {
        make(path).with_context(|| format!("cannot make the data folder {}", path.display()))?;
        let path = fs::canonicalize(path).with_context(|| format!("cannot use the data folder {}", path.display()))?;
        let lock = private::open(private::options().create(true).append(true), &path.join("lock"))
            .with_context(|| format!("cannot lock {}", path.display()))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(DataFolder { path, _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let what = format!("the data folder {} is in use by another `piecework up`", path.display());
                Err(Failure::new(IN_USE, what, "stop that one, or give another folder with --data").into())
            }
            Err(error) => Err(io::Error::from(error)).with_context(|| format!("cannot lock {}", path.display())),
        }
    }

    /// The file that keeps the account's key.
    pub(crate) fn secrets_file(&self) -> PathBuf {
        self.join("secrets.json")
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The secrets of this folder, made now when there are none; a given account or key replaces the stored one.
    pub(crate) fn secrets(&self, account: Option<String>, key: Option<String>) -> anyhow::Result<Secrets> {
        let path = self.secrets_file();
        let kept = match private::read(&path) {
            Ok(text) => Some(serde_json::from_slice::<Secrets>(&text).with_context(|| format!("{} cannot be read", path.display()))?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error).with_context(|| format!("{} cannot be read", path.display())),
        };
        if let Some(Secrets { v, .. }) = kept.as_ref().filter(|secrets| secrets.v != VERSION) {
            anyhow::bail!("{} has version {v}, this build reads {VERSION}", path.display());
        }
        let is_new = kept.is_none();
        let mut secrets = kept.unwrap_or_else(|| Secrets {
            v: VERSION,
            account: "local".to_owned(),
            key: STANDARD.encode(rand::rng().random::<[u8; KEY_BYTES]>()),
            broker_password: random_word(),
            s3_access_key: random_word(),
            s3_secret_key: random_word(),
        });
        let is_changed =
            account.as_ref().is_some_and(|account| *account != secrets.account) || key.as_ref().is_some_and(|key| *key != secrets.key);
        secrets.account = account.unwrap_or(secrets.account);
        secrets.key = key.unwrap_or(secrets.key);
        if is_new || is_changed {
            write_private(&path, &serde_json::to_vec_pretty(&secrets)?)?;
        }
        Ok(secrets)
    }

    /// Ports of the last run; when the file is missing or unreadable, new ones are chosen.
    pub(crate) fn ports(&self) -> Ports {
        private::read(&self.join("ports.json")).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
    }

    pub(crate) fn keep_ports(&self, ports: Ports) -> anyhow::Result<()> {
        write_private(&self.join("ports.json"), &serde_json::to_vec(&ports)?)
    }
}

/// Creates the folder, or restricts it to its owner if it holds only our files.
fn make(path: &Path) -> io::Result<()> {
    let is_ours =
        |name: &str| NAMES.iter().any(|ours| name.strip_prefix(ours).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')));
    match fs::read_dir(path) {
        Ok(entries) => {
            for entry in entries {
                if !entry?.file_name().to_str().is_some_and(is_ours) {
                    return Ok(());
                }
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    private::folder(path)
}

/// The loopback address with this port, or with a free port when it is taken.
pub(crate) fn loopback(port: u16) -> SocketAddr {
    let address = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    if port != 0 && TcpListener::bind(address(port)).is_ok() { address(port) } else { address(0) }
}

fn random_word() -> String {
    rand::rng().random::<[u8; 16]>().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::exit_codes;

    #[test]
    fn secrets_are_made_once_and_for_the_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataFolder::open(folder.path()).unwrap();
        let first = data.secrets(None, None).unwrap();
        assert_eq!(data.secrets(None, None).unwrap().key, first.key);
        assert_eq!(data.secrets(Some("acme".into()), None).unwrap().account, "acme");
        assert_eq!(data.secrets(None, None).unwrap().account, "acme");
        assert_eq!(fs::metadata(data.join("secrets.json")).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(STANDARD.decode(first.key).unwrap().len(), KEY_BYTES);
    }

    #[test]
    fn a_folder_of_ours_is_closed_to_others_and_one_that_is_shared_is_left_alone() {
        let scratch = tempfile::tempdir().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let open = |path: &Path| {
            fs::create_dir_all(path).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        };
        let (ours, shared) = (scratch.path().join("ours"), scratch.path().join("shared"));
        open(&ours);
        fs::create_dir(ours.join("broker")).unwrap();
        drop(DataFolder::open(&ours).unwrap());
        assert_eq!(mode(&ours), 0o700);
        open(&shared);
        fs::write(shared.join("notes.txt"), "").unwrap();
        let data = DataFolder::open(&shared).unwrap();
        assert_eq!((mode(&shared), mode(&data.join("lock"))), (0o755, 0o600));
    }

    #[test]
    fn a_folder_has_one_user_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let first = DataFolder::open(folder.path()).unwrap();
        let error = DataFolder::open(folder.path()).err().unwrap();
        assert_eq!(exit_codes::of(&error), IN_USE);
        drop(first);
        DataFolder::open(folder.path()).unwrap();
    }
}
