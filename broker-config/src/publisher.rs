//! Publishers: users of the broker that may add work to one pool and read their own answers. Everything that Piecework
//! must know of one is in the broker: its rights, and tags that say what they are for.
//!
//! A broker checks names, and keys where it can; what `docs/security.md` lists under publishers is beyond both.

use std::str::FromStr;

use contract::ids::PoolId;

use crate::topology::{self, INVOKE, SUBMIT};

/// Piecework's own queues begin with this.
const OWN: &str = "piecework.";
/// Queues for answers begin with this, then comes the name of their publisher.
const ANSWERS: &str = "piecework.answers.";
/// Functions that one publisher may name at most.
pub const FUNCTIONS_MAX: usize = 24;
const NAME_BYTES_MAX: usize = 64;
const TAG: &str = "piecework-publisher";
const POOL_TAG: &str = "piecework-pool-";
const SUBMIT_TAG: &str = "piecework-submit";
const FUNCTION_TAG: &str = "piecework-function-";
/// A pattern that permits nothing.
const NOTHING: &str = "^$";

/// Whether an answer may go to a queue of this name. Not to Piecework's own, whose readers would take it for something
/// else, but for those of publishers.
pub fn takes_answers(queue: &str) -> bool {
    let queue = queue.to_ascii_lowercase();
    !queue.starts_with(OWN) || queue.starts_with(ANSWERS)
}

/// The name of a publisher or of a function: up to 64 letters, digits, hyphens and underscores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublisherName(String);

impl PublisherName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PublisherName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<PublisherName, &'static str> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if (1..=NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_plain) {
            Ok(PublisherName(text.to_owned()))
        } else {
            Err("A name has 1 to 64 letters, digits, hyphens and underscores.")
        }
    }
}

/// A user of the broker as it is administered. The patterns are regular expressions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerUser {
    /// The user's name.
    pub name: String,
    /// Tags of the user; Piecework recognizes its own users by one of them.
    pub tags: Vec<String>,
    /// Queues and exchanges that it may declare.
    pub configure: String,
    /// Exchanges that it may publish to.
    pub write: String,
    /// Queues that it may read.
    pub read: String,
    /// Exchanges with the keys that it may publish by.
    pub keys: Vec<(String, String)>,
}

/// A publisher and what it may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publisher {
    /// Also the name of its user.
    pub name: PublisherName,
    /// The pool that it publishes for.
    pub pool: PoolId,
    /// Whether it may add tasks.
    pub submits: bool,
    /// Functions that it may invoke.
    pub functions: Vec<PublisherName>,
}

impl Publisher {
    /// The user for this publisher, with the least permissions that suffice.
    pub fn user(&self) -> BrokerUser {
        let submit = self.submits.then_some(SUBMIT);
        let invoke = (!self.functions.is_empty()).then_some(INVOKE);
        let exchanges: Vec<&str> = submit.into_iter().chain(invoke).collect();
        let alternatives: Vec<String> = exchanges.iter().map(|exchange| literal(exchange)).collect();
        let own = format!("^{}", literal(&self.answers()));
        let key = format!("^{}$", literal(&topology::pool_key(&self.pool)));
        let mut tags = vec![TAG.to_owned(), format!("{POOL_TAG}{}", self.pool)];
        tags.extend(self.submits.then(|| SUBMIT_TAG.to_owned()));
        tags.extend(self.functions.iter().map(|function| format!("{FUNCTION_TAG}{}", function.as_str())));
        BrokerUser {
            name: self.name.as_str().to_owned(),
            tags,
            configure: own.clone(),
            write: if alternatives.is_empty() { NOTHING.to_owned() } else { format!("^({})$", alternatives.join("|")) },
            read: own,
            keys: exchanges.iter().map(|exchange| ((*exchange).to_owned(), key.clone())).collect(),
        }
    }

    /// Reads a publisher from the name and the tags of a user; nothing for other users.
    pub fn of(name: &str, tags: &[String]) -> Option<Publisher> {
        if !tags.iter().any(|tag| tag == TAG) {
            return None;
        }
        let after = |prefix: &'static str| tags.iter().filter_map(move |tag| tag.strip_prefix(prefix));
        Some(Publisher {
            name: name.parse().ok()?,
            pool: after(POOL_TAG).next()?.parse().ok()?,
            submits: tags.iter().any(|tag| tag == SUBMIT_TAG),
            functions: after(FUNCTION_TAG).filter_map(|function| function.parse().ok()).collect(),
        })
    }

    /// The beginning of the names of its queues for answers.
    pub fn answers(&self) -> String {
        format!("{ANSWERS}{}.", self.name.as_str())
    }

    /// Commands that make its user on a RabbitMQ which only its own administrator administers.
    pub fn commands(&self, vhost: &str, password: &str) -> Vec<String> {
        let BrokerUser { name, tags, configure, write, read, keys } = self.user();
        let mut commands = vec![
            format!("echo '{password}' | rabbitmqctl add_user {name}"),
            format!("rabbitmqctl set_user_tags {name} {}", tags.join(" ")),
        ];
        let topics = keys
            .iter()
            .map(|(exchange, key)| format!("rabbitmqctl set_topic_permissions -p '{vhost}' {name} {exchange} '{key}' '{NOTHING}'"));
        commands.extend(topics);
        commands.push(format!("rabbitmqctl set_permissions -p '{vhost}' {name} '{configure}' '{write}' '{read}'"));
        commands
    }
}

/// A pattern that is found in this text only. The names here hold no special character but dots.
fn literal(text: &str) -> String {
    text.replace('.', r"\.")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publisher(submits: bool, functions: &[&str]) -> Publisher {
        let functions = functions.iter().map(|function| function.parse().unwrap()).collect();
        Publisher { name: "web-1".parse().unwrap(), pool: "Some-Pool".parse().unwrap(), submits, functions }
    }

    #[test]
    fn a_publisher_may_publish_by_its_pools_key_and_use_its_own_answers_only() {
        let user = publisher(true, &["f"]).user();
        assert_eq!(user.write, r"^(piecework\.submit|piecework\.invoke)$");
        assert_eq!((user.configure.as_str(), user.read.as_str()), (r"^piecework\.answers\.web-1\.", r"^piecework\.answers\.web-1\."));
        let key = "^some-pool$".to_owned();
        assert_eq!(user.keys, [("piecework.submit".to_owned(), key.clone()), ("piecework.invoke".to_owned(), key)]);
        assert_eq!(publisher(false, &["f"]).user().write, r"^(piecework\.invoke)$");
        assert_eq!(publisher(false, &[]).user().write, "^$");
    }

    #[test]
    fn the_tags_of_its_user_say_everything_about_a_publisher() {
        for publisher in [publisher(true, &[]), publisher(false, &["a", "b_c"])] {
            let user = publisher.user();
            assert_eq!(Publisher::of(&user.name, &user.tags), Some(publisher));
        }
        assert_eq!(Publisher::of("guest", &["administrator".to_owned()]), None);
    }

    #[test]
    fn a_name_holds_nothing_that_a_pattern_or_a_shell_would_read() {
        for name in ["", "a.b", "a b", "a'b", "a|b", "ä", &"a".repeat(65)] {
            assert!(name.parse::<PublisherName>().is_err(), "{name}");
        }
    }
}
