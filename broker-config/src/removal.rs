//! Removes a folder with its contents, but never through a mount, which belongs to somebody else.
//!
//! The kernel's list of mounts is read first, and a folder with a mount in it is kept. Two folders of one disk can be
//! mounted into each other, so comparing disk numbers is not enough.

use std::{
    ffi::OsString,
    fs,
    io::{self, ErrorKind},
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

use crate::remove_tree;

const MOUNTS: &str = "/proc/self/mountinfo";
/// Index of the mount point in a line of `mountinfo`.
const POINT: usize = 4;

/// The mount points at one time.
#[derive(Debug)]
pub struct Mounts(Vec<PathBuf>);

impl Mounts {
    /// Reads the current mount points.
    pub fn now() -> io::Result<Mounts> {
        let failed = |error: io::Error| io::Error::new(error.kind(), format!("{MOUNTS} cannot be read: {error}"));
        fs::read(MOUNTS).map(|text| Mounts::parse(&text)).map_err(failed)
    }

    fn parse(text: &[u8]) -> Mounts {
        let points = text.split(|byte| *byte == b'\n').filter_map(|line| line.split(|byte| *byte == b' ').nth(POINT));
        Mounts(points.map(|point| PathBuf::from(OsString::from_vec(plain(point)))).collect())
    }

    /// A fixed list, for tests.
    pub fn of(points: impl IntoIterator<Item = PathBuf>) -> Mounts {
        Mounts(points.into_iter().collect())
    }

    /// True when this very path is a mount point.
    pub fn has(&self, path: &Path) -> io::Result<bool> {
        let path = real(path)?;
        Ok(self.0.contains(&path))
    }

    /// The first mount point at this path or below it.
    pub fn below(&self, path: &Path) -> io::Result<Option<&Path>> {
        let path = real(path)?;
        Ok(self.0.iter().find(|point| point.starts_with(&path)).map(PathBuf::as_path))
    }

    /// Fails with [`ErrorKind::ResourceBusy`] when something is mounted at this path or below it.
    pub fn refuse(&self, path: &Path) -> io::Result<()> {
        let Some(point) = self.below(path)? else { return Ok(()) };
        let message = format!("{} is mounted in it; nothing is removed until it is unmounted", point.display());
        Err(io::Error::new(ErrorKind::ResourceBusy, message))
    }

    /// Removes a folder with everything below it, unless something is mounted there.
    pub fn remove(&self, path: &Path) -> io::Result<()> {
        self.refuse(path)?;
        remove_tree::remove(path)
    }
}

/// Removes a folder with everything below it, as [`Mounts::remove`] does.
pub fn folder(path: &Path) -> io::Result<()> {
    Mounts::now()?.remove(path)
}

/// Resolves links in the path except in its last name.
fn real(path: &Path) -> io::Result<PathBuf> {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            Ok(parent.canonicalize()?.join(name))
        }
        _ => path.canonicalize(),
    }
}

/// Decodes a mount point: the kernel writes blanks, line ends and backslashes as three octal digits.
fn plain(point: &[u8]) -> Vec<u8> {
    let (mut plain, mut rest) = (Vec::with_capacity(point.len()), point);
    while let Some((first, after)) = rest.split_first() {
        let octal = (*first == b'\\').then(|| after.first_chunk::<3>()).flatten();
        let code = octal.and_then(|digits| u8::from_str_radix(str::from_utf8(digits).ok()?, 8).ok());
        plain.push(code.unwrap_or(*first));
        rest = if code.is_some() { &after[3..] } else { after };
    }
    plain
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Names the folder in which the test, restarted with mounts of its own, does its work.
    const PLACE: &str = "PIECEWORK_TEST_PLACE";

    #[test]
    fn mounts_are_found_at_a_path_and_below_it() {
        let text = b"22 1 0:21 / / rw - ext4 /dev/a rw\n23 22 0:22 / /proc rw - proc proc rw\n24 22 0:23 /x /no\\040such\\134place/a rw - nfs h:/x rw\n";
        let mounts = Mounts::parse(text);
        assert_eq!(mounts.0, ["/", "/proc", "/no such\\place/a"].map(PathBuf::from));
        let below = |path: &str| mounts.below(Path::new(path)).unwrap().map(|point| point.display().to_string());
        assert_eq!(below("/proc"), Some("/proc".to_owned()));
        assert_eq!(below("/proc2"), None);
        assert_eq!(below("/"), Some("/".to_owned()));
        assert_eq!(below("/no such\\place").as_deref(), Some("/no such\\place/a"));
        assert!(Mounts::now().unwrap().below(Path::new("/")).unwrap().is_some());
    }

    #[test]
    fn a_folder_goes_with_everything_in_it() {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir_all(place.path().join("a/b")).unwrap();
        fs::write(place.path().join("a/b/c"), "x").unwrap();
        folder(&place.path().join("a")).unwrap();
        assert!(!place.path().join("a").exists() && place.path().exists());
        assert_eq!(folder(&place.path().join("a")).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn what_is_mounted_in_a_folder_is_not_removed() {
        let Some(place) = std::env::var_os(PLACE) else {
            return with_mounts_of_its_own("removal::tests::what_is_mounted_in_a_folder_is_not_removed");
        };
        let place = PathBuf::from(place);
        let refused = folder(&place.join("node")).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ResourceBusy);
        assert!(refused.to_string().contains("node/wd/data"), "{refused}");
        assert!(place.join("node/wd/file").exists() && place.join("others/precious").exists());
        assert!(Command::new("umount").arg(place.join("node/wd/data")).status().unwrap().success());
        folder(&place.join("node")).unwrap();
        assert!(!place.join("node").exists() && place.join("others/precious").exists());
    }

    /// Runs a test once more where `others` is mounted below `node`; needs no rights where users may have namespaces.
    fn with_mounts_of_its_own(test: &str) {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir_all(place.path().join("node/wd/data")).unwrap();
        fs::create_dir(place.path().join("others")).unwrap();
        fs::write(place.path().join("others/precious"), "x").unwrap();
        fs::write(place.path().join("node/wd/file"), "x").unwrap();
        let may = Command::new("unshare").args(["--map-root-user", "--mount", "true"]).status();
        if !may.is_ok_and(|status| status.success()) {
            return eprintln!("no mounts can be made here, so that this test shows nothing");
        }
        let script = r#"mount --bind "$PIECEWORK_TEST_PLACE/others" "$PIECEWORK_TEST_PLACE/node/wd/data" && exec "$0" --exact "$1""#;
        let run = Command::new("unshare")
            .args(["--map-root-user", "--mount", "sh", "-c", script])
            .arg(std::env::current_exe().unwrap())
            .arg(test)
            .env(PLACE, place.path())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&run.stdout);
        assert!(run.status.success() && text.contains("1 passed"), "{text}{}", String::from_utf8_lossy(&run.stderr));
        assert!(place.path().join("others/precious").exists());
    }
}
