//! Errors of the administration of users.

use std::io;

/// The reason why a user could not be added, changed or removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UserError {
    /// The name is empty, too long, or holds control characters.
    #[error("a user's name has 1 to {most} bytes without control characters")]
    Name {
        /// Longest name, in bytes.
        most: usize,
    },
    /// The password is empty or too long.
    #[error("a password has 1 to {most} bytes")]
    Password {
        /// Longest password, in bytes.
        most: usize,
    },
    /// There are too many tags, or one is empty, too long, or holds a comma or control characters.
    #[error("a user has up to {most} tags of 1 to {longest} bytes without commas and control characters")]
    Tags {
        /// Tags at most.
        most: usize,
        /// Longest tag, in bytes.
        longest: usize,
    },
    /// A pattern is no regular expression, or needs too much memory.
    #[error("the pattern {pattern:?} cannot be used")]
    Pattern { pattern: String, source: regex::Error },
    /// A pattern is too long.
    #[error("a pattern has up to {most} bytes")]
    LongPattern {
        /// Longest pattern, in bytes.
        most: usize,
    },
    /// The keys of too many exchanges are limited.
    #[error("the routing keys of up to {most} exchanges can be limited")]
    TooManyTopics {
        /// Exchanges at most.
        most: usize,
    },
    /// The server has as many users as it takes.
    #[error("there are {most} users already; remove some first")]
    TooMany {
        /// Users at most.
        most: usize,
    },
    /// The user of the settings cannot be changed.
    #[error("the user {name} belongs to the settings and cannot be changed")]
    Reserved { name: String },
    /// There is no such user.
    #[error("there is no user {name}")]
    Unknown { name: String },
    /// The users could not be written, so nothing has changed.
    #[error("the users could not be written")]
    File(#[source] io::Error),
    /// The server has stopped.
    #[error("the broker has stopped")]
    Stopped,
}
