//! One component of a pattern: plain text, `**`, or text with `*`, `?` and classes; matching needs no deep
//! backtracking.

/// A parsed component of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Component {
    /// `**`: any number of folders, none with a leading dot.
    Folders,
    /// A text without wildcards; the flag says whether it may match a name with a leading dot.
    Plain(String, bool),
    /// A text with wildcards, with the same flag.
    Wild(Vec<Token>, bool),
}

/// A step of a component with wildcards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Token {
    /// Any characters.
    Star,
    Any,
    One(char),
    /// A character in one of these ranges; when the flag is set, one in none of them.
    Class(bool, Vec<(char, char)>),
}

impl Component {
    pub fn parse(text: &str) -> Component {
        if text == "**" {
            return Component::Folders;
        }
        let takes_dot = text.starts_with('.');
        let mut tokens = Vec::new();
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            let (length, token) = match (c, class(rest)) {
                ('*', _) => (1, Token::Star),
                ('?', _) => (1, Token::Any),
                ('[', Some((token, length))) => (length, token),
                _ => (c.len_utf8(), Token::One(c)),
            };
            tokens.push(token);
            rest = &rest[length..];
        }
        tokens.dedup_by(|a, b| *a == Token::Star && *b == Token::Star);
        let plain: Option<String> = tokens.iter().map(|token| if let Token::One(c) = token { Some(*c) } else { None }).collect();
        match plain {
            Some(plain) => Component::Plain(plain, takes_dot),
            None => Component::Wild(tokens, takes_dot),
        }
    }

    /// The only name that the component matches, when it has no wildcard.
    pub fn plain(&self) -> Option<&str> {
        if let Component::Plain(text, _) = self { Some(text) } else { None }
    }

    /// Whether the component matches a whole name.
    pub fn matches(&self, name: &str) -> bool {
        let is_hidden = name.starts_with('.');
        match self {
            Component::Folders => !is_hidden,
            Component::Plain(text, takes_dot) => text == name && (*takes_dot || !is_hidden),
            Component::Wild(tokens, takes_dot) => (*takes_dot || !is_hidden) && tokens_match(tokens, name),
        }
    }
}

impl Token {
    fn takes(&self, c: char) -> bool {
        match self {
            Token::Star => false,
            Token::Any => true,
            Token::One(own) => *own == c,
            Token::Class(is_negated, ranges) => ranges.iter().any(|(from, to)| (*from..=*to).contains(&c)) != *is_negated,
        }
    }
}

/// Backtracks to the last star at most, so the work is bounded by the product of both lengths.
fn tokens_match(tokens: &[Token], name: &str) -> bool {
    let (mut rest, mut at) = (name, 0);
    let mut last_star: Option<(usize, &str)> = None;
    loop {
        let next = rest.chars().next();
        match (tokens.get(at), next) {
            (Some(Token::Star), _) => {
                at += 1;
                last_star = Some((at, rest));
                continue;
            }
            (Some(token), Some(c)) if token.takes(c) => {
                at += 1;
                rest = &rest[c.len_utf8()..];
                continue;
            }
            (None, None) => return true,
            _ => {}
        }
        // The last star takes one character more.
        let Some((after, from)) = last_star else { return false };
        let Some(c) = from.chars().next() else { return false };
        rest = &from[c.len_utf8()..];
        at = after;
        last_star = Some((after, rest));
    }
}

/// Parses the class at the start of the text; returns it and its length in bytes. A class of one character becomes that
/// character.
fn class(text: &str) -> Option<(Token, usize)> {
    let inner = text.strip_prefix('[')?;
    let (is_negated, members) = match inner.strip_prefix('!') {
        Some(members) => (true, members),
        None => (false, inner),
    };
    // A bracket that comes first is a member.
    let first = members.chars().next()?.len_utf8();
    let end = first + members[first..].find(']')?;
    let length = text.len() - members.len() + end + 1;
    let members: Vec<char> = members[..end].chars().collect();
    if let ([only], false) = (members.as_slice(), is_negated) {
        return Some((Token::One(*only), length));
    }
    let mut ranges = Vec::new();
    let mut at = 0;
    while let Some(from) = members.get(at) {
        match (members.get(at + 1), members.get(at + 2)) {
            (Some('-'), Some(to)) => {
                ranges.push((*from, *to));
                at += 3;
            }
            _ => {
                ranges.push((*from, *from));
                at += 1;
            }
        }
    }
    Some((Token::Class(is_negated, ranges), length))
}
