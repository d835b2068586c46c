//! Functions of pools: add, list, get, deploy another version, go back to one, delete, invoke.

use contract::{
    function::{IDLE_DEFAULT, RETRIES_DEFAULT, TIMEOUT_DEFAULT, header},
    ids::FunctionId,
};
use engine::{command::Command, messaging::Invocation};
use http::HeaderName;
use model::{
    condition::etag,
    function::{FunctionChange, FunctionRow},
    refusal::{Code, Refusal},
};
use serde_json::{Map, Value, json};

use crate::{
    answer::{Answer, Iso},
    body::Object,
    call::Call,
    error::{not_found, store_failed},
    function_packages,
    lists::{Paging, ROWS_MAX},
    state::ApiState,
};

/// Functions of the same name that are looked at.
const NAMESAKES_MAX: usize = 10;

/// The properties of a version that are taken as they are.
const TEXTS: [&str; 4] = ["handler", "commandLine", "timeout", "idleTime"];
/// Those that are numbers.
const NUMBERS: [&str; 4] = ["memoryMiB", "concurrencyPerNode", "warmInstances", "maxRetryCount"];

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

/// Adds a function.
pub async fn add(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let pool = call.pool()?;
    let body = call.json()?;
    let root = body.root();
    let id: FunctionId = root.required_id("id");
    function_packages::check(api, call, &root).await?;
    let settings = with_defaults(settings(&root), true);
    api.change(Command::CreateFunction(pool.clone(), id.clone(), settings)).await?;
    let row = api.read.function(&pool, &id).await.map_err(store_failed)?;
    let row = row.ok_or_else(|| not_found(Code::FunctionNotFound, &id))?;
    Ok(Answer::own_json(201, view(&row)).changed(row.version, row.modified_at))
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
    Ok(Answer::own_json(200, view(&row)).changed(row.version, row.modified_at))
}

/// Deploys a new version, or lets another one take new invocations.
pub async fn patch(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let (pool, function) = (call.pool()?, call.function()?);
    let body = call.json()?;
    let root = body.root();
    function_packages::check(api, call, &root).await?;
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

/// The function of this name, whatever its pool, if there is one alone.
async fn find_alone(api: &ApiState, call: &Call) -> Result<FunctionRow, Refusal> {
    let function: FunctionId = call.function_alone()?;
    let mut rows = api.read.functions_named(&function, NAMESAKES_MAX).await.map_err(store_failed)?;
    match (rows.pop(), rows.len()) {
        (Some(row), 0) => Ok(row),
        (None, _) => Err(not_found(Code::FunctionNotFound, &function)),
        (Some(row), _) => {
            let pools: Vec<&str> = rows.iter().chain([&row]).map(|row| row.pool.as_str()).collect();
            let text = "Several pools have a function of this name.";
            let refusal = Refusal::new(Code::OperationInvalidForCurrentState, text).with("FunctionId", &function);
            Err(refusal.with("Pools", pools.join(", ")).hint("POST /piecework/pools/{pool}/functions/{function}/invoke names the pool."))
        }
    }
}

/// The event that a request brings.
fn invocation(row: FunctionRow, call: &Call) -> Invocation {
    let header = |name: &str| call.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    Invocation {
        pool: row.pool,
        function: row.id,
        body: call.body.to_vec(),
        content_type: header("content-type"),
        traceparent: header("traceparent"),
    }
}

/// What an answer of a function says beside its body.
const ANSWERED: [&str; 6] = [header::STATUS, header::ERROR, header::DURATION, header::VERSION, header::BLOB_URL, header::BLOB_BYTES];

/// Invokes a function and waits for its answer.
pub async fn invoke(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    wait_for(api, call, find(api, call).await?).await
}

/// The same of a function whose pool need not be named.
pub async fn invoke_alone(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    wait_for(api, call, find_alone(api, call).await?).await
}

async fn wait_for(api: &ApiState, call: &Call, row: FunctionRow) -> Result<Answer, Refusal> {
    let wait = call.patience_with_others();
    let delivery = api.invocations.invoke(invocation(row, call), wait).await?;
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
    send(api, call, find(api, call).await?).await
}

/// The same of a function whose pool need not be named.
pub async fn invoke_async_alone(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    send(api, call, find_alone(api, call).await?).await
}

async fn send(api: &ApiState, call: &Call, row: FunctionRow) -> Result<Answer, Refusal> {
    let id = api.invocations.send(invocation(row, call)).await?;
    Ok(Answer::own_json(202, json!({"messageId": id}).to_string().into_bytes()))
}
