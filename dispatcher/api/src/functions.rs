//! Functions of pools: add, list, get, deploy another version, go back to one, delete; and uploads of their packages.
//!
//! ```text
//! PUT functionpackages/{sha256} ──► a URL to upload the zip to, or that it is there ──► POST or PATCH names its hash
//! ```

use std::time::Duration;

use clients::blobs::BlobError;
use contract::{
    function::{IDLE_DEFAULT, PACKAGE_ENDING, PACKAGES, RETRIES_DEFAULT, TIMEOUT_DEFAULT, header},
    time::Timestamp,
};
use engine::{command::Command, messaging::Invocation};
use http::HeaderName;
use model::{
    condition::etag,
    function::{FunctionChange, FunctionRow},
    refusal::{Code, Refusal},
};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::{
    answer::{Answer, Iso},
    body::Object,
    call::Call,
    error::{not_found, store_failed},
    lists::{Paging, ROWS_MAX},
    state::ApiState,
};

/// How long an upload may be begun with its URL.
const UPLOAD_TIME: Duration = Duration::from_secs(4 * 3600);
/// How long the blob store may take for one question.
const BLOB_TIMEOUT: Duration = Duration::from_secs(20);
/// Left of a request's time when the wait for a function ends.
const ANSWER_MARGIN: Duration = Duration::from_secs(1);
/// Digits of a package's name.
const HASH_DIGITS: usize = 64;

/// The properties of a version that are taken as they are.
const TEXTS: [&str; 4] = ["handler", "commandLine", "timeout", "idleTime"];
/// Those that are numbers.
const NUMBERS: [&str; 4] = ["memoryMiB", "concurrencyPerNode", "warmInstances", "maxRetryCount"];

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PackageView<'a> {
    sha256: &'a str,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upload_url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upload_url_expiry: Option<Iso>,
}

