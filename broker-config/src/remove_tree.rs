//! Removes a folder with everything below it, however deep. Tasks make the folders that parts of Piecework remove, so
//! neither stack nor descriptors may grow with the depth: a folder in a folder is moved up to the top one, and emptied there.

use std::{
    ffi::CStr,
    fs, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, chmodat, fchmod, openat, renameat, statat, unlinkat},
    io::Errno,
};

/// Rights of the owner, for folders that their maker closed to himself.
const OWNER: Mode = Mode::RWXU;

/// Removes a folder, or whatever else has this path.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    if !fs::symlink_metadata(path)?.is_dir() {
        return fs::remove_file(path);
    }
    let top = openat(CWD, path, OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()).or_else(|error| {
        allow(error, || chmodat(CWD, path, OWNER, AtFlags::empty()))?;
        openat(CWD, path, OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
    })?;
    let mut lift = Lift { top: top.as_fd(), number: 0 };
    // Each round empties the folders that the one before has moved up.
    while each(top.as_fd(), |name, is_folder| {
        if !is_folder {
            return unlink(top.as_fd(), name, AtFlags::empty());
        }
        let Some(folder) = open(top.as_fd(), name)? else { return Ok(()) };
        while each(folder.as_fd(), |name, is_folder| match is_folder {
            true => lift.out_of(folder.as_fd(), name),
            false => unlink(folder.as_fd(), name, AtFlags::empty()),
        })? {}
        unlink(top.as_fd(), name, AtFlags::REMOVEDIR)
    })? {}
    fs::remove_dir(path)
}

/// Moves folders up to the top one.
struct Lift<'a> {
    top: BorrowedFd<'a>,
    number: u64,
}

impl Lift<'_> {
    fn out_of(&mut self, folder: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
        match unlinkat(folder, name, AtFlags::REMOVEDIR) {
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            Err(error @ Errno::ACCESS) => allow(error, || fchmod(folder, OWNER))?,
            other => return gone(other),
        }
        let mut is_allowed = false;
        loop {
            self.number += 1;
            match renameat(folder, name, self.top, format!(".removed-{}", self.number)) {
                // The name is that of an earlier removal which was cut off.
                Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => {}
                // Moving a folder changes it, the one that it leaves and the one that it comes to.
                Err(error @ Errno::ACCESS) if !is_allowed => {
                    allow(error, || {
                        fchmod(folder, OWNER)?;
                        fchmod(self.top, OWNER)?;
                        chmodat(folder, name, OWNER, AtFlags::empty())
                    })?;
                    is_allowed = true;
                }
                other => return gone(other),
            }
        }
    }
}

/// Does something with every entry; whether there were any.
fn each(folder: BorrowedFd<'_>, mut act: impl FnMut(&CStr, bool) -> io::Result<()>) -> io::Result<bool> {
    let mut found = false;
    let entries = Dir::read_from(folder).or_else(|error| {
        allow(error, || fchmod(folder, OWNER))?;
        Dir::read_from(folder)
    })?;
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        found = true;
        let kind = match entry.file_type() {
            FileType::Unknown => match statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => FileType::from_raw_mode(stat.st_mode),
                Err(error) => {
                    gone(Err(error))?;
                    continue;
                }
            },
            known => known,
        };
        act(name, kind == FileType::Directory)?;
    }
    Ok(found)
}

/// Opens a folder, unless it is gone.
fn open(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<Option<OwnedFd>> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = match openat(parent, name, flags, Mode::empty()) {
        Err(error @ Errno::ACCESS) => {
            allow(error, || chmodat(parent, name, OWNER, AtFlags::empty()))?;
            openat(parent, name, flags, Mode::empty())
        }
        other => other,
    };
    match opened {
        Err(Errno::NOENT) => Ok(None),
        other => Ok(Some(other?)),
    }
}

fn unlink(folder: BorrowedFd<'_>, name: &CStr, flags: AtFlags) -> io::Result<()> {
    match unlinkat(folder, name, flags) {
        Err(error @ Errno::ACCESS) => {
            allow(error, || fchmod(folder, OWNER))?;
            gone(unlinkat(folder, name, flags))
        }
        other => gone(other),
    }
}

/// Gives the owner his rights back where they were what was missing; the first error where that cannot be.
fn allow(error: Errno, change: impl FnOnce() -> rustix::io::Result<()>) -> rustix::io::Result<()> {
    if error == Errno::ACCESS { change().map_err(|_| error) } else { Err(error) }
}

/// Counts a file that is already gone as removed.
fn gone(result: rustix::io::Result<()>) -> io::Result<()> {
    match result {
        Err(Errno::NOENT) => Ok(()),
        other => Ok(other?),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::fs::{PermissionsExt, symlink},
        thread,
    };

    use rustix::fs::mkdirat;

    use super::*;

    /// Deeper than a stack of the size below has room for a call for each.
    const DEPTH: usize = 20_000;
    const STACK_BYTES: usize = 512 * 1024;

    #[test]
    fn a_folder_goes_however_deep_it_is() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("deep");
        fs::create_dir(&path).unwrap();
        let mut at = openat(CWD, &path, OFlags::DIRECTORY, Mode::empty()).unwrap();
        for level in 0..DEPTH {
            mkdirat(&at, "d", Mode::RWXU).unwrap();
            if level % 1_000 == 0 {
                mkdirat(&at, "beside", Mode::RWXU).unwrap();
                openat(&at, "file", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).unwrap();
            }
            at = openat(&at, "d", OFlags::DIRECTORY, Mode::empty()).unwrap();
        }
        drop(at);
        let removed = path.clone();
        thread::Builder::new().stack_size(STACK_BYTES).spawn(move || remove(&removed)).unwrap().join().unwrap().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn links_are_removed_and_not_followed_and_closed_folders_are_opened() {
        let place = tempfile::tempdir().unwrap();
        let (victim, path) = (place.path().join("victim"), place.path().join("folder"));
        fs::create_dir_all(victim.join("a")).unwrap();
        fs::create_dir_all(path.join("closed/within/more")).unwrap();
        fs::write(path.join("closed/within/file"), "x").unwrap();
        // The name of an earlier removal that was cut off.
        fs::create_dir_all(path.join(".removed-1/left")).unwrap();
        symlink(&victim, path.join("link")).unwrap();
        symlink(&victim, path.join("closed/within/link")).unwrap();
        fs::set_permissions(path.join("closed/within"), fs::Permissions::from_mode(0o500)).unwrap();
        fs::set_permissions(path.join("closed"), fs::Permissions::from_mode(0o000)).unwrap();
        fs::create_dir_all(path.join("listed/within")).unwrap();
        fs::set_permissions(path.join("listed"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o500)).unwrap();
        remove(&path).unwrap();
        assert!(!path.exists() && victim.join("a").exists());
        let bare = place.path().join("bare");
        fs::create_dir_all(bare.join("within")).unwrap();
        fs::set_permissions(&bare, fs::Permissions::from_mode(0o500)).unwrap();
        remove(&bare).unwrap();
        assert!(!bare.exists());
        symlink(&victim, &path).unwrap();
        remove(&path).unwrap();
        assert!(fs::symlink_metadata(&path).is_err() && victim.join("a").exists());
    }
}
