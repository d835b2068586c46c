//! Reads and checks what a trigger is asked to be: what could never work is refused when it is made.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use clients::blobs::Places;
use contract::time::Timestamp;
use model::{
    refusal::{Code, Refusal},
    trigger::{
        BATCH_TIME_DEFAULT, BucketSource, ExchangeSource, FunctionTarget, HookSecret, LISTING_DEFAULT, NewTrigger, ScheduleSource, Source,
        Target, TaskTarget, TriggerChange, TriggerRow, TriggerSpec, WebhookSource,
    },
};
use rand::RngExt;
use serde_json::Value;

use crate::{
    body::Object,
    submissions::read::{self, Message},
    triggers::{
        cron::Cron,
        event::{self, Event, Payload},
        message,
        path::Path,
        start, template,
    },
};

/// The exchange of our own store's events.
const BLOBS: &str = broker_config::topology::BLOBS;
/// Those of our own exchanges that triggers may follow: the others carry what parts tell each other.
const OPEN: [&str; 2] = [BLOBS, broker_config::topology::EVENTS];
/// How names of our own exchanges begin.
const OURS: &str = "piecework.";
/// Random bytes of a webhook's secret.
const SECRET_BYTES: usize = 32;
/// Values that a trigger takes from a body at most.
const VALUES_MAX: usize = 50;
/// Bytes of a submission that values of one event are expected to take at most.
const VALUES_BYTES: usize = 8 * 1024;
/// Bytes of a submission at most.
const SUBMISSION_BYTES_MAX: usize = 1024 * 1024;

/// A new trigger.
pub fn new(body: Object<'_>) -> Result<NewTrigger, Refusal> {
    let source = source(&body)?;
    let target = target(&body)?.ok_or_else(|| body.missing("function").hint("A trigger starts a function or a task."))?;
    let spec = TriggerSpec {
        source,
        target,
        batch_size: body.integer("batchSize").unwrap_or(1),
        batch_time: body.period("batchTime").unwrap_or(BATCH_TIME_DEFAULT),
    };
    check(&body, &spec)?;
    Ok(NewTrigger { id: body.required_id("id"), spec })
}

/// A change of settings.
pub fn change(body: Object<'_>, row: &TriggerRow) -> Result<TriggerChange, Refusal> {
    let (target, batch_size, batch_time) = (target(&body)?, body.integer("batchSize"), body.period("batchTime"));
    let mut spec = row.spec.clone();
    spec.target = target.clone().unwrap_or(spec.target);
    spec.batch_size = batch_size.unwrap_or(spec.batch_size);
    check(&body, &spec)?;
    Ok(TriggerChange::Settings { target, batch_size, batch_time })
}

