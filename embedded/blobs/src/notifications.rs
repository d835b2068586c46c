//! A bucket's notification configuration, stored as JSON, and its matching inside each write.
//! A bucket sends the events that its configuration asks for, and none before it is configured.
//! Called by the writes of `objects.rs`.

use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use crate::attributes::now_ms;
use crate::configurations::{self, Kind};
use crate::error::Error;
use crate::events::{Asked, Event, Happening};
use crate::writer::After;

/// A bucket's notification configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Notifications {
    pub(crate) targets: Vec<Target>,
}

/// An entry of a bucket's notification settings: the events, the keys and the target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Target {
    pub(crate) id: String,
    pub(crate) arn: String,
    pub(crate) is_topic: bool,
    pub(crate) events: Vec<String>,
    pub(crate) prefix: Option<String>,
    pub(crate) suffix: Option<String>,
}

impl Target {
    fn wants(&self, name: &str, key: &str) -> bool {
        self.events.iter().any(|event| is_meant(event, name))
            && self.prefix.as_deref().is_none_or(|prefix| key.starts_with(prefix))
            && self.suffix.as_deref().is_none_or(|suffix| key.ends_with(suffix))
    }
}

/// True when a configured name covers an event; expiry counts as a removal too, so that no client misses it.
fn is_meant(event: &str, name: &str) -> bool {
    match event.strip_suffix('*') {
        Some(start) => name.starts_with(start) || (start == "s3:ObjectRemoved:" && name == Happening::Expired.name()),
        None => event == name,
    }
}

/// Adds an event to the follow-up work of a write, once for each entry that asks for it.
pub(crate) fn note(
    connection: &Connection,
    after: &mut After,
    bucket: i64,
    (what, key): (Happening, &str),
    content: Option<(u64, String)>,
) -> Result<(), Error> {
    if !after.has_callback() {
        return Ok(());
    }
    let Some(configuration) = configurations::read::<Notifications>(connection, bucket, Kind::Notifications)? else { return Ok(()) };
    let mut targets = configuration.targets.into_iter().filter(|target| target.wants(what.name(), key)).peekable();
    if targets.peek().is_none() {
        return Ok(());
    }
    let name: String = connection.prepare_cached("SELECT name FROM buckets WHERE id = ?1")?.query_row([bucket], |row| row.get(0))?;
    for target in targets {
        after.event(Event {
            what,
            bucket: name.clone(),
            key: key.to_owned(),
            content: content.clone(),
            at_ms: now_ms(),
            sequencer: format!("{:016X}", after.sequence()),
            asked: Asked { id: target.id, arn: target.arn },
            region: String::new(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_asks_by_event_prefix_and_suffix() {
        let target = Target {
            id: "1".to_owned(),
            arn: "arn".to_owned(),
            is_topic: true,
            events: vec!["s3:ObjectCreated:*".to_owned(), "s3:ObjectRemoved:Delete".to_owned()],
            prefix: Some("in/".to_owned()),
            suffix: Some(".png".to_owned()),
        };
        assert!(target.wants("s3:ObjectCreated:Put", "in/a.png"));
        assert!(target.wants("s3:ObjectRemoved:Delete", "in/a.png"));
        assert!(!target.wants("s3:LifecycleExpiration:Delete", "in/a.png"));
        let removals = Target { events: vec!["s3:ObjectRemoved:*".to_owned()], ..target.clone() };
        assert!(removals.wants("s3:LifecycleExpiration:Delete", "in/a.png"));
        assert!(!target.wants("s3:ObjectCreated:Put", "out/a.png"));
        assert!(!target.wants("s3:ObjectCreated:Put", "in/a.gif"));
    }
}
