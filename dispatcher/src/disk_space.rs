//! Watches the free space on the store's disk.
//!
//! ```text
//! plenty ──below LOW──► low: additions are refused; events of nodes and deletions are still stored
//!                        └──below CRITICAL──► the reserve file is deleted, to make room for exactly those
//! ```
//! The reserve file is created again as soon as there is plenty of space.

use std::{io, path::Path, path::PathBuf, time::Duration};

use broker_config::disk::{self, Reserve};
use tokio::{sync::watch, time::MissedTickBehavior};
use tracing::{error, info, warn};

/// Size of the reserve file.
const RESERVE_BYTES: u64 = 32 << 20;
/// With less free space nothing may be added. The embedded broker blocks publishers a little later.
const LOW_BYTES: u64 = 64 << 20;
/// With less free space the reserve file is deleted, also at a start.
const CRITICAL_BYTES: u64 = 8 << 20;
/// Time between two checks, which take microseconds.
const LOOK: Duration = Duration::from_millis(500);

/// The reserve file in a dispatcher's folder.
pub(crate) fn reserve(folder: &Path) -> Reserve {
    Reserve::of(folder, RESERVE_BYTES)
}

/// Deletes the reserve file for a start on a full disk; returns whether there is enough space to start now.
pub fn make_room(folder: &Path) -> io::Result<bool> {
    if disk::free(folder)? < CRITICAL_BYTES && reserve(folder).release()? {
        warn!(folder = %folder.display(), "the disk is full; the space that was set aside for this is used to start");
    }
    Ok(disk::free(folder)? >= CRITICAL_BYTES)
}

/// Whether there is too little free space for additions.
pub fn is_short(folder: &Path) -> io::Result<bool> {
    Ok(disk::free(folder)? < LOW_BYTES)
}

/// Checks until `stop`, and publishes the reason why nothing may be added.
pub(crate) async fn watch(folder: PathBuf, tell: watch::Sender<Option<String>>, mut stop: watch::Receiver<bool>) {
    let reserve = reserve(&folder);
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut is_unknown = false;
    loop {
        tokio::select! {
            _ = looks.tick() => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        let free = match disk::free(&folder) {
            Ok(free) => free,
            Err(error) => {
                if !std::mem::replace(&mut is_unknown, true) {
                    warn!(folder = %folder.display(), %error, "the free space is unknown");
                }
                continue;
            }
        };
        is_unknown = false;
        if let Err(error) = hold(&reserve, free) {
            error!(folder = %folder.display(), %error, "the space that is set aside cannot be changed");
        }
        let shortage = shortage(&folder, free);
        if shortage.is_some() != tell.borrow().is_some() {
            match &shortage {
                Some(reason) => error!(
                    reason,
                    "the disk is nearly full: additions are refused until there is space; running tasks continue and their results are stored"
                ),
                None => info!(free, "the disk has enough free space again; additions are accepted"),
            }
        }
        tell.send_if_modified(|told| {
            let is_news = told.is_some() != shortage.is_some();
            *told = shortage;
            is_news
        });
    }
}

fn hold(reserve: &Reserve, free: u64) -> io::Result<()> {
    if free < CRITICAL_BYTES {
        if reserve.release()? {
            warn!(free, "the disk is full; the space that was set aside is used for what must be stored");
        }
    } else {
        reserve.keep(LOW_BYTES)?;
    }
    Ok(())
}

fn shortage(folder: &Path, free: u64) -> Option<String> {
    let (free, low) = (free >> 20, LOW_BYTES >> 20);
    (free < low)
        .then(|| format!("the disk of {} has {free} MiB left, and at least {low} MiB are needed; make room there", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_goes_when_the_disk_is_full_and_comes_back_with_plenty_of_room() {
        let folder = tempfile::tempdir().unwrap();
        let (reserve, file) = (reserve(folder.path()), folder.path().join("reserve"));
        hold(&reserve, u64::MAX).unwrap();
        assert!(file.exists());
        hold(&reserve, CRITICAL_BYTES).unwrap();
        assert!(file.exists());
        hold(&reserve, CRITICAL_BYTES - 1).unwrap();
        assert!(!file.exists());
    }

    #[test]
    fn a_shortage_names_the_disk_and_what_is_wanted() {
        let reason = shortage(Path::new("/data"), 3 << 20).unwrap();
        assert!(reason.contains("/data") && reason.contains("3 MiB") && reason.contains("64 MiB"), "{reason}");
        assert_eq!(shortage(Path::new("/data"), LOW_BYTES), None);
    }
}
