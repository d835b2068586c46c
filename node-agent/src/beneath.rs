//! A folder from which nothing leads out: every open stays below it, whatever symbolic links tasks have made.
//!
//! The kernel's `openat2` does the resolving; where it is missing, links are not followed at all.
//! Staging, outputs and file requests open everything through it.

use std::{
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

    /// Opens what is there, links followed as long as they stay inside.
    pub fn open_entry(&self, path: &RelativePath, flags: OFlags) -> io::Result<OwnedFd> {
        // A pure path takes no flags about reading: openat2 refuses what openat ignores.
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

    /// Opens a folder inside.
    pub fn open_folder(&self, path: &RelativePath) -> io::Result<Folder> {
        self.open_entry(path, OFlags::RDONLY | OFlags::DIRECTORY).map(Folder)
    }

    /// Properties of the entry itself, or of what it links to inside.
    pub fn stat(&self, path: &RelativePath) -> io::Result<Stat> {
        let entry = self.open_entry(path, OFlags::PATH)?;
        Ok(rustix::fs::fstat(&entry)?)
    }

    /// Makes the folders on the way, following no link, and opens the last one.
    pub fn create_folders(&self, path: Option<&RelativePath>) -> io::Result<Folder> {
        self.descend(path, true).map(Folder)
    }

    /// A path for code that takes paths; valid while this folder is open.
    pub fn path_of(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{name}", self.0.as_raw_fd()))
    }

    /// Names and properties of the entries; a link is shown as itself.
    pub fn entries(&self) -> io::Result<Vec<(String, Stat)>> {
        let mut entries = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.0)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            if matches!(name, "." | "..") {
                continue;
            }
            match rustix::fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => entries.push((name.to_owned(), stat)),
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(error.into()),
            }
        }
        entries.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        Ok(entries)
    }

    /// Removes one entry; a folder only when it is empty.
    pub fn remove(&self, path: &RelativePath, is_folder: bool) -> io::Result<()> {
        let (parent, name) = path.split_last();
        let parent = self.descend(parent.as_ref(), false)?;
        let flags = if is_folder { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        Ok(rustix::fs::unlinkat(&parent, name, flags)?)
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
        folder.remove(&path("link"), false).unwrap();
        assert!(root.path().join("in/keep").is_dir() && !root.path().join("in/link").exists());
    }
}
