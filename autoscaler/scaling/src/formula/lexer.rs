//! Text to tokens: numbers, texts, names, operators. Comments run from `//` to the end of the line.

use super::{Fault, Place, fault};

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    Number(f64),
    Text(String),
    /// The name includes its `$`, if it has one.
    Name(String),
    /// An operator or a bracket.
    Sign(&'static str),
}

/// Longer ones first, so that `<=` is not read as `<`.
const SIGNS: &[&str] = &["<=", ">=", "==", "!=", "&&", "||", "<", ">", "=", "!", "+", "-", "*", "/", "?", ":", ";", ",", ".", "(", ")"];

/// The tokens of a text with their places.
pub(super) fn tokens(text: &str) -> Result<Vec<(Place, Token)>, Fault> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(first) = text[at..].chars().next() {
        let rest = &text[at..];
        if first.is_whitespace() {
            at += first.len_utf8();
        } else if rest.starts_with("//") {
            at += rest.find('\n').unwrap_or(rest.len());
        } else if first.is_ascii_digit() || (first == '.' && rest[1..].starts_with(|c: char| c.is_ascii_digit())) {
            let length = number_length(rest);
            match rest[..length].parse::<f64>() {
                Ok(number) if number.is_finite() => found.push((at, Token::Number(number))),
                _ => return fault(at, format!("{} is not a number.", &rest[..length])),
            }
            at += length;
        } else if first == '"' || first == '\'' {
            let inner = &rest[1..];
            let Some(end) = inner.find([first, '\n']).filter(|end| inner[*end..].starts_with(first)) else {
                return fault(at, "A text has no closing quote.");
            };
            found.push((at, Token::Text(inner[..end].to_owned())));
            at += end + 2;
        } else if first == '$' || first == '_' || first.is_ascii_alphabetic() {
            let length = rest[1..].find(|c: char| !c.is_ascii_alphanumeric() && c != '_').map_or(rest.len(), |end| end + 1);
            if rest[..length] == *"$" {
                return fault(at, "A name is expected after $.");
            }
            found.push((at, Token::Name(rest[..length].to_owned())));
            at += length;
        } else if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            found.push((at, Token::Sign(sign)));
            at += sign.len();
        } else {
            return fault(at, format!("Unexpected character '{first}'."));
        }
    }
    Ok(found)
}

fn digits(text: &str) -> usize {
    text.bytes().take_while(u8::is_ascii_digit).count()
}

fn number_length(text: &str) -> usize {
    let mut length = digits(text);
    if let Some(rest) = text[length..].strip_prefix('.') {
        let fraction = digits(rest);
        length += if fraction > 0 { fraction + 1 } else { 0 };
    }
    if let Some(rest) = text[length..].strip_prefix(['e', 'E']) {
        let sign = usize::from(rest.starts_with(['+', '-']));
        let exponent = digits(&rest[sign..]);
        length += if exponent > 0 { 1 + sign + exponent } else { 0 };
    }
    length
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: &str) -> Vec<Token> {
        tokens(text).unwrap().into_iter().map(|(_, token)| token).collect()
    }

    #[test]
    fn numbers_names_texts_and_signs_are_told_apart() {
        use Token::{Name, Number, Sign, Text};
        assert_eq!(
            plain("$a=1.5e3<=.5 // all of this; is nothing\n&& b.hour 'x' \"y'\""),
            vec![
                Name("$a".into()),
                Sign("="),
                Number(1500.0),
                Sign("<="),
                Number(0.5),
                Sign("&&"),
                Name("b".into()),
                Sign("."),
                Name("hour".into()),
                Text("x".into()),
                Text("y'".into()),
            ]
        );
        assert_eq!(plain("1.x 2e 3"), vec![Number(1.0), Sign("."), Name("x".into()), Number(2.0), Name("e".into()), Number(3.0)]);
    }

    #[test]
    fn what_is_no_token_is_refused_with_its_place() {
        for (text, place) in [("a = 5 % 2", 6), ("a = \"x", 4), ("a = 'x\n'", 4), ("é", 0), ("$ = 1", 0), ("a = 1e999", 4), ("a=[1]", 2)] {
            assert_eq!(tokens(text).unwrap_err().place, place, "{text}");
        }
    }
}
