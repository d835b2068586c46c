//! Searches a task's folder for all patterns of its outputs at once, with two descriptors however deep it is,
//! and up to 16 more below names that are not UTF-8.
//!
//! Links are followed only to targets inside the task's folder: to files wherever a pattern matches the link's name, to
//! folders where a pattern names the link without wildcards. Blocking: it runs off the loop, and checks whether it is
//! to stop.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::CStr,
    io,
    rc::Rc,
};

use rustix::fs::FileType;
use tokio_util::sync::CancellationToken;

use crate::{
    beneath::Folder,
    path::RelativePath,
    pattern::{Pattern, Places},
};

/// Matches of one task at most.
pub const MATCHES_MAX: usize = 100_000;
/// Entries examined for one task at most.
const ENTRIES_MAX: usize = 1_000_000;
/// Nested folders at most.
const DEPTH_MAX: usize = 128;
/// Nested folders below a folder whose name is not UTF-8; each is open at the same time.
const UNNAMEABLE_DEPTH_MAX: usize = 16;

/// The result of a search.
#[derive(Debug, Default)]
pub struct Found {
    /// All regular files, with the pattern's index: in the order of patterns, then of paths.
    pub matches: Vec<(usize, RelativePath)>,
    /// Matches that no blob key can name, by the pattern's index: their names, or those of folders above, are not
    /// UTF-8.
    pub unnameable: BTreeMap<usize, Unnameable>,
}

/// Matches that no blob key can name.
#[derive(Debug, PartialEq, Eq)]
pub struct Unnameable {
    pub count: usize,
    /// The first of the names, with replacement characters for bytes that are not UTF-8.
    pub first: String,
}

/// The patterns that may match in a folder, by index, with their places there.
type Active = Vec<(usize, Places)>;

struct Search<'a> {
    root: &'a Folder,
    patterns: &'a [Pattern],
    stop: &'a CancellationToken,
    seen: usize,
    found: Found,
    left: Vec<(Option<RelativePath>, Rc<Active>, usize)>,
}

/// Finds everything that matches.
pub fn find(root: &Folder, patterns: &[Pattern], stop: &CancellationToken) -> io::Result<Found> {
    let start = patterns.iter().map(Pattern::start).enumerate().collect();
    let left = vec![(None, Rc::new(start), 0)];
    let mut search = Search { root, patterns, stop, seen: 0, found: Found::default(), left };
    while let Some((at, active, depth)) = search.left.pop() {
        search.folder(at.as_ref(), &active, depth)?;
    }
    search.found.matches.sort_unstable();
    Ok(search.found)
}

