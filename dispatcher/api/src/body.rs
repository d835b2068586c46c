//! A request body that was checked against its schema, so its getters cannot fail.
//!
//! What the schema cannot express (two properties that must agree, a URL's host) is refused by the reader, with the
//! property's path.

use std::{fmt, str::FromStr};

use clients::blobs::Places;
use contract::{period::Period, time::Timestamp};
use model::{property, refusal::Refusal};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::{
    odata,
    schema::{
        self, Effect, Kind, Property, Shape,
        check::{self, check},
        trail::Trail,
    },
};

/// A checked body, and the containers that it may name.
pub struct Body<'a> {
    shape: &'static Shape,
    fields: Map<String, Value>,
    places: Places<'a>,
}

impl<'a> Body<'a> {
    /// Checks a body of this shape; refuses the first thing that is wrong.
    pub fn new(shape: &str, fields: Map<String, Value>, places: Places<'a>) -> Result<Body<'a>, Refusal> {
        let shape = schema::shape(shape);
        check(shape, &fields, &Trail::Root)?;
        Ok(Body { shape, fields, places })
    }

    /// The body's object.
    pub fn root(&self) -> Object<'_> {
        Object { shape: self.shape, fields: &self.fields, trail: Trail::Root, places: self.places }
    }
}

/// Reads a body of a shape; for tests of readers.
#[cfg(test)]
pub fn tried<T>(shape: &str, body: &Value, read: impl FnOnce(Object<'_>) -> Result<T, Refusal>) -> Result<T, Refusal> {
    let places = Places { endpoint: "http://store:9000", own_bucket: "piecework-own" };
    read(Body::new(shape, body.as_object().expect("an object").clone(), places)?.root())
}

/// An object of a checked body.
#[derive(Clone, Copy)]
pub struct Object<'a> {
    shape: &'static Shape,
    fields: &'a Map<String, Value>,
    trail: Trail<'a>,
    places: Places<'a>,
}

/// A list of a checked body.
pub struct List<'a> {
    shape: Option<&'static Shape>,
    items: &'a [Value],
    trail: Trail<'a>,
    places: Places<'a>,
}

/// Why a getter cannot fail.
const CHECKED: &str = "the schema lets through what its readers can read";

