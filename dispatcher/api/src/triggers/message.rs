//! Reads messages of an exchange: CloudEvents in either mode, and any others.

use std::collections::BTreeMap;

use contract::time::Timestamp;
use model::trigger::SeenKey;
use serde_json::{Map, Value, json};

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::triggers::{
    event::{Event, Payload, content},
    path::Path,
    template::Values,
};

/// Bytes of a message at most.
pub const MESSAGE_BYTES_MAX: usize = 1024 * 1024;
/// How the names of headers begin that are attributes of a CloudEvent in binary mode.
const BINARY: [&str; 4] = ["cloudEvents:", "cloudEvents_", "ce-", "ce_"];
/// The placeholders of every message.
pub const VALUES: [&str; 7] = ["trigger", "id", "type", "source", "subject", "time", "routing-key"];
/// Attributes that every CloudEvent has.
const REQUIRED: [&str; 4] = ["specversion", "id", "source", "type"];

/// What is read of a delivery.
pub struct Message<'a> {
    pub routing_key: &'a str,
    pub body: &'a [u8],
    pub content_type: Option<&'a str>,
    pub message_id: Option<&'a str>,
    pub kind: Option<&'a str>,
    /// Headers that are texts.
    pub headers: Vec<(String, String)>,
}

/// The events of a message: several for a batch of CloudEvents. An error says what is wrong with it.
pub fn events(message: &Message<'_>, trigger: &str, values: &BTreeMap<String, String>) -> Result<Vec<Event>, String> {
    if message.body.len() > MESSAGE_BYTES_MAX {
        return Err(format!("The message has {} bytes, more than {MESSAGE_BYTES_MAX}.", message.body.len()));
    }
    let media = message.content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let json = || serde_json::from_slice::<Value>(message.body).map_err(|error| format!("The body is not JSON: {error}."));
    let found = match media.as_str() {
        "application/cloudevents-batch+json" => match json()? {
            Value::Array(events) => events.into_iter().map(|event| structured(event, message)).collect::<Result<_, _>>()?,
            _ => return Err("The body is no list of CloudEvents.".to_owned()),
        },
        "application/cloudevents+json" => vec![structured(json()?, message)?],
        _ => match binary(message, &media)? {
            Some(event) => vec![structured(event, message)?],
            None => vec![plain(message)],
        },
    };
    found.into_iter().map(|event| with_values(event, message, trigger, values)).collect()
}

fn seen(parts: &[&str]) -> SeenKey {
    let key = parts.join("\n");
    SeenKey { content: content(&key), key: key.chars().take(256).collect() }
}

fn structured(event: Value, message: &Message<'_>) -> Result<Event, String> {
    let text = |name: &str| event.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    if let Some(missing) = REQUIRED.iter().find(|name| text(name).is_none()) {
        return Err(format!("A CloudEvent without {missing}."));
    }
    let value = |name: &str| text(name).unwrap_or_default().to_owned();
    let names = ["id", "type", "source", "subject", "time"];
    let mut values: Values = names.map(|name| (name.to_owned(), value(name))).into();
    values.insert("routing-key".to_owned(), message.routing_key.to_owned());
    let at = text("time").and_then(Timestamp::parse);
    Ok(Event { seen: Some(seen(&[&value("source"), &value("id")])), at, values, payload: Payload::CloudEvent(event) })
}

/// A CloudEvent whose attributes are headers, as one whose attributes are properties.
fn binary(message: &Message<'_>, media: &str) -> Result<Option<Value>, String> {
    let mut event = Map::new();
    for (name, value) in &message.headers {
        if let Some(attribute) = BINARY.iter().find_map(|start| name.strip_prefix(start)) {
            event.insert(attribute.to_owned(), value.clone().into());
        }
    }
    if !event.contains_key("specversion") {
        return Ok(None);
    }
    if let Some(content_type) = message.content_type {
        event.insert("datacontenttype".to_owned(), content_type.into());
    }
    let is_json = media.is_empty() || media == "application/json" || media.ends_with("+json");
    match (serde_json::from_slice::<Value>(message.body), std::str::from_utf8(message.body)) {
        _ if message.body.is_empty() => {}
        (Ok(data), _) if is_json => drop(event.insert("data".to_owned(), data)),
        (Err(error), _) if is_json && !media.is_empty() => return Err(format!("The data of a CloudEvent is not JSON: {error}.")),
        (_, Ok(text)) => drop(event.insert("data".to_owned(), text.into())),
        _ => drop(event.insert("data_base64".to_owned(), STANDARD.encode(message.body).into())),
    }
    Ok(Some(Value::Object(event)))
}

