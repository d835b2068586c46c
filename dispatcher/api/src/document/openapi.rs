//! The OpenAPI document, kept as `docs/openapi.json` and served at `/piecework/openapi.json`.

use std::sync::LazyLock;

use model::refusal::Refusal;
use serde_json::{Map, Value, json};

use crate::{
    answer::Answer,
    call::Call,
    conditional::Honours,
    document::{
        json_schema::{self, reference},
        operations::{Extent, Gives, Operation},
    },
    routes::{ROUTES, Route, Served},
    schema,
    state::ApiState,
};

/// The version that examples name.
const VERSION: &str = "2024-02-01.19.0";

static TEXT: LazyLock<String> = LazyLock::new(openapi);

/// Serves the document.
pub async fn get(_: &ApiState, _: &Call) -> Result<Answer, Refusal> {
    Ok(Answer::json(TEXT.as_bytes().to_vec()))
}

/// Writes the document.
pub fn openapi() -> String {
    let mut paths: Map<String, Value> = Map::new();
    for route in ROUTES {
        let Some(row) = Operation::of(route.name) else { continue };
        let path = paths.entry(path(route)).or_insert_with(|| json!({}));
        path[route.method.as_str().to_ascii_lowercase()] = operation(route, row);
    }
    let schemas: Map<String, Value> = schema::shapes().iter().map(|shape| (shape.name.to_owned(), json_schema::schema(shape))).collect();
    let document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Piecework",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Azure Batch's REST API, as far as docs/azure-batch-compatibility.md says, and Piecework's own below /piecework.",
            "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
        },
        "security": [{"sharedKey": []}, {"bearer": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": {"Error": {
                "description": "What went wrong, and in `values` what to do next",
                "content": {"application/json": {"schema": reference("BatchError")}},
            }},
            "securitySchemes": {
                "sharedKey": {"type": "apiKey", "in": "header", "name": "Authorization", "description": "SharedKey ACCOUNT:SIGNATURE"},
                "bearer": {"type": "http", "scheme": "bearer"},
            },
        },
    });
    let mut text = serde_json::to_string_pretty(&document).expect("a document of texts has a JSON form");
    text.push('\n');
    text
}

fn path(route: &Route) -> String {
    route.path.replace("*}", "}").replace("(*)", "(thumbprintAlgorithm={thumbprintAlgorithm},thumbprint={thumbprint})")
}

fn operation(route: &Route, row: &Operation) -> Value {
    let mut operation = json!({
        "operationId": route.name,
        "summary": row.summary,
        "tags": [route.name.split('.').next()],
        "parameters": parameters(route),
        "responses": responses(route, row),
    });
    match (route.served, row.extent) {
        (Served::NotYet(hint), _) => operation["description"] = json!(format!("Not served yet. {hint}")),
        (_, Extent::But(missing)) => operation["description"] = json!(format!("Partly: {missing}.")),
        (_, Extent::Refuses(why)) => operation["description"] = json!(format!("Always refused: {why}.")),
        (_, Extent::Whole) => {}
    }
    if route.is_open() {
        operation["security"] = json!([]);
    }
    if let Some(shape) = row.takes {
        operation["requestBody"] = json!({
            "required": shape.ends_with('!'),
            "content": {"application/json": {"schema": reference(shape.trim_end_matches('!'))}},
        });
    }
    operation
}

fn parameter(name: &str, place: &str, schema: Value) -> Value {
    json!({"name": name, "in": place, "required": place == "path", "schema": schema})
}

fn parameters(route: &Route) -> Vec<Value> {
    let path = path(route);
    let names = path.split('{').skip(1).filter_map(|part| part.split_once('}')).map(|(name, _)| name);
    let mut all: Vec<Value> = names.map(|name| parameter(name, "path", json!({"type": "string", "minLength": 1}))).collect();
    if !route.is_ours() {
        let version = json!({"type": "string", "pattern": r"^\d{4}-\d{2}-\d{2}(\.\d{1,2}\.\d{1,2})?$", "example": VERSION});
        all.push(json!({"name": "api-version", "in": "query", "required": true, "schema": version}));
    }
    all.extend(route.query.iter().map(|name| parameter(name, "query", query(name))));
    all.push(parameter("timeout", "query", json!({"type": "integer", "minimum": 1, "description": "Seconds"})));
    let conditions: &[&str] = match route.honours {
        Honours::All => &["If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since"],
        Honours::Times => &["If-Modified-Since", "If-Unmodified-Since"],
        Honours::Nothing => &[],
    };
    all.extend(conditions.iter().map(|name| parameter(name, "header", json!({"type": "string"}))));
    if route.name.starts_with("file.get_") {
        all.push(parameter("ocp-range", "header", json!({"type": "string", "pattern": r"^bytes=\d+-\d*$"})));
    }
    if Operation::of(route.name).is_some_and(|row| row.takes.is_some()) {
        let strict = json!({"type": "boolean", "description": "Refuse properties that the operation does not have"});
        all.push(parameter("piecework-strict", "header", strict));
    }
    for name in ["client-request-id", "ocp-date"] {
        all.push(parameter(name, "header", json!({"type": "string"})));
    }
    all.push(parameter("return-client-request-id", "header", json!({"type": "boolean"})));
    all
}

fn query(name: &str) -> Value {
    match name {
        "maxresults" => json!({"type": "integer", "minimum": 1, "maximum": 1000}),
        "count" => json!({"type": "integer", "minimum": 1, "maximum": 100}),
        "recursive" | "force" | "all" => json!({"type": "boolean"}),
        "$expand" => json!({"type": "string", "enum": ["stats"]}),
        "kind" => json!({"type": "string", "enum": ["submission", "function", "other"]}),
        "olderthan" | "newerthan" => json!({"type": "string", "format": "duration"}),
        "starttime" | "endtime" => json!({"type": "string", "format": "date-time"}),
        _ => json!({"type": "string"}),
    }
}

fn responses(route: &Route, row: &Operation) -> Value {
    let mut responses = Map::new();
    let json = |schema: Value| json!({"description": row.summary, "content": {"application/json": {"schema": schema}}});
    let good = match row.gives {
        Gives::Nothing => json!({"description": row.summary}),
        Gives::One("OpenApi") => json(json!({"type": "object"})),
        Gives::One(shape) => json(reference(shape)),
        Gives::Page(shape) => json(json!({
            "type": "object",
            "properties": {
                "odata.metadata": {"type": "string"},
                "value": {"type": "array", "items": reference(shape)},
                "odata.nextLink": {"type": "string", "format": "uri"},
            },
        })),
        Gives::Text => json!({"description": row.summary, "content": {"text/plain": {"schema": {"type": "string"}}}}),
        Gives::Bytes => json!({"description": row.summary, "content": {"application/octet-stream": {}}}),
    };
    if matches!(route.served, Served::Yes(_)) && !matches!(row.extent, Extent::Refuses(_)) {
        responses.insert(row.status.to_string(), good);
    }
    if route.honours != Honours::Nothing && matches!(*route.method.as_str().as_bytes(), [b'G', ..] | [b'H', ..]) {
        responses.insert("304".to_owned(), json!({"description": "Not modified"}));
    }
    let error = json!({"$ref": "#/components/responses/Error"});
    responses.insert("4XX".to_owned(), error.clone());
    responses.insert("default".to_owned(), error);
    Value::Object(responses)
}
