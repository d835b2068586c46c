//! The shapes of the schema as JSON Schemas.

use serde_json::{Map, Value, json};

use crate::schema::{Effect, Kind, Property, Shape};

/// A shape as a JSON Schema.
pub fn schema(shape: &Shape) -> Value {
    let fields: Map<String, Value> = shape.properties.iter().map(|property| (property.name.to_owned(), kind(&property.kind))).collect();
    let required: Vec<_> = shape.properties.iter().filter(|property| is_required(shape, property)).map(|property| property.name).collect();
    let mut schema = json!({"type": "object", "properties": fields});
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

/// Whether a property is required. It is not when another supported one may stand for it.
fn is_required(shape: &Shape, property: &Property) -> bool {
    let stands_for = |other: &Property| !matches!(other.effect, Effect::Refused(..)) && property.excludes.contains(&other.name);
    property.is_required && !shape.properties.iter().any(stands_for)
}

/// Reference to a shape in the document.
pub fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

fn kind(kind: &Kind) -> Value {
    match kind {
        Kind::Id => json!({"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"}),
        Kind::Version => json!({"type": "string", "maxLength": 64}),
        Kind::Text(least, most) => bounded(json!({"type": "string"}), ("minLength", *least), ("maxLength", *most)),
        Kind::Formula => json!({"type": "string", "maxLength": scaling::formula::CHARS_MAX}),
        Kind::Word(words) => json!({"type": "string", "enum": words}),
        Kind::Flag => json!({"type": "boolean"}),
        Kind::Time => json!({"type": "string", "format": "date-time"}),
        Kind::Period(..) => json!({"type": "string", "format": "duration", "example": "PT15M"}),
        Kind::Float => json!({"type": "number"}),
        Kind::Int { least, most, is_long } => integer(*least, *most, *is_long),
        Kind::Texts(_) => json!({"type": "object", "additionalProperties": {"type": "string"}}),
        Kind::Any => json!({}),
        Kind::Object => json!({"type": "object"}),
        Kind::Shape(_) => reference(kind.object().map_or("", |shape| shape.name)),
        Kind::List(inner, least, _) => {
            bounded(json!({"type": "array", "items": self::kind(inner)}), ("minItems", *least), ("", usize::MAX))
        }
    }
}

fn bounded(mut schema: Value, (at_least, least): (&str, usize), (at_most, most): (&str, usize)) -> Value {
    if least > 0 {
        schema[at_least] = json!(least);
    }
    if most < usize::MAX {
        schema[at_most] = json!(most);
    }
    schema
}

fn integer(least: i64, most: i64, is_long: bool) -> Value {
    let mut schema = json!({"type": "integer", "format": if is_long { "int64" } else { "int32" }});
    // Bounds that follow from the number format are left out.
    if ![i64::from(i32::MIN), i64::MIN].contains(&least) {
        schema["minimum"] = json!(least);
    }
    if ![i64::from(i32::MAX), i64::MAX].contains(&most) {
        schema["maximum"] = json!(most);
    }
    schema
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema;

    #[test]
    fn an_entry_becomes_a_schema() {
        let of = |shape: &str, property: &str| schema(schema::shape(shape))["properties"][property].clone();
        assert_eq!(of("CloudPool", "id"), json!({"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"}));
        assert_eq!(of("PoolAddParameter", "taskSlotsPerNode"), json!({"type": "integer", "format": "int32", "minimum": 1, "maximum": 256}));
        let items = json!({"type": "array", "items": {"$ref": "#/components/schemas/MetadataItem"}});
        assert_eq!(of("CloudJob", "metadata"), items);
        assert_eq!(of("TaskSchedulingPolicy", "nodeFillType"), json!({"type": "string", "enum": ["spread", "pack"]}));
        assert_eq!(of("CloudPool", "vmSize"), json!({"type": "string", "minLength": 1, "maxLength": 256}));
        let required = |shape: &str| schema(schema::shape(shape))["required"].clone();
        assert_eq!(required("PoolPatchParameter"), Value::Null);
        assert_eq!(required("PoolAddParameter"), json!(["id", "vmSize", "virtualMachineConfiguration"]));
        assert_eq!(required("PoolInformation"), Value::Null, "a pool of its own stands for a name");
    }
}
