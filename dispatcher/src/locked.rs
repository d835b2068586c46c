//! Waits at a start while another process, such as a backup or an `sqlite3` shell, holds a lock on a database.

use std::{path::Path, time::Duration};

use tokio::{net::TcpListener, time::Instant};
use tracing::{info, warn};

use crate::unavailable::answer_unavailable;

/// Longest wait for another process to let a database go; the start fails after it.
const LOCKED_MAX: Duration = Duration::from_secs(5 * 60);
/// Between two attempts; each of them waits for a few seconds itself.
const PAUSE: Duration = Duration::from_millis(500);
/// Period of the log lines while waiting.
const LOG_PERIOD: Duration = Duration::from_secs(5);

/// Repeats an attempt to open a database as long as `is_locked` says so of its error, for five minutes at most. The
/// reason is logged, and told to clients of the listener.
pub async fn wait_while_locked<T, E, F: Future<Output = Result<T, E>>>(
    path: &Path,
    listener: Option<&TcpListener>,
    is_locked: impl Fn(&E) -> bool,
    mut attempt: impl FnMut() -> F,
) -> Result<T, E> {
    match attempt().await {
        Err(error) if is_locked(&error) => {}
        other => return other,
    }
    let reason = format!("another process has locked {}; end that process, `fuser {0}` names it", path.display());
    let deadline = Instant::now() + LOCKED_MAX;
    let unlocked = async {
        let mut logged: Option<Instant> = None;
        loop {
            if logged.is_none_or(|logged| logged.elapsed() >= LOG_PERIOD) {
                let address = listener.and_then(|listener| listener.local_addr().ok());
                warn!(reason, ?address, "cannot start yet; the start continues by itself when the file is unlocked");
                logged = Some(Instant::now());
            }
            tokio::time::sleep(PAUSE).await;
            match attempt().await {
                Err(error) if is_locked(&error) && Instant::now() < deadline => {}
                other => return other,
            }
        }
    };
    let opened = tokio::select! {
        opened = unlocked => opened,
        never = answer_unavailable(listener, "store", &reason) => match never {},
    };
    if opened.is_ok() {
        info!(path = %path.display(), "the file is unlocked; starting");
    }
    opened
}