fn plain(message: &Message<'_>) -> Event {
    let value = |text: Option<&str>| text.unwrap_or_default().to_owned();
    let header = |name: &str| message.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    let pairs = [
        ("id", value(message.message_id)),
        ("type", value(message.kind)),
        ("source", String::new()),
        ("subject", String::new()),
        ("time", String::new()),
        ("routing-key", message.routing_key.to_owned()),
    ];
    Event {
        seen: message.message_id.filter(|id| !id.is_empty()).map(|id| seen(&[id])),
        at: None,
        values: pairs.map(|(name, value)| (name.to_owned(), value)).into(),
        payload: Payload::Plain {
            body: message.body.to_vec(),
            content_type: message.content_type.map(str::to_owned),
            traceparent: header("traceparent"),
        },
    }
}

/// Adds the values that the trigger takes from the body.
fn with_values(mut event: Event, message: &Message<'_>, trigger: &str, values: &BTreeMap<String, String>) -> Result<Event, String> {
    event.values.insert("trigger".to_owned(), trigger.to_owned());
    if values.is_empty() {
        return Ok(event);
    }
    let body = match &event.payload {
        Payload::CloudEvent(event) => event.clone(),
        _ => serde_json::from_slice(message.body).map_err(|error| format!("The body is not JSON: {error}."))?,
    };
    for (name, path) in values {
        let found = Path::parse(path)?.find(&body).ok_or_else(|| format!("The body has nothing at {path}, the value of {{{name}}}."))?;
        event.values.insert(name.clone(), found.as_str().map_or_else(|| found.to_string(), str::to_owned));
    }
    Ok(event)
}

/// A payload as an item of a list.
pub fn item(payload: Payload) -> Value {
    match payload {
        Payload::Record(value) | Payload::CloudEvent(value) => value,
        Payload::Plain { body, .. } => match (serde_json::from_slice(&body), std::str::from_utf8(&body)) {
            (Ok(value), _) => value,
            (_, Ok(text)) => text.into(),
            _ => json!({"base64": STANDARD.encode(&body)}),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message<'a>(body: &'a [u8], content_type: Option<&'a str>, headers: &[(&str, &str)]) -> Message<'a> {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Message { routing_key: "a.b", body, content_type, message_id: Some("m"), kind: None, headers }
    }

    fn source(values: &[(&str, &str)]) -> BTreeMap<String, String> {
        values.iter().map(|(name, path)| ((*name).to_owned(), (*path).to_owned())).collect()
    }

    const EVENT: &str = r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","time":"2026-11-23T19:00:00Z","data":{"n":[7]}}"#;

    #[test]
    fn a_cloud_event_is_the_same_in_either_mode_and_in_a_batch() {
        let structured = events(&message(EVENT.as_bytes(), Some("application/cloudevents+json; charset=utf-8"), &[]), "t", &source(&[]));
        let structured = structured.unwrap().remove(0);
        let attributes = [("specversion", "1.0"), ("id", "1"), ("source", "/s"), ("type", "t"), ("time", "2026-11-23T19:00:00Z")];
        for start in BINARY {
            let headers: Vec<(String, &str)> = attributes.iter().map(|(name, value)| (format!("{start}{name}"), *value)).collect();
            let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (name.as_str(), *value)).collect();
            let binary = events(&message(br#"{"n":[7]}"#, None, &headers), "t", &source(&[])).unwrap().remove(0);
            assert_eq!(binary, structured);
        }
        let batch = format!("[{EVENT},{EVENT}]");
        let batch = events(&message(batch.as_bytes(), Some("application/cloudevents-batch+json"), &[]), "t", &source(&[])).unwrap();
        assert_eq!(batch, [structured.clone(), structured.clone()]);
        assert_eq!(structured.at, Timestamp::parse("2026-11-23T19:00:00Z"));
        assert!(events(&message(br#"{"id":"1"}"#, Some("application/cloudevents+json"), &[]), "t", &source(&[])).is_err());
    }

    #[test]
    fn a_plain_message_stays_as_it_is_and_gives_the_values_that_are_asked_for() {
        let body = br#"{"file": {"path": "a"}, "n": [1, {"x": true}]}"#;
        let values = source(&[("path", "$.file.path"), ("flag", "$.n[1].x")]);
        let event = events(&message(body, Some("text/odd"), &[("traceparent", "tp")]), "t", &values).unwrap().remove(0);
        assert_eq!((event.values["path"].as_str(), event.values["flag"].as_str(), event.values["id"].as_str()), ("a", "true", "m"));
        let expected = Payload::Plain { body: body.to_vec(), content_type: Some("text/odd".into()), traceparent: Some("tp".into()) };
        assert_eq!(event.payload, expected);
        assert!(events(&message(br#"{"file": {}}"#, None, &[]), "t", &values).is_err());
        assert!(events(&message(b"no json", None, &[]), "t", &values).is_err());
        assert!(events(&message(b"no json", None, &[]), "t", &source(&[])).is_ok());
    }

    #[test]
    fn ids_that_begin_alike_are_told_apart() {
        let long = "i".repeat(300);
        let (one, two) = (seen(&[&long, "a"]), seen(&[&long, "b"]));
        assert_eq!(one.key, two.key);
        assert_ne!(one, two);
    }
}
