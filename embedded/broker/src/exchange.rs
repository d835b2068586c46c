//! An exchange with its bindings, and the choice of bindings for a message. `publish` follows whole routes.

use std::collections::{BTreeSet, HashMap, HashSet};

use amq_protocol::types::{AMQPValue, FieldTable};

use crate::{
    ids::{Name, QueueId},
    topic,
};

/// The routing rule of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Direct,
    Fanout,
    Topic,
    Headers,
}

impl Kind {
    pub fn parse(name: &str) -> Option<Kind> {
        Some(match name {
            "direct" => Kind::Direct,
            "fanout" => Kind::Fanout,
            "topic" => Kind::Topic,
            "headers" => Kind::Headers,
            _ => return None,
        })
    }
    pub fn name(self) -> &'static str {
        match self {
            Kind::Direct => "direct",
            Kind::Fanout => "fanout",
            Kind::Topic => "topic",
            Kind::Headers => "headers",
        }
    }
}

/// The target of a binding.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Target {
    Queue(QueueId),
    Exchange(Name),
}

/// A binding; the exchange stores it under its key.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Binding {
    pub target: Target,
    pub arguments: FieldTable,
    /// True when it survives a restart.
    pub is_durable: bool,
}

/// An exchange.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub kind: Kind,
    pub is_durable: bool,
    pub is_auto_delete: bool,
    pub is_internal: bool,
    /// Exchange for messages that no binding accepts.
    pub alternate: Option<Name>,
    pub arguments: FieldTable,
    pub bindings: HashMap<Name, Vec<Binding>>,
    /// Keys of a topic exchange that hold wildcards.
    patterns: BTreeSet<Name>,
    /// Bound keys and targets, so that adding a binding to a wide fanout needs no search.
    bound: HashSet<(Name, Target)>,
}

impl Exchange {
    pub fn new(kind: Kind, is_durable: bool) -> Exchange {
        Exchange {
            kind,
            is_durable,
            is_auto_delete: false,
            is_internal: false,
            alternate: None,
            arguments: FieldTable::default(),
            bindings: HashMap::new(),
            patterns: BTreeSet::new(),
            bound: HashSet::new(),
        }
    }

    /// Adds a binding; returns false when it existed.
    pub fn bind(&mut self, key: Name, binding: Binding) -> bool {
        if self.kind == Kind::Topic && topic::is_pattern(&key) {
            self.patterns.insert(key.clone());
        }
        let is_first = self.bound.insert((key.clone(), binding.target.clone()));
        let under_key = self.bindings.entry(key).or_default();
        let is_new = is_first || !under_key.iter().any(|old| old.target == binding.target && old.arguments == binding.arguments);
        if is_new {
            under_key.push(binding);
        }
        is_new
    }

    /// Removes one binding; returns it if it existed.
    pub fn unbind(&mut self, key: &str, target: &Target, arguments: &FieldTable) -> Option<Binding> {
        let under_key = self.bindings.get_mut(key)?;
        let index = under_key.iter().position(|old| old.target == *target && old.arguments == *arguments)?;
        let removed = under_key.remove(index);
        if !under_key.iter().any(|other| other.target == *target) {
            self.bound.remove(&(key.into(), target.clone()));
        }
        self.forget_empty(key);
        Some(removed)
    }

    /// Removes all bindings of a target under a key.
    pub fn unbind_target(&mut self, key: &str, target: &Target) {
        if let Some(under_key) = self.bindings.get_mut(key) {
            under_key.retain(|binding| binding.target != *target);
            self.bound.remove(&(key.into(), target.clone()));
            self.forget_empty(key);
        }
    }

    fn forget_empty(&mut self, key: &str) {
        if self.bindings.get(key).is_some_and(Vec::is_empty) {
            self.bindings.remove(key);
            self.patterns.remove(key);
        }
    }

    /// Calls `take` with every target for a key; `headers` is called only when the kind needs it.
    pub fn choose(&self, key: &str, headers: impl FnOnce() -> FieldTable, mut take: impl FnMut(&Target)) {
        let mut take_all = |bindings: &[Binding]| bindings.iter().for_each(|one| take(&one.target));
        match self.kind {
            Kind::Direct => {
                if let Some(bindings) = self.bindings.get(key) {
                    take_all(bindings);
                }
            }
            Kind::Fanout => self.bindings.values().for_each(|bindings| take_all(bindings)),
            Kind::Topic => {
                if let Some(bindings) = self.bindings.get(key)
                    && !self.patterns.contains(key)
                {
                    take_all(bindings);
                }
                for pattern in self.patterns.iter().filter(|pattern| topic::matches(pattern, key)) {
                    take_all(&self.bindings[pattern]);
                }
            }
            Kind::Headers => {
                let headers = headers();
                for binding in self.bindings.values().flatten() {
                    if headers_match(&binding.arguments, &headers) {
                        take(&binding.target);
                    }
                }
            }
        }
    }
}

/// True when a message's headers satisfy a binding's arguments under its `x-match`.
fn headers_match(arguments: &FieldTable, headers: &FieldTable) -> bool {
    let mode = match arguments.inner().get("x-match") {
        Some(AMQPValue::LongString(mode)) => mode.to_string(),
        _ => String::from("all"),
    };
    let counts_x = mode.ends_with("-with-x");
    let mut wanted =
        arguments.inner().iter().filter(|(name, _)| name.as_str() != "x-match" && (counts_x || !name.as_str().starts_with("x-")));
    let is_met = |(name, value): (&amq_protocol::types::ShortString, &AMQPValue)| {
        headers.inner().get(name.as_str()).is_some_and(|found| matches!(value, AMQPValue::Void) || values_equal(value, found))
    };
    if mode.starts_with("any") { wanted.any(is_met) } else { wanted.all(is_met) }
}

/// Compares numbers by value, whatever their width.
pub(crate) fn values_equal(left: &AMQPValue, right: &AMQPValue) -> bool {
    match (integer(left), integer(right)) {
        (Some(left), Some(right)) => left == right,
        _ => left == right,
    }
}

/// The value of any integer type.
pub(crate) fn integer(value: &AMQPValue) -> Option<i64> {
    Some(match value {
        AMQPValue::ShortShortInt(number) => i64::from(*number),
        AMQPValue::ShortShortUInt(number) => i64::from(*number),
        AMQPValue::ShortInt(number) => i64::from(*number),
        AMQPValue::ShortUInt(number) => i64::from(*number),
        AMQPValue::LongInt(number) => i64::from(*number),
        AMQPValue::LongUInt(number) => i64::from(*number),
        AMQPValue::LongLongInt(number) => *number,
        _ => return None,
    })
}
