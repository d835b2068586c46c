//! Properties that are accepted, checked and shown without any other effect; the compatibility page lists them.
//!
//! A test tries every property of every shape and compares the result with its entry.

use crate::schema::{self, Effect, Shape};

/// Paths of all such properties in a body of this shape, in the order of the entries.
pub fn paths(shape: &str) -> Vec<String> {
    let mut found = Vec::new();
    collect(schema::shape(shape), "", &mut found);
    found
}

fn collect(shape: &Shape, before: &str, found: &mut Vec<String>) {
    for property in &shape.properties {
        let path = format!("{before}{}", property.name);
        match (property.effect, property.kind.inner()) {
            (Effect::Ignored(_), _) => found.push(format!("`{path}`")),
            (Effect::Refused(..), _) | (_, None) => {}
            (_, Some(inner)) if inner.name == "PoolSpecification" => found.push(format!("of `{path}` what pool.add has")),
            (_, Some(inner)) => collect(inner, &format!("{path}."), found),
        }
    }
}

#[cfg(test)]
mod tests;
