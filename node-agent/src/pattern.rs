//! Patterns of output files, and the blob names of their matches.
//!
//! `*` and `?` stay within a component, `[abc]`, `[a-c]`, `[!abc]` are one character, `[*]` is a plain star,
//! `**` is any folders, and a leading dot is matched only by a dot. `search` walks the task's folder with many at once.
//!
//! A place in a pattern counts the components that the folders so far have used up. A walk carries the places of each
//! pattern down with it, so that a name is matched against single components only.

use crate::{
    glob::Component,
    path::{PATH_BYTES_MAX, PathError, RelativePath},
};

/// A pattern below the task's folder (the parent of `wd`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    components: Vec<Component>,
    base: usize,
}

/// The places in a pattern that one folder can have, in ascending order.
pub type Places = Vec<u16>;

impl Pattern {
    /// Parses a pattern that is relative to `wd`, or absolute below the task's folder.
    pub fn parse(text: &str, task_folder: &str) -> Result<Pattern, PathError> {
        if text.len() > PATH_BYTES_MAX {
            return Err(PathError::TooLong);
        }
        if text.bytes().any(|byte| byte == 0) {
            return Err(PathError::Character);
        }
        let (mut components, rest) = match text.strip_prefix('/') {
            Some(_) => {
                let below = text.strip_prefix(task_folder).and_then(|rest| rest.strip_prefix('/')).ok_or(PathError::Absolute)?;
                (Vec::new(), below)
            }
            None => (vec!["wd"], text),
        };
        for component in rest.split('/') {
            match component {
                "" | "." => {}
                ".." => {
                    if components.pop().is_none() {
                        return Err(PathError::Upwards);
                    }
                }
                _ => components.push(component),
            }
        }
        if components.is_empty() || rest.is_empty() {
            return Err(PathError::Empty);
        }
        let components: Vec<Component> = components.into_iter().map(Component::parse).collect();
        let base = components.iter().take_while(|component| component.plain().is_some()).count().min(components.len() - 1);
        Ok(Pattern { components, base })
    }

    /// Whether the pattern can match more than one file.
    pub fn is_wild(&self) -> bool {
        self.components.iter().any(|component| component.plain().is_none())
    }

    /// The places in the task's folder, where a walk begins.
    pub fn start(&self) -> Places {
        self.widen(vec![0])
    }

    /// The places in the subfolder of this name, given those of its parent; empty when no match can lie below.
    pub fn enter(&self, places: &[u16], name: &str) -> Places {
        let last = self.components.len() - 1;
        let mut next = Places::new();
        for place in places {
            match &self.components[usize::from(*place)] {
                Component::Folders if !name.starts_with('.') => next.push(*place),
                component if usize::from(*place) < last && component.matches(name) => next.push(place + 1),
                _ => {}
            }
        }
        self.widen(next)
    }

    /// Whether a file of this name matches in a folder with these places.
    pub fn takes(&self, places: &[u16], name: &str) -> bool {
        let last = self.components.len() - 1;
        places.iter().any(|place| usize::from(*place) == last && self.components[last].matches(name))
    }

    /// For each of these places the only name that can match there, `None` when the component has wildcards.
    pub fn names<'a>(&'a self, places: &'a [u16]) -> impl Iterator<Item = Option<&'a str>> {
        places.iter().map(|place| self.components[usize::from(*place)].plain())
    }

    /// The blob's name for a match, relative to the container.
    pub fn blob_name(&self, matched: &RelativePath, path: Option<&str>) -> String {
        let path = path.map(|path| path.trim_matches('/')).filter(|path| !path.is_empty());
        if !self.is_wild() {
            let own = matched.split_last().1;
            return path.unwrap_or(own).to_owned();
        }
        let relative: Vec<&str> = matched.components().skip(self.base).collect();
        match path {
            Some(path) => format!("{path}/{}", relative.join("/")),
            None => relative.join("/"),
        }
    }

