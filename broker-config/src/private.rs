//! Folders and files that only their owner may read: 0700 and 0600 from the moment they exist, whatever the umask.
//! Every part keeps its state in them; a folder that an earlier build left readable is closed when it is opened again.
//! Tasks may run as the same user, so links are not followed, and a FIFO in the place of a file is an error at once.

use std::{
    fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;

use crate::removal;

/// Mode of folders.
pub const FOLDER_MODE: u32 = 0o700;
/// Mode of files.
pub const FILE_MODE: u32 = 0o600;
/// The longest file that [`read`] takes.
pub const READ_BYTES_MAX: u64 = 1024 * 1024;
const NEITHER_LINK_NOR_WAIT: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK);
/// Permission bits of everybody but the owner.
const OTHERS: u32 = 0o077;

/// Creates a folder if it is missing. One that others may read is closed to them, with the files directly in it.
///
/// A link in its place is followed if this user or root made it and it leads to a folder of theirs that can be closed to
/// others; any other is an error.
pub fn folder(path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        fs::create_dir_all(parent)?;
    }
    match DirBuilder::new().mode(FOLDER_MODE).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let found = fs::symlink_metadata(path)?;
            if found.is_symlink() {
                return follow(path, &found);
            }
            if found.is_dir() { close(path) } else { Err(error) }
        }
        other => other,
    }
}

/// Checks a link in the place of a folder, and closes what it leads to.
fn follow(path: &Path, link: &Metadata) -> io::Result<()> {
    let target = fs::read_link(path)?;
    let refused = |kind, reason: String| Err(io::Error::new(kind, format!("it is a link to {}, and {reason}", target.display())));
    let is_ours = |metadata: &Metadata| [0, rustix::process::geteuid().as_raw()].contains(&metadata.uid());
    if !is_ours(link) {
        let reason = format!("user {} made it: links of other users are not followed; remove it, or make it yourself", link.uid());
        return refused(io::ErrorKind::PermissionDenied, reason);
    }
    let folder = match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => metadata,
        Ok(_) => return refused(io::ErrorKind::NotADirectory, "that is no folder; make one there, or remove the link".to_owned()),
        Err(error) => return refused(error.kind(), format!("that cannot be used ({error}); make a folder there, or remove the link")),
    };
    if !is_ours(&folder) {
        let reason = format!("that folder belongs to user {}; give it to the user that runs this", folder.uid());
        return refused(io::ErrorKind::PermissionDenied, reason);
    }
    close(path)?;
    if fs::metadata(path)?.permissions().mode() & OTHERS != 0 {
        return refused(io::ErrorKind::PermissionDenied, "other users may read that folder; set its mode to 0700".to_owned());
    }
    Ok(())
}

/// Options for a file that only its owner may read; the mode counts when the file is created. A link in its place is an
/// error, and opening a FIFO does not wait: use them with [`open`], which refuses everything that is not a file.
pub fn options() -> OpenOptions {
    let mut options = File::options();
    options.mode(FILE_MODE).custom_flags(NEITHER_LINK_NOR_WAIT.bits().cast_signed());
    options
}

/// Opens a file by [`options`]; a link, a FIFO or anything else that is not a file is an error at once.
pub fn open(options: &OpenOptions, path: &Path) -> io::Result<File> {
    let file = options.open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::new(io::ErrorKind::InvalidInput, "this is not a file")) }
}

/// Creates an empty file if there is none, for programs that would create it readable by others.
pub fn file(path: &Path) -> io::Result<()> {
    open(options().append(true).create(true), path).map(drop)
}

/// Creates a new file, removing what has its path: a file, a link, a FIFO or a whole folder.
pub fn create(path: &Path) -> io::Result<File> {
    clear(path)?;
    options().write(true).create_new(true).open(path)
}

/// Replaces a file atomically and durably: writes a new one with the ending `.new`, then renames it.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    replace_by(&PathBuf::from(fresh), path, bytes)
}

/// As [`replace`], with the path of the new file, which must be in the same folder.
pub fn replace_by(fresh: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = create(fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    match fs::rename(fresh, path) {
        Err(error) if error.kind() == io::ErrorKind::IsADirectory => {
            clear(path)?;
            fs::rename(fresh, path)
        }
        other => other,
    }
}

fn clear(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::IsADirectory => removal::folder(path),
        other => other,
    }
}