fn source(body: &Object<'_>) -> Result<Source, Refusal> {
    let names = ["bucket", "exchange", "schedule", "webhook"].map(|name| body.object(name));
    match names {
        [Some(bucket), None, None, None] => {
            let name = bucket.required_text("name");
            if name == bucket.places().own_bucket {
                return Err(bucket.invalid("name", "That bucket is Piecework's own."));
            }
            let exchange = bucket.owned("exchange").unwrap_or_else(|| BLOBS.to_owned());
            check_exchange(&bucket, "exchange", &exchange)?;
            // Our own store's events have the bucket as their routing key.
            let pattern = bucket.owned("pattern").unwrap_or_else(|| if exchange == BLOBS { name.clone() } else { "#".to_owned() });
            let (min_bytes, max_bytes) = (bucket.integer::<u64>("minBytes"), bucket.integer::<u64>("maxBytes"));
            if min_bytes.zip(max_bytes).is_some_and(|(least, most)| least > most) {
                return Err(bucket.invalid("maxBytes", "It must not be below minBytes."));
            }
            Ok(Source::Bucket(BucketSource {
                name,
                prefix: bucket.owned("prefix").unwrap_or_default(),
                suffix: bucket.owned("suffix").unwrap_or_default(),
                min_bytes,
                max_bytes,
                exchange,
                pattern,
                listing_interval: bucket.period("listingInterval").unwrap_or(LISTING_DEFAULT),
                include_existing: bucket.flag("includeExisting").unwrap_or(false),
            }))
        }
        [None, Some(exchange), None, None] => {
            let name = exchange.required_text("name");
            check_exchange(&exchange, "name", &name)?;
            let values = values(&exchange)?;
            Ok(Source::Exchange(ExchangeSource { name, pattern: exchange.owned("pattern").unwrap_or_else(|| "#".to_owned()), values }))
        }
        [None, None, Some(schedule), None] => {
            let expression = schedule.required_text("expression");
            let time_zone = schedule.owned("timeZone").unwrap_or_else(|| "UTC".to_owned());
            Cron::parse(&expression, &time_zone).map_err(|reason| schedule.invalid("expression", reason))?;
            Ok(Source::Schedule(ScheduleSource { expression, time_zone }))
        }
        [None, None, None, Some(webhook)] => {
            let random = || URL_SAFE_NO_PAD.encode(rand::rng().random::<[u8; SECRET_BYTES]>());
            Ok(Source::Webhook(WebhookSource {
                secret: HookSecret(webhook.owned("secret").unwrap_or_else(random)),
                values: values(&webhook)?,
            }))
        }
        [None, None, None, None] => {
            Err(body.missing("bucket").hint("A trigger watches a bucket, follows an exchange, has a schedule, or is a webhook."))
        }
        _ => Err(body.invalid("bucket", "A trigger has one source: a bucket, an exchange, a schedule or a webhook.")),
    }
}

fn check_exchange(body: &Object<'_>, property: &str, name: &str) -> Result<(), Refusal> {
    if name.starts_with(OURS) && !OPEN.contains(&name) {
        let reason = format!("Of Piecework's own exchanges a trigger may follow {}.", OPEN.join(" and "));
        return Err(body.invalid(property, reason));
    }
    Ok(())
}

fn values(exchange: &Object<'_>) -> Result<BTreeMap<String, String>, Refusal> {
    let Some(Value::Object(given)) = exchange.value("values") else { return Ok(BTreeMap::new()) };
    let wrong = |reason: String| exchange.invalid("values", reason);
    if given.len() > VALUES_MAX {
        return Err(wrong(format!("A trigger takes up to {VALUES_MAX} values from a body.")));
    }
    let mut values = BTreeMap::new();
    for (name, path) in given {
        if !template::is_name(name) {
            return Err(wrong(format!("{name:?} is no name of a placeholder: small letters, digits and '-', at most 32.")));
        }
        let path = path.as_str().ok_or_else(|| wrong(format!("The path of {name} is no text.")))?;
        Path::parse(path).map_err(wrong)?;
        values.insert(name.clone(), path.to_owned());
    }
    Ok(values)
}

fn target(body: &Object<'_>) -> Result<Option<Target>, Refusal> {
    match (body.object("function"), body.object("task")) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err(body.invalid("task", "A trigger starts one thing: a function or a task.")),
        (Some(function), None) => {
            Ok(Some(Target::Function(FunctionTarget { pool_id: function.required_id("poolId"), id: function.required_id("id") })))
        }
        (None, Some(task)) => {
            let Some(Value::Object(template)) = task.value("template") else { return Err(task.missing("template")) };
            if template.get("id").is_some_and(|id| !id.is_null()) {
                return Err(task.invalid("template", "It has no id: each task gets one that is made from its event."));
            }
            let (pool_id, job_id) = (task.required_id("poolId"), task.id("jobId"));
            Ok(Some(Target::Task(TaskTarget { pool_id, job_id, template: template.clone() })))
        }
    }
}

