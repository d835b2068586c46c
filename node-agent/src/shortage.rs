//! Shortage of the node's resources: descriptors, memory, processes. It is the node's fault, not the task's, and it
//! passes.
//!
//! The failed step is tried again for a while; then the run ends as [`Outcome::Node`], which makes the dispatcher run
//! the task again without spending its retries. It is never shown as the user's error. A run that fails for the node's
//! storage (read-only, over its quota, an I/O error) ends the same way, but at once: that does not pass.

use std::{error::Error, future::Future, io, time::Duration};

use contract::outcome::{Fault, Outcome};
use rustix::io::Errno;
use tokio::time::sleep;

/// Code of a fault that is a shortage of the node.
pub const SHORTAGE: &str = "NodeResourcesExhausted";
/// Code of a fault of the node's storage.
pub const STORAGE: &str = "NodeStorageFailed";
/// Tries of one step; with the pauses between them about half a minute.
const TRIES_MAX: u32 = 10;
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Whether an error, or one of its causes, is a lack of descriptors, memory or processes.
pub fn is_shortage(error: &(dyn Error + 'static)) -> bool {
    has_cause(error, is_short)
}

/// Whether an error, or one of its causes, is a full disk.
pub fn is_disk_full(error: &(dyn Error + 'static)) -> bool {
    has_cause(error, |errno| errno == Errno::NOSPC)
}

fn has_cause(error: &(dyn Error + 'static), is_it: fn(Errno) -> bool) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        // An I/O error that wraps another one does not return it as its source.
        let inner = error.downcast_ref::<io::Error>();
        if inner.and_then(Errno::from_io_error).is_some_and(is_it) {
            return true;
        }
        next = match inner.and_then(io::Error::get_ref) {
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        };
    }
    false
}

fn is_short(errno: Errno) -> bool {
    matches!(errno, Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS | Errno::AGAIN)
}

/// Errors of the disk itself. An unwritable path can be the task's own doing and is none of them.
fn is_of_storage(errno: Errno) -> bool {
    matches!(errno, Errno::ROFS | Errno::IO | Errno::DQUOT | Errno::STALE)
}

/// Turns a fault into the node's when the error is a shortage or its storage fails; else returns it unchanged.
pub fn blame(fault: Fault, error: &(dyn Error + 'static)) -> Fault {
    if is_shortage(error) {
        Fault { code: SHORTAGE.to_owned(), ..fault }
    } else if has_cause(error, is_of_storage) {
        Fault { code: STORAGE.to_owned(), ..fault }
    } else {
        fault
    }
}

/// Runs a step again and again while the node has a shortage, [`TRIES_MAX`] times at most.
pub async fn retry_on_shortage<T, F: Future<Output = Result<T, Fault>>>(attempt: impl FnMut() -> F) -> Result<T, Fault> {
    try_again(PAUSE_FIRST, attempt).await
}

async fn try_again<T, F: Future<Output = Result<T, Fault>>>(mut pause: Duration, mut attempt: impl FnMut() -> F) -> Result<T, Fault> {
    for _ in 1..TRIES_MAX {
        match attempt().await {
            Err(fault) if fault.code == SHORTAGE => {
                tracing::warn!(fault.message, details = ?fault.details, "the node lacks descriptors, memory or processes; trying again");
                // Varies by a half, so that steps that failed together do not all come again together.
                sleep(pause.mul_f64(0.5 + rand::random::<f64>())).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
            other => return other,
        }
    }
    attempt().await
}

/// Turns an outcome that a shortage or the node's storage caused into the node's.
pub fn settle(outcome: Outcome) -> Outcome {
    let is_nodes = |fault: &Fault| matches!(fault.code.as_str(), SHORTAGE | STORAGE);
    match outcome {
        Outcome::Staging(fault) | Outcome::Launch(fault) | Outcome::Upload { fault, .. } if is_nodes(&fault) => Outcome::Node(fault),
        other => other,
    }
}

/// Whether an outcome is a shortage of the node.
pub fn is_cause(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Node(fault) if fault.code == SHORTAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(code: &str) -> Fault {
        Fault { code: code.to_owned(), message: "m".to_owned(), details: vec![] }
    }

    #[test]
    fn a_shortage_is_found_below_what_wraps_it_and_nothing_else_is() {
        let short = || io::Error::from(Errno::MFILE);
        let wrapped = io::Error::other(io::Error::other(short()));
        assert!(is_shortage(&short()) && is_shortage(&wrapped));
        let blob = clients::blobs::BlobError::Unreachable { endpoint: "e".into(), source: Box::new(wrapped) };
        assert!(is_shortage(&blob));
        for other in [Errno::NOENT, Errno::NOSPC, Errno::ACCESS, Errno::NOEXEC, Errno::CONNREFUSED] {
            assert!(!is_shortage(&io::Error::from(other)), "{other}");
        }
        assert_eq!(blame(fault("BlobNotFound"), &short()).code, SHORTAGE);
        assert_eq!(blame(fault("BlobNotFound"), &io::Error::from(Errno::NOENT)).code, "BlobNotFound");
        for storage in [Errno::ROFS, Errno::IO, Errno::DQUOT] {
            let fault = blame(fault("ResourceFileWriteFailed"), &io::Error::other(io::Error::from(storage)));
            assert_eq!((fault.code.as_str(), is_shortage(&io::Error::from(storage))), (STORAGE, false), "{storage}");
            assert_eq!(settle(Outcome::Staging(fault.clone())), Outcome::Node(fault));
        }
    }

    #[test]
    fn a_shortage_is_the_nodes_fault_whatever_failed_for_it() {
        for outcome in
            [Outcome::Staging(fault(SHORTAGE)), Outcome::Launch(fault(SHORTAGE)), Outcome::Upload { code: Some(0), fault: fault(SHORTAGE) }]
        {
            assert!(is_cause(&settle(outcome.clone())));
            assert_eq!(settle(outcome), Outcome::Node(fault(SHORTAGE)));
        }
        assert_eq!(settle(Outcome::Launch(fault("x"))), Outcome::Launch(fault("x")));
    }

    #[tokio::test]
    async fn a_shortage_that_passes_is_waited_out_and_one_that_stays_is_reported() {
        let mut left = 3;
        let passed = try_again(Duration::ZERO, || {
            left -= 1;
            std::future::ready(if left > 0 { Err(fault(SHORTAGE)) } else { Ok(left) })
        });
        assert_eq!(passed.await, Ok(0));
        let mut tries = 0;
        let stays: Result<(), Fault> = try_again(Duration::ZERO, || {
            tries += 1;
            std::future::ready(Err(fault(SHORTAGE)))
        })
        .await;
        assert_eq!((stays, tries), (Err(fault(SHORTAGE)), TRIES_MAX));
        let mut tries = 0;
        let other: Result<(), Fault> = try_again(Duration::ZERO, || {
            tries += 1;
            std::future::ready(Err(fault("BlobNotFound")))
        })
        .await;
        assert_eq!((other.is_err(), tries), (true, 1));
    }
}
