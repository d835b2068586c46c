//! OData as Azure Batch uses it: `$filter` as a tree, `$select` as names.
//!
//! ```text
//! or := and ("or" and)*      and := unary ("and" unary)*
//! unary := "(" or ")" | path op literal | "startswith" "(" path "," text ")"
//! ```
//! Length, depth and number of comparisons are bounded, so that hostile filters cost little.

use contract::time::Timestamp;
use model::refusal::Refusal;
use store::filter::Operator;

use crate::query::wrong;

/// Bytes of a filter at most.
pub const FILTER_BYTES_MAX: usize = 4 * 1024;
/// Nesting of parentheses at most.
pub const DEPTH_MAX: usize = 20;
/// Comparisons at most.
pub const TERMS_MAX: usize = 50;

/// A parsed filter.
#[derive(Debug, Clone, PartialEq)]
pub enum Expression {
    And(Vec<Expression>),
    Or(Vec<Expression>),
    /// A comparison of a property.
    Compare(String, Operator, Literal),
    /// A property begins with a text.
    StartsWith(String, String),
}

/// A literal value.
#[derive(Debug, Clone, PartialEq)]
pub enum Literal {
    Text(String),
    Number(i64),
    Flag(bool),
    Time(Timestamp),
}

/// The refusal of a filter.
pub fn refused(filter: &str, reason: &str) -> Refusal {
    wrong("$filter", filter, reason).hint("An example: state eq 'completed' and startswith(id,'a').")
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Word(String),
    Literal(Literal),
    Open,
    Close,
    Comma,
}

/// Parses a time in the forms that clients use.
pub fn time(text: &str) -> Option<Timestamp> {
    let rfc1123 = || {
        let time = httpdate::parse_http_date(text).ok()?;
        let since = time.duration_since(std::time::UNIX_EPOCH).ok()?;
        i64::try_from(since.as_millis()).ok().map(Timestamp)
    };
    // W3C-DTF also allows years and months alone.
    let date_only = || match text.len() {
        4 => Timestamp::parse(&format!("{text}-01-01T00:00:00Z")),
        7 => Timestamp::parse(&format!("{text}-01T00:00:00Z")),
        10 => Timestamp::parse(&format!("{text}T00:00:00Z")),
        _ => None,
    };
    let zoneless = || Timestamp::parse(&format!("{text}Z"));
    Timestamp::parse(text).or_else(date_only).or_else(zoneless).or_else(rfc1123)
}

/// Parses `'…'`, in which `''` is one quote; returns the text and the rest.
fn quoted(rest: &str) -> Option<(String, &str)> {
    let inner = rest.strip_prefix('\'')?;
    let mut text = String::new();
    let mut chars = inner.char_indices().peekable();
    while let Some((index, c)) = chars.next() {
        if c != '\'' {
            text.push(c);
        } else if chars.peek().is_some_and(|(_, next)| *next == '\'') {
            text.push('\'');
            chars.next();
        } else {
            return Some((text, &inner[index + 1..]));
        }
    }
    None
}

fn tokens(filter: &str) -> Result<Vec<Token>, String> {
    let mut found = Vec::new();
    let mut rest = filter.trim_start();
    while let Some(first) = rest.chars().next() {
        match first {
            '(' | ')' | ',' => {
                found.push(match first {
                    '(' => Token::Open,
                    ')' => Token::Close,
                    _ => Token::Comma,
                });
                rest = &rest[1..];
            }
            '\'' => {
                let (text, after) = quoted(rest).ok_or("A text has no closing quote.")?;
                found.push(Token::Literal(Literal::Text(text)));
                rest = after;
            }
            _ => {
                let end = rest.find(|c: char| c.is_whitespace() || "(),'".contains(c)).unwrap_or(rest.len());
                let (word, after) = rest.split_at(end);
                rest = after;
                if word.eq_ignore_ascii_case("datetime") && rest.starts_with('\'') {
                    let (text, after) = quoted(rest).ok_or("A time has no closing quote.")?;
                    let time = time(&text).ok_or_else(|| format!("'{text}' is not a time such as 2026-11-23T19:00:00Z."))?;
                    found.push(Token::Literal(Literal::Time(time)));
                    rest = after;
                } else if word.starts_with(|c: char| c.is_ascii_digit() || c == '-' || c == '+') {
                    let number = word.parse().map_err(|_| format!("{word} is not a whole number."))?;
                    found.push(Token::Literal(Literal::Number(number)));
                } else if word == "true" || word == "false" {
                    found.push(Token::Literal(Literal::Flag(word == "true")));
                } else if word.chars().all(|c| c.is_ascii_alphanumeric() || c == '/' || c == '_') {
                    found.push(Token::Word(word.to_owned()));
                } else {
                    return Err(format!("{word} is not understood."));
                }
            }
        }
        rest = rest.trim_start();
    }
    Ok(found)
}