impl Search<'_> {
    fn folder(&mut self, at: Option<&RelativePath>, active: &Rc<Active>, depth: usize) -> io::Result<()> {
        let folder = match at {
            None => self.root.create_folders(None),
            Some(at) => self.root.open_folder(at),
        };
        let folder = match folder {
            // The folder is gone since, or is a link that leads out of the task's folder.
            Err(error) if is_closed(&error) => return Ok(()),
            other => other?,
        };
        match only_names(self.patterns, active) {
            Some(names) => {
                for name in names {
                    if let Some(stat) = folder.stat_entry(name)? {
                        self.entry(at, active, depth, name, FileType::from_raw_mode(stat.st_mode))?;
                    }
                }
                Ok(())
            }
            None => folder.each_name(|name, kind| match name.to_str() {
                Ok(name) => self.entry(at, active, depth, name, kind),
                Err(_) => self.unnameable(&folder, &at.map_or_else(String::new, |at| format!("{at}/")), active, 0, (name, kind)),
            }),
        }
    }

    fn entry(&mut self, at: Option<&RelativePath>, active: &Rc<Active>, depth: usize, name: &str, kind: FileType) -> io::Result<()> {
        self.step()?;
        match kind {
            FileType::Directory | FileType::Symlink | FileType::RegularFile => {}
            _ => return Ok(()),
        }
        // A path is built only for entries that a pattern takes.
        let path = || {
            let text = at.map_or_else(|| name.to_owned(), |at| format!("{at}/{name}"));
            RelativePath::parse(&text).ok()
        };
        if kind != FileType::Directory {
            let takers = self.takers(active, name);
            if let (false, Some(path)) = (takers.is_empty(), path())
                && (kind == FileType::RegularFile || self.leads_to_file(&path)?)
            {
                self.found.matches.extend(takers.into_iter().map(|index| (index, path.clone())));
            }
        }
        if kind == FileType::RegularFile || depth >= DEPTH_MAX {
            return Ok(());
        }
        let below = self.below(active, name, kind == FileType::Symlink);
        if let (false, Some(path)) = (below.is_empty(), path())
            && (kind == FileType::Directory || self.leads_to_folder(&path)?)
        {
            // Most folders of a tree have the same places as their parent.
            let below = if below == **active { active.clone() } else { Rc::new(below) };
            self.left.push((Some(path), below, depth + 1));
        }
        Ok(())
    }

    /// Counts one more entry; fails at the limit.
    fn step(&mut self) -> io::Result<()> {
        self.seen += 1;
        if self.seen > ENTRIES_MAX || self.found.matches.len() > MATCHES_MAX {
            return Err(io::Error::other("there are too many files"));
        }
        if self.stop.is_cancelled() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        Ok(())
    }

    /// The patterns that match a file of this name.
    fn takers(&self, active: &Active, name: &str) -> Vec<usize> {
        active.iter().filter(|(index, places)| self.patterns[*index].takes(places, name)).map(|(index, _)| *index).collect()
    }

    /// Counts the matches in an entry that no blob key can name, or that lies in a folder that none can name.
    fn unnameable(&mut self, folder: &Folder, at: &str, active: &Active, depth: usize, (name, kind): (&CStr, FileType)) -> io::Result<()> {
        self.step()?;
        let shown = name.to_string_lossy();
        match kind {
            FileType::RegularFile => {
                for index in self.takers(active, &shown) {
                    let unnameable =
                        self.found.unnameable.entry(index).or_insert_with(|| Unnameable { count: 0, first: format!("{at}{shown}") });
                    unnameable.count += 1;
                }
                Ok(())
            }
            FileType::Directory if depth < UNNAMEABLE_DEPTH_MAX => {
                let below = self.below(active, &shown, false);
                if below.is_empty() {
                    return Ok(());
                }
                let folder = match folder.enter_name(name) {
                    Err(error) if is_closed(&error) => return Ok(()),
                    other => other?,
                };
                let at = format!("{at}{shown}/");
                folder.each_name(|name, kind| self.unnameable(&folder, &at, &below, depth + 1, (name, kind)))
            }
            _ => Ok(()),
        }
    }

    /// The patterns that may match in a subfolder of this name; through a link only those that name it without
    /// wildcards.
    fn below(&self, active: &Active, name: &str, is_link: bool) -> Active {
        let enter = |(index, places): &(usize, Places)| {
            let pattern = &self.patterns[*index];
            let plain = |place: &&u16| !is_link || pattern.names(&[**place]).all(|only| only == Some(name));
            let places: Places = places.iter().filter(plain).copied().collect();
            let next = pattern.enter(&places, name);
            (!next.is_empty()).then_some((*index, next))
        };
        active.iter().filter_map(enter).collect()
    }

    fn leads_to_file(&self, path: &RelativePath) -> io::Result<bool> {
        leads(self.root.open_file(path))
    }

    fn leads_to_folder(&self, path: &RelativePath) -> io::Result<bool> {
        leads(self.root.open_folder(path))
    }
}

/// The only names that can match in a folder, when no pattern has a wildcard there: it need not be listed.
fn only_names<'a>(patterns: &'a [Pattern], active: &'a Active) -> Option<BTreeSet<&'a str>> {
    active.iter().flat_map(|(index, places)| patterns[*index].names(places)).collect()
}

fn leads<T>(opened: io::Result<T>) -> io::Result<bool> {
    match opened {
        Ok(_) => Ok(true),
        Err(error) if crate::shortage::is_shortage(&error) => Err(error),
        Err(_) => Ok(false),
    }
}

