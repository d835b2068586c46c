//! The type for paths from outside: relative, without `..`.
//!
//! Resource files, output names and file requests all pass through it; `beneath` opens these paths.

use std::fmt;

use thiserror::Error;

/// The longest path, in bytes.
pub const PATH_BYTES_MAX: usize = 4096;
/// The longest component, in bytes.
pub const COMPONENT_BYTES_MAX: usize = 255;

/// Reasons why a text is not a valid path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PathError {
    /// No component is left after parsing.
    #[error("path is empty")]
    Empty,
    #[error("path is absolute")]
    Absolute,
    #[error("path goes upwards")]
    Upwards,
    #[error("path holds a NUL or a backslash")]
    Character,
    #[error("path is longer than {PATH_BYTES_MAX} bytes, or a component than {COMPONENT_BYTES_MAX}")]
    TooLong,
}

/// A relative path of plain components.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelativePath(String);

impl RelativePath {
    /// Parses a path; `.` and doubled slashes are dropped.
    pub fn parse(text: &str) -> Result<RelativePath, PathError> {
        if text.contains('\\') { Err(PathError::Character) } else { RelativePath::of_file(text) }
    }

    /// Like [`RelativePath::parse`], for the path of a file that a task may have made: a backslash is a character of its
    /// name like others.
    pub fn of_file(text: &str) -> Result<RelativePath, PathError> {
        if text.len() > PATH_BYTES_MAX {
            return Err(PathError::TooLong);
        }
        if text.contains('\0') {
            return Err(PathError::Character);
        }
        if text.starts_with('/') {
            return Err(PathError::Absolute);
        }
        let mut clean = String::with_capacity(text.len());
        for component in text.split('/') {
            match component {
                "" | "." => continue,
                ".." => return Err(PathError::Upwards),
                _ if component.len() > COMPONENT_BYTES_MAX => return Err(PathError::TooLong),
                _ => {
                    if !clean.is_empty() {
                        clean.push('/');
                    }
                    clean.push_str(component);
                }
            }
        }
        if clean.is_empty() { Err(PathError::Empty) } else { Ok(RelativePath(clean)) }
    }

    /// The path with `/` between components.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Components from the top down.
    pub fn components(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }

    /// The parent path, if any, and the last component.
    pub fn split_last(&self) -> (Option<RelativePath>, &str) {
        match self.0.rsplit_once('/') {
            Some((parent, name)) => (Some(RelativePath(parent.to_owned())), name),
            None => (None, &self.0),
        }
    }

    /// The first component, and the rest if any.
    pub fn split_first(&self) -> (&str, Option<RelativePath>) {
        match self.0.split_once('/') {
            Some((first, rest)) => (first, Some(RelativePath(rest.to_owned()))),
            None => (&self.0, None),
        }
    }
}

impl fmt::Display for RelativePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RelativePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_paths_are_kept_and_dots_fall_away() {
        for (text, clean) in [
            ("a", "a"),
            ("a/b.txt", "a/b.txt"),
            ("./a//b/", "a/b"),
            ("...", "..."),
            ("..a/b..", "..a/b.."),
            ("a b/ü", "a b/ü"),
            ("wd/.hidden", "wd/.hidden"),
            ("C:x", "C:x"),
        ] {
            assert_eq!(RelativePath::parse(text).map(|path| path.to_string()), Ok(clean.to_owned()), "{text}");
        }
    }

    #[test]
    fn what_leaves_the_folder_is_refused() {
        let long = "x".repeat(256);
        let deep = "a/".repeat(2100);
        for (text, error) in [
            ("", PathError::Empty),
            (".", PathError::Empty),
            ("././/", PathError::Empty),
            ("/", PathError::Absolute),
            ("/etc/passwd", PathError::Absolute),
            ("//a", PathError::Absolute),
            ("..", PathError::Upwards),
            ("../a", PathError::Upwards),
            ("a/..", PathError::Upwards),
            ("a/../b", PathError::Upwards),
            ("a/./../../b", PathError::Upwards),
            ("a\0b", PathError::Character),
            ("..\\a", PathError::Character),
            ("a\\b", PathError::Character),
            (long.as_str(), PathError::TooLong),
            (deep.as_str(), PathError::TooLong),
        ] {
            assert_eq!(RelativePath::parse(text), Err(error), "{text:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_leads_out_of_its_folder(text in "[a./\\\\\0]{0,24}") {
            for path in [RelativePath::parse(&text), RelativePath::of_file(&text)].into_iter().flatten() {
                proptest::prop_assert!(path.components().all(|part| !matches!(part, "" | "." | "..")));
                proptest::prop_assert!(!path.as_str().starts_with('/'));
            }
        }
    }
}
