//! One input and its task.

use super::inputs::Source;

/// An input and the names derived from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    /// The task's id; ids are in the order of the inputs.
    pub(crate) id: String,
    pub(crate) source: Source,
    pub(crate) name: String,
    /// The output's name, with the input's folders.
    pub(crate) output: String,
}
