//! One page of a folder's files, in the order of their names, found with two descriptors however deep it is.
//!
//! JSON has no form for names that are not UTF-8: they are left out, and the log says how many.
//! Keeps and examines only the names of the page; folders that lie wholly before or behind it are not entered.
//! Blocking: it runs off the loop.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use rustix::fs::{FileType, Stat};

use crate::{beneath::Folder, path::RelativePath};

/// Entries of one page at most.
pub const ENTRIES_MAX: usize = 1000;
/// Names examined for one page at most.
const SEEN_MAX: usize = 1_000_000;
/// Nested folders at most.
const DEPTH_MAX: usize = 128;

/// The page that a caller wants.
pub struct Wanted<'a> {
    /// Whether subfolders are entered.
    pub recursive: bool,
    pub entries_max: usize,
    /// Only names after this one are listed.
    pub after: Option<&'a str>,
}

/// The entries of a page, and whether more follow; `None` when there are too many files to examine.
pub type Page = Option<(Vec<(String, Stat)>, bool)>;

struct Listing<'a> {
    wanted: Wanted<'a>,
    /// The smallest names so far, one more than the page holds.
    kept: BTreeMap<String, Stat>,
    /// Folders still to be entered.
    left: BTreeSet<String>,
    seen: usize,
    /// Names that are not UTF-8.
    unnamed: usize,
}

/// Lists the entries below a folder, with names relative to it; `only` restricts the top level to these entries.
pub fn list(root: &Folder, only: Option<&[&str]>, wanted: Wanted<'_>) -> io::Result<Page> {
    let mut listing = Listing::new(wanted);
    match only {
        None => listing.folder(root, None)?,
        Some(names) => names.iter().try_for_each(|name| listing.entry(root, None, name, FileType::Directory))?,
    }
    while let Some(path) = listing.left.pop_first() {
        if !listing.is_of_interest(&path) {
            continue;
        }
        match RelativePath::of_file(&path).map_err(io::Error::other).and_then(|below| root.enter(&below)) {
            Ok(folder) => listing.folder(&folder, Some(&path))?,
            Err(error) if crate::shortage::is_shortage(&error) => return Err(error),
            // The folder is gone since, or its path is too long, or the agent may not read it.
            Err(error) => tracing::debug!(%error, path, "a folder is left out of a listing"),
        }
        if listing.seen > SEEN_MAX {
            return Ok(None);
        }
    }
    if listing.unnamed > 0 {
        tracing::warn!(count = listing.unnamed, "files whose names are not UTF-8 are left out of a listing; rename them to see them");
    }
    Ok(Some(listing.page()))
}

impl<'a> Listing<'a> {
    fn new(wanted: Wanted<'a>) -> Listing<'a> {
        let wanted = Wanted { entries_max: wanted.entries_max.clamp(1, ENTRIES_MAX), ..wanted };
        Listing { wanted, kept: BTreeMap::new(), left: BTreeSet::new(), seen: 0, unnamed: 0 }
    }

    fn folder(&mut self, folder: &Folder, path: Option<&str>) -> io::Result<()> {
        folder.each_name(|name, kind| match name.to_str() {
            Ok(name) => self.entry(folder, path, name, kind),
            Err(_) => {
                (self.seen, self.unnamed) = (self.seen + 1, self.unnamed + 1);
                Ok(())
            }
        })
    }

    fn entry(&mut self, folder: &Folder, path: Option<&str>, name: &str, kind: FileType) -> io::Result<()> {
        self.seen += 1;
        let full = path.map_or_else(|| name.to_owned(), |path| format!("{path}/{name}"));
        let depth = path.map_or(0, |path| path.matches('/').count() + 1);
        if kind == FileType::Directory && self.wanted.recursive && depth < DEPTH_MAX && self.is_of_interest(&full) {
            self.left.insert(full.clone());
        }
        self.keep(full, || folder.stat_entry(name))
    }

    fn keep(&mut self, name: String, stat_entry: impl FnOnce() -> io::Result<Option<Stat>>) -> io::Result<()> {
        if self.wanted.after.is_some_and(|after| name.as_str() <= after) || self.is_behind(&name) {
            return Ok(());
        }
        let Some(stat) = stat_entry()? else { return Ok(()) };
        self.kept.insert(name, stat);
        if self.kept.len() > self.wanted.entries_max + 1 {
            self.kept.pop_last();
        }
        Ok(())
    }

    /// Whether names below this folder may be on the page.
    fn is_of_interest(&self, folder: &str) -> bool {
        let first = format!("{folder}/");
        let is_before = self.wanted.after.is_some_and(|after| after > first.as_str() && !after.starts_with(&first));
        !is_before && !self.is_behind(&first)
    }

    fn is_behind(&self, name: &str) -> bool {
        let is_full = self.kept.len() > self.wanted.entries_max;
        is_full && self.kept.last_key_value().is_some_and(|(last, _)| name > last.as_str())
    }

    fn page(self) -> (Vec<(String, Stat)>, bool) {
        let has_more = self.kept.len() > self.wanted.entries_max;
        (self.kept.into_iter().take(self.wanted.entries_max).collect(), has_more)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn names(root: &Folder, recursive: bool, entries_max: usize) -> Vec<Vec<String>> {
        let mut pages: Vec<Vec<String>> = Vec::new();
        loop {
            let after = pages.last().and_then(|page| page.last()).cloned();
            let (entries, has_more) = list(root, None, Wanted { recursive, entries_max, after: after.as_deref() }).unwrap().unwrap();
            pages.push(entries.into_iter().map(|(name, _)| name).collect());
            if !has_more {
                return pages;
            }
        }
    }

    #[test]
    fn pages_of_any_size_say_the_same() {
        let root = tempfile::tempdir().unwrap();
        for folder in ["a/b/c", "a-b", "d"] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        for file in ["a/1", "a/b/2", "a/b/c/3", "a-b/4", "a.txt", "e", "a0"] {
            fs::write(root.path().join(file), "").unwrap();
        }
        let folder = Folder::open(root.path()).unwrap();
        let whole = names(&folder, true, 1000).concat();
        let mut expected = whole.clone();
        expected.sort_unstable();
        assert_eq!((whole.len(), &whole), (12, &expected));
        for entries_max in 1..=12 {
            let pages = names(&folder, true, entries_max);
            assert!(pages.iter().all(|page| page.len() <= entries_max));
            assert_eq!(pages.concat(), whole, "{entries_max}");
        }
        let only = list(&folder, Some(&["a", "d"]), Wanted { recursive: true, entries_max: 4, after: Some("a/1") }).unwrap().unwrap();
        let only = (only.0.into_iter().map(|(name, _)| name).collect::<Vec<_>>(), only.1);
        assert_eq!(only, (["a/b", "a/b/2", "a/b/c", "a/b/c/3"].map(str::to_owned).to_vec(), true));
        assert_eq!(names(&folder, false, 2).concat(), ["a", "a-b", "a.txt", "a0", "d", "e"]);
    }
}
