//! Makes a zip of a folder, the same bytes for the same files: their names in order, no times, no owners.

use std::{
    fs,
    io::{Cursor, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use zip::{ZipWriter, write::SimpleFileOptions};

use crate::exit_codes::Failure;

/// Files of a package at most.
const FILES_MAX: usize = 50_000;
/// Bytes of a package at most, before they are compressed: they are held in memory.
const BYTES_MAX: u64 = 512 * 1024 * 1024;
/// Folders below folders at most, so that a link to a folder above ends somewhere.
const DEPTH_MAX: usize = 64;
/// Left out: what Python writes beside its sources differs with every run.
const LEFT_OUT: &str = "__pycache__";

struct Archive {
    writer: ZipWriter<Cursor<Vec<u8>>>,
    files: usize,
    bytes: u64,
}

/// A zip of everything below a folder. Links are followed. It blocks.
pub(crate) fn of_folder(folder: &Path) -> anyhow::Result<Vec<u8>> {
    let mut archive = Archive { writer: ZipWriter::new(Cursor::default()), files: 0, bytes: 0 };
    archive.add(folder, "", DEPTH_MAX)?;
    if archive.files == 0 {
        return Err(Failure::usage(format!("{} has no files", folder.display())).into());
    }
    Ok(archive.writer.finish()?.into_inner())
}

impl Archive {
    fn add(&mut self, folder: &Path, prefix: &str, depth: usize) -> anyhow::Result<()> {
        let unreadable = |path: &Path, error: std::io::Error| Failure::usage(format!("cannot read {}: {error}", path.display()));
        if depth == 0 {
            return Err(Failure::usage(format!("{} is more than {DEPTH_MAX} folders deep", folder.display())).into());
        }
        let entries = fs::read_dir(folder).map_err(|error| unreadable(folder, error))?;
        let mut names: Vec<_> = entries.map(|entry| entry.map(|entry| entry.file_name())).collect::<Result<_, _>>()?;
        names.sort();
        for name in names {
            let path = folder.join(&name);
            let Some(name) = name.to_str() else {
                return Err(Failure::usage(format!("the name of {} is not UTF-8", path.display())).into());
            };
            let metadata = fs::metadata(&path).map_err(|error| unreadable(&path, error))?;
            if name == LEFT_OUT {
                continue;
            }
            if metadata.is_dir() {
                self.add(&path, &format!("{prefix}{name}/"), depth - 1)?;
                continue;
            }
            // A FIFO would never end, a device neither.
            if !metadata.is_file() {
                return Err(Failure::usage(format!("{} is neither a file nor a folder", path.display())).into());
            }
            (self.files, self.bytes) = (self.files + 1, self.bytes + metadata.len());
            if self.files > FILES_MAX || self.bytes > BYTES_MAX {
                let most = format!("a package has at most {FILES_MAX} files and {} MiB", BYTES_MAX >> 20);
                return Err(Failure::usage(most).into());
            }
            let is_program = metadata.permissions().mode() & 0o111 != 0;
            let options = SimpleFileOptions::default().unix_permissions(if is_program { 0o755 } else { 0o644 });
            self.writer.start_file(format!("{prefix}{name}"), options)?;
            self.writer.write_all(&fs::read(&path).map_err(|error| unreadable(&path, error))?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_files_make_the_same_zip_and_programs_stay_programs() {
        let zip = |order: [&str; 2]| {
            let folder = tempfile::tempdir().unwrap();
            fs::create_dir_all(folder.path().join("lib/__pycache__")).unwrap();
            fs::write(folder.path().join("lib/__pycache__/x.pyc"), "noise").unwrap();
            for name in order {
                fs::write(folder.path().join(name), name).unwrap();
            }
            fs::set_permissions(folder.path().join("bootstrap"), fs::Permissions::from_mode(0o700)).unwrap();
            of_folder(folder.path()).unwrap()
        };
        let first = zip(["bootstrap", "lib/a.py"]);
        assert_eq!(first, zip(["lib/a.py", "bootstrap"]));
        let mut read = zip::ZipArchive::new(Cursor::new(first)).unwrap();
        let modes: Vec<_> = (0..read.len())
            .map(|at| {
                let file = read.by_index(at).unwrap();
                (file.name().unwrap().into_owned(), file.unix_mode().unwrap() & 0o777)
            })
            .collect();
        assert_eq!(modes, [("bootstrap".to_owned(), 0o755), ("lib/a.py".to_owned(), 0o644)]);
        assert!(of_folder(tempfile::tempdir().unwrap().path()).is_err());
    }

    #[test]
    fn what_is_neither_file_nor_folder_is_refused_and_not_read() {
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/dev/zero", folder.path().join("endless")).unwrap();
        let refused = of_folder(folder.path()).unwrap_err().to_string();
        assert!(refused.contains("endless is neither a file nor a folder"), "{refused}");
    }
}
