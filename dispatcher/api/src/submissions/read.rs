//! Reads a message that submits tasks: one task in Azure's field names, or a list of them, and their job.

use broker_config::publisher::takes_answers;
use clients::blobs::Places;
use contract::{
    body::Format,
    ids::{ID_LENGTH_MAX, JobId, PoolId, RunId},
};
use model::{
    job::NewJob,
    property::invalid,
    refusal::{Code, Refusal},
    submission::{DIGEST_BYTES, MessageKey, NewSubmission, Reply, Target, Wait},
    task::NewTask,
};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::{
    body::Body,
    digest::hex,
    document::unknown::{self, Unknown},
    jobs,
    json::{self, BODY_BYTES_MAX},
    tasks,
};

/// Tasks of one message at most, as in one request.
pub const TASKS_MAX: usize = 100;
/// The highest AMQP priority that counts; a higher one counts as this.
const PRIORITY_MAX: u8 = 9;
/// What a step of AMQP priority is worth as the priority of a job.
const PRIORITY_STEP: i32 = 100;

/// What a message says, taken apart.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// The routing key, which names a pool.
    pub key: &'a str,
    /// The body.
    pub body: &'a [u8],
    /// Its type, as the publisher gave it.
    pub content_type: Option<&'a str>,
    /// What makes a repetition of the message known.
    pub message_id: Option<&'a str>,
    /// The queue for the answer.
    pub reply_to: Option<&'a str>,
    /// The publisher's own number, copied to the answer.
    pub correlation_id: Option<&'a str>,
    /// The AMQP priority.
    pub priority: Option<u8>,
    /// The header `piecework-wait`; empty when it is there and no text.
    pub wait: Option<&'a str>,
    /// The header `traceparent`.
    pub traceparent: Option<&'a str>,
}

/// The format of a body: its content type says it, or else how it begins. No object of MessagePack begins as one of JSON may.
fn format(message: &Message<'_>) -> Format {
    let first = message.body.iter().find(|byte| !byte.is_ascii_whitespace());
    match message.content_type {
        None if first == Some(&b'{') => Format::Json,
        content_type => Format::of(content_type),
    }
}

fn unreadable(reason: impl std::fmt::Display) -> Refusal {
    let refusal = Refusal::new(Code::InvalidRequestBody, "The specified Request Body is not syntactically valid.").with("Reason", reason);
    refusal.hint("A body is MessagePack, or JSON with the content type application/json.")
}

fn fields(message: &Message<'_>) -> Result<Map<String, Value>, Refusal> {
    if message.body.len() > BODY_BYTES_MAX {
        let text = "The request body is too large and exceeds the maximum permissible limit.";
        return Err(Refusal::new(Code::RequestBodyTooLarge, text).with("MaxLimit", BODY_BYTES_MAX));
    }
    match format(message) {
        Format::Json => json::object(message.body),
        Format::MessagePack => match Format::read_messagepack(message.body, json::DEPTH_MAX) {
            Ok(Value::Object(fields)) => Ok(fields),
            Ok(_) => Err(unreadable("The body is MessagePack but not a map.")),
            Err(error) => {
                let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
                Err(unreadable(format!("{error}{cause}")))
            }
        },
    }
}

fn header(name: &str, value: &str, reason: &str) -> Refusal {
    Refusal::new(Code::InvalidHeaderValue, "The value for one of the HTTP headers is not in the correct format.")
        .with("HeaderName", name)
        .with("HeaderValue", value.chars().take(64).collect::<String>())
        .with("Reason", reason)
}

/// Where the answer goes; nothing when none is asked for.
pub fn reply(message: &Message<'_>) -> Result<Option<Reply>, Refusal> {
    let Some(queue) = message.reply_to.filter(|queue| !queue.is_empty()) else { return Ok(None) };
    if !takes_answers(queue) {
        let reason = "Queues whose names begin with \"piecework.\" take no answers, except those that begin with \"piecework.answers.\".";
        return Err(header("reply_to", queue, reason));
    }
    let is_json = format(message) == Format::Json;
    Ok(Some(Reply { queue: queue.to_owned(), correlation_id: message.correlation_id.map(str::to_owned), is_json, ignored: None }))
}

fn wait(message: &Message<'_>) -> Result<Wait, Refusal> {
    match message.wait {
        None | Some("accepted") => Ok(Wait::Accepted),
        Some("completed") => Ok(Wait::Completed),
        Some(other) => Err(header("piecework-wait", other, "It is accepted or completed.")),
    }
}