impl<'a> Object<'a> {
    /// Containers of the blob store that the body may name.
    pub fn places(&self) -> Places<'a> {
        self.places
    }

    /// All properties as they were given, including unknown ones.
    pub fn fields(&self) -> &'a Map<String, Value> {
        self.fields
    }

    fn find(&self, name: &str) -> Option<(&'static Property, &'a Value)> {
        Some((self.shape.property(name)?, check::given(self.fields, name)?))
    }

    /// The property as it was given; `None` for one that the shape does not have.
    pub fn value(&self, name: &str) -> Option<&'a Value> {
        self.find(name).map(|(_, value)| value)
    }

    /// The first given property that satisfies a condition.
    pub fn first(&self, is_it: impl Fn(&Property) -> bool) -> Option<&'static str> {
        self.given().find(|(property, _)| is_it(property)).map(|(property, _)| property.name)
    }

    fn given(&self) -> impl Iterator<Item = (&'static Property, &'a Value)> {
        let fields = self.fields;
        self.shape.properties.iter().filter_map(move |property| Some((property, check::given(fields, property.name)?)))
    }

    fn at<'b>(&'b self, name: &'b str) -> Trail<'b> {
        Trail::Name(&self.trail, name)
    }

    /// Refusal of the property's value.
    pub fn invalid(&self, name: &str, reason: impl fmt::Display) -> Refusal {
        property::invalid(self.at(name), self.value(name).unwrap_or(&Value::Null), reason)
    }

    /// Refusal because the property is missing.
    pub fn missing(&self, name: &str) -> Refusal {
        property::missing(self.at(name))
    }

    /// Refusal because Piecework does not support the value.
    pub fn not_served(&self, name: &str, hint: &str) -> Refusal {
        property::not_served(self.at(name), hint)
    }

    /// Refuses a property that Piecework does not support; called after its reader found nothing else wrong.
    pub fn refuse(&self, name: &str) -> Result<(), Refusal> {
        self.find(name).map_or(Ok(()), |(property, value)| check::refuse(property, value, &self.at(name)))
    }

    /// A text.
    pub fn text(&self, name: &str) -> Option<&'a str> {
        self.value(name).map(|value| value.as_str().expect(CHECKED))
    }

    /// A text as a `String`.
    pub fn owned(&self, name: &str) -> Option<String> {
        self.text(name).map(str::to_owned)
    }

    /// A text that the schema requires.
    pub fn required_text(&self, name: &str) -> String {
        self.owned(name).expect(CHECKED)
    }

    /// An id or a version.
    pub fn id<T: FromStr<Err: fmt::Debug>>(&self, name: &str) -> Option<T> {
        self.text(name).map(|text| text.parse().expect(CHECKED))
    }

    /// An id or a version that the schema requires.
    pub fn required_id<T: FromStr<Err: fmt::Debug>>(&self, name: &str) -> T {
        self.id(name).expect(CHECKED)
    }

    /// True or false.
    pub fn flag(&self, name: &str) -> Option<bool> {
        self.value(name).map(|value| check::flag(value).expect(CHECKED))
    }

    /// An integer; the schema's bounds fit the type.
    pub fn integer<T: TryFrom<i64, Error: fmt::Debug>>(&self, name: &str) -> Option<T> {
        self.value(name).map(|value| T::try_from(check::integer(value).expect(CHECKED)).expect(CHECKED))
    }

    /// An integer that the schema requires.
    pub fn required_integer<T: TryFrom<i64, Error: fmt::Debug>>(&self, name: &str) -> T {
        self.integer(name).expect(CHECKED)
    }

    /// A length of time.
    pub fn period(&self, name: &str) -> Option<Period> {
        self.text(name).map(|text| text.parse().expect(CHECKED))
    }

    /// A point in time; one without an offset is taken as UTC.
    pub fn time(&self, name: &str) -> Option<Timestamp> {
        self.text(name).map(|text| odata::time(text).expect(CHECKED))
    }

    /// A word of an enumeration, in the schema's spelling.
    pub fn word(&self, name: &str) -> Option<&'static str> {
        let (property, value) = self.find(name)?;
        let value = value.get(name).filter(|_| property.is_wrapped).unwrap_or(value);
        let text = value.as_str()?;
        property.kind.words().iter().find(|word| word.eq_ignore_ascii_case(text)).copied()
    }

    /// An object.
    pub fn object<'b>(&'b self, name: &'b str) -> Option<Object<'b>> {
        let (property, value) = self.find(name)?;
        let fields = value.as_object().expect(CHECKED);
        Some(Object { shape: property.kind.object().expect(CHECKED), fields, trail: self.at(name), places: self.places })
    }

    /// An object that the schema requires.
    pub fn required_object<'b>(&'b self, name: &'b str) -> Object<'b> {
        self.object(name).expect(CHECKED)
    }

    /// A list; empty when absent.
    pub fn list<'b>(&'b self, name: &'b str) -> List<'b> {
        let found = self.find(name);
        let items = found.map_or(&[][..], |(_, value)| value.as_array().expect(CHECKED));
        List { shape: found.and_then(|(property, _)| property.kind.inner()), items, trail: self.at(name), places: self.places }
    }

    /// The property in the form that documents keep: as given, but with words and flags in their normal spelling.
    pub fn kept(&self, name: &str) -> Option<Value> {
        let (property, value) = self.find(name)?;
        Some(match property.kind {
            Kind::Flag => Value::from(self.flag(name)),
            Kind::Word(_) => Value::from(self.word(name)),
            Kind::Int { .. } => Value::from(self.integer::<i64>(name)),
            _ => value.clone(),
        })
    }

    /// The given properties that satisfy a condition, in the form that documents keep.
    fn kept_where(&self, is_it: impl Fn(&Property) -> bool) -> Map<String, Value> {
        let names = self.given().filter(|(property, _)| is_it(property)).map(|(property, _)| property.name);
        names.filter_map(|name| Some((name.to_owned(), self.kept(name)?))).collect()
    }

    /// Plain properties without an effect that GET shows, in the form that documents keep.
    pub fn shown_only(&self) -> Map<String, Value> {
        self.kept_where(|property| matches!(property.effect, Effect::Label | Effect::Ignored(_)) && property.kind.inner().is_none())
    }

    /// A model type with plain properties under their own names; defaults apply to those that are not given.
    pub fn plain<T: DeserializeOwned>(&self) -> T {
        let fields = self.kept_where(|property| property.kind.inner().is_none());
        serde_json::from_value(Value::Object(fields)).expect(CHECKED)
    }

    /// Applies the checks that the schema leaves to the reader of each item.
    pub fn check(self) -> Result<Object<'a>, Refusal> {
        check(self.shape, self.fields, &self.trail).map(|()| self)
    }
}