fn view(row: &FunctionRow) -> Vec<u8> {
    let object = |value| match value {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    let shown = |spec| object(serde_json::to_value(spec).unwrap_or_default());
    let mut fields = row.active().map(|active| shown(&active.spec)).unwrap_or_default();
    let time = |at| serde_json::to_value(Iso(at)).unwrap_or_default();
    let versions = row.versions.iter().map(|version| {
        let mut fields = shown(&version.spec);
        fields.retain(|name, _| ["runtime", "handler", "commandLine", "package"].contains(&name.as_str()));
        fields.insert("version".into(), version.number.into());
        fields.insert("creationTime".into(), time(version.created_at));
        Value::Object(fields)
    });
    let versions: Vec<Value> = versions.collect();
    fields.extend(object(json!({
        "id": row.id, "poolId": row.pool, "version": row.active, "eTag": etag(row.version), "creationTime": time(row.created_at),
        "lastModified": time(row.modified_at), "versions": versions,
    })));
    Value::Object(fields).to_string().into_bytes()
}

fn answer(status: u16, text: Vec<u8>) -> Answer {
    let answer = Answer::json(text).with(http::header::CONTENT_TYPE, "application/json");
    Answer { status: Answer::empty(status).status, ..answer }
}

async fn find(api: &ApiState, call: &Call) -> Result<FunctionRow, Refusal> {
    let (pool, function) = (call.pool()?, call.function()?);
    let row = api.read.function(&pool, &function).await.map_err(store_failed)?;
    row.ok_or_else(|| not_found(Code::FunctionNotFound, &function))
}

/// The given properties of a version, null where a patch removes one.
fn settings(body: &Object<'_>) -> Map<String, Value> {
    let mut settings = Map::new();
    let mut set = |name: &str, value: Option<Value>| {
        let is_removed = body.fields().get(name).is_some_and(Value::is_null);
        if let Some(value) = value.or_else(|| is_removed.then_some(Value::Null)) {
            settings.insert(name.to_owned(), value);
        }
    };
    set("runtime", body.word("runtime").map(Value::from));
    set("package", body.text("package").map(|hash| hash.to_ascii_lowercase().into()));
    TEXTS.iter().for_each(|name| set(name, body.text(name).map(Value::from)));
    NUMBERS.iter().for_each(|name| set(name, body.integer::<u32>(name).map(Value::from)));
    set("environmentSettings", body.value("environmentSettings").cloned());
    settings
}

/// Properties with a default get it where they are missing, or where a patch removes them.
fn with_defaults(mut settings: Map<String, Value>, is_whole: bool) -> Map<String, Value> {
    let defaults = [
        ("timeout", json!(TIMEOUT_DEFAULT)),
        ("idleTime", json!(IDLE_DEFAULT)),
        ("maxRetryCount", json!(RETRIES_DEFAULT)),
        ("warmInstances", json!(0)),
    ];
    for (name, default) in defaults {
        match settings.get(name) {
            Some(Value::Null) => settings.insert(name.to_owned(), default),
            None if is_whole => settings.insert(name.to_owned(), default),
            _ => None,
        };
    }
    settings
}

fn hash(text: &str) -> Option<String> {
    let is_hash = text.len() == HASH_DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hash.then(|| text.to_ascii_lowercase())
}

fn key(hash: &str) -> String {
    format!("{PACKAGES}{hash}{PACKAGE_ENDING}")
}

/// The length of a package, if it was uploaded.
async fn length(api: &ApiState, hash: &str) -> Result<Option<u64>, Refusal> {
    let bucket = &api.blobs.settings().own_bucket;
    match tokio::time::timeout(BLOB_TIMEOUT, api.blobs.head(bucket, &key(hash))).await {
        Ok(Ok(info)) => Ok(Some(info.length)),
        Ok(Err(BlobError::NotFound { .. })) => Ok(None),
        Ok(Err(error)) => {
            tracing::warn!(%error, "the blob store failed to say whether the package of a function is there");
            Err(Refusal::new(Code::ServerBusy, "The blob store did not answer as expected.")
                .hint("Try again; the dispatcher's log names the cause."))
        }
        Err(_) => Err(Refusal::new(Code::OperationTimedOut, "The blob store did not answer in time.")),
    }
}

/// Refuses a package that no node could get.
async fn check_package(api: &ApiState, body: &Object<'_>) -> Result<(), Refusal> {
    let Some(text) = body.text("package") else { return Ok(()) };
    let hash = hash(text).ok_or_else(|| body.invalid("package", "It is the SHA-256 of the zip, 64 hexadecimal digits."))?;
    match length(api, &hash).await? {
        Some(_) => Ok(()),
        None => Err(body
            .invalid("package", "Nothing has been uploaded under this hash.")
            .hint("PUT /piecework/functionpackages/{sha256} says where to upload the zip.")),
    }
}

/// Adds a function.
pub async fn add(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let pool = call.pool()?;
    let body = call.json()?;
    let root = body.root();
    let id: contract::ids::FunctionId = root.required_id("id");
    check_package(api, &root).await?;
    let settings = with_defaults(settings(&root), true);
    api.change(Command::CreateFunction(pool.clone(), id.clone(), settings)).await?;
    let row = api.read.function(&pool, &id).await.map_err(store_failed)?;
    let row = row.ok_or_else(|| not_found(Code::FunctionNotFound, &id))?;
    Ok(answer(201, view(&row)).changed(row.version, row.modified_at))
}

/// A page of a pool's functions.
pub async fn list(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let pool = call.pool()?;
    if api.read.pool(&pool).await.map_err(store_failed)?.is_none() {
        return Err(not_found(Code::PoolNotFound, &pool));
    }
    let paging = Paging::read(call, ROWS_MAX)?;
    let rows = api.read.functions(&pool, paging.all()).await.map_err(store_failed)?;
    Ok(paging.answer(call, "piecework/functions", &rows, |row| row.id.as_str(), view))
}

/// One function.
pub async fn get(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let row = find(api, call).await?;
    Ok(answer(200, view(&row)).changed(row.version, row.modified_at))
}

/// Deploys a new version, or lets another one take new invocations.
pub async fn patch(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let (pool, function) = (call.pool()?, call.function()?);
    let body = call.json()?;
    let root = body.root();
    check_package(api, &root).await?;
    let changed = with_defaults(settings(&root), false);
    let change = match root.integer::<u32>("version") {
        Some(_) if !changed.is_empty() => {
            return Err(root.invalid("version", "A version cannot be changed: name one to go back to, or properties of a new one."));
        }
        Some(number) => FunctionChange::Activate(number),
        None => FunctionChange::Deploy(changed),
    };
    api.change(Command::ChangeFunction(pool, function, change, call.condition.clone())).await?;
    get(api, call).await
}

/// Removes a function.
pub async fn delete(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    api.change(Command::DeleteFunction(call.pool()?, call.function()?, call.condition.clone())).await?;
    Ok(Answer::empty(204))
}

/// Says whether a package is there, and where to upload it.
pub async fn begin_package(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let hash = hash(call.value(0)).ok_or_else(|| {
        let refusal = Refusal::new(Code::InvalidUri, "The requested URI does not represent any resource on the server.");
        refusal.with("Reason", "A package is named by the SHA-256 of its zip, 64 hexadecimal digits.")
    })?;
    let bytes = length(api, &hash).await?;
    let mut view = PackageView { sha256: &hash, state: "active", bytes, upload_url: None, upload_url_expiry: None };
    if bytes.is_none() {
        let url = api.blobs.presign_put(&api.blobs.settings().own_bucket, &key(&hash), UPLOAD_TIME).await;
        let url = url.map_err(|error| {
            tracing::warn!(%error, "the upload of a function's package cannot begin");
            Refusal::new(Code::ServerBusy, "The blob store did not answer as expected.")
                .hint("Try again; the dispatcher's log names the cause.")
        })?;
        let expiry = Timestamp::now().plus_ms(UPLOAD_TIME.as_millis() as i64);
        view = PackageView { state: "pending", upload_url: Some(url), upload_url_expiry: Some(Iso(expiry)), ..view };
    }
    let text = serde_json::to_vec(&view).map_err(|_| Refusal::new(Code::InternalError, "The answer has no JSON form."))?;
    Ok(answer(200, text))
}

/// The event that a request brings.
async fn invocation(api: &ApiState, call: &Call) -> Result<Invocation, Refusal> {
    let row = find(api, call).await?;
    let header = |name: &str| call.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    Ok(Invocation {
        pool: row.pool,
        function: row.id,
        body: call.body.to_vec(),
        content_type: header("content-type"),
        traceparent: header("traceparent"),
    })
}

/// What an answer of a function says beside its body.
const ANSWERED: [&str; 6] = [header::STATUS, header::ERROR, header::DURATION, header::VERSION, header::BLOB_URL, header::BLOB_BYTES];

/// Invokes a function and waits for its answer.
pub async fn invoke(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    // The pipeline's own patience would end first and say less.
    let wait = call.patience.saturating_sub(ANSWER_MARGIN);
    let delivery = api.invocations.invoke(invocation(api, call).await?, wait).await?;
    let content_type = delivery.content_type().unwrap_or("application/octet-stream").to_owned();
    let said: Vec<_> = ANSWERED.iter().filter_map(|name| Some((*name, delivery.header_as_text(name)?))).collect();
    let length = delivery.body.len() as u64;
    let mut answer = Answer::bytes(axum::body::Body::from(delivery.body), length, &content_type);
    for (name, value) in said {
        answer = answer.with(HeaderName::from_static(name), &value);
    }
    Ok(answer)
}

/// Invokes a function and does not wait.
pub async fn invoke_async(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let id = api.invocations.send(invocation(api, call).await?).await?;
    Ok(answer(202, json!({"messageId": id}).to_string().into_bytes()))
}
