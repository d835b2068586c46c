//! Reads properties of a JSON body: every value is checked, every refusal names the property's path.
//!
//! Null counts as absent, numbers may be texts, words come in any letter case, unknown properties are ignored.

use std::{fmt, ops::RangeInclusive, str::FromStr};

use broker_config::{period::Period, time::Timestamp};
use serde_json::{Map, Value};

use crate::{
    http::odata,
    refusal::{Code, Refusal},
};

/// Characters of a refused value that are told back.
const SHOWN_MAX: usize = 256;
/// Characters of a time.
const TIME_CHARS_MAX: usize = 64;

#[derive(Clone, Copy)]
enum Trail<'a> {
    Root,
    Name(&'a Trail<'a>, &'a str),
    Item(&'a Trail<'a>, usize),
}

impl fmt::Display for Trail<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trail::Root => Ok(()),
            Trail::Name(Trail::Root, name) => f.write_str(name),
            Trail::Name(parent, name) => write!(f, "{parent}.{name}"),
            Trail::Item(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

/// A JSON object at its place in the body.
#[derive(Clone, Copy)]
pub struct Object<'a> {
    fields: &'a Map<String, Value>,
    trail: Trail<'a>,
}

/// A list at its place in the body.
pub struct List<'a> {
    items: &'a [Value],
    trail: Trail<'a>,
}

/// Refuses the value of the property at a path.
pub fn invalid(path: impl fmt::Display, value: &Value, reason: impl fmt::Display) -> Refusal {
    let shown = match value {
        Value::String(text) => text.chars().take(SHOWN_MAX).collect(),
        Value::Array(_) => "(a list)".to_owned(),
        Value::Object(_) => "(an object)".to_owned(),
        other => other.to_string(),
    };
    Refusal::new(Code::InvalidPropertyValue, "The value provided for one of the properties in the request body is invalid.")
        .with("PropertyName", path)
        .with("PropertyValue", shown)
        .with("Reason", reason)
}

impl<'a> Object<'a> {
    /// The whole body.
    pub fn root(fields: &'a Map<String, Value>) -> Object<'a> {
        Object { fields, trail: Trail::Root }
    }

    /// The property as it is.
    pub fn value(&self, name: &str) -> Option<&'a Value> {
        self.fields.get(name).filter(|value| !value.is_null())
    }

