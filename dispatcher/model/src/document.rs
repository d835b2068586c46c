//! Stored JSON documents. They change in one way only: the engine sets and removes top-level properties in the
//! transaction of the change.

use serde_json::{Map, Value};

/// Top-level properties of a document.
pub type Properties = Map<String, Value>;

/// Parses a stored document; `None` when it is not a JSON object.
pub fn read(document: &str) -> Option<Properties> {
    serde_json::from_str(document).ok()
}

/// Returns the document with `changes` applied: null removes a property, any other value replaces it.
pub fn changed(mut document: Properties, changes: Properties) -> String {
    for (name, value) in changes {
        match value {
            Value::Null => drop(document.remove(&name)),
            value => drop(document.insert(name, value)),
        }
    }
    Value::Object(document).to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn null_removes_and_everything_else_replaces() {
        let document = read(r#"{"a":1,"b":{"c":2},"d":[3]}"#).unwrap();
        let changes = json!({"a": null, "b": {}, "e": "new", "f": null});
        assert_eq!(changed(document, changes.as_object().unwrap().clone()), r#"{"b":{},"d":[3],"e":"new"}"#);
        assert_eq!((read("[]"), read("{")), (None, None));
    }
}
