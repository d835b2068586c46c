//! Unpacks a zip into a new folder: plain files and folders only, nothing outside, bounded in number and size.

use std::{
    fs::{self, File},
    io::{self, BufReader, Read},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use thiserror::Error;
use zip::{ZipArchive, result::ZipError};

use crate::path::{PathError, RelativePath};

/// Files and folders of one package at most.
const ENTRIES_MAX: usize = 200_000;
/// Bytes of all its files at most.
const BYTES_MAX: u64 = 64 * 1024 * 1024 * 1024;
/// For entries that say nothing: packages made on Windows know no modes.
const MODE_DEFAULT: u32 = 0o755;
const FILE_TYPE: u32 = 0o170_000;
const SYMBOLIC_LINK: u32 = 0o120_000;

/// Why a package cannot be unpacked.
#[derive(Debug, Error)]
pub enum UnpackError {
    /// The zip cannot be read.
    #[error("the zip cannot be read")]
    Zip(#[from] ZipError),
    /// The zip cannot be opened.
    #[error("the zip cannot be opened")]
    Open(#[source] io::Error),
    /// Too many entries.
    #[error("the zip has {count} entries, the most is {ENTRIES_MAX}")]
    Entries {
        /// Found.
        count: usize,
    },
    /// Too many bytes.
    #[error("the zip unpacks to more than {bytes_max} bytes")]
    Bytes {
        /// The limit.
        bytes_max: u64,
    },
    /// An entry that would leave the folder.
    #[error("the entry {name:?} is refused")]
    Path {
        /// Its name.
        name: String,
        /// Why.
        source: PathError,
    },
    /// A symbolic link.
    #[error("the entry {name:?} is a symbolic link")]
    Link {
        /// Its name.
        name: String,
    },
    /// The disk.
    #[error("the entry {name:?} cannot be written")]
    Write {
        /// Its name.
        name: String,
        /// Why.
        source: io::Error,
    },
}

impl UnpackError {
    /// Whether the node ran out of room.
    pub fn is_disk_full(&self) -> bool {
        matches!(self, UnpackError::Write { source, .. } if source.kind() == io::ErrorKind::StorageFull)
    }
}

/// Unpacks a zip into a folder that does not exist yet.
pub fn unpack(zip: &Path, folder: &Path) -> Result<(), UnpackError> {
    unpack_within(zip, folder, BYTES_MAX)
}

fn unpack_within(zip: &Path, folder: &Path, bytes_max: u64) -> Result<(), UnpackError> {
    let mut archive = ZipArchive::new(BufReader::new(File::open(zip).map_err(UnpackError::Open)?))?;
    if archive.len() > ENTRIES_MAX {
        return Err(UnpackError::Entries { count: archive.len() });
    }
    fs::create_dir(folder).map_err(|source| UnpackError::Write { name: String::new(), source })?;
    let mut left = bytes_max;
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index)?;
        let name = entry.name()?.into_owned();
        let path = match RelativePath::parse(&name) {
            Ok(path) => folder.join(path.as_str()),
            Err(PathError::Empty) => continue,
            Err(source) => return Err(UnpackError::Path { name, source }),
        };
        let mode = entry.unix_mode().unwrap_or(MODE_DEFAULT);
        if mode & FILE_TYPE == SYMBOLIC_LINK {
            return Err(UnpackError::Link { name });
        }
        let is_folder = entry.is_dir();
        let written = write(&mut entry, &path, is_folder, mode, left);
        left = match written {
            Ok(bytes) if bytes <= left => left - bytes,
            Ok(_) => return Err(UnpackError::Bytes { bytes_max }),
            Err(source) => return Err(UnpackError::Write { name, source }),
        };
    }
    Ok(())
}

/// Writes one entry; of a file at most one byte more than is left.
fn write(entry: &mut impl Read, path: &Path, is_folder: bool, mode: u32, left: u64) -> io::Result<u64> {
    if is_folder {
        return fs::create_dir_all(path).map(|()| 0);
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    // Readable by its owner whatever the zip says, and never with a set-user-id bit.
    let mode = mode & 0o777 | 0o400;
    let mut file = File::options().create_new(true).write(true).mode(mode).open(path)?;
    io::copy(&mut entry.take(left.saturating_add(1)), &mut file)
}

#[cfg(test)]
mod tests {
    use std::{io::Write, os::unix::fs::PermissionsExt, path::PathBuf};

    use tempfile::TempDir;
    use zip::{ZipWriter, write::SimpleFileOptions};

    use super::*;

    struct Bench {
        folder: TempDir,
    }

    impl Bench {
        fn new() -> Bench {
            Bench { folder: tempfile::tempdir().unwrap() }
        }

        fn target(&self) -> PathBuf {
            self.folder.path().join("out")
        }

        fn zip(&self, make: impl FnOnce(&mut ZipWriter<File>)) -> PathBuf {
            let path = self.folder.path().join("p.zip");
            let mut writer = ZipWriter::new(File::create(&path).unwrap());
            make(&mut writer);
            writer.finish().unwrap();
            path
        }

        fn unpack(&self, bytes_max: u64, make: impl FnOnce(&mut ZipWriter<File>)) -> Result<(), UnpackError> {
            unpack_within(&self.zip(make), &self.target(), bytes_max)
        }
    }

    fn file(writer: &mut ZipWriter<File>, name: &str, mode: Option<u32>, bytes: &[u8]) {
        let options = SimpleFileOptions::default();
        writer.start_file(name, mode.map_or(options, |mode| options.unix_permissions(mode))).unwrap();
        writer.write_all(bytes).unwrap();
    }

    #[test]
    fn files_keep_their_place_bytes_and_modes() {
        let bench = Bench::new();
        let made = bench.unpack(1 << 20, |zip| {
            zip.add_directory("empty", SimpleFileOptions::default()).unwrap();
            file(zip, "bin/tool", Some(0o755), b"#!/bin/sh\n");
            file(zip, "bin/data.txt", Some(0o644), &b"x".repeat(100_000));
        });
        made.unwrap();
        assert!(bench.target().join("empty").is_dir());
        assert_eq!(fs::read(bench.target().join("bin/data.txt")).unwrap().len(), 100_000);
        let mode = |name: &str| fs::metadata(bench.target().join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("bin/tool") & 0o700, mode("bin/data.txt") & 0o700), (0o700, 0o600));
    }

    #[test]
    fn entries_that_would_leave_the_folder_are_refused() {
        for name in ["../evil", "a/../../evil", "/etc/evil", "a\\..\\evil"] {
            let bench = Bench::new();
            let made = bench.unpack(1 << 20, |zip| file(zip, name, None, b"x"));
            assert!(matches!(made, Err(UnpackError::Path { .. })), "{name}: {made:?}");
            assert!(!bench.folder.path().join("evil").exists());
        }
        let bench = Bench::new();
        let made = bench.unpack(1 << 20, |zip| zip.add_symlink("link", "/etc", SimpleFileOptions::default()).unwrap());
        assert!(matches!(made, Err(UnpackError::Link { .. })), "{made:?}");
    }

    #[test]
    fn a_bomb_stops_at_its_limit() {
        let bench = Bench::new();
        let made = bench.unpack(1_000_000, |zip| {
            file(zip, "a", None, &vec![0; 900_000]);
            file(zip, "b", None, &vec![0; 200_000]);
        });
        assert!(matches!(made, Err(UnpackError::Bytes { bytes_max: 1_000_000 })), "{made:?}");
        let written = fs::metadata(bench.target().join("b")).unwrap().len();
        assert_eq!(written, 100_001);
    }

    #[test]
    fn what_is_no_zip_is_refused() {
        let bench = Bench::new();
        let path = bench.folder.path().join("p.zip");
        fs::write(&path, b"PK\x03\x04 and then nothing of the kind").unwrap();
        assert!(matches!(unpack(&path, &bench.target()), Err(UnpackError::Zip(_))));
    }
}
