//! A run's stdout and stderr while its process lives, by their descriptors, so that renaming the files hides nothing.

use std::{
    fs::{File, Metadata},
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The streams of one run; empty until its process starts.
#[derive(Debug, Clone, Default)]
pub struct OpenStreams(Arc<Mutex<Vec<(&'static str, File)>>>);

impl OpenStreams {
    /// Stores duplicates of the streams of a process that is about to start.
    pub fn set(&self, stdout: &File, stderr: &File) -> io::Result<()> {
        let streams = vec![("stdout.txt", stdout.try_clone()?), ("stderr.txt", stderr.try_clone()?)];
        *self.lock() = streams;
        Ok(())
    }

    /// Names of the streams with their present lengths.
    pub fn lengths(&self) -> Vec<(&'static str, io::Result<u64>)> {
        self.lock().iter().map(|(name, file)| (*name, file.metadata().map(|metadata| metadata.len()))).collect()
    }

    /// The streams' properties, without those that cannot be read.
    pub fn properties(&self) -> Vec<Metadata> {
        self.lock().iter().filter_map(|(_, file)| file.metadata().ok()).collect()
    }

    /// Empties a stream that has grown beyond this; it goes on from its start, for both are opened for appending.
    pub fn cut(&self, bytes_max: u64) -> io::Result<()> {
        for (_, file) in self.lock().iter() {
            if file.metadata()?.len() > bytes_max {
                file.set_len(0)?;
            }
        }
        Ok(())
    }

    /// Closes them.
    pub fn close(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(&'static str, File)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
