//! A short notation for the shapes of bodies, and its translation to JSON Schema.
//!
//! ```text
//! id! id; priority int(-1000..1000); constraints JobConstraints; metadata [MetadataItem]; order word(none|creationtime)
//! ```
//! `!` marks what is required; `[T]` is a list; a name that begins with a capital is another shape.

use serde_json::{Map, Value, json};

/// One property of a shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Property<'a> {
    /// Its JSON name.
    pub name: &'a str,
    /// Whether it must be there.
    pub is_required: bool,
    /// Its type, in the notation.
    pub kind: &'a str,
}

/// The properties of a shape.
pub fn properties(shape: &str) -> impl Iterator<Item = Property<'_>> {
    shape.split(';').map(str::trim).filter(|part| !part.is_empty()).map(|part| {
        let (name, kind) = part.split_once(' ').unwrap_or((part, "text"));
        Property { name: name.trim_end_matches('!'), is_required: name.ends_with('!'), kind: kind.trim() }
    })
}

/// The shape as a JSON Schema.
pub fn schema(shape: &str) -> Value {
    let fields: Map<String, Value> = properties(shape).map(|property| (property.name.to_owned(), kind(property.kind))).collect();
    let required: Vec<_> = properties(shape).filter(|property| property.is_required).map(|property| property.name).collect();
    let mut schema = json!({"type": "object", "properties": fields});
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

/// Where a shape stands in the document.
pub fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// A type of the notation as a JSON Schema.
pub fn kind(kind: &str) -> Value {
    if let Some(inner) = kind.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return json!({"type": "array", "items": self::kind(inner)});
    }
    let (name, bounds) = kind.strip_suffix(')').and_then(|rest| rest.split_once('(')).unwrap_or((kind, ""));
    match name {
        "id" => json!({"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"}),
        "text" if bounds.is_empty() => json!({"type": "string"}),
        "text" => json!({"type": "string", "maxLength": number(bounds)}),
        "word" => json!({"type": "string", "enum": bounds.split('|').collect::<Vec<_>>()}),
        "flag" => json!({"type": "boolean"}),
        "time" => json!({"type": "string", "format": "date-time"}),
        "period" => json!({"type": "string", "format": "duration", "example": "PT15M"}),
        "float" => json!({"type": "number"}),
        "int" => integer("int32", bounds),
        "long" => integer("int64", bounds),
        "texts" => json!({"type": "object", "additionalProperties": {"type": "string"}}),
        "any" => json!({}),
        "object" => json!({"type": "object"}),
        shape => reference(shape),
    }
}

fn number(text: &str) -> Option<i64> {
    text.parse().ok()
}

fn integer(format: &str, bounds: &str) -> Value {
    let (least, most) = bounds.split_once("..").unwrap_or((bounds, ""));
    let mut schema = json!({"type": "integer", "format": format});
    if let Some(least) = number(least) {
        schema["minimum"] = json!(least);
    }
    if let Some(most) = number(most) {
        schema["maximum"] = json!(most);
    }
    schema
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_notation_becomes_a_schema() {
        assert_eq!(
            schema("id! id; slots int(1..256); tags [Tag]; order word(a|b); note text(9)"),
            json!({
                "type": "object",
                "properties": {
                    "id": {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"},
                    "slots": {"type": "integer", "format": "int32", "minimum": 1, "maximum": 256},
                    "tags": {"type": "array", "items": {"$ref": "#/components/schemas/Tag"}},
                    "order": {"type": "string", "enum": ["a", "b"]},
                    "note": {"type": "string", "maxLength": 9},
                },
                "required": ["id"],
            })
        );
    }
}
