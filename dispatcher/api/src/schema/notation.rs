//! The notation of the entries, and how it is read.
//!
//! ```text
//! CloudThing: add=ThingAddParameter part=ThingSpecification patch=ThingPatchParameter get
//!   name type(bounds) : add! patch get since(2020-09-01) filter(Column) | effect: reason
//! Part:
//!   name! type
//! ```
//! A block is one shape, or as many as its header names uses; a use takes the entries that are marked with it, `part`
//! what `add` takes but the id. `!` marks what is required. `[T](1..9)` is a list; a name with a capital is another shape.

use contract::period::Period;

/// Items of a list without bounds of its own, at most.
const ITEMS_MAX: usize = 10_000;

/// The type of a value.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// An id chosen by a client.
    Id,
    /// A package's version.
    Version,
    /// Text with this many characters, at least and at most.
    Text(usize, usize),
    /// An autoscale formula, which its reader checks.
    Formula,
    /// One of these words, in any letter case.
    Word(Vec<&'static str>),
    /// True or false.
    Flag,
    /// A whole number.
    Int { least: i64, most: i64, is_long: bool },
    /// A length of time.
    Period(Period, Period),
    /// A point in time.
    Time,
    /// A number; answers only.
    Float,
    /// An object with free names, and texts of at most this many characters.
    Texts(usize),
    /// An object whose properties are ignored.
    Object,
    /// Anything.
    Any,
    /// Another shape, by its index.
    Shape(usize),
    /// A list of one type with this many items, at least and at most.
    List(Box<Kind>, usize, usize),
}

/// The effect of a given property.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// The property acts as Azure documents it.
    Acts,
    /// The property is Piecework's own and acts as this description says.
    Ours(&'static str),
    /// The property is shown and cannot be set.
    Label,
    /// The property is checked, kept and shown, and has no effect, for this reason.
    Ignored(&'static str),
    /// A request that gives the property a meaningful value is refused with this hint.
    Refused(&'static str, Refusing),
}

/// When an unsupported property is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusing {
    /// Whatever its value.
    Unchecked,
    /// When its value matches the schema.
    Checked,
    /// By its reader, after more checks.
    Read,
}

/// A property of a shape.
#[derive(Debug, Clone)]
pub struct Property {
    pub name: &'static str,
    pub kind: Kind,
    /// Whether it is required, unless one that excludes it is given.
    pub is_required: bool,
    /// Properties that must not be given beside it.
    pub excludes: Vec<&'static str>,
    /// The first API version with it, as its date in digits.
    pub since: Option<u32>,
    /// The first API version without it.
    pub until: Option<u32>,
    /// The column for `$filter`, by its name in `store::filter::Field`.
    pub filter: Option<&'static str>,
    /// Whether it can change only while its pool has no nodes.
    pub needs_no_nodes: bool,
    /// Whether its reader checks the items one by one, each with a result of its own.
    pub is_apart: bool,
    /// Whether the value may come inside an object of the same name, as `az` sends it.
    pub is_wrapped: bool,
    pub effect: Effect,
}

/// The properties of an object.
#[derive(Debug)]
pub struct Shape {
    /// Azure's name.
    pub name: &'static str,
    pub properties: Vec<Property>,
    /// Of a resource: further properties that its lists and versions know.
    pub beside: Vec<Property>,
    /// The properties that `$select` may name.
    pub select: Vec<&'static str>,
}

/// A line of the notation with its marks.
struct Line<'a> {
    marks: Vec<&'a str>,
    property: Property,
}

impl Line<'_> {
    /// Whether the entry belongs to a use, and if so, whether it is required there.
    fn belongs(&self, mark: &str) -> Option<bool> {
        let is_it = |given: &&&str| given.trim_end_matches('!') == mark;
        self.marks.iter().find(is_it).map(|given| given.ends_with('!'))
    }
}

/// The argument `(a)` of a mark.
fn argument<'a>(mark: &'a str, name: &str) -> Option<&'a str> {
    mark.strip_prefix(name)?.strip_prefix('(')?.strip_suffix(')')
}

