//! Free space of a disk, and a file that reserves some of it for writes that must succeed on a full disk.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FallocateFlags, fallocate, statvfs},
    io::Errno,
};

use crate::private;

/// Bytes written at a time where the file system cannot reserve space by itself.
const STEP_BYTES: usize = 1 << 20;

/// The space of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Bytes that ordinary users may still write.
    pub free: u64,
    /// Bytes that are in use.
    pub used: u64,
}

/// The space of the disk that a path is on.
pub fn space(path: &Path) -> io::Result<Space> {
    let disk = statvfs(path)?;
    let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
    Ok(Space { free: bytes(disk.f_bavail), used: bytes(disk.f_blocks.saturating_sub(disk.f_bfree)) })
}

/// Bytes that ordinary users may still write on the disk of a path.
pub fn free(path: &Path) -> io::Result<u64> {
    Ok(space(path)?.free)
}

/// True when two paths are on the same disk.
pub fn is_same(one: &Path, other: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    Ok(fs::metadata(one)?.dev() == fs::metadata(other)?.dev())
}

/// Reserved disk space; the file `reserve` of a folder holds it.
#[derive(Debug, Clone)]
pub struct Reserve {
    path: PathBuf,
    bytes: u64,
}

impl Reserve {
    /// The reserve of a folder; nothing is reserved yet.
    pub fn of(folder: &Path, bytes: u64) -> Reserve {
        Reserve { path: folder.join("reserve"), bytes }
    }

    /// Frees the reserved space; returns whether there was any.
    pub fn release(&self) -> io::Result<bool> {
        match fs::remove_file(&self.path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Reserves the space, if at least `spare` bytes stay free; returns whether it is reserved now.
    pub fn keep(&self, spare: u64) -> io::Result<bool> {
        if fs::metadata(&self.path).is_ok_and(|file| file.len() == self.bytes) {
            return Ok(true);
        }
        let folder = self.path.parent().unwrap_or(Path::new("."));
        if free(folder)? < self.bytes.saturating_add(spare) {
            return Ok(false);
        }
        let fresh = self.path.with_extension("new");
        let made = private::create(&fresh).and_then(|file| fill(&file, self.bytes));
        if let Err(error) = made.and_then(|()| fs::rename(&fresh, &self.path)) {
            fs::remove_file(&fresh)?;
            return Err(error);
        }
        Ok(true)
    }
}

fn fill(mut file: &File, bytes: u64) -> io::Result<()> {
    match fallocate(file, FallocateFlags::empty(), 0, bytes) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
        other => return Ok(other?),
    }
    let zeros = vec![0; STEP_BYTES];
    let mut left = bytes;
    while left > 0 {
        let step = left.min(STEP_BYTES as u64);
        file.write_all(&zeros[..step as usize])?;
        left -= step;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_reserve_takes_real_space_and_gives_it_back_once() {
        let folder = tempfile::tempdir().unwrap();
        let reserve = Reserve::of(folder.path(), 3 << 20);
        assert!(!reserve.keep(u64::MAX).unwrap(), "there is never that much");
        assert!(!reserve.release().unwrap());
        assert!(reserve.keep(0).unwrap() && reserve.keep(0).unwrap());
        let file = fs::metadata(folder.path().join("reserve")).unwrap();
        assert!(file.len() == 3 << 20 && file.blocks() * 512 >= 3 << 20, "{} blocks", file.blocks());
        assert!(reserve.release().unwrap());
        assert!(!reserve.release().unwrap());
        assert!(free(folder.path()).unwrap() > 0);
    }
}
