//! Finds properties of a request body that its operation does not know.
//!
//! They are listed in the answer's header `piecework-ignored`, and refused when the request says `piecework-strict:
//! true`.

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde_json::{Map, Value};

use crate::{
    document::operations::Operation,
    schema::{self, Shape, trail::Trail},
};

/// Properties that are listed by name; further ones are only counted.
pub const NAMED_MAX: usize = 16;
/// Characters of each listed name.
const NAME_CHARS_MAX: usize = 128;

/// Unknown properties of a body: the first ones by path, and the total.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unknown {
    /// Their paths, as in `constraints.retries` and `value[3].comandLine`.
    pub named: Vec<String>,
    /// Total number, including the listed ones.
    pub count: usize,
}

/// The properties of a body that its operation's shape does not have. Properties that are null are skipped.
pub fn find(operation: &str, body: &Map<String, Value>) -> Unknown {
    let mut unknown = Unknown::default();
    if let Some(shape) = Operation::body(operation) {
        walk(schema::shape(shape), body, &Trail::Root, &mut unknown);
    }
    unknown
}

fn walk(shape: &Shape, fields: &Map<String, Value>, trail: &Trail<'_>, unknown: &mut Unknown) {
    for (name, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
        let trail = Trail::Name(trail, name);
        match shape.property(name) {
            None => unknown.add(&trail),
            Some(property) => {
                if let Some(inner) = property.kind.inner() {
                    descend(inner, value, &trail, unknown);
                }
            }
        }
    }
}

fn descend(shape: &Shape, value: &Value, trail: &Trail<'_>, unknown: &mut Unknown) {
    match value {
        Value::Object(fields) => walk(shape, fields, trail, unknown),
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                if let Value::Object(fields) = item {
                    walk(shape, fields, &Trail::Item(trail, index), unknown);
                }
            }
        }
        _ => {}
    }
}

impl Unknown {
    fn add(&mut self, trail: &Trail<'_>) {
        self.count += 1;
        if self.named.len() < NAMED_MAX {
            self.named.push(trail.to_string().chars().take(NAME_CHARS_MAX).collect());
        }
    }

    /// Adds those of another body, whose names follow `prefix`.
    pub fn add_all(&mut self, prefix: &str, other: Unknown) {
        let room = NAMED_MAX.saturating_sub(self.named.len());
        self.named.extend(other.named.into_iter().take(room).map(|name| format!("{prefix}{name}")));
        self.count += other.count;
    }

    /// The header's value, percent-encoded where a name contains what a header cannot; `None` when no property is
    /// unknown.
    pub fn header(&self) -> Option<String> {
        const PLAIN: &AsciiSet = &CONTROLS.add(b' ').add(b',').add(b'%').add(b'"');
        if self.count == 0 {
            return None;
        }
        let mut names: Vec<String> = self.named.iter().map(|name| utf8_percent_encode(name, PLAIN).to_string()).collect();
        if self.count > names.len() {
            names.push(format!("(and {} more)", self.count - names.len()));
        }
        Some(names.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn header(operation: &str, body: Value) -> Option<String> {
        find(operation, body.as_object().unwrap()).header()
    }

    #[test]
    fn what_no_shape_has_is_named_by_its_path() {
        let task = json!({
            "id": "t", "comandLine": "x", "constraints": {"maxTaskRetries": 1, "retentionTime": null}, "gone": null,
            "resourceFiles": [{"httpUrl": "http://h/x", "filePath": "x"}, {"httpURL": "http://h/x"}],
            "outputFiles": [{"destination": {"container": {"a b,c": 1}}}],
        });
        let wanted = "comandLine, constraints.maxTaskRetries, outputFiles[0].destination.container.a%20b%2Cc, resourceFiles[1].httpURL";
        assert_eq!(header("task.add", task.clone()).unwrap(), wanted);
        assert!(header("task.add_collection", json!({"value": [{"id": "u"}, task]})).unwrap().starts_with("value[1].comandLine, "));
        assert_eq!(header("task.add", json!({"id": "t", "commandLine": "x", "constraints": {"maxTaskRetryCount": 1}})), None);
        assert_eq!(header("pool.get", json!({"anything": 1})), None, "an operation without a body has nothing to say");
    }

    #[test]
    fn names_are_free_where_azure_leaves_them_free_and_many_are_counted() {
        assert_eq!(header("pool.add", json!({"resourceTags": {"mine": "x"}, "metadata": [{"name": "a", "value": "b"}]})), None);
        let many: Map<String, Value> = (0..NAMED_MAX + 3).map(|n| (format!("n{n:02}"), json!(1))).collect();
        let header = find("pool.add", &many).header().unwrap();
        assert!(header.starts_with("n00, n01, ") && header.ends_with(", n15, (and 3 more)"), "{header}");
        let long = find("pool.add", json!({"é".repeat(500): 1}).as_object().unwrap()).header().unwrap();
        assert!(long.is_ascii() && long.len() <= 6 * NAME_CHARS_MAX, "{long}");
    }
}