/// Bounds: `a..b`, either left out, or `b` alone.
fn bounds(text: &str) -> (&str, &str) {
    text.split_once("..").unwrap_or(("", text))
}

fn parsed<T: std::str::FromStr>(text: &str, otherwise: T) -> T {
    match text {
        "" => otherwise,
        text => text.parse().unwrap_or_else(|_| panic!("the schema has the bound {text}")),
    }
}

fn kind(text: &'static str, number_of: &dyn Fn(&str) -> usize) -> Kind {
    if let Some(list) = text.strip_prefix('[') {
        let (inner, range) = list.rsplit_once(']').unwrap_or_else(|| panic!("the schema opens a list: {text}"));
        let range = range.trim_start_matches('(').trim_end_matches(')');
        let (least, most) = bounds(range);
        let most = if range.is_empty() { ITEMS_MAX } else { parsed(most, usize::MAX) };
        return Kind::List(Box::new(kind(inner, number_of)), parsed(least, 0), most);
    }
    let (name, range) = text.strip_suffix(')').and_then(|rest| rest.split_once('(')).unwrap_or((text, ""));
    let (least, most) = bounds(range);
    match name {
        "id" => Kind::Id,
        "version" => Kind::Version,
        "text" => Kind::Text(parsed(least, 0), parsed(most, usize::MAX)),
        "formula" => Kind::Formula,
        "word" => Kind::Word(range.split('|').collect()),
        "flag" => Kind::Flag,
        "int" => Kind::Int { least: parsed(least, i64::from(i32::MIN)), most: parsed(most, i64::from(i32::MAX)), is_long: false },
        "long" => Kind::Int { least: parsed(least, i64::MIN), most: parsed(most, i64::MAX), is_long: true },
        "period" => Kind::Period(parsed(least, Period::from_ms(0)), parsed(most, Period::UNLIMITED)),
        "time" => Kind::Time,
        "float" => Kind::Float,
        "texts" => Kind::Texts(parsed(most, usize::MAX)),
        "object" => Kind::Object,
        "any" => Kind::Any,
        shape => Kind::Shape(number_of(shape)),
    }
}

fn effect(text: &'static str) -> Effect {
    let (what, reason) = text.split_once(": ").unwrap_or((text, ""));
    match what {
        "" => Effect::Acts,
        "ours" => Effect::Ours(reason),
        "label" => Effect::Label,
        "ignored" => Effect::Ignored(reason),
        "refused" => Effect::Refused(reason, Refusing::Unchecked),
        "checked, refused" => Effect::Refused(reason, Refusing::Checked),
        "read, refused" => Effect::Refused(reason, Refusing::Read),
        other => panic!("the schema knows no effect {other}"),
    }
}

/// A version's date in digits.
fn date(text: &str) -> u32 {
    parsed(&text.replace('-', ""), 0)
}

fn line(text: &'static str, number_of: &dyn Fn(&str) -> usize) -> Line<'static> {
    let (rest, after) = text.split_once(" | ").unwrap_or((text, ""));
    let (head, marks) = rest.split_once(" : ").unwrap_or((rest, ""));
    let (name, type_of) = head.trim().split_once(' ').unwrap_or_else(|| panic!("the schema has no type in: {text}"));
    let marks: Vec<&str> = marks.split_whitespace().collect();
    let find = |name: &str| marks.iter().find_map(|mark| argument(mark, name));
    let property = Property {
        name: name.trim_end_matches('!'),
        kind: kind(type_of.trim(), number_of),
        is_required: name.ends_with('!'),
        excludes: find("excludes").map(|names| names.split(',').collect()).unwrap_or_default(),
        since: find("since").map(date),
        until: find("until").map(date),
        filter: find("filter"),
        needs_no_nodes: marks.contains(&"patch-empty"),
        is_apart: marks.contains(&"apart"),
        is_wrapped: marks.contains(&"wrapped"),
        effect: effect(after.trim()),
    };
    let marks = marks.into_iter().map(|mark| if mark == "patch-empty" { "patch" } else { mark }).collect();
    Line { marks, property }
}

/// Splits a text into blocks: a header and its entries.
fn blocks(text: &'static str) -> Vec<(&'static str, Vec<&'static str>)> {
    let mut found: Vec<(&str, Vec<&str>)> = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        match (line.starts_with(' '), found.last_mut()) {
            (false, _) => found.push((line, Vec::new())),
            (true, Some((_, entries))) => entries.push(line),
            (true, None) => panic!("the schema begins without a header: {line}"),
        }
    }
    found
}