/// An event as it may come, for trying a template.
fn sample(source: &Source, places: Places<'_>) -> Event {
    let time = Timestamp(0);
    match source {
        Source::Bucket(bucket) => {
            let key = format!("{}sample{}", bucket.prefix, bucket.suffix);
            let object =
                event::Object { bucket: bucket.name.clone(), key, bytes: Some(1), etag: "0".into(), at: Some(time), ..Default::default() };
            object.event("sample", places.endpoint)
        }
        Source::Exchange(ExchangeSource { values, .. }) | Source::Webhook(WebhookSource { values, .. }) => {
            let names = message::VALUES.iter().map(|name| (*name).to_owned()).chain(values.keys().cloned());
            let values = names.map(|name| (name, "sample".to_owned())).collect();
            let payload = Payload::Plain { body: Vec::new(), content_type: None, traceparent: None };
            Event { seen: None, at: None, values, payload }
        }
        Source::Schedule(_) => event::due("sample", time),
    }
}

/// Tries the template with an event as it may come.
fn check(body: &Object<'_>, spec: &TriggerSpec) -> Result<(), Refusal> {
    let Target::Task(task) = &spec.target else { return Ok(()) };
    let places = body.places();
    let event = sample(&spec.source, places);
    template::check_command(&task.template, &event.values)?;
    let bytes = (Value::Object(task.template.clone()).to_string().len() + VALUES_BYTES) * spec.batch_size as usize;
    if bytes > SUBMISSION_BYTES_MAX {
        return Err(body.invalid("batchSize", "So many tasks of this template are too large for one message."));
    }
    let trial = TriggerRow {
        id: "sample".parse().map_err(|_| body.missing("id"))?,
        uid: 0,
        version: 0,
        is_paused: false,
        spec: TriggerSpec { batch_size: 1, ..spec.clone() },
        progress: Default::default(),
        created_at: Timestamp(0),
        modified_at: Timestamp(0),
    };
    let Some((start, _)) = start::starts(&trial, vec![event])?.pop() else { return Ok(()) };
    let key = task.pool_id.as_str();
    let text: Vec<u8> = start.body.into();
    let message = Message {
        key,
        body: &text,
        content_type: start.content_type.as_deref(),
        message_id: Some(&start.message_id),
        reply_to: None,
        correlation_id: None,
        priority: None,
        wait: None,
        traceparent: None,
    };
    let tried = read::read(&message, places).map_err(|refusal| refusal.with("PartOf", "task.template"))?;
    match &spec.source {
        Source::Bucket(bucket) => check_outputs(bucket, &tried.tasks, places),
        Source::Exchange(_) | Source::Schedule(_) | Source::Webhook(_) => Ok(()),
    }
}

/// Refuses outputs that the trigger would act on again, without an end.
fn check_outputs(bucket: &BucketSource, tasks: &[model::task::NewTask], places: Places<'_>) -> Result<(), Refusal> {
    for file in tasks.iter().flat_map(|task| &task.spec.output_files) {
        let container = &file.destination.container;
        let Ok(place) = places.locate(&container.container_url) else { continue };
        let path = container.path.as_deref().unwrap_or_default();
        let parts = [place.prefix.as_str(), path].into_iter().filter(|part| !part.is_empty());
        let to = parts.collect::<Vec<_>>().join("/") + "/";
        if place.bucket == bucket.name && (to.starts_with(&bucket.prefix) || to.trim_start_matches('/').starts_with(&bucket.prefix)) {
            let refusal = Refusal::new(Code::InvalidPropertyValue, "The trigger would start itself: its tasks write what it watches.");
            let refusal = refusal.with("PropertyName", "task.template.outputFiles").with("Writes", format!("{}/{to}", place.bucket));
            let refusal = refusal.with("Watches", format!("{}/{}", bucket.name, bucket.prefix));
            return Err(refusal.hint("Write to another bucket, or watch a prefix that outputs do not have."));
        }
    }
    Ok(())
}
