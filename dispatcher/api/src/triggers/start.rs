//! Turns events into the messages that a trigger starts: invocations of a function, or submissions of tasks.

use contract::ids::RunId;
use model::{
    refusal::Refusal,
    trigger::{SeenKey, Start, Target, TaskTarget, TriggerRow},
};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::{
    digest::hex,
    triggers::{
        event::{Event, Payload},
        message::item,
        template,
    },
};

const JSON: &str = "application/json";
const CLOUD_EVENT: &str = "application/cloudevents+json";
const CLOUD_EVENTS: &str = "application/cloudevents-batch+json";
/// Digits of the ids that are made from events.
const ID_DIGITS: usize = 32;

/// The messages for these events, in their order and in batches, each with what it is known by.
pub fn starts(trigger: &TriggerRow, events: Vec<Event>) -> Result<Vec<(Start, Vec<SeenKey>)>, Refusal> {
    let size = (trigger.spec.batch_size as usize).max(1);
    let mut starts = Vec::with_capacity(events.len().div_ceil(size));
    let mut rest = events.into_iter().peekable();
    while rest.peek().is_some() {
        starts.push(start(trigger, rest.by_ref().take(size).collect())?);
    }
    Ok(starts)
}

/// An id for an event: the same whenever it comes, where it is known by something.
fn id(trigger: &TriggerRow, event: &Event) -> String {
    match &event.seen {
        None => RunId::random().to_string(),
        Some(seen) => digest(&[&trigger.uid.to_be_bytes(), &seen.content, seen.key.as_bytes()]),
    }
}

fn digest(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(part));
    hex(&hash.finalize())[..ID_DIGITS].to_owned()
}

fn start(trigger: &TriggerRow, events: Vec<Event>) -> Result<(Start, Vec<SeenKey>), Refusal> {
    let ids: Vec<String> = events.iter().map(|event| id(trigger, event)).collect();
    let seen = events.iter().filter_map(|event| event.seen.clone()).collect();
    let traceparent = match &events[..] {
        [Event { payload: Payload::Plain { traceparent, .. }, .. }] => traceparent.clone(),
        _ => None,
    };
    let message_id = match &ids[..] {
        [id] => format!("trigger-{id}"),
        ids => format!("trigger-{}", digest(&[ids.concat().as_bytes()])),
    };
    let (function, content_type, body) = match &trigger.spec.target {
        Target::Function(function) => {
            let (content_type, body) = event_of(events, trigger.spec.batch_size > 1);
            (Some(function.id.clone()), content_type, body)
        }
        Target::Task(task) => (None, Some(JSON.to_owned()), submission(task, &ids, &events)?.to_string().into_bytes()),
    };
    let (trigger, pool) = (trigger.id.clone(), trigger.spec.target.pool().clone());
    Ok((Start { trigger, pool, function, message_id, content_type, traceparent, body: body.into() }, seen))
}

/// What a function gets: a list where events come in batches, and always the list of an S3 event.
fn event_of(mut events: Vec<Event>, is_batch: bool) -> (Option<String>, Vec<u8>) {
    let json = |content_type: &str, value: Value| (Some(content_type.to_owned()), value.to_string().into_bytes());
    if events.len() == 1 && !is_batch {
        match events.remove(0).payload {
            Payload::Plain { body, content_type, .. } => return (content_type, body),
            Payload::CloudEvent(event) => return json(CLOUD_EVENT, event),
            Payload::Record(record) => return json(JSON, json!({"Records": [record]})),
        }
    }
    let is_record = matches!(events.first(), Some(Event { payload: Payload::Record(_), .. }));
    let is_cloud = events.iter().all(|event| matches!(event.payload, Payload::CloudEvent(_)));
    let items: Vec<Value> = events.into_iter().map(|event| item(event.payload)).collect();
    match (is_record, is_cloud) {
        (true, _) => json(JSON, json!({"Records": items})),
        (_, true) => json(CLOUD_EVENTS, items.into()),
        _ => json(JSON, items.into()),
    }
}

fn submission(target: &TaskTarget, ids: &[String], events: &[Event]) -> Result<Value, Refusal> {
    let tasks = ids.iter().zip(events).map(|(id, event)| template::task(&target.template, id, &event.values).map(Value::Object));
    let mut body = Map::new();
    body.insert("tasks".to_owned(), Value::Array(tasks.collect::<Result<_, _>>()?));
    if let Some(job) = &target.job_id {
        body.insert("job".to_owned(), job.as_str().into());
    }
    Ok(Value::Object(body))
}

