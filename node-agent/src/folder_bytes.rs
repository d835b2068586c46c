//! Counts the bytes of a folder by descriptors, so that neither the length of its paths nor its depth hides anything.
//! Links are not followed, and other disks are not entered.

use std::{
    ffi::CStr,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use rustix::{
    fs::{Access, AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, accessat, chmod, fstat, openat, openat2, statat},
    io::Errno,
    process::geteuid,
};

/// Folders on the way down that stay open; below them only the deepest one is, and `..` leads back.
const OPEN_MAX: usize = 16;
const FOLDER: OFlags = OFlags::DIRECTORY.union(OFlags::RDONLY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Names of subfolders that are still to be entered, one after the other with their NULs.
#[derive(Default)]
struct Names(Vec<u8>);

impl Names {
    fn push(&mut self, name: &CStr) {
        self.0.extend_from_slice(name.to_bytes_with_nul());
    }

    /// The last name, with what to truncate to afterwards.
    fn last(&self) -> Option<(&CStr, usize)> {
        let (_, before) = self.0.split_last()?;
        let begin = before.iter().rposition(|byte| *byte == 0).map_or(0, |nul| nul + 1);
        CStr::from_bytes_with_nul(&self.0[begin..]).ok().map(|name| (name, begin))
    }
}

/// Folders with [`Closed`] on the way down; what is closed below them counts nothing.
const CLOSED_MAX: usize = 64;

/// A folder that a task closed to its own user, who is the agent's as well: it is open until this is dropped.
struct Closed {
    itself: OwnedFd,
    mode: Mode,
}

impl Closed {
    fn open(itself: OwnedFd) -> Option<Closed> {
        let stat = fstat(&itself).ok().filter(|stat| stat.st_uid == geteuid().as_raw())?;
        let closed = Closed { itself, mode: Mode::from_raw_mode(stat.st_mode) };
        closed.set(closed.mode | Mode::RUSR | Mode::XUSR).ok()?;
        Some(closed)
    }

    /// Changes what the descriptor stands for, whatever has its name by now.
    fn set(&self, mode: Mode) -> Result<(), Errno> {
        chmod(format!("/proc/self/fd/{}", self.itself.as_raw_fd()), mode)
    }
}

impl Drop for Closed {
    fn drop(&mut self) {
        if let Err(error) = self.set(self.mode) {
            tracing::warn!(%error, "cannot close a task's folder again after its bytes were counted");
        }
    }
}

/// A folder that can be read, and what keeps it so.
type Opened = (OwnedFd, Option<Closed>);

/// A folder on the way down.
struct Level {
    closed: Option<Closed>,
    /// Absent in the middle of a deep tree.
    folder: Option<OwnedFd>,
    device: u64,
    inode: u64,
    left: Names,
}

/// Adds the bytes of a folder and of everything below it to `found`, until `is_over` is set. What cannot be read counts
/// nothing. It blocks.
pub fn count(top: &Path, found: &AtomicU64, is_over: &AtomicBool) {
    let opened = open(|flags| openat(CWD, top, flags, Mode::empty()), true);
    let Some(top) = opened.and_then(|top| read(top, found, is_over)) else { return };
    let mut closed = usize::from(top.closed.is_some());
    let mut levels = vec![top];
    while let Some(level) = levels.last_mut()
        && !is_over.load(Ordering::Relaxed)
    {
        let may_open = closed < CLOSED_MAX;
        let Some((name, rest)) = level.left.last() else {
            let Some(done) = levels.pop() else { return };
            closed -= usize::from(done.closed.is_some());
            go_back(&mut levels, done);
            continue;
        };
        let entered = level.folder.as_ref().and_then(|folder| enter(folder.as_fd(), name, level.device, may_open));
        level.left.0.truncate(rest);
        // A folder without subfolders is done.
        let Some(inner) = entered.and_then(|inner| read(inner, found, is_over)).filter(|inner| !inner.left.0.is_empty()) else { continue };
        if levels.len() > OPEN_MAX
            && let Some(outer) = levels.last_mut()
        {
            outer.folder = None;
        }
        closed += usize::from(inner.closed.is_some());
        levels.push(inner);
    }
}

/// Opens the folder above the one that is done, if it is not open. When that was moved away meanwhile, the walk goes on
/// in the deepest folder that is open.
fn go_back(levels: &mut Vec<Level>, done: Level) {
    if let Some(outer) = levels.last_mut().filter(|outer| outer.folder.is_none()) {
        let above = done.folder.and_then(|folder| openat(folder, c"..", FOLDER, Mode::empty()).ok());
        outer.folder = above.filter(|above| fstat(above).is_ok_and(|stat| stat.st_dev == outer.device && stat.st_ino == outer.inode));
    }
    while levels.last().is_some_and(|level| level.folder.is_none()) {
        levels.pop();
    }
}

/// Opens a subfolder, unless a link or another disk has its name.
fn enter(folder: BorrowedFd<'_>, name: &CStr, device: u64, may_open: bool) -> Option<Opened> {
    let inside = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    let inner = open(
        |flags| match openat2(folder, name, flags, Mode::empty(), inside) {
            Err(Errno::NOSYS | Errno::PERM) => openat(folder, name, flags, Mode::empty()),
            other => other,
        },
        may_open,
    );
    inner.filter(|(inner, _)| fstat(inner).is_ok_and(|stat| stat.st_dev == device))
}

/// Opens a folder to be read, a closed one as well if it may be opened for that.
fn open(with: impl Fn(OFlags) -> Result<OwnedFd, Errno>, may_open: bool) -> Option<Opened> {
    match with(FOLDER) {
        Ok(folder) => {
            // It can be listed, but its entries cannot be looked at.
            let is_closed = may_open && accessat(&folder, c".", Access::EXEC_OK, AtFlags::EACCESS) == Err(Errno::ACCESS);
            let closed = if is_closed { with(FOLDER | OFlags::PATH).ok().and_then(Closed::open) } else { None };
            Some((folder, closed))
        }
        Err(Errno::ACCESS) if may_open => {
            let closed = with(FOLDER | OFlags::PATH).ok().and_then(Closed::open)?;
            let folder = openat(&closed.itself, c".", FOLDER, Mode::empty()).ok()?;
            Some((folder, Some(closed)))
        }
        Err(_) => None,
    }
}

/// Counts the entries of a folder and lists its subfolders.
fn read((folder, closed): Opened, found: &AtomicU64, is_over: &AtomicBool) -> Option<Level> {
    let own = fstat(&folder).ok()?;
    let mut left = Names::default();
    for entry in Dir::read_from(&folder).ok()? {
        if is_over.load(Ordering::Relaxed) {
            return None;
        }
        let Ok(entry) = entry else { break };
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let Ok(stat) = statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        if stat.st_dev != own.st_dev {
            continue;
        }
        let is_folder = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        found.fetch_add(share(&stat, is_folder), Ordering::Relaxed);
        if is_folder {
            left.push(name);
        }
    }
    Some(Level { closed, folder: Some(folder), device: own.st_dev, inode: own.st_ino, left })
}

/// A file with several names takes its room once: each name counts a share.
#[allow(clippy::unnecessary_cast, reason = "the count of names has fewer bits on some machines")]
fn share(stat: &Stat, is_folder: bool) -> u64 {
    let names = if is_folder { 1 } else { stat.st_nlink.max(1) as u64 };
    stat.st_blocks.unsigned_abs() * 512 / names
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        io::Write,
        os::unix::fs::{MetadataExt, PermissionsExt},
    };

    use rustix::fs::mkdirat;

    use super::*;

    fn counted(folder: &Path) -> u64 {
        let found = AtomicU64::default();
        count(folder, &found, &AtomicBool::default());
        found.into_inner()
    }

    fn write_at(folder: BorrowedFd<'_>, bytes: usize) {
        let file = openat(folder, "large", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).unwrap();
        fs::File::from(file).write_all(&vec![1; bytes]).unwrap();
    }

    #[test]
    fn every_entry_counts_however_many_and_however_long_their_paths_are() {
        let folder = tempfile::tempdir().unwrap();
        let name = "d".repeat(200);
        let mut at = openat(CWD, folder.path(), FOLDER, Mode::empty()).unwrap();
        let mut expected = 0;
        // The path of the last folder is five times as long as paths may be.
        for level in 0..100 {
            for inner in [&*name, "beside"] {
                mkdirat(&at, inner, Mode::RWXU).unwrap();
            }
            if level % 10 == 0 {
                let beside = openat(&at, "beside", FOLDER, Mode::empty()).unwrap();
                mkdirat(&beside, "within", Mode::RWXU).unwrap();
                write_at(openat(&beside, "within", FOLDER, Mode::empty()).unwrap().as_fd(), 1 << 20);
                expected += 1 << 20;
            }
            at = openat(&at, &*name, FOLDER, Mode::empty()).unwrap();
        }
        for number in 0..200 {
            fs::write(folder.path().join(number.to_string()), "x").unwrap();
        }
        std::os::unix::fs::symlink("/", folder.path().join("root")).unwrap();
        write_at(at.as_fd(), 1 << 20);
        expected += 1 << 20;
        let all = counted(folder.path());
        assert!((expected..expected + (4 << 20)).contains(&all), "{all} of {expected}");
    }

    #[test]
    fn a_folder_that_was_moved_away_meanwhile_leads_to_no_other() {
        let scratch = tempfile::tempdir().unwrap();
        let open = |path: &str| {
            fs::create_dir_all(scratch.path().join(path)).unwrap();
            openat(CWD, scratch.path().join(path), FOLDER, Mode::empty()).unwrap()
        };
        let level = |folder: OwnedFd, is_open: bool| {
            let stat = fstat(&folder).unwrap();
            let folder = is_open.then_some(folder);
            Level { closed: None, folder, device: stat.st_dev, inode: stat.st_ino, left: Names::default() }
        };
        let mut levels = vec![level(open("a"), true), level(open("a/b"), false)];
        go_back(&mut levels, level(open("a/b/c"), true));
        assert!(levels.len() == 2 && levels[1].folder.is_some());
        levels[1].folder = None;
        let moved = open("a/b/c");
        fs::rename(scratch.path().join("a/b/c"), scratch.path().join("c")).unwrap();
        go_back(&mut levels, level(moved, true));
        assert_eq!(levels.len(), 1, "the walk goes on in the folder that is open");
    }

    #[test]
    fn folders_that_a_task_closed_to_its_user_count_and_keep_their_mode() {
        let scratch = tempfile::tempdir().unwrap();
        let closed = scratch.path().join("task/closed");
        fs::create_dir_all(&closed).unwrap();
        fs::write(closed.join("large"), vec![1; 1 << 20]).unwrap();
        let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        set(&closed, 0o000);
        set(&scratch.path().join("task"), 0o200);
        // The superuser needs no mode, and this is what others do.
        let itself = openat(CWD, &closed, FOLDER | OFlags::PATH, Mode::empty()).ok();
        if let Some(opened) = itself.and_then(Closed::open) {
            assert_eq!(fs::metadata(&closed).unwrap().mode() & 0o777, 0o500);
            drop(opened);
        }
        let bytes = counted(&scratch.path().join("task"));
        let modes = [scratch.path().join("task")].map(|path| fs::metadata(path).unwrap().mode() & 0o777);
        set(&scratch.path().join("task"), 0o700);
        assert_eq!((fs::metadata(&closed).unwrap().mode() & 0o777, modes), (0, [0o200]));
        set(&closed, 0o700);
        assert!(bytes >= 1 << 20, "{bytes}");
    }

    #[test]
    fn a_file_with_several_names_counts_once() {
        let folder = tempfile::tempdir().unwrap();
        let first = folder.path().join("first");
        fs::write(&first, vec![1; 1 << 20]).unwrap();
        let before = counted(folder.path());
        for number in 0..7 {
            fs::hard_link(&first, folder.path().join(number.to_string())).unwrap();
        }
        assert!(counted(folder.path()) < before + (1 << 19));
    }
}
