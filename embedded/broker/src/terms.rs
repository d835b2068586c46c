//! AMQP values in the form of RabbitMQ's error texts: type names and Erlang terms. Clients and people search for these
//! texts, so they equal RabbitMQ's.

use amq_protocol::types::{AMQPValue, FieldArray, FieldTable};

/// RabbitMQ's name of a value's type.
pub(crate) fn type_name(value: &AMQPValue) -> &'static str {
    match value {
        AMQPValue::Boolean(_) => "bool",
        AMQPValue::ShortShortInt(_) => "byte",
        AMQPValue::ShortShortUInt(_) => "unsignedbyte",
        AMQPValue::ShortInt(_) => "short",
        AMQPValue::ShortUInt(_) => "unsignedshort",
        AMQPValue::LongInt(_) => "signedint",
        AMQPValue::LongUInt(_) => "unsignedint",
        AMQPValue::LongLongInt(_) => "long",
        AMQPValue::Float(_) => "float",
        AMQPValue::Double(_) => "double",
        AMQPValue::DecimalValue(_) => "decimal",
        AMQPValue::ShortString(_) | AMQPValue::LongString(_) => "longstr",
        AMQPValue::FieldArray(_) => "array",
        AMQPValue::Timestamp(_) => "timestamp",
        AMQPValue::FieldTable(_) => "table",
        AMQPValue::ByteArray(_) => "binary",
        AMQPValue::Void => "void",
    }
}

/// A value inside a sentence: texts bare, everything else as a term.
pub(crate) fn shown(value: &AMQPValue) -> String {
    match value {
        AMQPValue::LongString(text) => text.to_string(),
        AMQPValue::ShortString(text) => text.to_string(),
        AMQPValue::ByteArray(bytes) => String::from_utf8_lossy(bytes.as_slice()).into_owned(),
        other => term(other),
    }
}

/// A value inside a table or list.
fn term(value: &AMQPValue) -> String {
    match value {
        AMQPValue::Boolean(value) => value.to_string(),
        AMQPValue::ShortShortInt(number) => number.to_string(),
        AMQPValue::ShortShortUInt(number) => number.to_string(),
        AMQPValue::ShortInt(number) => number.to_string(),
        AMQPValue::ShortUInt(number) => number.to_string(),
        AMQPValue::LongInt(number) => number.to_string(),
        AMQPValue::LongUInt(number) => number.to_string(),
        AMQPValue::LongLongInt(number) => number.to_string(),
        AMQPValue::Float(number) => format!("{number:?}"),
        AMQPValue::Double(number) => format!("{number:?}"),
        AMQPValue::DecimalValue(decimal) => format!("{{{},{}}}", decimal.scale, decimal.value),
        AMQPValue::Timestamp(seconds) => seconds.to_string(),
        AMQPValue::FieldTable(table) => table_term(table),
        AMQPValue::FieldArray(array) => array_term(array),
        AMQPValue::Void => "undefined".to_owned(),
        AMQPValue::LongString(_) | AMQPValue::ShortString(_) | AMQPValue::ByteArray(_) => format!("<<{:?}>>", shown(value)),
    }
}

fn table_term(table: &FieldTable) -> String {
    let fields: Vec<String> =
        table.inner().iter().map(|(name, value)| format!("{{<<{:?}>>,{},{}}}", name.as_str(), type_name(value), term(value))).collect();
    format!("[{}]", fields.join(","))
}

fn array_term(array: &FieldArray) -> String {
    let values: Vec<String> = array.as_slice().iter().map(|value| format!("{{{},{}}}", type_name(value), term(value))).collect();
    format!("[{}]", values.join(","))
}
