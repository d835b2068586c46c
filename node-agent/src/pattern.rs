//! Patterns of output files, and the names their matches get in the store.
//!
//! `*` and `?` stay within a component, `[abc]`, `[a-c]`, `[!abc]` are one character, `[*]` is a plain star,
//! `**` is any folders, and a leading dot is matched only by a dot. `outputs` walks the task's folder with it.

use crate::path::{PathError, RelativePath};

/// A pattern below the task's folder (the parent of `wd`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    components: Vec<String>,
    base: usize,
}

impl Pattern {
    /// Reads a pattern that is relative to `wd`, or absolute below the task's folder.
    pub fn parse(text: &str, task_folder: &str) -> Result<Pattern, PathError> {
        if text.bytes().any(|byte| byte == 0) {
            return Err(PathError::Character);
        }
        let (mut components, rest) = match text.strip_prefix('/') {
            Some(_) => {
                let below = text.strip_prefix(task_folder).and_then(|rest| rest.strip_prefix('/')).ok_or(PathError::Absolute)?;
                (Vec::new(), below)
            }
            None => (vec!["wd".to_owned()], text),
        };
        for component in rest.split('/') {
            match component {
                "" | "." => {}
                ".." => {
                    if components.pop().is_none() {
                        return Err(PathError::Upwards);
                    }
                }
                _ => components.push(component.to_owned()),
            }
        }
        if components.is_empty() || rest.is_empty() {
            return Err(PathError::Empty);
        }
        let base = components.iter().take_while(|component| !is_wild(component)).count().min(components.len() - 1);
        Ok(Pattern { components, base })
    }

    /// Whether it can match more than one file.
    pub fn is_wild(&self) -> bool {
        self.components.iter().any(|component| is_wild(component))
    }

    /// The folder all matches lie in, as deep as the pattern says it plainly.
    pub fn base(&self) -> Option<RelativePath> {
        let plain: Vec<String> = self.components[..self.base].iter().map(|component| unescape(component)).collect();
        RelativePath::parse(&plain.join("/")).ok()
    }

    /// Whether a path relative to the task's folder matches.
    pub fn matches(&self, path: &RelativePath) -> bool {
        let path: Vec<&str> = path.components().collect();
        components_match(&self.components, &path)
    }

    /// Whether matches may lie in this folder or below it.
    pub fn may_match_below(&self, folder: &RelativePath) -> bool {
        let mut patterns = self.components.iter();
        for part in folder.components() {
            match patterns.next() {
                Some(pattern) if pattern == "**" => return true,
                Some(pattern) if component_matches(pattern, part) => {}
                _ => return false,
            }
        }
        patterns.next().is_some()
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
}

fn is_wild(component: &str) -> bool {
    let mut rest = component;
    while let Some(at) = rest.find(['*', '?', '[']) {
        if !rest[at..].starts_with('[') {
            return true;
        }
        match class(&rest[at..]) {
            Some((members, length)) if members.is_plain().is_some() => rest = &rest[at + length..],
            Some(_) => return true,
            None => rest = &rest[at + 1..],
        }
    }
    false
}

fn unescape(component: &str) -> String {
    let mut plain = String::new();
    let mut rest = component;
    while let Some(c) = rest.chars().next() {
        match class(rest) {
            Some((members, length)) if let Some(only) = members.is_plain() => {
                plain.push(only);
                rest = &rest[length..];
            }
            _ => {
                plain.push(c);
                rest = &rest[c.len_utf8()..];
            }
        }
    }
    plain
}

struct Class<'a> {
    is_negated: bool,
    members: &'a str,
}

impl Class<'_> {
    fn is_plain(&self) -> Option<char> {
        let mut chars = self.members.chars();
        match (self.is_negated, chars.next(), chars.next()) {
            (false, Some(only), None) => Some(only),
            _ => None,
        }
    }

    fn holds(&self, c: char) -> bool {
        let members: Vec<char> = self.members.chars().collect();
        let mut at = 0;
        let mut found = false;
        while at < members.len() {
            if at + 2 < members.len() && members[at + 1] == '-' {
                found |= (members[at]..=members[at + 2]).contains(&c);
                at += 3;
            } else {
                found |= members[at] == c;
                at += 1;
            }
        }
        found != self.is_negated
    }
}

