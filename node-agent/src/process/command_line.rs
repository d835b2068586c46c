//! Command lines as Azure Batch takes them: a program and its arguments, no shell.
//!
//! Words split at blanks; single quotes keep everything, double quotes keep blanks, a backslash keeps the
//! next character. `$NAME` and `${NAME}` outside single quotes are replaced when the name is one of the
//! node's own (`AZ_BATCH_…`), so that command lines written for either habit work; a shell's words are left to it.

use thiserror::Error;

/// Words of one command line at most.
pub const WORDS_MAX: usize = 16_384;

/// Reasons why a command line cannot be split.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CommandLineError {
    #[error("the command line is empty")]
    Empty,
    #[error("a {0} quote is not closed")]
    OpenQuote(char),
    #[error("a backslash ends the command line")]
    OpenEscape,
    #[error("the command line holds a NUL")]
    Nul,
    #[error("the command line has more than {WORDS_MAX} words")]
    TooManyWords,
}

const SHELLS: [&str; 6] = ["sh", "bash", "dash", "zsh", "ksh", "ash"];

/// Splits a command line and expands the node's variables.
pub fn split(text: &str, lookup: impl Fn(&str) -> Option<String>) -> Result<Vec<String>, CommandLineError> {
    if text.contains('\0') {
        return Err(CommandLineError::Nul);
    }
    let mut words: Vec<String> = Vec::new();
    let mut word: Option<String> = None;
    let mut is_for_shell = false;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' | '\n' | '\r' => {
                if let Some(done) = word.take() {
                    push(&mut words, done, &mut is_for_shell)?;
                }
            }
            '\'' => {
                let into = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some('\'') => break,
                        Some(c) => into.push(c),
                        None => return Err(CommandLineError::OpenQuote('\'')),
                    }
                }
            }
            '"' => {
                let into = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some('"') => break,
                        Some('\\') => match chars.next() {
                            Some(c @ ('"' | '\\')) => into.push(c),
                            // A shell that gets these words removes the backslash itself.
                            Some(c @ ('$' | '`')) if !is_for_shell => into.push(c),
                            Some('\n') => {}
                            Some(c) => into.extend(['\\', c]),
                            None => return Err(CommandLineError::OpenQuote('"')),
                        },
                        Some('$') if !is_for_shell => variable(&mut chars, into, &lookup),
                        Some(c) => into.push(c),
                        None => return Err(CommandLineError::OpenQuote('"')),
                    }
                }
            }
            '\\' => match chars.next() {
                Some(c) => word.get_or_insert_default().push(c),
                None => return Err(CommandLineError::OpenEscape),
            },
            '$' if !is_for_shell => variable(&mut chars, word.get_or_insert_default(), &lookup),
            c => word.get_or_insert_default().push(c),
        }
    }
    if let Some(done) = word {
        push(&mut words, done, &mut is_for_shell)?;
    }
    if words.first().is_none_or(String::is_empty) { Err(CommandLineError::Empty) } else { Ok(words) }
}

fn push(words: &mut Vec<String>, word: String, is_for_shell: &mut bool) -> Result<(), CommandLineError> {
    if words.len() >= WORDS_MAX {
        return Err(CommandLineError::TooManyWords);
    }
    if words.is_empty() {
        *is_for_shell = SHELLS.contains(&word.rsplit('/').next().unwrap_or(&word));
    }
    words.push(word);
    Ok(())
}

fn variable(chars: &mut std::iter::Peekable<std::str::Chars<'_>>, into: &mut String, lookup: &impl Fn(&str) -> Option<String>) {
    let rest: String = chars.clone().take(256).collect();
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let (name, length) = match rest.strip_prefix('{') {
        Some(inner) => match inner.split_once('}') {
            Some((name, _)) => (name, name.len() + 2),
            None => ("", 0),
        },
        None => {
            let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
            (&rest[..end], end)
        }
    };
    let value = if name.starts_with("AZ_BATCH_") && name.chars().all(is_name) { lookup(name) } else { None };
    match value {
        Some(value) => {
            into.push_str(&value);
            // Names are ASCII, so characters and bytes count the same.
            for _ in 0..length {
                chars.next();
            }
        }
        None => into.push('$'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Result<Vec<String>, CommandLineError> {
        split(text, |name| match name {
            "AZ_BATCH_TASK_ID" => Some("t 1".to_owned()),
            "AZ_BATCH_NODE_SHARED_DIR" => Some("/r/shared".to_owned()),
            _ => None,
        })
    }

    #[test]
    fn words_are_split_as_a_shell_would_without_running_one() {
        for (text, expected) in [
            ("/bin/true", vec!["/bin/true"]),
            ("  a   b\tc\n", vec!["a", "b", "c"]),
            ("echo 'a b' \"c d\" e\\ f", vec!["echo", "a b", "c d", "e f"]),
            ("echo '' \"\"", vec!["echo", "", ""]),
            ("echo a'b'\"c\"d", vec!["echo", "abcd"]),
            ("echo \"a \\\"q\\\" \\\\ \\n\"", vec!["echo", "a \"q\" \\ \\n"]),
            ("echo 'it'\\''s'", vec!["echo", "it's"]),
            ("/bin/sh -c 'echo $AZ_BATCH_TASK_ID; exit 3'", vec!["/bin/sh", "-c", "echo $AZ_BATCH_TASK_ID; exit 3"]),
            ("/bin/bash -c \"echo $AZ_BATCH_TASK_ID $HOME\"", vec!["/bin/bash", "-c", "echo $AZ_BATCH_TASK_ID $HOME"]),
            ("cat $AZ_BATCH_NODE_SHARED_DIR/x", vec!["cat", "/r/shared/x"]),
            ("cat \"${AZ_BATCH_NODE_SHARED_DIR}x\"", vec!["cat", "/r/sharedx"]),
            ("echo $AZ_BATCH_TASK_ID", vec!["echo", "t 1"]),
            ("echo '$AZ_BATCH_TASK_ID' \\$AZ_BATCH_TASK_ID", vec!["echo", "$AZ_BATCH_TASK_ID", "$AZ_BATCH_TASK_ID"]),
            ("echo $HOME $AZ_BATCH_NOPE ${AZ_BATCH_TASK_ID $", vec!["echo", "$HOME", "$AZ_BATCH_NOPE", "${AZ_BATCH_TASK_ID", "$"]),
            ("echo a;b|c>d&e", vec!["echo", "a;b|c>d&e"]),
            (":", vec![":"]),
        ] {
            assert_eq!(words(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_split_says_why() {
        for (text, error) in [
            ("", CommandLineError::Empty),
            (" \t", CommandLineError::Empty),
            ("''", CommandLineError::Empty),
            ("echo 'a", CommandLineError::OpenQuote('\'')),
            ("echo \"a", CommandLineError::OpenQuote('"')),
            ("echo \"a\\", CommandLineError::OpenQuote('"')),
            ("echo a\\", CommandLineError::OpenEscape),
            ("echo \0", CommandLineError::Nul),
        ] {
            assert_eq!(words(text), Err(error), "{text:?}");
        }
        assert_eq!(words(&"a ".repeat(WORDS_MAX + 1)), Err(CommandLineError::TooManyWords));
    }

    proptest::proptest! {
        #[test]
        fn quoting_a_word_keeps_it(word in "[ -~äö]{0,20}") {
            let quoted = format!("x '{}'", word.replace('\'', "'\\''"));
            proptest::prop_assert_eq!(words(&quoted).unwrap(), vec!["x".to_owned(), word]);
        }
    }
}