/// A W3C trace context of the version that is known; another one is ignored, as its specification asks.
fn trace_context(text: &str) -> Option<&str> {
    let parts: Vec<&str> = text.split('-').collect();
    let lengths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
    let is_hex = parts.iter().all(|part| part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')));
    let is_something = |part: &str| part.bytes().any(|byte| byte != b'0');
    let is_one = lengths == [2, 32, 16, 2] && is_hex && parts[0] == "00" && is_something(parts[1]) && is_something(parts[2]);
    is_one.then_some(text)
}

/// What the ids of tasks begin with that have none: made from the message's id, so that its repetition names the same tasks.
fn base_id(pool: &PoolId, key: Option<&MessageKey>) -> String {
    match key {
        None => format!("{:032x}", RunId::random().0),
        Some(key) => hex(&digest([pool.as_str().to_ascii_lowercase().as_bytes(), b"\0", key.id.as_bytes()])),
    }
}

fn digest<const N: usize>(parts: [&[u8]; N]) -> [u8; DIGEST_BYTES] {
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(part));
    let mut short = [0; DIGEST_BYTES];
    short.copy_from_slice(&hash.finalize()[..DIGEST_BYTES]);
    short
}

/// The id of the job that stands for submissions to a pool with this priority: `queue-POOL`, or `queue5-POOL` for priority 5.
/// Where that is too long for an id, the end of the pool's id gives way to a digest of the whole of it.
fn standing_id(pool: &PoolId, priority: u8) -> String {
    let prefix = if priority == 0 { "queue-".to_owned() } else { format!("queue{priority}-") };
    let name = pool.as_str().to_ascii_lowercase();
    if prefix.len() + name.len() <= ID_LENGTH_MAX {
        return prefix + pool.as_str();
    }
    let end = hex(&digest([name.as_bytes()])[..8]);
    format!("{prefix}{}-{end}", &pool.as_str()[..ID_LENGTH_MAX - prefix.len() - end.len() - 1])
}

/// That job as a request would ask for it.
fn standing(pool: &PoolId, priority: u8, places: Places<'_>) -> Result<NewJob, Refusal> {
    let body = json!({
        "id": standing_id(pool, priority),
        "displayName": "Tasks submitted by message",
        "priority": i32::from(priority) * PRIORITY_STEP,
        "poolInfo": {"poolId": pool},
    });
    let Value::Object(fields) = body else { return Err(unreadable("A job is an object.")) };
    jobs::body::read(Body::new("JobAddParameter", fields, places)?.root())
}

/// Reads the whole of a message.
pub fn read(message: &Message<'_>, places: Places<'_>) -> Result<NewSubmission, Refusal> {
    let mut reply = reply(message)?;
    let wait = wait(message)?;
    let pool: PoolId = message.key.parse().map_err(|reason| {
        let shown: String = message.key.chars().take(ID_LENGTH_MAX).collect();
        let refusal = Refusal::new(Code::PoolNotFound, "The specified pool does not exist.").with("PoolId", shown).with("Reason", reason);
        refusal.hint("The routing key of a submission is the id of a pool.")
    })?;
    let mut fields = fields(message)?;
    let job = match fields.remove("job") {
        None | Some(Value::Null) => {
            let priority = message.priority.unwrap_or(0).min(PRIORITY_MAX);
            Target::Standing(Box::new(standing(&pool, priority, places)?))
        }
        Some(Value::String(text)) => Target::Named(text.parse::<JobId>().map_err(|reason| invalid("job", &Value::String(text), reason))?),
        Some(other) => return Err(invalid("job", &other, "A job's id is a text.")),
    };
    let message_id = message.message_id.filter(|id| !id.is_empty());
    // Another priority means another job, so the answer to the first message would be none to the second.
    let digest = || match &job {
        Target::Standing(job) if job.priority != 0 => digest([message.body, &job.priority.to_be_bytes()]),
        _ => digest([message.body]),
    };
    let key = message_id.map(|id| MessageKey { id: id.to_owned(), digest: digest() });
    let (items, is_list) = items(fields)?;
    let base = base_id(&pool, key.as_ref());
    let traceparent = message.traceparent.and_then(trace_context);
    let mut tasks = Vec::with_capacity(items.len());
    let mut ignored = Unknown::default();
    for (index, mut fields) in items.into_iter().enumerate() {
        if reply.is_some() {
            ignored.add_all(&if is_list { format!("tasks[{index}].") } else { String::new() }, unknown::find("task.add", &fields));
        }
        if fields.get("id").is_none_or(Value::is_null) {
            fields.insert("id".to_owned(), Value::String(if is_list { format!("{base}-{index}") } else { base.clone() }));
        }
        let task = task(fields, traceparent, places);
        tasks.push(task.map_err(|refusal| if is_list { refusal.with("TaskIndex", index) } else { refusal })?);
    }
    if let Some(reply) = &mut reply {
        reply.ignored = ignored.header();
    }
    Ok(NewSubmission { pool, job, tasks, is_list, key, reply: reply.map(|reply| (reply, wait)) })
}

