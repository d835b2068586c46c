//! Folders confined by the kernel: every open stays below the folder, whatever symbolic links tasks have made.
//!
//! The kernel's `openat2` does the resolving; where it is missing, links are not followed at all.
//! Staging, outputs, streams and file requests open everything through it, and never wait for a FIFO's other side.

use std::{
    ffi::CStr,
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat},
    io::Errno,
};

use crate::path::RelativePath;

/// An open folder.
#[derive(Debug)]
pub struct Folder(OwnedFd);

impl Folder {
    /// Opens a trusted path.
    pub fn open(path: &Path) -> io::Result<Folder> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        Ok(Folder(rustix::fs::open(path, flags, Mode::empty())?))
    }

    /// Opens a path whose last part must be a folder itself, not a link to one.
    pub fn open_plain_folder(path: &Path) -> io::Result<Folder> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Folder(rustix::fs::open(path, flags, Mode::empty())?))
    }

    /// Opens an entry; links are followed as long as they stay inside.
    pub fn open_entry(&self, path: &RelativePath, flags: OFlags) -> io::Result<OwnedFd> {
        // `O_PATH` takes no flags about reading: openat2 refuses what openat ignores.
        let reading = if flags.contains(OFlags::PATH) { OFlags::empty() } else { OFlags::NONBLOCK | OFlags::NOCTTY };
        let flags = flags | OFlags::CLOEXEC | reading;
        let inside = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        match rustix::fs::openat2(&self.0, path.as_str(), flags, Mode::empty(), inside) {
            Err(Errno::NOSYS | Errno::PERM) => {
                let (parent, name) = path.split_last();
                let parent = self.descend(parent.as_ref(), false)?;
                Ok(rustix::fs::openat(parent.as_fd(), name, flags | OFlags::NOFOLLOW, Mode::empty())?)
            }
            other => Ok(other?),
        }
    }

    /// Opens a regular file for reading.
    pub fn open_file(&self, path: &RelativePath) -> io::Result<File> {
        let file = self.open_entry(path, OFlags::RDONLY)?;
        if FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) != FileType::RegularFile {
            return Err(io::Error::from(io::ErrorKind::IsADirectory));
        }
        Ok(File::from(file))
    }

    /// Opens a regular file of this folder for reading; a link of that name is refused.
    pub fn open_plain(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.0, name, flags, Mode::empty())?;
        if FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) != FileType::RegularFile {
            return Err(io::Error::other("it is no regular file"));
        }
        Ok(File::from(file))
    }

    /// Creates a regular file of this name in place of whatever has it: a file, a link, a FIFO.
    pub fn create_anew(&self, name: &str, mode: u32) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::unlinkat(&self.0, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(File::from(rustix::fs::openat(&self.0, name, flags, Mode::from_raw_mode(mode))?))
    }

    /// Creates a new regular file of this name; an entry that has it is an error.
    pub fn create_new(&self, name: &str, mode: u32) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(File::from(rustix::fs::openat(&self.0, name, flags, Mode::from_raw_mode(mode))?))
    }

    /// Moves a folder into another one. What is no folder and has the new name, a link for example, is removed.
    pub fn move_folder(&self, name: &str, to: &Folder, new_name: &str) -> io::Result<()> {
        if to.stat_entry(new_name)?.is_some_and(|found| FileType::from_raw_mode(found.st_mode) != FileType::Directory) {
            rustix::fs::unlinkat(&to.0, new_name, AtFlags::empty())?;
        }
        Ok(rustix::fs::renameat(&self.0, name, &to.0, new_name)?)
    }

    /// Opens a regular file for reading and appending; an entry of another type is replaced.
    pub fn append(&self, name: &str, mode: u32) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::APPEND | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.0, name, flags, Mode::from_raw_mode(mode)) {
            Ok(file) if FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) == FileType::RegularFile => {
                rustix::fs::fcntl_setfl(&file, OFlags::APPEND)?;
                Ok(File::from(file))
            }
            // The entry is a link, a FIFO or another special file.
            Ok(_) | Err(Errno::LOOP | Errno::NXIO) => {
                let file = self.create_anew(name, mode)?;
                rustix::fs::fcntl_setfl(&file, OFlags::APPEND)?;
                Ok(file)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Opens a folder inside.
    pub fn open_folder(&self, path: &RelativePath) -> io::Result<Folder> {
        self.open_entry(path, OFlags::RDONLY | OFlags::DIRECTORY).map(Folder)
    }

    /// Opens a subfolder by the bytes of its name; a link of that name is refused.
    pub fn enter_name(&self, name: &CStr) -> io::Result<Folder> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Folder(rustix::fs::openat(&self.0, name, flags, Mode::empty())?))
    }

    /// Opens a folder below without following any link.
    pub fn enter(&self, path: &RelativePath) -> io::Result<Folder> {
        self.descend(Some(path), false).map(Folder)
    }

    /// Properties of an entry, or of the link's target where that lies inside.
    pub fn stat(&self, path: &RelativePath) -> io::Result<Stat> {
        let entry = self.open_entry(path, OFlags::PATH)?;
        Ok(rustix::fs::fstat(&entry)?)
    }

    /// Creates the folders of a path without following links, and opens the last one.
    pub fn create_folders(&self, path: Option<&RelativePath>) -> io::Result<Folder> {
        self.descend(path, true).map(Folder)
    }

    /// A path for code that takes paths; it is valid while this folder is open.
    pub fn path_of(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{name}", self.0.as_raw_fd()))
    }

    /// Properties of an entry, `None` when it does not exist; a link is not followed.
    pub fn stat_entry(&self, name: impl rustix::path::Arg) -> io::Result<Option<Stat>> {
        match rustix::fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Calls with the name and kind of every entry, until the call fails; links are not followed.
    pub fn each_name(&self, mut call: impl FnMut(&CStr, FileType) -> io::Result<()>) -> io::Result<()> {
        for entry in rustix::fs::Dir::read_from(&self.0)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let kind = match entry.file_type() {
                // Some file systems do not report the type.
                FileType::Unknown => match self.stat_entry(name)? {
                    Some(stat) => FileType::from_raw_mode(stat.st_mode),
                    None => continue,
                },
                kind => kind,
            };
            call(name, kind)?;
        }
        Ok(())
    }

    /// Removes one entry; a folder only when it is empty.
    pub fn remove(&self, name: impl rustix::path::Arg, is_folder: bool) -> io::Result<()> {
        let flags = if is_folder { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        Ok(rustix::fs::unlinkat(&self.0, name, flags)?)
    }

    fn descend(&self, path: Option<&RelativePath>, create: bool) -> io::Result<OwnedFd> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut at = self.0.try_clone()?;
        for name in path.iter().flat_map(|path| path.components()) {
            if create {
                match rustix::fs::mkdirat(&at, name, Mode::from_raw_mode(0o770)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            at = rustix::fs::openat(&at, name, flags, Mode::empty())?;
        }
        Ok(at)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Read, os::unix::fs::symlink};

    use super::*;

    fn path(text: &str) -> RelativePath {
        RelativePath::parse(text).unwrap()
    }

    #[test]
    fn links_that_leave_the_folder_lead_nowhere() {
        let root = tempfile::tempdir().unwrap();
        let inside = root.path().join("inside");
        fs::create_dir_all(inside.join("deep")).unwrap();
        fs::write(root.path().join("secret"), "s").unwrap();
        fs::write(inside.join("deep/file"), "f").unwrap();
        symlink("../secret", inside.join("up")).unwrap();
        symlink(root.path().join("secret"), inside.join("absolute")).unwrap();
        symlink("/", inside.join("root")).unwrap();
        symlink("deep/file", inside.join("fine")).unwrap();
        let folder = Folder::open(&inside).unwrap();
        for name in ["up", "absolute", "root/etc/passwd", "root"] {
            assert!(folder.open_file(&path(name)).is_err(), "{name}");
            assert!(folder.stat(&path(name)).is_err(), "{name}");
        }
        let mut text = String::new();
        folder.open_file(&path("fine")).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "f");
    }

    #[test]
    fn nothing_waits_for_a_fifo_and_a_new_file_takes_its_place() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("secret"), "s").unwrap();
        let inside = root.path().join("inside");
        fs::create_dir(&inside).unwrap();
        let fifo = |name: &str| rustix::fs::mknodat(rustix::fs::CWD, inside.join(name), FileType::Fifo, Mode::from_raw_mode(0o600), 0);
        fifo("fifo").unwrap();
        symlink("../secret", inside.join("link")).unwrap();
        let folder = Folder::open(&inside).unwrap();
        for name in ["fifo", "link"] {
            assert!(folder.open_plain(name).is_err() && folder.open_file(&path(name)).is_err(), "{name}");
            io::Write::write_all(&mut folder.create_anew(name, 0o640).unwrap(), b"new").unwrap();
            io::Write::write_all(&mut folder.append(name, 0o640).unwrap(), b"er").unwrap();
            assert_eq!(fs::read_to_string(inside.join(name)).unwrap(), "newer");
            fs::remove_file(inside.join(name)).unwrap();
        }
        fifo("fifo").unwrap();
        symlink("../secret", inside.join("link")).unwrap();
        for name in ["fifo", "link", "none"] {
            io::Write::write_all(&mut folder.append(name, 0o640).unwrap(), b"new").unwrap();
            assert_eq!(fs::read_to_string(inside.join(name)).unwrap(), "new");
        }
        assert_eq!(fs::read_to_string(root.path().join("secret")).unwrap(), "s");
        fs::create_dir(inside.join("folder")).unwrap();
        assert!(folder.create_anew("folder", 0o640).is_err());
    }

    #[test]
    fn folders_are_not_made_through_links() {
        let root = tempfile::tempdir().unwrap();
        let inside = root.path().join("inside");
        fs::create_dir_all(&inside).unwrap();
        fs::create_dir_all(root.path().join("outside")).unwrap();
        symlink("../outside", inside.join("link")).unwrap();
        let folder = Folder::open(&inside).unwrap();
        assert!(folder.create_folders(Some(&path("link/new"))).is_err());
        assert!(folder.create_folders(Some(&path("a/b/c"))).is_ok());
        assert!(inside.join("a/b/c").is_dir() && !root.path().join("outside/new").exists());
    }

    #[test]
    fn removing_a_link_leaves_its_target() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("in/keep")).unwrap();
        symlink("keep", root.path().join("in/link")).unwrap();
        let folder = Folder::open(&root.path().join("in")).unwrap();
        folder.remove("link", false).unwrap();
        assert!(root.path().join("in/keep").is_dir() && !root.path().join("in/link").exists());
    }
}