struct Parser {
    tokens: std::vec::IntoIter<Token>,
    terms: usize,
}

impl Parser {
    fn next_is(&self, token: &Token) -> bool {
        self.tokens.as_slice().first() == Some(token)
    }

    fn take(&mut self, token: &Token) -> Result<(), String> {
        if self.next_is(token) {
            self.tokens.next();
            return Ok(());
        }
        Err(match token {
            Token::Open => "A ( is missing.".to_owned(),
            Token::Close => "A ) is missing.".to_owned(),
            _ => "A comma is missing.".to_owned(),
        })
    }

    fn joined(
        &mut self,
        word: &str,
        depth: usize,
        part: fn(&mut Parser, usize) -> Result<Expression, String>,
    ) -> Result<Vec<Expression>, String> {
        let mut parts = vec![part(self, depth)?];
        while self.next_is(&Token::Word(word.to_owned())) {
            self.tokens.next();
            parts.push(part(self, depth)?);
        }
        Ok(parts)
    }

    fn any(&mut self, depth: usize) -> Result<Expression, String> {
        let mut parts = self.joined("or", depth, Parser::all)?;
        Ok(if parts.len() == 1 { parts.remove(0) } else { Expression::Or(parts) })
    }

    fn all(&mut self, depth: usize) -> Result<Expression, String> {
        let mut parts = self.joined("and", depth, Parser::unary)?;
        Ok(if parts.len() == 1 { parts.remove(0) } else { Expression::And(parts) })
    }

    fn unary(&mut self, depth: usize) -> Result<Expression, String> {
        if depth > DEPTH_MAX {
            return Err(format!("It is nested deeper than {DEPTH_MAX} levels."));
        }
        match self.tokens.next() {
            Some(Token::Open) => {
                let inner = self.any(depth + 1)?;
                self.take(&Token::Close)?;
                Ok(inner)
            }
            Some(Token::Word(word)) => {
                self.terms += 1;
                if self.terms > TERMS_MAX {
                    return Err(format!("It has more than {TERMS_MAX} comparisons."));
                }
                if word == "startswith" && self.next_is(&Token::Open) { self.starts_with() } else { self.compare(word) }
            }
            _ => Err("A comparison is missing.".to_owned()),
        }
    }

    fn starts_with(&mut self) -> Result<Expression, String> {
        self.take(&Token::Open)?;
        let Some(Token::Word(path)) = self.tokens.next() else { return Err("startswith needs a property.".to_owned()) };
        self.take(&Token::Comma)?;
        let Some(Token::Literal(Literal::Text(text))) = self.tokens.next() else {
            return Err("startswith needs a text in single quotes.".to_owned());
        };
        self.take(&Token::Close)?;
        Ok(Expression::StartsWith(path, text))
    }

    fn compare(&mut self, path: String) -> Result<Expression, String> {
        let operator = match self.tokens.next() {
            Some(Token::Word(word)) => match word.as_str() {
                "eq" => Operator::Eq,
                "ne" => Operator::Ne,
                "gt" => Operator::Gt,
                "ge" => Operator::Ge,
                "lt" => Operator::Lt,
                "le" => Operator::Le,
                _ => return Err(format!("{word} is not an operator; eq, ne, gt, ge, lt and le are.")),
            },
            _ => return Err(format!("After {path} an operator is missing.")),
        };
        match self.tokens.next() {
            Some(Token::Literal(literal)) => Ok(Expression::Compare(path, operator, literal)),
            _ => Err(format!("{path} is not compared with a value; texts need single quotes.")),
        }
    }
}