impl<'a> List<'a> {
    /// How many items.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    fn objects(&self) -> impl Iterator<Item = Object<'_>> {
        let (trail, places) = (&self.trail, self.places);
        self.items.iter().enumerate().map(move |(index, value)| {
            let fields = value.as_object().expect(CHECKED);
            Object { shape: self.shape.expect(CHECKED), fields, trail: Trail::Item(trail, index), places }
        })
    }

    /// Converts every item; an item may still be refused.
    pub fn each<T>(&self, read: impl FnMut(Object<'_>) -> Result<T, Refusal>) -> Result<Vec<T>, Refusal> {
        self.objects().map(read).collect()
    }

    /// Reads every item as an object.
    pub fn map<T>(&self, read: impl FnMut(Object<'_>) -> T) -> Vec<T> {
        self.objects().map(read).collect()
    }

    /// Reads every item as a text or an id.
    pub fn texts<T: FromStr<Err: fmt::Debug>>(&self) -> Vec<T> {
        self.items.iter().map(|value| value.as_str().expect(CHECKED).parse().expect(CHECKED)).collect()
    }
}

/// Whether a value is neither null nor an empty list or object.
pub fn is_something(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        _ => true,
    }
}

/// The value for a document: null, which removes the property, when nothing is left to show.
pub fn or_null(value: Value) -> Value {
    Some(value).filter(is_something).unwrap_or_default()
}

/// Drops nulls and empty lists and objects at every depth.
pub fn prune(value: Value) -> Value {
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

    #[test]
    fn values_are_read_in_every_spelling_that_the_schema_lets_through() {
        let body = json!({
            "targetDedicatedNodes": "7", "nodeDeallocationOption": "TaskCompletion", "targetLowPriorityNodes": null, "resizeTimeout": "PT05M00S",
        });
        let read = tried("PoolResizeParameter", &body, |root| {
            let words = (root.word("nodeDeallocationOption"), root.kept("nodeDeallocationOption"));
            Ok((
                root.integer::<u32>("targetDedicatedNodes"),
                words,
                root.value("targetLowPriorityNodes").cloned(),
                root.period("resizeTimeout"),
            ))
        });
        let word = "taskcompletion";
        assert_eq!(read, Ok((Some(7), (Some(word), Some(json!(word))), None, Some(Period::from_secs(300)))));
        let times = json!({"doNotRunUntil": "2026-11-23T20:00:00.0000000+01:00", "doNotRunAfter": "2026-11-23T19:00:00"});
        let read = tried("Schedule", &times, |root| Ok((root.time("doNotRunUntil"), root.time("doNotRunAfter")))).unwrap();
        assert_eq!(read, (Some(Timestamp(1_795_460_400_000)), Some(Timestamp(1_795_460_400_000))));
        let wrapped = json!({"nodeRebootOption": {"nodeRebootOption": "Requeue"}});
        assert_eq!(tried("NodeRebootParameter", &wrapped, |root| Ok(root.word("nodeRebootOption"))).unwrap(), Some("requeue"));
    }

    #[test]
    fn what_a_shape_does_not_have_is_not_read() {
        let body = json!({"id": "m", "commandLine": "x", "affinityInfo": {"affinityId": 5}});
        assert_eq!(tried("JobManagerTask", &body, |root| Ok(root.value("affinityInfo").cloned())).unwrap(), None);
    }

    #[test]
    fn plain_properties_without_effect_are_kept_by_their_entries_alone() {
        let body = json!({"displayName": "d", "vmSize": "x", "enableInterNodeCommunication": "TRUE", "targetNodeCommunicationMode": "Classic",
            "resourceTags": {"a": "b"}, "taskSlotsPerNode": 2, "metadata": []});
        let kept = tried("PoolPatchParameter", &body, |root| Ok(root.shown_only())).unwrap();
        assert_eq!(
            Value::Object(kept),
            json!({"displayName": "d", "vmSize": "x", "enableInterNodeCommunication": true,
            "targetNodeCommunicationMode": "classic", "resourceTags": {"a": "b"}})
        );
    }
}