    /// Adds the places after a `**` that stands for no folder; a final `**` matches every file below, not the folder
    /// itself.
    fn widen(&self, mut places: Places) -> Places {
        let mut at = 0;
        while let Some(place) = places.get(at).copied() {
            let is_last = usize::from(place) + 1 == self.components.len();
            if self.components[usize::from(place)] == Component::Folders && !is_last && !places.contains(&(place + 1)) {
                places.push(place + 1);
            }
            at += 1;
        }
        places.sort_unstable();
        places.dedup();
        places
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TASK: &str = "/node/workitems/j/job-1/t";

    fn matches(pattern: &str, path: &str) -> bool {
        let (pattern, path) = (Pattern::parse(pattern, TASK).unwrap(), RelativePath::parse(path).unwrap());
        let (folders, name) = path.split_last();
        let places = folders.iter().flat_map(|path| path.components()).fold(pattern.start(), |places, name| pattern.enter(&places, name));
        pattern.takes(&places, name)
    }

    #[test]
    fn patterns_match_as_documented() {
        for (pattern, path, expected) in [
            ("out.txt", "wd/out.txt", true),
            ("out.txt", "wd/a/out.txt", false),
            ("*.txt", "wd/out.txt", true),
            ("*.txt", "wd/a/out.txt", false),
            ("*.txt", "wd/.txt", false),
            (".*", "wd/.txt", true),
            ("*", "wd/.hidden", false),
            ("**/*.txt", "wd/out.txt", true),
            ("**/*.txt", "wd/a/b/out.txt", true),
            ("**/*.txt", "wd/.a/out.txt", false),
            ("**", "wd/a/b/c", true),
            ("a/**", "wd/a/b/c", true),
            ("a/**", "wd/b/c", false),
            ("a/**/c", "wd/a/c", true),
            ("a/**/c", "wd/a/b/b/c", true),
            ("a/**/c", "wd/a/.b/c", false),
            ("**/**", "wd/a", true),
            ("**/a/**/a", "wd/a/b/a", true),
            ("**/a/**/a", "wd/a", false),
            ("[.]x", "wd/.x", false),
            ("?x", "wd/.x", false),
            ("?.bin", "wd/a.bin", true),
            ("?.bin", "wd/ab.bin", false),
            ("[abc].x", "wd/b.x", true),
            ("[a-c].x", "wd/b.x", true),
            ("[a-c].x", "wd/d.x", false),
            ("[!a-c].x", "wd/d.x", true),
            ("[!a-c].x", "wd/a.x", false),
            ("[*].x", "wd/*.x", true),
            ("[*].x", "wd/a.x", false),
            ("[]].x", "wd/].x", true),
            ("[ab", "wd/[ab", true),
            ("../std*.txt", "stdout.txt", true),
            ("../std*.txt", "wd/stdout.txt", false),
            ("../stdout.txt", "stdout.txt", true),
            ("/node/workitems/j/job-1/t/wd/x", "wd/x", true),
            ("ä*ö", "wd/äxö", true),
            ("*a*b*c*", "wd/xxaxxbxxcxx", true),
            ("*a*b*c*", "wd/xxaxxcxxbxx", false),
        ] {
            assert_eq!(matches(pattern, path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn patterns_stay_in_the_task() {
        for pattern in ["../../other/wd/x", "/etc/passwd", "/node/workitems/j/job-1/t2/x", "a/../../../b", "", "/node/workitems/j/job-1/t/"]
        {
            assert!(Pattern::parse(pattern, TASK).is_err(), "{pattern}");
        }
    }

    #[test]
    fn destinations_are_named_as_documented() {
        for (pattern, matched, path, name) in [
            ("out.txt", "wd/out.txt", Some("results/final.txt"), "results/final.txt"),
            ("out.txt", "wd/out.txt", None, "out.txt"),
            ("sub/out.txt", "wd/sub/out.txt", None, "out.txt"),
            ("*.txt", "wd/a.txt", Some("results"), "results/a.txt"),
            ("*.txt", "wd/a.txt", Some("/results/"), "results/a.txt"),
            ("*.txt", "wd/a.txt", None, "a.txt"),
            ("../std*.txt", "stdout.txt", Some("t1"), "t1/stdout.txt"),
            ("**/*.txt", "wd/a/b.txt", Some("r"), "r/a/b.txt"),
            ("sub/*.txt", "wd/sub/b.txt", Some("r"), "r/b.txt"),
            ("[*].txt", "wd/*.txt", Some("star"), "star"),
        ] {
            let parsed = Pattern::parse(pattern, TASK).unwrap();
            assert_eq!(parsed.blob_name(&RelativePath::parse(matched).unwrap(), path), name, "{pattern}");
        }
    }

    #[test]
    fn a_walk_enters_only_folders_that_can_hold_matches() {
        let below = |pattern: &str, folder: &str| {
            let pattern = Pattern::parse(pattern, TASK).unwrap();
            let path = RelativePath::parse(folder).unwrap();
            !path.components().fold(pattern.start(), |places, name| pattern.enter(&places, name)).is_empty()
        };
        assert!(below("*.txt", "wd") && !below("*.txt", "wd/a"));
        assert!(below("a/**/x", "wd/a/b/c") && !below("a/**/x", "wd/b") && !below("a/**/x", "wd/a/.b"));
    }

    #[test]
    fn hostile_patterns_end_at_once() {
        assert!(!matches(&format!("{}b", "*a".repeat(100)), &format!("wd/{}", "a".repeat(250))));
        assert!(!matches(&format!("{}x", "**/".repeat(60)), &format!("wd/{}y", "a/".repeat(60))));
        assert_eq!(Pattern::parse(&"*/".repeat(PATH_BYTES_MAX), TASK), Err(PathError::TooLong));
    }
}
