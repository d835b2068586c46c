//! Placeholders of task templates, and the tasks made of them.
//!
//! A value of an event never becomes part of a command line: commands read it from their environment, where nothing
//! interprets it. In other places it may stand as `{name}`.

use std::collections::BTreeMap;

use model::{property, refusal::Refusal};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};

/// Values of an event by the names of their placeholders.
pub type Values = BTreeMap<String, String>;

/// How names of variables begin that hold an event's values.
const VARIABLE: &str = "PIECEWORK_EVENT_";
/// Characters of a key that stay as they are in a URL.
const URL: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');
/// Properties in which placeholders stand, wherever they are in a template.
const PLACES: [&str; 7] = ["displayName", "value", "filePath", "blobPrefix", "httpUrl", "path", "containerUrl"];

/// A key as it stands in a URL.
pub fn encoded(key: &str) -> String {
    utf8_percent_encode(key, URL).to_string()
}

/// The variable that holds a value.
pub fn variable(name: &str) -> String {
    VARIABLE.to_owned() + &name.to_ascii_uppercase().replace('-', "_")
}

/// Whether a text may name a placeholder.
pub fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= 32 && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

/// Replaces placeholders in a text; `{{` stands for a brace. An unknown one is returned as an error.
fn fill(text: &str, values: &Values) -> Result<String, String> {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('{') {
        filled.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('{') {
            filled.push('{');
            rest = after;
            continue;
        }
        match rest.find('}').map(|end| (&rest[..end], &rest[end + 1..])).filter(|(name, _)| is_name(name)) {
            None => filled.push('{'),
            Some((name, after)) => {
                filled.push_str(values.get(name).ok_or_else(|| name.to_owned())?);
                rest = after;
            }
        }
    }
    filled.push_str(rest);
    Ok(filled)
}

fn walk(value: &Value, path: &str, name: &str, values: &Values) -> Result<Value, Refusal> {
    Ok(match value {
        Value::String(text) if PLACES.contains(&name) => {
            let unknown = |unknown| {
                let known: Vec<&str> = values.keys().map(String::as_str).collect();
                let reason = format!("There is no placeholder {{{unknown}}}; there are {}.", known.join(", "));
                property::invalid(path, value, reason).hint("A brace of its own is written {{.")
            };
            Value::String(fill(text, values).map_err(unknown)?)
        }
        Value::Array(items) => {
            let items = items.iter().enumerate().map(|(index, item)| walk(item, &format!("{path}[{index}]"), name, values));
            Value::Array(items.collect::<Result<_, _>>()?)
        }
        Value::Object(fields) => Value::Object(walk_fields(fields, path, values)?),
        other => other.clone(),
    })
}

fn walk_fields(fields: &Map<String, Value>, path: &str, values: &Values) -> Result<Map<String, Value>, Refusal> {
    let fields = fields.iter().map(|(name, value)| Ok((name.clone(), walk(value, &format!("{path}.{name}"), name, values)?)));
    fields.collect()
}

/// A task for an event: the template with the event's values, and each of them in the task's environment.
pub fn task(template: &Map<String, Value>, id: &str, values: &Values) -> Result<Map<String, Value>, Refusal> {
    let mut task = walk_fields(template, "task.template", values)?;
    task.insert("id".to_owned(), id.into());
    let variables = values.iter().map(|(name, value)| json!({"name": variable(name), "value": value}));
    let given = match task.remove("environmentSettings") {
        Some(Value::Array(given)) => given,
        _ => Vec::new(),
    };
    // The template's own come last, so they count where a name is there twice.
    task.insert("environmentSettings".to_owned(), Value::Array(variables.chain(given).collect()));
    Ok(task)
}

/// Refuses placeholders in a command line: a shell would carry out what somebody wrote into a key.
pub fn check_command(template: &Map<String, Value>, values: &Values) -> Result<(), Refusal> {
    let Some(text) = template.get("commandLine").and_then(Value::as_str) else { return Ok(()) };
    match values.keys().find(|name| text.contains(&format!("{{{name}}}")) && !text.contains(&format!("${{{name}}}"))) {
        None => Ok(()),
        Some(name) => {
            let reason = "A placeholder in a command line would let whoever names an object run commands.";
            let hint = format!("Read the variable ${} instead, in double quotes where a shell reads the command.", variable(name));
            Err(property::invalid("task.template.commandLine", &Value::String(text.to_owned()), reason).hint(&hint))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values() -> Values {
        [("key", "a b/$(touch x);'\".txt"), ("name", "n")].map(|(name, value)| (name.to_owned(), value.to_owned())).into()
    }

    fn template(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn values_stand_in_their_places_and_in_the_environment_and_nowhere_else() {
        let given = template(json!({
            "commandLine": "/bin/sh -c 'echo ${key} {name'",
            "resourceFiles": [{"httpUrl": "s3://b/{key}", "filePath": "in/{name}.x{{}"}],
            "environmentSettings": [{"name": "A", "value": "{name}-{name}"}],
            "constraints": {"maxTaskRetryCount": 1},
        }));
        let task = task(&given, "1", &values()).unwrap();
        assert_eq!(task["commandLine"], given["commandLine"]);
        assert_eq!(task["resourceFiles"], json!([{"httpUrl": "s3://b/a b/$(touch x);'\".txt", "filePath": "in/n.x{}"}]));
        assert_eq!(task["id"], "1");
        let variables = json!([
            {"name": "PIECEWORK_EVENT_KEY", "value": "a b/$(touch x);'\".txt"}, {"name": "PIECEWORK_EVENT_NAME", "value": "n"},
            {"name": "A", "value": "n-n"},
        ]);
        assert_eq!(task["environmentSettings"], variables);
    }

    #[test]
    fn what_cannot_be_filled_or_could_run_is_refused() {
        let unknown = template(json!({"resourceFiles": [{"filePath": "{nam}"}]}));
        let refusal = task(&unknown, "1", &values()).unwrap_err();
        assert_eq!(refusal.values[0].1, "task.template.resourceFiles[0].filePath");
        let command = |text: &str| check_command(&template(json!({"commandLine": text})), &values());
        assert!(command("/bin/sh -c 'cat {key}'").is_err());
        assert!(command("awk '{print}' \"$PIECEWORK_EVENT_KEY\"").is_ok());
        assert!(command("/bin/sh -c 'echo ${key}'").is_ok(), "a variable of the shell");
    }
}
