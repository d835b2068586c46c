//! Unpacks a zip into a new folder: plain files and folders only, nothing outside, bounded in number, size and
//! in how much larger than the zip its files may be. Zips inside a zip are files like others.

use std::{
    fs::{self, File},
    io::{self, BufReader, Read},
    path::Path,
};

use thiserror::Error;
use zip::{ZipArchive, result::ZipError};

use crate::{
    beneath::Folder,
    path::{PathError, RelativePath},
};

/// Files and folders of one package at most.
const ENTRIES_MAX: usize = 200_000;
/// Bytes of a package's unpacked files at most.
const BYTES_MAX: u64 = 10 * 1024 * 1024 * 1024;
/// Largest ratio of unpacked to packed bytes, beyond [`RATIO_FREE_BYTES`].
const RATIO_MAX: u64 = 200;
/// Bytes that may be unpacked from a zip of any size.
const RATIO_FREE_BYTES: u64 = 100 * 1024 * 1024;
/// Mode of entries without one: zips made on Windows have no modes.
const MODE_DEFAULT: u32 = 0o755;
const FILE_TYPE: u32 = 0o170_000;
const SYMBOLIC_LINK: u32 = 0o120_000;

/// Reasons why a package cannot be unpacked.
#[derive(Debug, Error)]
pub enum UnpackError {
    #[error("the zip cannot be read")]
    Zip(#[from] ZipError),
    #[error("the zip cannot be opened")]
    Open(#[source] io::Error),
    #[error("the zip has {count} entries, the most is {ENTRIES_MAX}")]
    Entries { count: usize },
    #[error("the zip unpacks to more than {bytes_max} bytes")]
    Bytes { bytes_max: u64 },
    #[error("the zip of {zip_bytes} bytes unpacks to more than {bytes_max} bytes, {RATIO_MAX} times its size")]
    Ratio { zip_bytes: u64, bytes_max: u64 },
    /// Entries that share their bytes, as only zip bombs do.
    #[error("the entries of the zip overlap: they name {named_bytes} packed bytes, the zip has {zip_bytes}")]
    Overlap {
        /// Packed bytes that the entries claim.
        named_bytes: u64,
        zip_bytes: u64,
    },
    /// An entry whose path would leave the folder.
    #[error("the entry {name:?} is refused")]
    Path { name: String, source: PathError },
    #[error("the entry {name:?} is a symbolic link")]
    Link { name: String },
    #[error("the entry {name:?} cannot be written")]
    Write { name: String, source: io::Error },
}

/// Unpacks a zip into a folder that does not exist yet.
pub fn unpack(zip: &Path, folder: &Path) -> Result<(), UnpackError> {
    unpack_within(zip, folder, &Limits { entries_max: ENTRIES_MAX, bytes_max: BYTES_MAX, ratio_free_bytes: RATIO_FREE_BYTES })
}

struct Limits {
    entries_max: usize,
    bytes_max: u64,
    ratio_free_bytes: u64,
}

fn unpack_within(zip: &Path, folder: &Path, limits: &Limits) -> Result<(), UnpackError> {
    let file = File::open(zip).map_err(UnpackError::Open)?;
    let zip_bytes = file.metadata().map_err(UnpackError::Open)?.len();
    let mut archive = ZipArchive::new(BufReader::new(file))?;
    if archive.len() > limits.entries_max {
        return Err(UnpackError::Entries { count: archive.len() });
    }
    let by_ratio = zip_bytes.saturating_mul(RATIO_MAX).max(limits.ratio_free_bytes);
    let bytes_max = limits.bytes_max.min(by_ratio);
    let too_large = || match by_ratio < limits.bytes_max {
        true => UnpackError::Ratio { zip_bytes, bytes_max },
        false => UnpackError::Bytes { bytes_max },
    };
    let mut named_bytes = 0_u64;
    for index in 0..archive.len() {
        named_bytes = named_bytes.saturating_add(archive.by_index_raw(index)?.compressed_size());
    }
    if named_bytes > zip_bytes {
        return Err(UnpackError::Overlap { named_bytes, zip_bytes });
    }
    // Links that tasks make in it meanwhile are not followed.
    let made = fs::create_dir(folder).and_then(|()| Folder::open_plain_folder(folder));
    let folder = made.map_err(|source| UnpackError::Write { name: String::new(), source })?;
    let mut left = bytes_max;
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index)?;
        let name = entry.name()?.into_owned();
        let path = match RelativePath::parse(&name) {
            Ok(path) => path,
            Err(PathError::Empty) => continue,
            Err(source) => return Err(UnpackError::Path { name, source }),
        };
        let mode = entry.unix_mode().unwrap_or(MODE_DEFAULT);
        if mode & FILE_TYPE == SYMBOLIC_LINK {
            return Err(UnpackError::Link { name });
        }
        let is_folder = entry.is_dir();
        let written = write(&mut entry, &folder, &path, is_folder, mode, left);
        left = match written {
            Ok(bytes) if bytes <= left => left - bytes,
            Ok(_) => return Err(too_large()),
            Err(source) => return Err(UnpackError::Write { name, source }),
        };
    }
    Ok(())
}

