//! Turns a program and its arguments into Azure Batch's command line, which is split without a shell.

/// Quotes a word where needed, so that splitting the command line gives it back unchanged.
pub(crate) fn quote(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

/// A command line of several words; a single word that holds more than a program's name goes to a shell.
pub(crate) fn of(command: &[String]) -> String {
    match command {
        [script] if script != ":" && script.contains(|c: char| c.is_whitespace() || "|&;<>$`(){}*?".contains(c)) => {
            format!("/bin/sh -c {}", quote(script))
        }
        words => words.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(words: &[&str]) -> String {
        of(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn words_are_quoted_where_needed_and_scripts_get_a_shell() {
        assert_eq!(line(&["echo", "a b", "it's", ""]), r"echo 'a b' 'it'\''s' ''");
        assert_eq!(line(&["cat a | wc"]), "/bin/sh -c 'cat a | wc'");
        assert_eq!(line(&["/bin/true"]), "/bin/true");
        assert_eq!(line(&[":"]), ":");
    }
}
