//! The schema of the API: one entry for each property, the single source for everything that treats properties alike.
//!
//! ```text
//!             ┌─ check ── bodies: types, bounds, words, what is required, excluded or refused
//! entries ────┼─ paths ── filters of lists, and what versions lack
//!             ├─ shapes ─ `$select`, changes, unknown properties
//!             └───────── the OpenAPI document and the compatibility page (`document`)
//! ```

mod account;
pub mod check;
mod functions;
mod jobs;
mod machine;
mod nodes;
mod notation;
mod pools;
mod tasks;
pub mod trail;
mod triggers;

use std::{
    collections::HashMap,
    sync::{LazyLock, OnceLock},
};

pub use notation::{Effect, Kind, Property, Refusing, Shape};

const TEXTS: [&str; 8] = [
    pools::ENTRIES,
    machine::ENTRIES,
    jobs::ENTRIES,
    tasks::ENTRIES,
    nodes::ENTRIES,
    account::ENTRIES,
    functions::ENTRIES,
    triggers::ENTRIES,
];

static SHAPES: LazyLock<Vec<Shape>> = LazyLock::new(|| notation::read(&TEXTS));
static BY_NAME: LazyLock<HashMap<&str, &Shape>> = LazyLock::new(|| SHAPES.iter().map(|shape| (shape.name, shape)).collect());
static PATHS: LazyLock<HashMap<&str, OnceLock<Vec<Path>>>> =
    LazyLock::new(|| SHAPES.iter().map(|shape| (shape.name, OnceLock::new())).collect());

/// Every shape, in the order of the entries.
pub fn shapes() -> &'static [Shape] {
    &SHAPES
}

/// The shape with this name; the code names only shapes that exist.
pub fn shape(name: &str) -> &'static Shape {
    BY_NAME.get(name).unwrap_or_else(|| panic!("the schema has no shape {name}"))
}

/// A property of a resource, or of an object inside it.
#[derive(Debug)]
pub struct Path {
    /// Names from the resource to the property, joined by slashes.
    pub path: String,
    pub property: &'static Property,
}

impl Kind {
    /// The shape of an object, or of a list's items.
    pub fn inner(&self) -> Option<&'static Shape> {
        match self {
            Kind::List(inner, ..) => inner.inner(),
            other => other.object(),
        }
    }

    /// The words of an enumeration.
    pub fn words(&self) -> &[&'static str] {
        match self {
            Kind::Word(words) => words,
            _ => &[],
        }
    }

    /// The shape of an object.
    pub fn object(&self) -> Option<&'static Shape> {
        match self {
            Kind::Shape(number) => SHAPES.get(*number),
            _ => None,
        }
    }
}

impl Property {
    /// Whether the API version of this date has it.
    pub fn is_in(&self, version: u32) -> bool {
        self.since.is_none_or(|first| version >= first) && self.until.is_none_or(|end| version < end)
    }
}

impl Shape {
    /// The property of a name.
    pub fn property(&self, name: &str) -> Option<&Property> {
        self.properties.iter().find(|property| property.name == name)
    }

    /// All properties at every depth, except those in lists and in refused objects.
    pub fn paths(&'static self) -> &'static [Path] {
        PATHS[self.name].get_or_init(|| {
            let mut found = Vec::new();
            self.walk("", &mut found);
            found
        })
    }

    fn walk(&'static self, before: &str, found: &mut Vec<Path>) {
        for property in self.properties.iter().chain(&self.beside) {
            let path = format!("{before}{}", property.name);
            if let Some(inner) = property.kind.object().filter(|_| !matches!(property.effect, Effect::Refused(..))) {
                inner.walk(&format!("{path}/"), found);
            }
            found.push(Path { path, property });
        }
    }

    /// Paths of the properties that a version does not show.
    pub fn lacks(&'static self, version: u32) -> Vec<&'static str> {
        let paths = self.paths().iter();
        paths.filter(|path| !path.property.is_in(version)).map(|path| path.path.as_str()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_can_be_read_and_every_mark_means_something() {
        for text in TEXTS {
            assert_eq!(notation::unknown_marks(text), [""; 0]);
        }
        let mut names: Vec<_> = shapes().iter().map(|shape| shape.name).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all, "a shape stands twice");
        for shape in shapes() {
            for property in &shape.properties {
                let excluded = property.excludes.iter().filter(|name| shape.property(name).is_none());
                assert_eq!(excluded.count(), 0, "{}.{} excludes what is not there", shape.name, property.name);
            }
        }
    }

    #[test]
    fn bounds_that_the_model_relies_on_are_those_of_the_entries() {
        let kind = |shape: &str, name: &str| &self::shape(shape).property(name).unwrap().kind;
        let prefix = kind("AutoPoolSpecification", "autoPoolIdPrefix");
        assert!(matches!(prefix, Kind::Text(_, most) if *most == model::auto_pool::PREFIX_MAX));
        let release = kind("JobReleaseTask", "maxWallClockTime");
        assert!(matches!(release, Kind::Period(_, most) if *most == model::job_tasks::RELEASE_MAX));
    }

    #[test]
    fn one_entry_stands_for_every_use_of_a_property() {
        let resize = |shape: &str| self::shape(shape).property("resizeTimeout").map(|property| property.kind.clone());
        let all = ["PoolAddParameter", "PoolSpecification", "CloudPool"].map(resize);
        assert!(all[0].is_some() && all.iter().all(|kind| *kind == all[0]));
        assert_eq!(resize("PoolPatchParameter"), None);
        assert!(self::shape("PoolSpecification").property("id").is_none());
        assert!(self::shape("PoolAddParameter").property("vmSize").is_some_and(|size| size.is_required));
        assert!(self::shape("PoolPatchParameter").property("vmSize").is_some_and(|size| !size.is_required && size.needs_no_nodes));
        assert!(self::shape("CloudPool").select.contains(&"identity") && self::shape("CloudPool").property("identity").is_none());
    }

    #[test]
    fn versions_lack_what_they_do_not_know_wherever_it_is() {
        let lacks = |shape: &str, version| self::shape(shape).lacks(version);
        assert!(lacks("CloudPool", 20_240_201).contains(&"taskSchedulingPolicy/jobDefaultOrder"));
        assert_eq!(lacks("CloudTask", 20_240_201), [""; 0]);
        assert_eq!(lacks("CloudTask", 20_250_601), ["authenticationTokenSettings"]);
        let schedule = lacks("CloudJobSchedule", 20_200_301);
        assert!(schedule.contains(&"jobSpecification/poolInfo/autoPoolSpecification/pool/virtualMachineConfiguration/osDisk/caching"));
        assert!(schedule.contains(&"jobSpecification/jobManagerTask/requiredSlots"));
    }
}