/// The tasks as objects, and whether they came as a list.
fn items(mut fields: Map<String, Value>) -> Result<(Vec<Map<String, Value>>, bool), Refusal> {
    let list = match fields.remove("tasks") {
        None | Some(Value::Null) => return Ok((vec![fields], false)),
        Some(Value::Array(list)) => list,
        Some(other) => return Err(invalid("tasks", &other, "It is a list of tasks.")),
    };
    let refused = |reason: String| Err(invalid("tasks", &Value::Array(vec![]), reason));
    if let Some((name, _)) = fields.iter().find(|(_, given)| !given.is_null()) {
        let name: String = name.chars().take(ID_LENGTH_MAX).collect();
        return refused(format!("Beside tasks a message may have job, and not {name}: properties of a task stand in each task."));
    }
    if list.is_empty() || list.len() > TASKS_MAX {
        return refused(format!("A message has 1 to {TASKS_MAX} tasks, this one {}.", list.len()));
    }
    let mut items = Vec::with_capacity(list.len());
    for (index, item) in list.into_iter().enumerate() {
        match item {
            Value::Object(fields) => items.push(fields),
            other => return Err(invalid(format!("tasks[{index}]"), &other, "A task is an object.")),
        }
    }
    Ok((items, true))
}

fn task(fields: Map<String, Value>, traceparent: Option<&str>, places: Places<'_>) -> Result<NewTask, Refusal> {
    let mut task = tasks::body::read(Body::new("TaskAddParameter", fields, places)?.root())?;
    if let Some(traceparent) = traceparent.filter(|_| task.document.piecework.traceparent.is_none()) {
        for piecework in [&mut task.document.piecework, &mut task.spec.piecework] {
            piecework.traceparent = Some(traceparent.to_owned());
        }
    }
    Ok(task)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACES: Places<'static> = Places { endpoint: "http://store:9000", own_bucket: "piecework-own" };

    fn message(body: &[u8]) -> Message<'_> {
        Message {
            key: "p",
            body,
            content_type: None,
            message_id: None,
            reply_to: None,
            correlation_id: None,
            priority: None,
            wait: None,
            traceparent: None,
        }
    }

    #[test]
    fn a_command_line_alone_is_a_task_in_either_format() {
        let value = json!({"commandLine": "true"});
        let packed = Format::MessagePack.write(&value).unwrap();
        for body in [packed.as_slice(), br#" {"commandLine":"true"}"#] {
            let read = read(&message(body), PLACES).unwrap();
            assert_eq!((read.job.id().as_str(), read.tasks.len(), read.is_list), ("queue-p", 1, false));
            assert_eq!((read.tasks[0].id.as_str().len(), read.tasks[0].spec.command_line.as_str()), (32, "true"));
        }
        let typed = Message { content_type: Some("application/msgpack"), ..message(br#"{"commandLine":"true"}"#) };
        assert_eq!(read(&typed, PLACES).unwrap_err().code, Code::InvalidRequestBody);
    }

    #[test]
    fn the_same_message_names_the_same_tasks_and_another_id_others() {
        let body = br#"{"tasks":[{"commandLine":"a"},{"id":"mine","commandLine":"b"}],"job":"j"}"#;
        let ids = |id| {
            let read = read(&Message { message_id: id, ..message(body) }, PLACES).unwrap();
            read.tasks.into_iter().map(|task| task.id.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(ids(Some("1")), ids(Some("1")));
        assert_ne!(ids(Some("1"))[0], ids(Some("2"))[0]);
        assert_ne!(ids(None)[0], ids(None)[0]);
        assert_eq!(ids(None)[1], "mine");
        assert!(ids(None)[0].ends_with("-0"));
    }

    #[test]
    fn properties_that_no_task_has_are_named_for_the_answer() {
        let ignored = |body: &[u8]| {
            let read = read(&Message { reply_to: Some("mine"), ..message(body) }, PLACES).unwrap();
            read.reply.unwrap().0.ignored
        };
        assert_eq!(ignored(br#"{"commandLine":"a"}"#), None);
        assert_eq!(ignored(br#"{"commandLine":"a","retries":1}"#).as_deref(), Some("retries"));
        let list = br#"{"tasks":[{"commandLine":"a"},{"commandLine":"b","retries":1,"job":"x"}]}"#;
        assert_eq!(ignored(list).as_deref(), Some("tasks[1].job, tasks[1].retries"));
    }

    #[test]
    fn the_same_body_with_another_priority_is_another_message() {
        let digest = |body: &[u8], priority| {
            let read = read(&Message { message_id: Some("1"), priority, ..message(body) }, PLACES).unwrap();
            read.key.unwrap().digest
        };
        let body = br#"{"commandLine":"a"}"#;
        assert_eq!(digest(body, None), digest(body, Some(0)));
        assert_ne!(digest(body, None), digest(body, Some(3)));
        assert_eq!(digest(body, Some(9)), digest(body, Some(200)), "as both go to the same job");
        let named = br#"{"commandLine":"a","job":"j"}"#;
        assert_eq!(digest(named, None), digest(named, Some(3)), "the job's own priority counts");
    }

    #[test]
    fn a_standing_job_tells_pool_and_priority_and_no_two_share_one() {
        let pool = |text: &str| text.parse::<PoolId>().unwrap();
        assert_eq!(standing_id(&pool("Pool"), 0), "queue-Pool");
        assert_eq!(standing_id(&pool("Pool"), 5), "queue5-Pool");
        let long = |end: &str| standing_id(&pool(&("x".repeat(63) + end)), 3);
        assert_eq!(long("a").len(), ID_LENGTH_MAX);
        assert_ne!(long("a"), long("b"));
        let urgent = Message { priority: Some(200), ..message(br#"{"commandLine":"a"}"#) };
        let Target::Standing(job) = read(&urgent, PLACES).unwrap().job else { panic!("a standing job") };
        assert_eq!((job.id.as_str(), job.priority), ("queue9-p", 900));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let code = |message: Message<'_>| read(&message, PLACES).unwrap_err().code;
        let ok = br#"{"commandLine":"a"}"#;
        assert_eq!(code(Message { key: "no pool", ..message(ok) }), Code::PoolNotFound);
        assert_eq!(code(Message { wait: Some("later"), ..message(ok) }), Code::InvalidHeaderValue);
        assert_eq!(code(Message { reply_to: Some("Piecework.pool.p"), ..message(ok) }), Code::InvalidHeaderValue);
        assert_eq!(code(message(b"[]")), Code::InvalidRequestBody);
        assert_eq!(code(message(&[0x91; 5_000])), Code::InvalidRequestBody);
        assert_eq!(code(message(b"{}")), Code::MissingRequiredProperty);
        for body in [
            r#"{"tasks":[]}"#,
            r#"{"tasks":{}}"#,
            r#"{"tasks":[1]}"#,
            r#"{"tasks":[{"commandLine":"a"}],"constraints":{}}"#,
            r#"{"commandLine":"a","job":5}"#,
            r#"{"commandLine":"a","job":"a b"}"#,
        ] {
            assert_eq!(code(message(body.as_bytes())), Code::InvalidPropertyValue, "{body}");
        }
        let many = json!({"tasks": vec![json!({"commandLine": "a"}); TASKS_MAX + 1]}).to_string();
        assert_eq!(code(message(many.as_bytes())), Code::InvalidPropertyValue);
        let second = read(&message(br#"{"tasks":[{"commandLine":"a"},{"commandLine":""}]}"#), PLACES).unwrap_err();
        assert!(second.values.contains(&("TaskIndex".to_owned(), "1".to_owned())), "{second:?}");
    }

    #[test]
    fn a_valid_trace_context_is_kept_with_the_task_and_another_ignored() {
        let valid = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let kept = |text| {
            let read = read(&Message { traceparent: Some(text), ..message(br#"{"commandLine":"a"}"#) }, PLACES).unwrap();
            read.tasks[0].document.piecework.traceparent.clone()
        };
        assert_eq!(kept(valid).as_deref(), Some(valid));
        for text in ["", "00", &valid[1..], &valid.to_ascii_uppercase(), "00-00000000000000000000000000000000-00f067aa0ba902b7-01"] {
            assert_eq!(kept(text), None, "{text}");
        }
    }
}