    /// All properties as they are.
    pub fn fields(&self) -> &'a Map<String, Value> {
        self.fields
    }

    fn at<'b>(&'b self, name: &'b str) -> Trail<'b> {
        Trail::Name(&self.trail, name)
    }

    /// Refuses the property's value.
    pub fn invalid(&self, name: &str, reason: impl fmt::Display) -> Refusal {
        invalid(self.at(name), self.value(name).unwrap_or(&Value::Null), reason)
    }

    /// Refuses the property's absence.
    pub fn missing(&self, name: &str) -> Refusal {
        Refusal::new(Code::MissingRequiredProperty, "A required property was not specified in the request body.")
            .with("PropertyName", self.at(name))
    }

    /// Refuses properties that are not served; empty lists and objects and `false` ask for nothing.
    pub fn unsupported(&self, names: &[&str], hint: &str) -> Result<(), Refusal> {
        let asks = |value: &Value| match value {
            Value::Array(items) => !items.is_empty(),
            Value::Object(fields) => !fields.is_empty(),
            Value::Bool(flag) => *flag,
            _ => true,
        };
        match names.iter().find(|name| self.value(name).is_some_and(asks)) {
            None => Ok(()),
            Some(name) => {
                Err(Refusal::new(Code::UnsupportedProperty, "One of the properties specified in the request body is not supported.")
                    .with("PropertyName", self.at(name))
                    .hint(hint))
            }
        }
    }

    /// A text of at most so many characters, without NUL.
    pub fn text(&self, name: &str, chars_max: usize) -> Result<Option<&'a str>, Refusal> {
        let Some(value) = self.value(name) else { return Ok(None) };
        let Value::String(text) = value else { return Err(self.invalid(name, "A text is expected.")) };
        if text.len() > chars_max && text.chars().count() > chars_max {
            return Err(self.invalid(name, format!("It may have at most {chars_max} characters.")));
        }
        if text.contains('\0') {
            return Err(self.invalid(name, "It may not hold a NUL character."));
        }
        Ok(Some(text))
    }

    /// A text that is there and not empty.
    pub fn required_text(&self, name: &str, chars_max: usize) -> Result<&'a str, Refusal> {
        match self.text(name, chars_max)? {
            None => Err(self.missing(name)),
            Some("") => Err(self.invalid(name, "It may not be empty.")),
            Some(text) => Ok(text),
        }
    }

    /// A text that is read as something else, such as an id.
    pub fn parsed<T: FromStr>(&self, name: &str) -> Result<Option<T>, Refusal>
    where
        T::Err: fmt::Display,
    {
        let Some(text) = self.text(name, usize::MAX)? else { return Ok(None) };
        text.parse().map(Some).map_err(|reason| self.invalid(name, reason))
    }

    /// The same, required.
    pub fn required<T: FromStr>(&self, name: &str) -> Result<T, Refusal>
    where
        T::Err: fmt::Display,
    {
        self.parsed(name)?.ok_or_else(|| self.missing(name))
    }

    /// True or false.
    pub fn flag(&self, name: &str) -> Result<Option<bool>, Refusal> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(Value::String(text)) if text.eq_ignore_ascii_case("true") => Ok(Some(true)),
            Some(Value::String(text)) if text.eq_ignore_ascii_case("false") => Ok(Some(false)),
            Some(_) => Err(self.invalid(name, "true or false is expected.")),
        }
    }

    /// A whole number within bounds, also when written as a text.
    pub fn integer(&self, name: &str, bounds: RangeInclusive<i64>) -> Result<Option<i64>, Refusal> {
        let number = match self.value(name) {
            None => return Ok(None),
            Some(Value::Number(number)) => number.as_i64(),
            Some(Value::String(text)) => text.parse().ok(),
            Some(_) => None,
        };
        let number = number.ok_or_else(|| self.invalid(name, "A whole number is expected."))?;
        if bounds.contains(&number) {
            return Ok(Some(number));
        }
        Err(self.invalid(name, format!("It must be from {} to {}.", bounds.start(), bounds.end())))
    }

    /// A length of time, at least so long.
    pub fn period(&self, name: &str, least: Period) -> Result<Option<Period>, Refusal> {
        let Some(period) = self.parsed::<Period>(name)? else { return Ok(None) };
        if period < least {
            return Err(self.invalid(name, format!("It must be at least {least}.")));
        }
        Ok(Some(period))
    }

    /// A point in time; without an offset it is one of UTC.
    pub fn time(&self, name: &str) -> Result<Option<Timestamp>, Refusal> {
        let Some(text) = self.text(name, TIME_CHARS_MAX)? else { return Ok(None) };
        let time = odata::time(text).ok_or_else(|| self.invalid(name, "A time such as 2026-11-23T19:00:00Z is expected."))?;
        Ok(Some(time))
    }

    /// One of some words, in any letter case; given back in its own spelling.
    pub fn choice(&self, name: &str, words: &[&'static str]) -> Result<Option<&'static str>, Refusal> {
        let Some(text) = self.text(name, usize::MAX)? else { return Ok(None) };
        match words.iter().find(|word| word.eq_ignore_ascii_case(text)) {
            Some(word) => Ok(Some(word)),
            None => Err(self.invalid(name, format!("It must be one of: {}.", words.join(", ")))),
        }
    }

    /// An object.
    pub fn object<'b>(&'b self, name: &'b str) -> Result<Option<Object<'b>>, Refusal> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::Object(fields)) => Ok(Some(Object { fields, trail: self.at(name) })),
            Some(_) => Err(self.invalid(name, "An object is expected.")),
        }
    }

    /// An object that must be there.
    pub fn required_object<'b>(&'b self, name: &'b str) -> Result<Object<'b>, Refusal> {
        self.object(name)?.ok_or_else(|| self.missing(name))
    }

    /// A list of at most so many items; empty when absent.
    pub fn list<'b>(&'b self, name: &'b str, items_max: usize) -> Result<List<'b>, Refusal> {
        match self.value(name) {
            None => Ok(List { items: &[], trail: self.at(name) }),
            Some(Value::Array(items)) if items.len() <= items_max => Ok(List { items, trail: self.at(name) }),
            Some(Value::Array(_)) => Err(self.invalid(name, format!("It may have at most {items_max} items."))),
            Some(_) => Err(self.invalid(name, "A list is expected.")),
        }
    }
}