/// Writes one entry; reads one byte more than `left` at most, so that an excess is noticed.
fn write(entry: &mut impl Read, folder: &Folder, path: &RelativePath, is_folder: bool, mode: u32, left: u64) -> io::Result<u64> {
    if is_folder {
        return folder.create_folders(Some(path)).map(|_| 0);
    }
    let (parent, name) = path.split_last();
    let parent = folder.create_folders(parent.as_ref())?;
    // The owner can read every file whatever the zip says, and no file gets a set-user-id bit.
    let mode = mode & 0o777 | 0o400;
    let mut file = parent.create_new(name, mode)?;
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
            let limits = Limits { entries_max: 100, bytes_max, ratio_free_bytes: 10 << 20 };
            unpack_within(&self.zip(make), &self.target(), &limits)
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
    fn a_small_zip_of_much_stops_at_its_ratio() {
        let bench = Bench::new();
        let made = bench.unpack(1 << 40, |zip| (0..4).for_each(|name| file(zip, &format!("{name}"), None, &vec![0; 8 << 20])));
        let Err(UnpackError::Ratio { zip_bytes, bytes_max }) = made else { panic!("{made:?}") };
        assert_eq!(bytes_max, (zip_bytes * RATIO_MAX).max(10 << 20));
        let written: u64 = fs::read_dir(bench.target()).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
        assert_eq!(written, bytes_max + 1);
    }

    #[test]
    fn entries_that_share_their_bytes_are_refused() {
        let bench = Bench::new();
        let path = bench.zip(|zip| {
            file(zip, "a", None, &(0..100_000_u32).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect::<Vec<_>>());
            file(zip, "b", None, b"b");
        });
        // Makes the second entry of the directory point at the bytes of the first one.
        let mut bytes = fs::read(&path).unwrap();
        let headers: Vec<usize> = (0..bytes.len() - 4).filter(|at| bytes[*at..].starts_with(b"PK\x01\x02")).collect();
        let (first, second) = (headers[0], headers[1]);
        for field in [16..20, 20..24, 24..28, 42..46] {
            bytes.copy_within(first + field.start..first + field.end, second + field.start);
        }
        fs::write(&path, bytes).unwrap();
        let made = unpack(&path, &bench.target());
        assert!(matches!(made, Err(UnpackError::Overlap { .. } | UnpackError::Zip(_))), "{made:?}");
        assert!(!bench.target().join("b").exists());
    }

    #[test]
    fn too_many_entries_are_refused_before_the_first() {
        let bench = Bench::new();
        let made = bench.unpack(1 << 20, |zip| (0..101).for_each(|name| file(zip, &format!("{name}"), None, b"")));
        assert!(matches!(made, Err(UnpackError::Entries { count: 101 })) && !bench.target().exists(), "{made:?}");
    }

    #[test]
    fn what_is_no_zip_is_refused() {
        let bench = Bench::new();
        let path = bench.folder.path().join("p.zip");
        fs::write(&path, b"PK\x03\x04 and then nothing of the kind").unwrap();
        assert!(matches!(unpack(&path, &bench.target()), Err(UnpackError::Zip(_))));
    }
}