fn is_closed(error: &io::Error) -> bool {
    use io::ErrorKind::{CrossesDevices, NotADirectory, NotFound};
    matches!(error.kind(), NotFound | NotADirectory | CrossesDevices)
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::{ffi::OsStrExt, fs::symlink},
        path::{Path, PathBuf},
    };

    use super::*;

    struct Task {
        folder: tempfile::TempDir,
    }

    impl Task {
        fn new() -> Task {
            let folder = tempfile::tempdir().unwrap();
            fs::create_dir_all(folder.path().join("t/wd")).unwrap();
            Task { folder }
        }

        fn path(&self) -> PathBuf {
            self.folder.path().join("t")
        }

        fn find(&self, patterns: &[&str]) -> Vec<(usize, String)> {
            let task = self.path();
            let patterns: Vec<Pattern> = patterns.iter().map(|text| Pattern::parse(text, &task.to_string_lossy()).unwrap()).collect();
            let found = find(&Folder::open(&task).unwrap(), &patterns, &CancellationToken::new()).unwrap();
            found.matches.into_iter().map(|(index, path)| (index, path.to_string())).collect()
        }

        fn names(&self, pattern: &str) -> Vec<String> {
            self.find(&[pattern]).into_iter().map(|(_, name)| name).collect()
        }
    }

    fn touch(path: &Path) {
        fs::write(path, "1").unwrap();
    }

    #[test]
    fn files_are_found_and_links_out_of_the_task_are_not_followed() {
        let task = Task::new();
        fs::create_dir_all(task.path().join("wd/a/b")).unwrap();
        for file in ["stdout.txt", "wd/x.txt", "wd/a/y.txt", "wd/a/b/z.txt", "wd/.h.txt", "../secret.txt"] {
            touch(&task.path().join(file));
        }
        symlink("../../secret.txt", task.path().join("wd/leak.txt")).unwrap();
        symlink("a/y.txt", task.path().join("wd/inside.txt")).unwrap();
        symlink("/", task.path().join("wd/root")).unwrap();
        symlink("a", task.path().join("wd/again")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, task.path().join("wd/fifo.txt"), FileType::Fifo, 0o600.into(), 0).unwrap();
        assert_eq!(task.names("*.txt"), ["wd/inside.txt", "wd/x.txt"]);
        assert_eq!(task.names("**/*.txt"), ["wd/a/b/z.txt", "wd/a/y.txt", "wd/inside.txt", "wd/x.txt"]);
        assert_eq!(task.names("../std*.txt"), ["stdout.txt"]);
        assert_eq!(task.names("again/*.txt"), ["wd/again/y.txt"], "a link that is named is followed inside");
        for nothing in ["leak.txt", "fifo.txt", "nothing/*.txt", "root/**", "root/etc/passwd", "x.txt/y", "a"] {
            assert_eq!(task.names(nothing), Vec::<String>::new(), "{nothing}");
        }
    }

    #[test]
    fn many_patterns_are_one_walk() {
        let task = Task::new();
        fs::create_dir_all(task.path().join("wd/a")).unwrap();
        for file in ["wd/x.txt", "wd/a/x.txt", "wd/a/y.bin"] {
            touch(&task.path().join(file));
        }
        let found = task.find(&["**/*.txt", "a/*", "x.txt", "none"]);
        let expected = [(0, "wd/a/x.txt"), (0, "wd/x.txt"), (1, "wd/a/x.txt"), (1, "wd/a/y.bin"), (2, "wd/x.txt")];
        assert_eq!(found, expected.map(|(index, name)| (index, name.to_owned())));
    }

    #[test]
    fn names_that_are_no_text_are_counted() {
        let task = Task::new();
        let unnameable = |bytes: &[u8]| task.path().join("wd").join(std::ffi::OsStr::from_bytes(bytes));
        fs::create_dir(unnameable(b"f\xfc")).unwrap();
        for path in [
            unnameable(b"a\xff.txt"),
            unnameable(b"b\xff.txt"),
            unnameable(b"c\xff.bin"),
            unnameable(b"plain.txt"),
            unnameable(b"f\xfc/plain.txt"),
        ] {
            touch(&path);
        }
        let patterns =
            ["*.txt", "**/*.txt", "*.none", "plain.txt"].map(|text| Pattern::parse(text, &task.path().to_string_lossy()).unwrap());
        let found = find(&Folder::open(&task.path()).unwrap(), &patterns, &CancellationToken::new()).unwrap();
        assert_eq!(found.matches.len(), 3);
        let counts: Vec<(usize, usize)> = found.unnameable.iter().map(|(index, unnameable)| (*index, unnameable.count)).collect();
        assert_eq!(counts, [(0, 2), (1, 3)]);
        assert!(found.unnameable[&0].first.starts_with("wd/") && found.unnameable[&0].first.ends_with("\u{fffd}.txt"), "{found:?}");
    }

    #[test]
    fn a_stopped_search_ends() {
        let task = Task::new();
        let stop = CancellationToken::new();
        stop.cancel();
        let patterns = [Pattern::parse("**", &task.path().to_string_lossy()).unwrap()];
        assert!(find(&Folder::open(&task.path()).unwrap(), &patterns, &stop).is_err());
    }
}
