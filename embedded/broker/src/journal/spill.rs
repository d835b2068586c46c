//! The spill files and how many records in each are still needed. They hold messages that need not survive a restart
//! but do not fit into memory; all of them are removed at start.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

/// Bytes after which another spill file is begun.
const FILE_BYTES: u64 = 32 << 20;

/// Path of a spill file in the data folder.
pub(crate) fn spill_path(folder: &Path, number: u32) -> PathBuf {
    folder.join(format!("spill-{number:010}.dat"))
}

/// Removes the spill files of an earlier run.
pub(crate) fn remove_spilled(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with("spill-") && name.ends_with(".dat") {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// The core's view of the spill files.
#[derive(Debug, Default)]
pub(crate) struct Spill {
    current: u32,
    bytes: u64,
    /// Needed records, by file.
    live: BTreeMap<u32, u64>,
}

impl Spill {
    /// Counts a record that is about to be written; returns its file.
    pub fn add(&mut self, bytes: u64) -> u32 {
        self.bytes += bytes;
        *self.live.entry(self.current).or_default() += 1;
        self.current
    }

    /// Counts a record as no longer needed; returns its file if that can be removed.
    pub fn release(&mut self, file: u32) -> Option<u32> {
        let live = self.live.get_mut(&file)?;
        *live = live.saturating_sub(1);
        self.take_empty(file)
    }

    /// True when a file contains needed records, or is being written.
    pub fn has_file(&self, file: u32) -> bool {
        self.live.contains_key(&file)
    }

    /// True when the next record belongs in another file.
    pub fn must_rotate(&self) -> bool {
        self.bytes >= FILE_BYTES
    }

    /// Starts another file; returns the old one if no record in it is needed.
    pub fn rotate(&mut self) -> Option<u32> {
        let old = self.current;
        self.current += 1;
        self.bytes = 0;
        self.take_empty(old)
    }

    fn take_empty(&mut self, file: u32) -> Option<u32> {
        if file == self.current || self.live.get(&file).is_some_and(|live| *live > 0) {
            return None;
        }
        self.live.remove(&file).map(|_| file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_goes_with_its_last_record_unless_it_is_written_to() {
        let mut spill = Spill::default();
        assert_eq!(spill.add(FILE_BYTES), 0);
        assert_eq!(spill.release(0), None);
        assert!(spill.must_rotate());
        assert_eq!(spill.rotate(), Some(0));
        assert_eq!((spill.add(1), spill.add(1)), (1, 1));
        assert_eq!(spill.rotate(), None);
        assert_eq!((spill.release(1), spill.release(1)), (None, Some(1)));
    }
}
