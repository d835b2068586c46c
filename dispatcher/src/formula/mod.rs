//! Azure Batch's formulas for the size of a pool, pure: text and samples in, targets and a results text out.
//!
//! ```text
//! text ──lexer──► tokens ──parser──► statements ──evaluate(inputs)──► targets, option, results
//! ```
//! Names are resolved when the text is read, so that whoever sets a formula learns of a wrong one at once;
//! types are checked when it is evaluated. Text, nesting and work are bounded: no formula takes long.

mod evaluate;
mod functions;
mod lexer;
mod names;
mod parser;
mod samples;
mod show;
#[cfg(test)]
mod tests;
mod value;

use std::fmt;

use broker_config::{state::DeallocationOption, time::Timestamp};

pub use names::Metric;
pub use samples::{History, SAMPLE_MS, Sample};

/// Characters of a formula at most.
pub const CHARS_MAX: usize = 8 * 1024;
/// Statements of a formula at most.
pub const STATEMENTS_MAX: usize = 100;
/// Brackets, calls and signs inside each other at most.
pub const DEPTH_MAX: usize = 32;
/// Values that one evaluation may touch.
pub const WORK_MAX: usize = 1_000_000;
/// Values in one vector at most.
pub const VECTOR_MAX: usize = 10_000;
/// Nodes that a formula may ask for.
pub const TARGET_MAX: u32 = 100_000;

/// Why a formula cannot be read, or its evaluation failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormulaError {
    /// From 1.
    pub line: usize,
    /// From 1.
    pub column: usize,
    /// A sentence.
    pub reason: String,
}

impl fmt::Display for FormulaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Line {}, Col {}: {}", self.line, self.column, self.reason)
    }
}

/// Where in the text, in bytes.
type Place = usize;

/// A reason and its place, before the place is told as line and column.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Fault {
    place: Place,
    reason: String,
}

fn fault<T>(place: Place, reason: impl Into<String>) -> Result<T, Fault> {
    Err(Fault { place, reason: reason.into() })
}

impl Fault {
    fn located(self, text: &str) -> FormulaError {
        let before = &text[..text.floor_char_boundary(self.place)];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        FormulaError { line: before.matches('\n').count() + 1, column: before[line_start..].chars().count() + 1, reason: self.reason }
    }
}

/// A formula that was read.
#[derive(Debug, Clone)]
pub struct Formula {
    text: String,
    statements: Vec<parser::Statement>,
    /// The names of the formula's own variables, as first written.
    variables: Vec<String>,
}

/// What a formula is evaluated with.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// The present.
    pub now: Timestamp,
    /// What was seen of the pool.
    pub history: &'a History,
    /// Nodes wanted now.
    pub target_dedicated: u32,
    /// Nodes wanted now that may be taken back.
    pub target_low_priority: u32,
    /// Slots of a node.
    pub slots_per_node: u32,
    /// Where `rand()` begins.
    pub seed: u64,
}

/// What came of an evaluation.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// Dedicated nodes wanted; the present target when the formula says nothing or failed.
    pub target_dedicated: u32,
    /// Low-priority nodes wanted; likewise.
    pub target_low_priority: u32,
    /// What becomes of the tasks of nodes that go.
    pub option: DeallocationOption,
    /// All variables as one text.
    pub results: String,
    /// Why it failed; nothing changes then.
    pub error: Option<FormulaError>,
}

impl Formula {
    /// Reads a text.
    pub fn parse(text: &str) -> Result<Formula, FormulaError> {
        if text.len() > CHARS_MAX && text.chars().count() > CHARS_MAX {
            return Err(FormulaError { line: 1, column: 1, reason: format!("A formula may have at most {CHARS_MAX} characters.") });
        }
        let parsed = lexer::tokens(text).and_then(|tokens| parser::parse(&tokens, text.len()));
        let (statements, variables) = parsed.map_err(|fault| fault.located(text))?;
        Ok(Formula { text: text.to_owned(), statements, variables })
    }

    /// The text as it was given.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Works it out; never fails itself, a failure is part of the result.
    pub fn evaluate(&self, inputs: &Inputs<'_>) -> Evaluation {
        evaluate::run(self, inputs)
    }
}