/// Reads a filter.
pub fn parse(filter: &str) -> Result<Expression, Refusal> {
    if filter.len() > FILTER_BYTES_MAX {
        return Err(refused(filter, &format!("It is longer than {FILTER_BYTES_MAX} bytes.")));
    }
    let read = || {
        let mut parser = Parser { tokens: tokens(filter)?.into_iter(), terms: 0 };
        let expression = parser.any(0)?;
        if parser.tokens.as_slice().is_empty() { Ok(expression) } else { Err("Something follows after its end.".to_owned()) }
    };
    read().map_err(|reason: String| refused(filter, &reason))
}

/// The properties that an answer contains.
#[derive(Debug, Clone)]
pub struct Select(Vec<String>);

impl Select {
    /// Parses a comma-separated list of known properties.
    pub fn parse(text: &str, known: &[&str]) -> Result<Select, Refusal> {
        let names: Vec<_> = text.split(',').map(str::trim).map(str::to_owned).collect();
        match names.iter().find(|name| !known.contains(&name.as_str())) {
            None => Ok(Select(names)),
            Some(name) => Err(wrong("$select", text, &format!("'{name}' is not a property of this resource."))
                .hint(&format!("Known: {}.", known.join(", ")))),
        }
    }

    /// Whether a property was selected.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|selected| selected == name)
    }

    /// The selected properties.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn and_binds_closer_than_or_and_brackets_change_it() {
        let compare = |path: &str, n| Expression::Compare(path.into(), Operator::Eq, Literal::Number(n));
        let (a, b, c) = (compare("a", 1), compare("b", 2), compare("c", 3));
        let both = |x: &Expression, y: &Expression| Expression::And(vec![x.clone(), y.clone()]);
        assert_eq!(parse("a eq 1 or b eq 2 and c eq 3").unwrap(), Expression::Or(vec![a.clone(), both(&b, &c)]));
        assert_eq!(parse("(a eq 1 or b eq 2)and(c eq 3)").unwrap(), both(&Expression::Or(vec![a, b]), &c));
    }

    #[test]
    fn literals_come_in_every_form() {
        let literal = |text: &str| match parse(&format!("x eq {text}")).unwrap() {
            Expression::Compare(_, _, literal) => literal,
            other => panic!("{other:?}"),
        };
        assert_eq!(literal("'it''s'"), Literal::Text("it's".into()));
        assert_eq!(literal("-5"), Literal::Number(-5));
        assert_eq!(literal("true"), Literal::Flag(true));
        for form in [
            "DateTime'2026-11-23T19:00:00Z'",
            "datetime'2026-11-23T19:00:00.000Z'",
            "DateTime'Mon, 23 Nov 2026 19:00:00 GMT'",
            "datetime'2026-11-23T19:00:00'",
        ] {
            assert_eq!(literal(form), Literal::Time(Timestamp(1_795_460_400_000)), "{form}");
        }
        for form in ["DateTime'2026'", "DateTime'2026-01'", "DateTime'2026-01-01'"] {
            assert_eq!(literal(form), Literal::Time(Timestamp(1_767_225_600_000)), "{form}");
        }
        assert_eq!(parse("startswith(id, 'x''y')").unwrap(), Expression::StartsWith("id".into(), "x'y".into()));
    }

    #[test]
    fn what_is_not_a_filter_is_refused() {
        let deep = format!("{}a eq 1{}", "(".repeat(30), ")".repeat(30));
        let wide = vec!["a eq 1"; 60].join(" or ");
        let long = format!("a eq '{}'", "x".repeat(5000));
        for text in [
            "",
            "a",
            "a eq",
            "a eq b",
            "a xx 1",
            "a eq 'x",
            "a eq 1 b",
            "(a eq 1",
            "a eq 1)",
            "not a eq 1",
            "startswith(a)",
            "startswith(a,5)",
            "a eq 1.5",
            "a eq datetime'x'",
            "a eq 1 and",
            "é eq 1",
            "contains(a,'b')",
            &deep,
            &wide,
            &long,
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn only_known_properties_are_selected() {
        assert!(Select::parse("id, state", &["id", "state"]).unwrap().has("state"));
        assert!(Select::parse("id,,state", &["id", "state"]).is_err());
        assert!(Select::parse("Id", &["id"]).is_err());
    }
}
