//! Checks a body against its shape, so that its readers find every value as the entry says.
//!
//! Null counts as absent, numbers and flags may be texts, words come in any letter case, unknown properties are
//! ignored. A wrong value is refused before an unsupported property, so a body that is valid for Azure Batch is refused
//! only for what Piecework does not support.

use contract::{
    ids::{PackageVersion, TaskId},
    period::{Period, PeriodError},
};
use model::{
    property::{invalid, missing, not_served},
    refusal::Refusal,
};
use serde_json::{Map, Value};

use crate::{
    odata,
    schema::{Effect, Kind, Property, Refusing, Shape, trail::Trail},
};

/// Characters of a time.
const TIME_CHARS_MAX: usize = 64;

/// Refuses the first value that does not match the shape.
pub fn check(shape: &Shape, fields: &Map<String, Value>, trail: &Trail<'_>) -> Result<(), Refusal> {
    object(shape, fields, trail)?;
    served(shape, fields, trail)
}

/// A property that is given and not null.
pub fn given<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    fields.get(name).filter(|value| !value.is_null())
}

/// A flag, which may be written as a text.
pub fn flag(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(flag) => Some(*flag),
        Value::String(text) if text.eq_ignore_ascii_case("true") => Some(true),
        Value::String(text) if text.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

/// An integer, which may be written as a text.
pub fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

fn object(shape: &Shape, fields: &Map<String, Value>, trail: &Trail<'_>) -> Result<(), Refusal> {
    for property in &shape.properties {
        if let Some(found) = given(fields, property.name) {
            excluded(shape, property, fields, found, trail)?;
        }
    }
    let values = |are_ids: bool| {
        let is_checked = move |property: &&Property| {
            (property.kind == Kind::Id) == are_ids && !matches!(property.effect, Effect::Refused(_, Refusing::Unchecked))
        };
        let mut found = shape.properties.iter().filter(is_checked).filter_map(|property| Some((property, given(fields, property.name)?)));
        found.try_for_each(|(property, value)| wrapped(property, value, &Trail::Name(trail, property.name)))
    };
    let is_missing =
        |property: &&Property| property.is_required && given(fields, property.name).is_none() && !shape.is_excused(property, fields);
    // First whether the id is valid, then whether anything is missing.
    values(true)?;
    if let Some(property) = shape.properties.iter().find(is_missing) {
        return Err(missing(Trail::Name(trail, property.name)));
    }
    values(false)
}

impl Shape {
    /// Whether a required property may be missing, because one that excludes it is given.
    fn is_excused(&self, property: &Property, fields: &Map<String, Value>) -> bool {
        self.properties.iter().any(|other| {
            let is_one_of_two = property.excludes.contains(&other.name) || other.excludes.contains(&property.name);
            is_one_of_two && given(fields, other.name).is_some()
        })
    }
}

fn excluded(shape: &Shape, property: &Property, fields: &Map<String, Value>, found: &Value, trail: &Trail<'_>) -> Result<(), Refusal> {
    let Some(other) = property.excludes.iter().find(|name| given(fields, name).is_some()) else { return Ok(()) };
    let is_other_required = shape.property(other).is_some_and(|other| other.is_required);
    let reason = match (property.is_required, is_other_required) {
        (true, _) => format!("Exactly one of {} and {other} is expected.", property.name),
        (_, true) => format!("Exactly one of {other} and {} is expected.", property.name),
        _ => format!("It and {other} exclude each other."),
    };
    Err(invalid(Trail::Name(trail, property.name), found, reason))
}

fn wrapped(property: &Property, found: &Value, trail: &Trail<'_>) -> Result<(), Refusal> {
    match found.get(property.name).filter(|_| property.is_wrapped) {
        Some(Value::Null) => Ok(()),
        Some(inner) => value(property, &property.kind, inner, &Trail::Name(trail, property.name)),
        None => value(property, &property.kind, found, trail),
    }
}

fn value(property: &Property, kind: &Kind, found: &Value, trail: &Trail<'_>) -> Result<(), Refusal> {
    match (kind, found) {
        (Kind::Any, _) => Ok(()),
        (Kind::Shape(_), Value::Object(_)) if property.is_apart => Ok(()),
        (Kind::Shape(_), Value::Object(fields)) => kind.object().map_or(Ok(()), |shape| object(shape, fields, trail)),
        (Kind::Texts(most), Value::Object(fields)) => {
            let each = |(name, item): (&String, &Value)| match item {
                Value::Null => Ok(()),
                item => text(item, *most).map_err(|reason| invalid(Trail::Name(trail, name), item, reason)).map(|_| ()),
            };
            fields.iter().try_for_each(each)
        }
        (Kind::Object, Value::Object(_)) => Ok(()),
        (Kind::List(inner, least, most), Value::Array(items)) => {
            if items.len() < *least {
                return Err(invalid(trail, found, "It needs at least one item."));
            }
            if items.len() > *most {
                return Err(invalid(trail, found, format!("It may have at most {most} items.")));
            }
            items.iter().enumerate().try_for_each(|(index, item)| match **inner {
                // For a wrong word, the error names the list.
                Kind::Word(_) if item.is_string() => scalar(inner, item).map_err(|reason| invalid(trail, found, reason)),
                _ => value(property, inner, item, &Trail::Item(trail, index)),
            })
        }
        (Kind::List(..), _) => Err(invalid(trail, found, "A list is expected.")),
        (Kind::Shape(_) | Kind::Object | Kind::Texts(_), _) => Err(invalid(trail, found, "An object is expected.")),
        (kind, found) => scalar(kind, found).map_err(|reason| invalid(trail, found, reason)),
    }
}

fn text(found: &Value, most: usize) -> Result<&str, String> {
    let Value::String(text) = found else { return Err("A text is expected.".to_owned()) };
    if text.len() > most && text.chars().count() > most {
        return Err(format!("It may have at most {most} characters."));
    }
    if text.contains('\0') {
        return Err("It may not hold a NUL character.".to_owned());
    }
    Ok(text)
}

/// Why a plain value is not of its type.
fn scalar(kind: &Kind, found: &Value) -> Result<(), String> {
    match kind {
        Kind::Text(least, most) => match text(found, *most)? {
            "" if *least > 0 => Err("It may not be empty.".to_owned()),
            _ => Ok(()),
        },
        Kind::Formula => text(found, usize::MAX).map(|_| ()),
        Kind::Id => text(found, usize::MAX)?.parse::<TaskId>().map(|_| ()).map_err(|reason| reason.to_string()),
        Kind::Version => text(found, usize::MAX)?.parse::<PackageVersion>().map(|_| ()).map_err(|reason| reason.to_string()),
        Kind::Word(words) => {
            let text = text(found, usize::MAX)?;
            let is_known = words.iter().any(|word| word.eq_ignore_ascii_case(text));
            if is_known { Ok(()) } else { Err(format!("It must be one of: {}.", words.join(", "))) }
        }
        Kind::Flag => flag(found).map(|_| ()).ok_or_else(|| "true or false is expected.".to_owned()),
        Kind::Int { least, most, .. } => match integer(found) {
            None => Err("A whole number is expected.".to_owned()),
            Some(number) if (*least..=*most).contains(&number) => Ok(()),
            Some(_) => Err(format!("It must be from {least} to {most}.")),
        },
        Kind::Period(least, most) => {
            let period: Period = text(found, usize::MAX)?.parse().map_err(|reason: PeriodError| reason.to_string())?;
            match period {
                period if period < *least => Err(format!("It must be at least {least}.")),
                period if period > *most => Err(format!("It must be at most {most}.")),
                _ => Ok(()),
            }
        }
        Kind::Time => match odata::time(text(found, TIME_CHARS_MAX)?) {
            Some(_) => Ok(()),
            None => Err("A time such as 2026-11-23T19:00:00Z is expected.".to_owned()),
        },
        Kind::Float => {
            if found.is_number() {
                Ok(())
            } else {
                Err("A number is expected.".to_owned())
            }
        }
        Kind::Any | Kind::Object | Kind::Texts(_) | Kind::Shape(_) | Kind::List(..) => Ok(()),
    }
}

/// Whether a value has a meaning: empty lists and objects and `false` do not.
fn asks(kind: &Kind, found: &Value) -> bool {
    match (kind, found) {
        (Kind::Flag, found) => flag(found) == Some(true),
        (_, Value::Bool(flag)) => *flag,
        (_, Value::Array(items)) => !items.is_empty(),
        (_, Value::Object(fields)) => !fields.is_empty(),
        _ => true,
    }
}

/// Refuses an unsupported property with a meaningful value.
pub fn refuse(property: &Property, found: &Value, trail: &Trail<'_>) -> Result<(), Refusal> {
    match property.effect {
        Effect::Refused(hint, _) if asks(&property.kind, found) => Err(not_served(trail, hint)),
        _ => Ok(()),
    }
}

/// Refuses unsupported properties at every depth.
fn served(shape: &Shape, fields: &Map<String, Value>, trail: &Trail<'_>) -> Result<(), Refusal> {
    for property in &shape.properties {
        let Some(found) = given(fields, property.name) else { continue };
        let trail = Trail::Name(trail, property.name);
        match (property.effect, property.kind.inner(), found) {
            (Effect::Refused(_, Refusing::Read), ..) => {}
            (Effect::Refused(..), ..) => refuse(property, found, &trail)?,
            (_, Some(inner), Value::Object(fields)) => served(inner, fields, &trail)?,
            (_, Some(inner), Value::Array(items)) if !property.is_apart => {
                for (index, item) in items.iter().enumerate().filter_map(|(index, item)| Some((index, item.as_object()?))) {
                    served(inner, item, &Trail::Item(&trail, index))?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use model::refusal::Code;
    use serde_json::json;

    use super::*;
    use crate::schema;

    fn fault(name: &str, body: Value) -> Option<(Code, String)> {
        let checked = check(schema::shape(name), body.as_object().unwrap(), &Trail::Root);
        checked.err().map(|refusal| (refusal.code, refusal.values[0].1.clone()))
    }

    #[test]
    fn a_refusal_names_the_path_of_the_property() {
        let of = |code: i64| json!({"exitCodes": [{"code": 1, "exitOptions": {}}, {"code": code, "exitOptions": {"jobAction": "none"}}]});
        assert_eq!(fault("ExitConditions", of(7)), None);
        let wrong = fault("ExitConditions", of(1 << 40));
        assert_eq!(wrong, Some((Code::InvalidPropertyValue, "exitCodes[1].code".to_owned())));
        let missing = fault("ExitConditions", json!({"exitCodes": [{"code": 1}]}));
        assert_eq!(missing, Some((Code::MissingRequiredProperty, "exitCodes[0].exitOptions".to_owned())));
    }

    #[test]
    fn numbers_may_be_texts_words_come_in_any_case_and_null_is_absent() {
        let body = json!({
            "targetDedicatedNodes": "7", "nodeDeallocationOption": "TaskCompletion", "targetLowPriorityNodes": null, "resizeTimeout": "PT05M00S",
        });
        assert_eq!(fault("PoolResizeParameter", body), None);
        for time in ["2026-11-23T20:00:00.0000000+01:00", "2026-11-23T19:00:00"] {
            assert_eq!(fault("Schedule", json!({ "doNotRunUntil": time })), None);
        }
        assert_eq!(fault("ApplicationParameter", json!({"allowUpdates": "False", "displayName": "é".repeat(1024)})), None);
    }

    #[test]
    fn wrong_types_and_bounds_are_refused() {
        for (shape, body) in [
            ("PoolResizeParameter", json!({"targetDedicatedNodes": 100_001})),
            ("PoolResizeParameter", json!({"targetDedicatedNodes": 1.5})),
            ("PoolResizeParameter", json!({"targetDedicatedNodes": true})),
            ("PoolResizeParameter", json!({"targetDedicatedNodes": []})),
            ("PoolResizeParameter", json!({"targetDedicatedNodes": "1e3"})),
            ("PoolResizeParameter", json!({"targetDedicatedNodes": 99999999999999999999u128 as f64})),
            ("PoolResizeParameter", json!({"resizeTimeout": "PT4M59S"})),
            ("ApplicationParameter", json!({"displayName": "é".repeat(1025)})),
            ("ApplicationParameter", json!({"displayName": "a\u{0}b"})),
            ("PoolPatchParameter", json!({"resourceTags": {"a": 1}})),
            ("NodeRemoveParameter", json!({"nodeList": []})),
            ("NodeRemoveParameter", json!({"nodeList": ["a b"]})),
        ] {
            assert_eq!(fault(shape, body.clone()).map(|(code, _)| code), Some(Code::InvalidPropertyValue), "{shape} {body}");
        }
    }

    #[test]
    fn what_is_not_served_is_refused_when_it_asks_for_anything_and_after_wrong_values() {
        let asking = |value: Value| fault("PoolPatchParameter", json!({ "applicationLicenses": value })).map(|(code, _)| code);
        assert_eq!((asking(json!([])), asking(Value::Null)), (None, None));
        assert_eq!(asking(json!(["maya"])), Some(Code::UnsupportedProperty));
        let machine = |flag: Value| json!({"virtualMachineConfiguration": {"imageReference": {}, "nodeAgentSKUId": "a", "securityProfile": {"encryptionAtHost": flag}}});
        assert_eq!(fault("PoolPatchParameter", machine(json!("false"))), None);
        let refused = (Code::UnsupportedProperty, "virtualMachineConfiguration.securityProfile.encryptionAtHost".to_owned());
        assert_eq!(fault("PoolPatchParameter", machine(json!("True"))), Some(refused));
        let both = json!({"applicationLicenses": ["maya"], "taskSlotsPerNode": 0});
        assert_eq!(fault("PoolPatchParameter", both), Some((Code::InvalidPropertyValue, "taskSlotsPerNode".to_owned())));
    }

    #[test]
    fn of_two_that_exclude_each_other_one_is_enough_and_both_are_wrong() {
        let info = |body: Value| fault("PoolInformation", body);
        assert_eq!(info(json!({})), Some((Code::MissingRequiredProperty, "poolId".to_owned())));
        assert_eq!(info(json!({"autoPoolSpecification": {"poolLifetimeOption": "job"}})), None);
        assert_eq!(info(json!({"poolId": "p", "autoPoolSpecification": {}})), Some((Code::InvalidPropertyValue, "poolId".to_owned())));
    }

    #[test]
    fn a_word_may_come_in_an_object_of_its_name_where_az_sends_it_so() {
        let of = |value: Value| fault("NodeRebootParameter", json!({ "nodeRebootOption": value }));
        assert_eq!(of(json!("Requeue")), None);
        assert_eq!(of(json!({"nodeRebootOption": "requeue"})), None);
        let wrong = of(json!({"nodeRebootOption": "later"}));
        assert_eq!(wrong, Some((Code::InvalidPropertyValue, "nodeRebootOption.nodeRebootOption".to_owned())));
        assert!(of(json!({"x": 1})).is_some());
    }
}
