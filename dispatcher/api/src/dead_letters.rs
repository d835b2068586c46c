//! Dead letters: messages that were refused or failed for good. List, show, replay, discard; by filter or one by one.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use broker_config::topology;
use clients::amqp::{Burial, Delivery};
use contract::{body::Format, function::header, period::Period, time::Timestamp};
use engine::messaging::dead_letters::{Choice, LOOKED_MAX, Look, letter_id};
use model::refusal::{Code, Refusal};
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::time::Instant;

use crate::{
    answer::{Answer, Iso},
    call::Call,
    query::wrong,
    state::ApiState,
};

/// Letters that a list shows by default, and at most.
const SHOWN_DEFAULT: i64 = 100;
const SHOWN_MAX: i64 = 1_000;
/// The part of a request's time that a look may take; the rest is for what was begun.
const LOOK_SHARE: u32 = 2;
/// Parameters of every request.
const ALWAYS: [&str; 2] = ["api-version", "timeout"];
const FILTERS: [&str; 6] = ["pool", "function", "reason", "kind", "olderthan", "newerthan"];

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
enum Kind {
    Submission,
    Function,
    Other,
}

impl Kind {
    fn of(exchange: &str) -> Kind {
        match exchange {
            topology::SUBMIT => Kind::Submission,
            topology::INVOKE => Kind::Function,
            _ => Kind::Other,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct View {
    id: String,
    kind: Kind,
    #[serde(skip_serializing_if = "String::is_empty")]
    reason: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<Iso>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pool_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    function: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply_to: Option<String>,
    exchange: String,
    routing_key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expiration: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failed_attempts: Option<u32>,
    bytes: usize,
    #[serde(skip_serializing_if = "Map::is_empty")]
    headers: Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_base64: Option<String>,
}

#[derive(Serialize)]
struct Listed {
    value: Vec<View>,
    looked: u32,
    left: u32,
}

#[derive(Serialize)]
struct Unreplayed {
    id: String,
    reason: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Replayed {
    replayed: u32,
    unreplayed: Vec<Unreplayed>,
    unreplayed_count: u32,
    looked: u32,
    left: u32,
}

#[derive(Serialize)]
struct Discarded {
    discarded: u32,
    looked: u32,
    left: u32,
}

/// The pool that a letter was meant for. Its routing key names it, but for what nodes could not read.
fn pool(letter: &Delivery, burial: &Burial, kind: Kind) -> Option<String> {
    match kind {
        Kind::Other => letter.header_as_text(header::POOL),
        Kind::Submission | Kind::Function => Some(burial.routing_key.clone()),
    }
}

fn function(letter: &Delivery, kind: Kind) -> Option<String> {
    letter.kind.clone().filter(|_| kind == Kind::Function)
}

fn view(letter: &Delivery) -> View {
    let burial = letter.burial();
    let kind = Kind::of(&burial.exchange);
    View {
        id: letter_id(letter),
        kind,
        pool_id: pool(letter, &burial, kind),
        function: function(letter, kind),
        reason: burial.reason,
        message: burial.message,
        time: burial.at.map(Iso),
        message_id: letter.message_id.clone(),
        correlation_id: letter.correlation_id.clone(),
        reply_to: burial.reply_to,
        exchange: burial.exchange,
        routing_key: burial.routing_key,
        content_type: letter.content_type().map(str::to_owned),
        priority: burial.priority,
        expiration: burial.expiration,
        failed_attempts: letter.header_as_text(header::FAILED).and_then(|text| text.parse().ok()),
        bytes: letter.body.len(),
        headers: Map::new(),
        body: None,
        body_base64: None,
    }
}

/// With headers and body: as a value, else as text, else in base64.
fn whole(letter: &Delivery) -> View {
    let read = match letter.content_type() {
        // Any text begins with what could be a MessagePack number, so only maps count as MessagePack.
        None => Format::Json.read::<Value>(&letter.body).ok().or_else(|| letter.format.read(&letter.body).ok().filter(Value::is_object)),
        Some(_) if letter.format == Format::Json => Format::Json.read::<Value>(&letter.body).ok(),
        Some(_) => letter.format.read::<Value>(&letter.body).ok().filter(Value::is_object),
    };
    let body = read.or_else(|| std::str::from_utf8(&letter.body).ok().map(Value::from));
    let body_base64 = if body.is_none() { Some(BASE64.encode(&letter.body)) } else { None };
    let headers = letter.plain_headers().into_iter().map(|(name, value)| (name, Value::from(value))).collect();
    View { headers, body, body_base64, ..view(letter) }
}

/// Which letters a request is about.
#[derive(Debug, Default)]
struct Filter {
    pool: Option<String>,
    function: Option<String>,
    reason: Option<String>,
    kind: Option<Kind>,
    /// Those that died before this.
    before: Option<Timestamp>,
    /// Those that died after this.
    after: Option<Timestamp>,
}

impl Filter {
    /// Reads the filters, and refuses parameters that are none: one that is ignored would make a filter wider.
    fn read(call: &Call, beside: &str) -> Result<Filter, Refusal> {
        for (name, _) in call.query.firsts() {
            let name = String::from_utf8_lossy(name).to_ascii_lowercase();
            let is_known = [&FILTERS[..], &ALWAYS[..], &[beside]].concat().contains(&name.as_str());
            if !is_known {
                let text = "A query parameter specified in the request URI is not supported.";
                let refusal = Refusal::new(Code::UnsupportedQueryParameter, text).with("QueryParameterName", name);
                return Err(refusal.hint(&format!("Dead letters are chosen by {}.", FILTERS.join(", "))));
            }
        }
        let text = |name| call.query.text(name).map(|text| text.map(str::to_owned));
        let now = Timestamp::now();
        let ago = |name: &str| -> Result<Option<Timestamp>, Refusal> {
            let Some(text) = call.query.text(name)? else { return Ok(None) };
            let age: Period = text.parse().map_err(|_| wrong(name, text, "It is an ISO 8601 duration such as PT1H."))?;
            Ok(Some(now.plus_ms(i64::try_from(age.as_ms()).unwrap_or(i64::MAX).saturating_neg())))
        };
        let kind = match call.query.text("kind")? {
            None => None,
            Some("submission") => Some(Kind::Submission),
            Some("function") => Some(Kind::Function),
            Some("other") => Some(Kind::Other),
            Some(text) => return Err(wrong("kind", text, "It is submission, function or other.")),
        };
        Ok(Filter {
            pool: text("pool")?,
            function: text("function")?,
            reason: text("reason")?,
            kind,
            before: ago("olderthan")?,
            after: ago("newerthan")?,
        })
    }

    /// The same for a change, which must say so when it is about all letters.
    fn read_for_change(call: &Call) -> Result<Filter, Refusal> {
        let filter = Filter::read(call, "all")?;
        let is_all = call.query.flag("all")?;
        let names_some = FILTERS.iter().any(|name| matches!(call.query.text(name), Ok(Some(_))));
        if names_some == is_all {
            let text = "One of the query parameters that say which dead letters are meant is missing.";
            let refusal = Refusal::new(Code::InvalidQueryParameterValue, text).with("QueryParameterName", "all");
            return Err(refusal.hint(&format!("Name some by {}, or all of them by all=true alone.", FILTERS.join(", "))));
        }
        Ok(filter)
    }

    fn takes(&self, letter: &Delivery) -> bool {
        let burial = letter.burial();
        let kind = Kind::of(&burial.exchange);
        let is = |wanted: &Option<String>, given: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| given.is_some_and(|given| given.eq_ignore_ascii_case(wanted)))
        };
        self.kind.is_none_or(|wanted| wanted == kind)
            && is(&self.pool, pool(letter, &burial, kind).as_deref())
            && is(&self.function, function(letter, kind).as_deref())
            && is(&self.reason, Some(&burial.reason))
            && self.before.is_none_or(|before| burial.at.is_some_and(|at| at < before))
            && self.after.is_none_or(|after| burial.at.is_some_and(|at| at > after))
    }
}

fn answer<T: Serialize>(value: &T) -> Result<Answer, Refusal> {
    let text = serde_json::to_vec(value).map_err(|_| Refusal::new(Code::InternalError, "The answer has no JSON form."))?;
    Ok(Answer::own_json(200, text))
}

async fn look(api: &ApiState, call: &Call, choose: impl FnMut(&Delivery) -> Choice + Send) -> Result<Look, Refusal> {
    let time: Duration = call.patience / LOOK_SHARE;
    api.dead_letters.look(Instant::now() + time, choose).await
}

/// Does this to the letter in the path, and stops there.
async fn look_at_one(api: &ApiState, call: &Call, mut choose: impl FnMut(&Delivery) -> Choice + Send) -> Result<Look, Refusal> {
    let id = call.value(0).to_ascii_lowercase();
    let mut is_found = false;
    let look = look(api, call, |letter| {
        if is_found {
            return Choice::Stop;
        }
        is_found = letter_id(letter) == id;
        if is_found { choose(letter) } else { Choice::Leave }
    });
    let look = look.await?;
    if is_found {
        return Ok(look);
    }
    Err(Refusal::new(Code::ResourceNotFound, "There is no such dead letter.")
        .with("DeadLetter", id.chars().take(64).collect::<String>())
        .with("Looked", look.looked)
        .with("Left", look.left)
        .hint(&format!("GET /piecework/dead lists them; one look reaches the oldest {LOOKED_MAX} at most.")))
}

/// The oldest dead letters that a filter takes.
pub async fn list(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let filter = Filter::read(call, "count")?;
    let shown_max = call.query.number("count", 1, SHOWN_MAX)?.unwrap_or(SHOWN_DEFAULT) as usize;
    let mut value = Vec::new();
    let look = look(api, call, |letter| {
        if !filter.takes(letter) {
            return Choice::Leave;
        }
        value.push(view(letter));
        if value.len() < shown_max { Choice::Leave } else { Choice::Stop }
    });
    let look = look.await?;
    answer(&Listed { value, looked: look.looked, left: look.left })
}

/// One dead letter with its body.
pub async fn get(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let mut found = None;
    look_at_one(api, call, |letter| {
        found = Some(whole(letter));
        Choice::Stop
    })
    .await?;
    answer(&found)
}

fn replayed(look: Look, call: &Call) -> Result<Answer, Refusal> {
    let Look { looked, left, replayed, unreplayed, unreplayed_count, .. } = look;
    tracing::info!(replayed, unreplayed = unreplayed_count, request = %call.id, path = call.path, "dead letters were replayed");
    let unreplayed = unreplayed.into_iter().map(|told| Unreplayed { id: told.id, reason: told.reason }).collect();
    answer(&Replayed { replayed, unreplayed, unreplayed_count, looked, left })
}

/// Publishes the letters that a filter takes where they first came from.
pub async fn replay(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let filter = Filter::read_for_change(call)?;
    let look = look(api, call, |letter| if filter.takes(letter) { Choice::Replay } else { Choice::Leave });
    replayed(look.await?, call)
}

/// Publishes one letter where it first came from.
pub async fn replay_one(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    replayed(look_at_one(api, call, |_| Choice::Replay).await?, call)
}

/// Removes the letters that a filter takes.
pub async fn discard(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let filter = Filter::read_for_change(call)?;
    let look = look(api, call, |letter| if filter.takes(letter) { Choice::Remove } else { Choice::Leave }).await?;
    tracing::info!(discarded = look.removed, request = %call.id, "dead letters were discarded");
    answer(&Discarded { discarded: look.removed, looked: look.looked, left: look.left })
}

/// Removes one letter.
pub async fn discard_one(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    look_at_one(api, call, |_| Choice::Remove).await?;
    tracing::info!(letter = call.value(0), request = %call.id, "a dead letter was discarded");
    Ok(Answer::empty(204))
}