impl<'a> List<'a> {
    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// How many items.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Reads every item as an object.
    pub fn each<T>(&self, mut read: impl FnMut(Object<'_>) -> Result<T, Refusal>) -> Result<Vec<T>, Refusal> {
        let object = |(index, value): (usize, &'a Value)| match value {
            Value::Object(fields) => read(Object { fields, trail: Trail::Item(&self.trail, index) }),
            _ => Err(invalid(Trail::Item(&self.trail, index), value, "An object is expected.")),
        };
        self.items.iter().enumerate().map(object).collect()
    }

    /// Reads every item as a text.
    pub fn texts<T: FromStr>(&self) -> Result<Vec<T>, Refusal>
    where
        T::Err: fmt::Display,
    {
        let text = |(index, value): (usize, &Value)| match value {
            Value::String(text) => text.parse().map_err(|reason| invalid(Trail::Item(&self.trail, index), value, reason)),
            _ => Err(invalid(Trail::Item(&self.trail, index), value, "A text is expected.")),
        };
        self.items.iter().enumerate().map(text).collect()
    }
}

/// Drops nulls and empty lists and objects, at every depth.
pub fn prune(value: Value) -> Value {
    let is_something = |value: &Value| match value {
        Value::Null => false,
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        _ => true,
    };
    match value {
        Value::Array(items) => Value::Array(items.into_iter().map(prune).collect()),
        Value::Object(fields) => {
            Value::Object(fields.into_iter().map(|(name, value)| (name, prune(value))).filter(|(_, value)| is_something(value)).collect())
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read<T>(body: Value, read: impl Fn(Object<'_>) -> Result<T, Refusal>) -> Result<T, Refusal> {
        let Value::Object(fields) = body else { panic!("an object") };
        read(Object::root(&fields))
    }

    #[test]
    fn a_refusal_names_the_path_of_the_property() {
        let body = json!({"a": {"b": [{"c": 1}, {"c": "x"}]}});
        let refusal = read(body, |root| {
            let a = root.required_object("a")?;
            a.list("b", 10)?.each(|item| item.integer("c", 0..=9))
        })
        .unwrap_err();
        assert_eq!(refusal.values[0], ("PropertyName".to_owned(), "a.b[1].c".to_owned()));
        assert_eq!(refusal.values[1].1, "x");
    }

    #[test]
    fn numbers_may_be_texts_words_come_in_any_case_and_null_is_absent() {
        let body = json!({
            "n": "7", "w": "TaskCompletion", "z": null, "p": "PT05M00S", "t": "2026-11-23T20:00:00.0000000+01:00", "u": "2026-11-23T19:00:00",
        });
        read(body, |root| {
            assert_eq!(root.integer("n", 0..=9)?, Some(7));
            assert_eq!(root.choice("w", &["requeue", "taskcompletion"])?, Some("taskcompletion"));
            assert_eq!(root.text("z", 5)?, None);
            assert_eq!(root.period("p", Period::from_secs(300))?, Some(Period::from_secs(300)));
            assert_eq!(root.time("t")?, Some(Timestamp(1_795_460_400_000)));
            assert_eq!(root.time("u")?, root.time("t")?);
            Ok(())
        })
        .unwrap();
    }

    #[test]
    fn wrong_types_and_bounds_are_refused() {
        for body in [
            json!({"n": 10}),
            json!({"n": 1.5}),
            json!({"n": true}),
            json!({"n": []}),
            json!({"n": "1e3"}),
            json!({"n": 99999999999999999999u128 as f64}),
        ] {
            assert_eq!(read(body, |root| root.integer("n", 0..=9)).unwrap_err().code, Code::InvalidPropertyValue);
        }
        assert!(read(json!({"t": "é".repeat(5)}), |root| root.text("t", 5).map(|_| ())).is_ok());
        assert!(read(json!({"t": "é".repeat(6)}), |root| root.text("t", 5).map(|_| ())).is_err());
        assert!(read(json!({"p": "PT4M59S"}), |root| root.period("p", Period::from_secs(300))).is_err());
    }

    #[test]
    fn what_asks_for_nothing_is_supported() {
        let names = ["a", "b", "c"];
        assert!(read(json!({"a": [], "b": false, "c": null}), |root| root.unsupported(&names, "")).is_ok());
        assert_eq!(read(json!({"a": [1]}), |root| root.unsupported(&names, "")).unwrap_err().code, Code::UnsupportedProperty);
    }
}
