//! The path of a property in a body, for refusals.

use std::fmt;

/// The way from the body to a value.
#[derive(Clone, Copy)]
pub enum Trail<'a> {
    /// The body itself.
    Root,
    /// A property of an object.
    Name(&'a Trail<'a>, &'a str),
    /// An item of a list.
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
