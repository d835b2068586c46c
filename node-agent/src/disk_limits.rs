//! Limits on the disk space that tasks may take.

use std::path::PathBuf;

/// Bytes of a stream at most, unless the operator sets another limit.
pub const STREAM_BYTES_MAX: u64 = 4 << 30;

/// Limits on what tasks may write.
#[derive(Debug, Clone)]
pub struct DiskLimits {
    /// Bytes of a task's stdout, and of its stderr.
    pub stream_bytes_max: u64,
    /// Bytes of a task's folder, with the deleted files that the task holds open; `None` leaves only the limit of a
    /// nearly full disk.
    pub folder_bytes_max: Option<u64>,
    /// With fewer free bytes than this, the run that fills the disk is ended.
    pub free_bytes_min: u64,
    /// The file that agents on one disk share, so that one agent at a time ends a run for lack of space.
    pub turn_file: Option<PathBuf>,
}

impl Default for DiskLimits {
    fn default() -> DiskLimits {
        DiskLimits { stream_bytes_max: STREAM_BYTES_MAX, folder_bytes_max: None, free_bytes_min: 0, turn_file: None }
    }
}
