//! The bytes of large objects: one immutable file each, named by a random id and not by key.
//!
//! ```text
//! incoming/<id> --sync, rename, sync of the folder--> content/<first two>/<id> --row committed--> kept
//! ```
//! A file that no row names is removed at the next start. Used by uploads, copies, downloads and the reaper.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::error::Error;
use crate::reaper::Reaper;

const SHARDS: u32 = 256;

/// The folders that hold object bytes.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    incoming: PathBuf,
    content: PathBuf,
}

impl Files {
    /// Opens or creates the folders and empties `incoming`.
    pub(crate) fn open(data: &Path) -> Result<Self, Error> {
        let files = Self { incoming: data.join("incoming"), content: data.join("content") };
        files.prepare().map_err(|source| Error::Folder { path: data.to_owned(), source })?;
        Ok(files)
    }

    fn prepare(&self) -> io::Result<()> {
        make_folder(&self.incoming)?;
        for shard in 0..SHARDS {
            make_folder(&self.content.join(format!("{shard:02x}")))?;
        }
        File::open(&self.content)?.sync_all()?;
        for entry in fs::read_dir(&self.incoming)? {
            fs::remove_file(entry?.path())?;
        }
        Ok(())
    }

    /// Opens the file of stored bytes.
    pub(crate) fn read(&self, id: &str) -> io::Result<File> {
        open(File::options().read(true), &self.path(id))
    }

    /// Creates an empty file for an upload.
    pub(crate) fn create(&self, reaper: &Reaper) -> io::Result<(File, Incoming)> {
        let id = fresh_id();
        let path = self.incoming.join(&id);
        let file = options().create_new(true).open(&path)?;
        Ok((file, Incoming { id, path: Some(path), reaper: reaper.clone() }))
    }

    /// Makes an uploaded file permanent in name and bytes; it is still removed unless a row names it.
    pub(crate) fn settle(&self, file: &File, incoming: Incoming) -> io::Result<Fresh> {
        file.sync_data()?;
        let (id, from, reaper) = incoming.into_parts();
        let to = self.path(&id);
        let renamed = fs::rename(&from, &to);
        let fresh = Fresh { id, path: Some(if renamed.is_ok() { to } else { from }), reaper };
        renamed?;
        self.sync_folder_of(&fresh.id)?;
        Ok(fresh)
    }

    /// Duplicates stored bytes, without copying where the file system can share them.
    pub(crate) fn duplicate(&self, id: &str, reaper: &Reaper) -> io::Result<Fresh> {
        let twin = fresh_id();
        let path = self.path(&twin);
        let fresh = Fresh { id: twin, path: Some(path.clone()), reaper: reaper.clone() };
        if let Err(refusal) = fs::hard_link(self.path(id), &path) {
            if refusal.kind() == io::ErrorKind::NotFound {
                return Err(refusal);
            }
            fs::copy(self.path(id), &path)?;
            File::open(&path)?.sync_data()?;
        }
        self.sync_folder_of(&fresh.id)?;
        Ok(fresh)
    }

    /// Removes stored bytes; missing ones are no error.
    pub(crate) fn remove(&self, id: &str) -> io::Result<()> {
        match fs::remove_file(self.path(id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Removes every stored file for which `is_named` is false, and returns their number.
    pub(crate) fn sweep(&self, is_named: impl Fn(&str) -> Result<bool, Error>) -> Result<u64, Error> {
        let mut removed = 0;
        for shard in fs::read_dir(&self.content)? {
            for entry in fs::read_dir(shard?.path())? {
                let entry = entry?;
                let is_kept = match entry.file_name().to_str() {
                    Some(id) => is_named(id)?,
                    None => false,
                };
                if !is_kept {
                    fs::remove_file(entry.path())?;
                    removed += 1;
                }
            }
        }
        Ok(removed)
    }

    fn path(&self, id: &str) -> PathBuf {
        self.content.join(&id[..2]).join(id)
    }

    fn sync_folder_of(&self, id: &str) -> io::Result<()> {
        File::open(self.content.join(&id[..2]))?.sync_all()
    }
}

/// Creates a folder, and its parents, for their owner only.
pub(crate) fn make_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Opens a file; other programs of the same user may have put a link or a FIFO in its place, which is an error at once.
pub(crate) fn open(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let file = options.custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed()).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::new(io::ErrorKind::InvalidInput, "this is not a file")) }
}

/// Options to write a file that only its owner may read, created when missing.
pub(crate) fn options() -> OpenOptions {
    let mut options = File::options();
    options.write(true).create(true).mode(0o600);
    options
}

/// A file of an unfinished upload; removed when dropped.
#[derive(Debug)]
pub(crate) struct Incoming {
    id: String,
    path: Option<PathBuf>,
    reaper: Reaper,
}

impl Incoming {
    fn into_parts(mut self) -> (String, PathBuf, Reaper) {
        let path = self.path.take().expect("the path is taken only once, when this value is consumed or dropped");
        (std::mem::take(&mut self.id), path, self.reaper.clone())
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if let Some(path) = self.path.take() {
            self.reaper.discard(path);
        }
    }
}

/// A permanent file that no committed row names yet; removed when dropped.
#[derive(Debug)]
pub(crate) struct Fresh {
    id: String,
    path: Option<PathBuf>,
    reaper: Reaper,
}

impl Fresh {
    /// The file's id, as rows name it.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Keeps the file, because a committed row names it, or may do so.
    pub(crate) fn keep(mut self) {
        self.path = None;
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        if let Some(path) = self.path.take() {
            self.reaper.discard(path);
        }
    }
}

/// A random name of 32 hex digits.
pub(crate) fn fresh_id() -> String {
    format!("{:032x}", rand::random::<u128>())
}
