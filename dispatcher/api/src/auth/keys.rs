//! The account's keys: given once, or read from a file that is watched.
//!
//! To rotate without downtime, add the new key's line, move the clients, and remove the old line.

use std::{fs, path::Path, sync::Arc, time::Duration};

use thiserror::Error;
use tokio::sync::watch;

use crate::auth::shared_key::Key;

/// Time between two checks of the file.
pub const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Keys at the same time at most.
const KEYS_MAX: usize = 8;

/// The keys that are accepted now.
pub type Keys = Arc<[Key]>;

/// Why a keys file cannot be used.
#[derive(Debug, Error)]
pub enum KeysError {
    #[error("the file cannot be read")]
    Read(#[from] std::io::Error),
    /// A line is not a base64 key.
    #[error("line {0} is not base64")]
    Line(usize),
    /// The file holds no key or too many.
    #[error("{0} keys instead of one to {KEYS_MAX}")]
    Count(usize),
}

/// Reads one key per line; empty lines and lines that start with # are skipped.
pub fn read(path: &Path) -> Result<Keys, KeysError> {
    let text = fs::read_to_string(path)?;
    let lines = text.lines().map(str::trim).enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let keys = lines.map(|(index, line)| Key::parse(line).ok_or(KeysError::Line(index + 1))).collect::<Result<Vec<_>, _>>()?;
    if keys.is_empty() || keys.len() > KEYS_MAX { Err(KeysError::Count(keys.len())) } else { Ok(keys.into()) }
}

/// Watches the file until the receivers are gone. A file that cannot be read leaves the keys as they are.
pub async fn watch_file(path: std::path::PathBuf, keys: watch::Sender<Keys>) {
    let mut was_bad = false;
    while !keys.is_closed() {
        tokio::time::sleep(LOOK_INTERVAL).await;
        match read(&path) {
            Ok(now) => {
                was_bad = false;
                let changed = keys.send_if_modified(|known| {
                    let differs = *known != now;
                    *known = now;
                    differs
                });
                if changed {
                    tracing::info!(path = %path.display(), count = keys.borrow().len(), "account keys reloaded");
                }
            }
            Err(error) if !was_bad => {
                was_bad = true;
                tracing::warn!(path = %path.display(), %error, "the keys file cannot be used; the keys stay as they are");
            }
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keys_file_has_a_key_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        fs::write(&path, "# primary\nb2xka2V5\n\n  bmV3a2V5 \n").unwrap();
        assert_eq!(read(&path).unwrap().len(), 2);
        fs::write(&path, "b2xka2V5\n%%%\n").unwrap();
        assert!(matches!(read(&path), Err(KeysError::Line(2))));
        fs::write(&path, "#\n").unwrap();
        assert!(matches!(read(&path), Err(KeysError::Count(0))));
        assert!(matches!(read(&folder.path().join("none")), Err(KeysError::Read(_))));
    }
}
