//! Output of results: a table for people, JSON for programs. Data goes to stdout, messages to stderr.

use std::io::{self, IsTerminal, Write};

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;

/// A column: its title, and the JSON pointer of its value.
pub(crate) type Column = (&'static str, &'static str);

/// Writes results.
pub(crate) trait Output: Send + Sync {
    /// Resources of one kind.
    fn list(&self, columns: &[Column], values: &[Value]) -> io::Result<()>;
    /// Prints a resource with all its properties.
    fn one(&self, value: &Value) -> io::Result<()>;
    /// A line about what was done, for people; programs use the exit code.
    fn done(&self, text: &str) -> io::Result<()>;
    /// A line about what is ready for people; all values needed to use it for programs.
    fn ready(&self, text: &str, value: &Value) -> io::Result<()>;
    /// Figures, for programs; people have seen them already.
    fn summary(&self, value: &Value) -> io::Result<()>;
}

/// The output a person or a program asked for.
pub(crate) fn choose(json: bool) -> Box<dyn Output> {
    if json { Box::new(Json) } else { Box::new(People) }
}

/// Whether stderr is a terminal, so that progress and colour may be shown.
pub(crate) fn is_terminal() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

struct People;
struct Json;

impl Output for People {
    fn list(&self, columns: &[Column], values: &[Value]) -> io::Result<()> {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(columns.iter().map(|(title, _)| *title));
        for value in values {
            table.add_row(columns.iter().map(|(_, pointer)| cell(value.pointer(pointer))));
        }
        let mut out = io::stdout().lock();
        for line in table.lines() {
            writeln!(out, "{}", line.trim())?;
        }
        Ok(())
    }

    fn one(&self, value: &Value) -> io::Result<()> {
        let mut out = io::stdout().lock();
        lines(value, 0, &mut out)
    }

    fn done(&self, text: &str) -> io::Result<()> {
        writeln!(io::stderr(), "{text}")
    }

    fn ready(&self, text: &str, _value: &Value) -> io::Result<()> {
        let mut out = io::stdout().lock();
        writeln!(out, "{text}")?;
        out.flush()
    }

    fn summary(&self, _value: &Value) -> io::Result<()> {
        Ok(())
    }
}

impl Output for Json {
    fn list(&self, _columns: &[Column], values: &[Value]) -> io::Result<()> {
        self.one(&Value::Array(values.to_vec()))
    }

    fn one(&self, value: &Value) -> io::Result<()> {
        let mut out = io::stdout().lock();
        serde_json::to_writer_pretty(&mut out, value)?;
        writeln!(out)
    }

    fn done(&self, _text: &str) -> io::Result<()> {
        Ok(())
    }

    fn ready(&self, _text: &str, value: &Value) -> io::Result<()> {
        self.one(value)?;
        io::stdout().flush()
    }

    fn summary(&self, value: &Value) -> io::Result<()> {
        self.one(value)
    }
}

/// A value as a cell of a table; absent ones are a dash.
fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => plain(text),
        Some(other) => other.to_string(),
    }
}

/// Text without control characters, which could move a terminal's cursor.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn lines(value: &Value, depth: usize, out: &mut impl Write) -> io::Result<()> {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(fields) => {
            for (name, value) in fields.iter().filter(|(name, _)| !name.starts_with("odata.")) {
                match value {
                    Value::Object(inner) if !inner.is_empty() => {
                        writeln!(out, "{indent}{name}:")?;
                        lines(value, depth + 1, out)?;
                    }
                    Value::Array(inner) if inner.iter().any(Value::is_object) => {
                        writeln!(out, "{indent}{name}:")?;
                        for item in inner {
                            lines(item, depth + 1, out)?;
                        }
                    }
                    _ => writeln!(out, "{indent}{name}: {}", cell(Some(value)))?,
                }
            }
            Ok(())
        }
        other => writeln!(out, "{indent}{}", cell(Some(other))),
    }
}

/// A count of bytes for people.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (count as f64, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nested_things_are_indented_and_metadata_is_left_out() {
        let mut text = vec![];
        lines(&json!({"id": "a", "odata.metadata": "x", "inner": {"n": 1, "l": ["x"]}}), 0, &mut text).unwrap();
        assert_eq!(String::from_utf8(text).unwrap(), "id: a\ninner:\n  l: [\"x\"]\n  n: 1\n");
    }

    #[test]
    fn nothing_that_a_task_wrote_moves_the_cursor() {
        assert_eq!(cell(Some(&json!("a\u{1b}[2Jb"))), "a [2Jb");
    }

    #[test]
    fn bytes_are_short() {
        assert_eq!((bytes(12).as_str(), bytes(1536).as_str()), ("12 B", "1.5 KiB"));
    }
}
