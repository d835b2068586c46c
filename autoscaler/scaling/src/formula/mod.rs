//! Azure Batch's formulas for the size of a pool, pure: text and samples in, targets and a results text out.
//!
//! ```text
//! text ──lexer──► tokens ──parser──► statements ──evaluate(inputs)──► targets, option, results
//! ```
//! Names are resolved when the text is parsed, so that a wrong name is refused when the formula is set; types are
//! checked when it is evaluated. Text, nesting and work are bounded: no formula takes long.

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

use contract::{state::DeallocationOption, time::Timestamp};

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

/// The error of a formula that cannot be parsed, or whose evaluation failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormulaError {
    /// Counted from 1.
    pub line: usize,
    /// Counted from 1.
    pub column: usize,
    pub reason: String,
}

impl fmt::Display for FormulaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Line {}, Col {}: {}", self.line, self.column, self.reason)
    }
}

/// Offset in the text, in bytes.
type Place = usize;

/// A reason and its place, before the place is converted to line and column.
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

/// A parsed formula.
#[derive(Debug, Clone)]
pub struct Formula {
    text: String,
    statements: Vec<parser::Statement>,
    /// The names of the formula's own variables, as first written.
    variables: Vec<String>,
}

/// Inputs of an evaluation.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// The time of day.
    pub now: Timestamp,
    /// The present on the clock of the samples, which is never set.
    pub sampled: Timestamp,
    /// Samples of the pool.
    pub history: &'a History,
    /// The pool's present target of dedicated nodes.
    pub target_dedicated: u32,
    /// The pool's present target of low-priority nodes.
    pub target_low_priority: u32,
    pub slots_per_node: u32,
    /// Seed of `rand()`.
    pub seed: u64,
}

/// The result of an evaluation.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// Dedicated nodes wanted; the present target when the formula sets none or failed.
    pub target_dedicated: u32,
    /// Low-priority nodes wanted; the present target when the formula sets none or failed.
    pub target_low_priority: u32,
    /// How the tasks of removed nodes are treated.
    pub option: DeallocationOption,
    /// All variables as one text.
    pub results: String,
    /// Present when the evaluation failed; then the targets are the present ones.
    pub error: Option<FormulaError>,
}

impl Formula {
    /// Parses a text.
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

    /// Evaluates the formula; an error is part of the result.
    pub fn evaluate(&self, inputs: &Inputs<'_>) -> Evaluation {
        evaluate::run(self, inputs)
    }
}
