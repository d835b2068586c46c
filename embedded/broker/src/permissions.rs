//! What a user may do, as RabbitMQ means it: a regular expression each for configure, write and read, found anywhere in
//! a resource's name unless it is anchored. An empty one permits nothing.

use regex::bytes::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

use crate::user_error::UserError;

/// Longest pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 1_024;
/// Memory of one compiled pattern, in bytes.
const COMPILED_BYTES_MAX: usize = 256 << 10;
/// Exchanges whose keys are limited for one user.
const TOPICS_MAX: usize = 16;

/// The patterns of a user, in the syntax of the crate `regex`, which has neither look-around nor back-references.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Permissions {
    /// Queues and exchanges that may be declared and deleted.
    pub configure: String,
    /// Exchanges that may be published to, and queues that may be bound. The default exchange is called `amq.default`.
    pub write: String,
    /// Queues that may be consumed and purged, and exchanges that may be bound from.
    pub read: String,
    /// Routing keys by exchange; an exchange that is not named has no limit.
    #[serde(default)]
    pub topics: Vec<TopicPermission>,
}

/// Limits the routing keys that a user may use on a topic or direct exchange. `{username}` in a pattern is the user's
/// name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicPermission {
    /// The exchange.
    pub exchange: String,
    /// Keys that messages may be published with.
    pub write: String,
    /// Keys that queues may be bound by.
    pub read: String,
}

impl Permissions {
    /// Everything.
    pub fn all() -> Permissions {
        let any = || ".*".to_owned();
        Permissions { configure: any(), write: any(), read: any(), topics: Vec::new() }
    }
}

/// Permission that an operation needs on a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Right {
    Configure,
    Write,
    Read,
}

/// Permissions that are ready to be asked.
#[derive(Debug)]
pub(crate) struct Rights {
    configure: Pattern,
    write: Pattern,
    read: Pattern,
    topics: Vec<Topic>,
}

#[derive(Debug)]
struct Topic {
    exchange: String,
    write: Pattern,
    read: Pattern,
}

impl Rights {
    /// Compiles a user's patterns, or says which of them cannot be used.
    pub fn compile(user: &str, given: &Permissions) -> Result<Rights, UserError> {
        if given.topics.len() > TOPICS_MAX {
            return Err(UserError::TooManyTopics { most: TOPICS_MAX });
        }
        let of_user = |pattern: &str| Pattern::compile(&pattern.replace("{username}", &regex::escape(user)).replace("{vhost}", "/"));
        let topics = given
            .topics
            .iter()
            .map(|topic| Ok(Topic { exchange: topic.exchange.clone(), write: of_user(&topic.write)?, read: of_user(&topic.read)? }));
        Ok(Rights {
            configure: Pattern::compile(&given.configure)?,
            write: Pattern::compile(&given.write)?,
            read: Pattern::compile(&given.read)?,
            topics: topics.collect::<Result<_, _>>()?,
        })
    }

    /// Whether the right covers a queue or an exchange.
    pub fn allow(&self, right: Right, name: &str) -> bool {
        match right {
            Right::Configure => self.configure.matches(name),
            Right::Write => self.write.matches(name),
            Right::Read => self.read.matches(name),
        }
    }

    /// Whether a key may be used on an exchange.
    pub fn allow_key(&self, right: Right, exchange: &str, key: &str) -> bool {
        let Some(topic) = self.topics.iter().find(|topic| topic.exchange == exchange) else { return true };
        match right {
            Right::Write => topic.write.matches(key),
            Right::Read => topic.read.matches(key),
            Right::Configure => true,
        }
    }
}

/// A compiled pattern; absent for the empty one, which permits nothing but the empty name.
#[derive(Debug)]
struct Pattern(Option<Regex>);

impl Pattern {
    fn compile(text: &str) -> Result<Pattern, UserError> {
        if text.is_empty() {
            return Ok(Pattern(None));
        }
        if text.len() > PATTERN_BYTES_MAX {
            return Err(UserError::LongPattern { most: PATTERN_BYTES_MAX });
        }
        // As RabbitMQ does, names are compared byte by byte.
        let compiled = RegexBuilder::new(text).unicode(false).size_limit(COMPILED_BYTES_MAX).build();
        compiled.map(|regex| Pattern(Some(regex))).map_err(|source| UserError::Pattern { pattern: text.to_owned(), source })
    }

    fn matches(&self, name: &str) -> bool {
        self.0.as_ref().map_or(name.is_empty(), |regex| regex.is_match(name.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rights(configure: &str, write: &str, read: &str) -> Rights {
        let given = Permissions { configure: configure.into(), write: write.into(), read: read.into(), topics: vec![] };
        Rights::compile("u", &given).unwrap()
    }

    #[test]
    fn a_pattern_is_found_anywhere_unless_it_is_anchored_and_an_empty_one_permits_nothing() {
        let rights = rights("", "^results$", "pool");
        assert!(!rights.allow(Right::Configure, "any"));
        assert!(rights.allow(Right::Write, "results") && !rights.allow(Right::Write, "results.2"));
        assert!(rights.allow(Right::Read, "my.pool.a") && !rights.allow(Right::Read, "my.queue"));
    }

    #[test]
    fn keys_are_limited_on_named_exchanges_only_and_by_the_users_own_name_literally() {
        let topics = vec![TopicPermission { exchange: "x".into(), write: r"^{username}\.".into(), read: String::new() }];
        let rights = Rights::compile("a.b", &Permissions { topics, ..Permissions::all() }).unwrap();
        let write = |exchange, key| rights.allow_key(Right::Write, exchange, key);
        assert!(write("x", "a.b.c") && !write("x", "aXb.c") && write("other", "anything"));
        assert!(!rights.allow_key(Right::Read, "x", "a.b.c"));
    }

    #[test]
    fn a_pattern_that_cannot_be_used_or_is_too_large_is_named() {
        for bad in ["(", "(?=a)", r"(a)\1", "((a{100}){100}){100}", &"a".repeat(PATTERN_BYTES_MAX + 1)] {
            let given = Permissions { write: bad.to_owned(), ..Permissions::default() };
            assert!(Rights::compile("u", &given).is_err(), "{}", &bad[..bad.len().min(20)]);
        }
    }
}