/// The shapes that a header names, each with its use; a plain block is one shape without uses.
fn uses(header: &'static str) -> Vec<(&'static str, &'static str)> {
    let (name, uses) = header.split_once(':').unwrap_or_else(|| panic!("the schema has the header {header}"));
    match uses.split_whitespace().collect::<Vec<_>>()[..] {
        [] => vec![(name, "")],
        ref uses => uses.iter().map(|part| part.split_once('=').map_or((name, *part), |(mark, shape)| (shape, mark))).collect(),
    }
}

fn shape(name: &'static str, mark: &'static str, lines: &[Line<'_>]) -> Shape {
    if mark.is_empty() {
        let properties: Vec<Property> = lines.iter().map(|line| line.property.clone()).collect();
        return Shape { name, select: properties.iter().map(|property| property.name).collect(), properties, beside: Vec::new() };
    }
    let mut shape = Shape { name, properties: Vec::new(), beside: Vec::new(), select: Vec::new() };
    for line in lines {
        let is_part = mark == "part";
        let belongs = line.belongs(if is_part { "add" } else { mark }).filter(|_| !is_part || line.property.name != "id");
        if mark != "get" {
            // Only properties that are shown can be filtered.
            shape.properties.extend(belongs.map(|is_required| Property { is_required, filter: None, ..line.property.clone() }));
            continue;
        }
        if belongs.is_some() || line.belongs("select").is_some() {
            shape.select.push(line.property.name);
        }
        match belongs {
            Some(is_required) => shape.properties.push(Property { is_required, ..line.property.clone() }),
            None => shape.beside.push(line.property.clone()),
        }
    }
    shape
}

/// All shapes of some texts; references between them are indices into the result.
pub fn read(texts: &[&'static str]) -> Vec<Shape> {
    let blocks: Vec<_> = texts.iter().flat_map(|text| blocks(text)).collect();
    let names: Vec<&str> = blocks.iter().flat_map(|(header, _)| uses(header)).map(|(name, _)| name).collect();
    let number_of = |name: &str| names.iter().position(|known| *known == name).unwrap_or_else(|| panic!("the schema has no shape {name}"));
    let mut shapes = Vec::with_capacity(names.len());
    for (header, entries) in &blocks {
        let lines: Vec<Line<'_>> = entries.iter().map(|text| line(text, &number_of)).collect();
        shapes.extend(uses(header).into_iter().map(|(name, mark)| shape(name, mark, &lines)));
    }
    shapes
}

/// Unknown marks, for a test of the entries.
#[cfg(test)]
pub fn unknown_marks(text: &'static str) -> Vec<&'static str> {
    const PLAIN: [&str; 9] = ["add", "patch", "patch-empty", "put", "manager", "get", "select", "apart", "wrapped"];
    const ARGUMENTS: [&str; 4] = ["since(", "until(", "filter(", "excludes("];
    let marks = text.lines().filter_map(|line| line.split(" | ").next()?.split_once(" : ")).flat_map(|(_, marks)| marks.split_whitespace());
    let is_known = |mark: &&str| PLAIN.contains(&mark.trim_end_matches('!')) || ARGUMENTS.iter().any(|known| mark.starts_with(known));
    marks.filter(|mark| !is_known(mark)).collect()
}