#[cfg(test)]
mod tests {
    use contract::time::Timestamp;
    use model::trigger::Progress;

    use super::*;
    use crate::triggers::event::Object;

    fn trigger(target: Value, batch_size: u32) -> TriggerRow {
        let mut spec = json!({
            "bucket": {"name": "b", "exchange": "x", "pattern": "#", "listingInterval": "PT1M"}, "batchSize": batch_size, "batchTime": "PT1S",
        });
        spec.as_object_mut().unwrap().extend(target.as_object().unwrap().clone());
        TriggerRow {
            id: "t".parse().unwrap(),
            uid: 7,
            version: 1,
            is_paused: false,
            spec: serde_json::from_value(spec).unwrap(),
            progress: Progress::default(),
            created_at: Timestamp(0),
            modified_at: Timestamp(0),
        }
    }

    fn event(key: &str, etag: &str) -> Event {
        let object =
            Object { bucket: "b".into(), key: key.into(), etag: etag.into(), what: "ObjectCreated:Put".into(), ..Object::default() };
        object.event("t", "http://s")
    }

    fn body(start: &Start) -> Value {
        serde_json::from_slice(&Vec::from(start.body.clone())).unwrap()
    }

    #[test]
    fn the_same_object_makes_the_same_message_and_another_content_another_one() {
        let trigger = trigger(json!({"function": {"poolId": "p", "id": "f"}}), 1);
        let made = starts(&trigger, vec![event("a", "1"), event("a", "1"), event("a", "2"), event("b", "1")]).unwrap();
        let ids: Vec<&str> = made.iter().map(|(start, _)| start.message_id.as_str()).collect();
        assert_eq!(ids[0], ids[1]);
        assert!(ids[0] != ids[2] && ids[0] != ids[3] && ids[2] != ids[3]);
        assert_eq!(body(&made[3].0)["Records"][0]["s3"]["object"]["key"], "b");
        assert_eq!(made[3].1, [event("b", "1").seen.unwrap()]);
    }

    #[test]
    fn events_come_in_batches_of_at_most_their_size() {
        let trigger = trigger(json!({"function": {"poolId": "p", "id": "f"}}), 2);
        let made = starts(&trigger, ["a", "b", "c"].map(|key| event(key, "1")).into()).unwrap();
        let sizes: Vec<usize> = made.iter().map(|(start, _)| body(start)["Records"].as_array().unwrap().len()).collect();
        assert_eq!(sizes, [2, 1]);
        assert_eq!(made[0].1.len(), 2);
    }

    #[test]
    fn a_batch_of_tasks_is_one_submission() {
        let template = json!({"commandLine": "cat", "displayName": "of {name}"});
        let trigger = trigger(json!({"task": {"poolId": "p", "jobId": "j", "template": template}}), 10);
        let made = starts(&trigger, vec![event("in/a", "1"), event("in/b", "1")]).unwrap();
        assert_eq!(made.len(), 1);
        let body = body(&made[0].0);
        assert_eq!((&body["job"], &body["tasks"][1]["displayName"]), (&json!("j"), &json!("of b")));
        assert_ne!(body["tasks"][0]["id"], body["tasks"][1]["id"]);
        assert_eq!(made[0].0.function, None);
    }

    #[test]
    fn a_plain_message_goes_on_untouched_and_in_a_list_as_what_it_is() {
        let plain = |body: &[u8]| Event {
            seen: None,
            at: None,
            values: Default::default(),
            payload: Payload::Plain { body: body.to_vec(), content_type: Some("x/y".into()), traceparent: Some("tp".into()) },
        };
        let single = starts(&trigger(json!({"function": {"poolId": "p", "id": "f"}}), 1), vec![plain(b"\xff raw")]).unwrap();
        let start = &single[0].0;
        assert_eq!((start.content_type.as_deref(), start.traceparent.as_deref()), (Some("x/y"), Some("tp")));
        assert_eq!(Vec::from(start.body.clone()), b"\xff raw");
        let many =
            starts(&trigger(json!({"function": {"poolId": "p", "id": "f"}}), 3), vec![plain(b"{\"a\":1}"), plain(b"text"), plain(b"\xff")]);
        assert_eq!(body(&many.unwrap()[0].0), json!([{"a": 1}, "text", {"base64": "/w=="}]));
    }
}