/// Reads a small file; one that others may read is closed to them first.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = open(options().read(true), path)?;
    if take_from_others(path, &file.metadata()?, |closed| file.set_permissions(closed)) {
        tracing::warn!(path = %path.display(), "other users could read this file; its permissions are corrected now, and a secret in it should be replaced");
    }
    let mut bytes = Vec::new();
    file.take(READ_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > READ_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("this file is longer than {READ_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

/// Identifies a folder on this machine: a copy has another identity, and a moved or renamed folder keeps its own.
pub fn identity(path: &Path) -> io::Result<String> {
    let metadata = fs::metadata(path)?;
    Ok(format!("{}:{}", metadata.dev(), metadata.ino()))
}

fn close(path: &Path) -> io::Result<()> {
    if !take_from_others(path, &fs::metadata(path)?, |closed| fs::set_permissions(path, closed)) {
        return Ok(());
    }
    tracing::warn!(path = %path.display(), "other users could read this folder; its permissions are corrected now");
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if metadata.is_file() {
            let path = entry.path();
            take_from_others(&path, &metadata, |closed| fs::set_permissions(&path, closed));
        }
    }
    Ok(())
}

/// Removes the permissions of other users; returns true when there were any.
fn take_from_others(path: &Path, metadata: &Metadata, change: impl FnOnce(Permissions) -> io::Result<()>) -> bool {
    let mode = metadata.permissions().mode();
    if mode & OTHERS == 0 {
        return false;
    }
    // On a volume that another user owns, its owner sets the permissions.
    change(Permissions::from_mode(mode & !OTHERS))
        .inspect_err(
            |error| tracing::warn!(path = %path.display(), %error, "other users may read this file or folder, and its permissions could not be changed"),
        )
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn what_is_made_and_what_was_left_open_is_for_the_owner_only() {
        let scratch = tempfile::tempdir().unwrap();
        let (new, old) = (scratch.path().join("deep/new"), scratch.path().join("old"));
        folder(&new).unwrap();
        file(&new.join("file")).unwrap();
        assert_eq!((mode(&new), mode(&new.join("file"))), (0o700, 0o600));

        fs::create_dir(&old).unwrap();
        fs::write(old.join("journal"), "x").unwrap();
        fs::set_permissions(&old, Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(old.join("journal"), Permissions::from_mode(0o644)).unwrap();
        folder(&old).unwrap();
        assert_eq!((mode(&old), mode(&old.join("journal"))), (0o700, 0o600));
        fs::set_permissions(old.join("journal"), Permissions::from_mode(0o640)).unwrap();
        assert_eq!(read(&old.join("journal")).unwrap(), b"x");
        assert_eq!(mode(&old.join("journal")), 0o600);
        assert!(folder(&old.join("journal")).is_err(), "a file is no folder");
    }

    #[test]
    fn a_link_in_the_place_of_a_folder_is_followed_only_to_what_is_ours_and_closed_to_others() {
        use std::os::unix::fs::{chown, lchown, symlink};
        let scratch = tempfile::tempdir().unwrap();
        let (disk, link) = (scratch.path().join("disk"), scratch.path().join("blobs"));
        symlink(&disk, &link).unwrap();
        let reason = folder(&link).unwrap_err().to_string();
        assert!(reason.contains("disk") && reason.contains("make a folder there"), "{reason}");
        fs::write(&disk, "").unwrap();
        assert_eq!(folder(&link).unwrap_err().kind(), io::ErrorKind::NotADirectory);
        fs::remove_file(&disk).unwrap();
        fs::create_dir(&disk).unwrap();
        fs::set_permissions(&disk, Permissions::from_mode(0o755)).unwrap();
        folder(&link).unwrap();
        assert_eq!(mode(&disk), 0o700);
        // Only root can give things away.
        if rustix::process::geteuid().is_root() {
            chown(&disk, Some(65_534), None).unwrap();
            assert!(folder(&link).unwrap_err().to_string().contains("belongs to user 65534"));
            chown(&disk, Some(0), None).unwrap();
            lchown(&link, Some(65_534), None).unwrap();
            assert!(folder(&link).unwrap_err().to_string().contains("user 65534 made it"));
        }
    }

    #[test]
    fn whatever_stands_in_the_place_of_a_file_is_neither_followed_nor_waited_for() {
        let scratch = tempfile::tempdir().unwrap();
        let victim = scratch.path().join("victim");
        fs::write(&victim, "untouched").unwrap();
        type Put = fn(&Path, &Path);
        let place: [(&str, Put); 3] = [
            ("link", |path, victim| std::os::unix::fs::symlink(victim, path).unwrap()),
            ("fifo", |path, _| {
                rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
            }),
            ("folder", |path, _| fs::create_dir_all(path.join("full")).unwrap()),
        ];
        for (what, put) in place {
            let path = scratch.path().join(what);
            let fresh = scratch.path().join(format!("{what}.new"));
            put(&path, &victim);
            put(&fresh, &victim);
            assert!(file(&path).is_err() && read(&path).is_err(), "{what}");
            assert!(open(options().append(true), &path).is_err(), "{what}");
            replace(&path, b"mine").unwrap();
            assert_eq!(read(&path).unwrap(), b"mine");
            assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
        }
        fs::write(&victim, vec![0; READ_BYTES_MAX as usize + 1]).unwrap();
        assert!(read(&victim).is_err(), "too long to be one of ours");
    }
}