/// The class at the start of the text, and its length in bytes.
fn class(text: &str) -> Option<(Class<'_>, usize)> {
    let inner = text.strip_prefix('[')?;
    let (is_negated, members) = match inner.strip_prefix('!') {
        Some(members) => (true, members),
        None => (false, inner),
    };
    // A bracket that comes first is a member.
    let first = members.chars().next()?.len_utf8();
    let end = first + members[first..].find(']')?;
    let length = text.len() - members.len() + end + 1;
    Some((Class { is_negated, members: &members[..end] }, length))
}

fn components_match(patterns: &[String], path: &[&str]) -> bool {
    // Positions of the path the patterns so far can reach: linear in both, no backtracking.
    let mut reach = vec![false; path.len() + 1];
    reach[0] = true;
    for (index, pattern) in patterns.iter().enumerate() {
        let mut next = vec![false; path.len() + 1];
        for at in 0..=path.len() {
            if !reach[at] {
                continue;
            }
            if pattern == "**" {
                next[at] = true;
                let mut to = at;
                while to < path.len() && !path[to].starts_with('.') {
                    to += 1;
                    next[to] = true;
                }
            } else if at < path.len() && component_matches(pattern, path[at]) {
                next[at + 1] = true;
            }
        }
        if pattern == "**" && index + 1 == patterns.len() {
            // A last `**` is every file below, not the folder itself.
            next.iter_mut().zip(&reach).for_each(|(to, from)| *to &= !from);
        }
        reach = next;
    }
    reach[path.len()]
}

fn component_matches(pattern: &str, name: &str) -> bool {
    if name.starts_with('.') && !pattern.starts_with('.') {
        return false;
    }
    let name: Vec<char> = name.chars().collect();
    let mut reach = vec![false; name.len() + 1];
    reach[0] = true;
    let mut rest = pattern;
    while let Some(c) = rest.chars().next() {
        let mut next = vec![false; name.len() + 1];
        let (length, step): (usize, Box<dyn Fn(char) -> bool + '_>) = match (c, class(rest)) {
            ('*', _) => {
                let from = reach.iter().position(|reached| *reached).unwrap_or(name.len() + 1);
                next.iter_mut().skip(from).for_each(|to| *to = true);
                reach = next;
                rest = &rest[1..];
                continue;
            }
            ('?', _) => (1, Box::new(|_| true)),
            ('[', Some((class, length))) => (length, Box::new(move |c| class.holds(c))),
            _ => (c.len_utf8(), Box::new(move |other| other == c)),
        };
        for at in 0..name.len() {
            next[at + 1] = reach[at] && step(name[at]);
        }
        reach = next;
        rest = &rest[length..];
    }
    reach[name.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const TASK: &str = "/node/workitems/j/job-1/t";

    fn matches(pattern: &str, path: &str) -> bool {
        Pattern::parse(pattern, TASK).unwrap().matches(&RelativePath::parse(path).unwrap())
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
        let below =
            |pattern: &str, folder: &str| Pattern::parse(pattern, TASK).unwrap().may_match_below(&RelativePath::parse(folder).unwrap());
        assert!(below("*.txt", "wd") && !below("*.txt", "wd/a"));
        assert!(below("a/**/x", "wd/a/b/c") && !below("a/**/x", "wd/b"));
    }

    #[test]
    fn hostile_patterns_end_at_once() {
        assert!(!matches(&format!("{}b", "*a".repeat(100)), &format!("wd/{}", "a".repeat(250))));
        assert!(!matches(&format!("{}x", "**/".repeat(60)), &format!("wd/{}y", "a/".repeat(60))));
    }
}
