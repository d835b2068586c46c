//! Parses tokens into statements. Chains of operators of one rank are lists, not trees: only brackets nest.
//!
//! ```text
//! formula := [statement] (";" [statement])*      statement := name "=" choice | "stop" "(" ")"
//! choice  := or ("?" choice ":" or)*             or … factor: || && (== !=) (< <= > >=) (+ -) (* /)
//! unary   := ("!" | "-") unary | postfix         postfix := primary ("." name [arguments])*
//! ```

use std::collections::HashMap;

use super::{
    DEPTH_MAX, Fault, Place, STATEMENTS_MAX, fault,
    lexer::Token,
    names::{self, Function, Member, Method, Name, Setting},
};

/// An expression and its place.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Expression {
    pub place: Place,
    pub kind: Kind,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    Number(f64),
    Text(String),
    Name(Name),
    /// The first operand, then operators with their right operands, from left to right.
    Chain(Box<Expression>, Vec<(Place, Operator, Expression)>),
    Not(Box<Expression>),
    Negate(Box<Expression>),
    /// Conditions with their values, and the value when none holds.
    Choice(Vec<(Expression, Expression)>, Box<Expression>),
    Call(Function, Vec<Expression>),
    Member(Box<Expression>, Member),
    Method(Box<Expression>, Method, Vec<Expression>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Or,
    And,
    Equal,
    Different,
    Less,
    LessOrEqual,
    More,
    MoreOrEqual,
    Plus,
    Minus,
    Times,
    Over,
}

/// The target of an assignment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    Setting(Setting),
    /// A variable of the formula, by its index.
    Own(usize),
    /// No target: the statement is a call.
    Nothing,
}

/// One statement.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Statement {
    pub target: Target,
    pub value: Expression,
}

/// Operators by rank, the weakest first.
const RANKS: &[&[(&str, Operator)]] = &[
    &[("||", Operator::Or)],
    &[("&&", Operator::And)],
    &[("==", Operator::Equal), ("!=", Operator::Different)],
    &[("<", Operator::Less), ("<=", Operator::LessOrEqual), (">", Operator::More), (">=", Operator::MoreOrEqual)],
    &[("+", Operator::Plus), ("-", Operator::Minus)],
    &[("*", Operator::Times), ("/", Operator::Over)],
];

struct Parser<'a> {
    tokens: &'a [(Place, Token)],
    at: usize,
    end: Place,
    depth: usize,
    numbers: HashMap<String, usize>,
    variables: Vec<String>,
}

/// Parses statements; also returns the names of the formula's own variables.
pub(super) fn parse(tokens: &[(Place, Token)], end: Place) -> Result<(Vec<Statement>, Vec<String>), Fault> {
    let mut parser = Parser { tokens, at: 0, end, depth: 0, numbers: HashMap::new(), variables: Vec::new() };
    let mut statements = Vec::new();
    loop {
        while parser.takes(";") {}
        if parser.at == tokens.len() {
            break;
        }
        if statements.len() == STATEMENTS_MAX {
            return fault(parser.place(), format!("A formula may have at most {STATEMENTS_MAX} statements."));
        }
        statements.push(parser.statement()?);
        if parser.at < tokens.len() {
            parser.expect(";")?;
        }
    }
    if statements.is_empty() {
        return fault(0, "The formula has no statement.");
    }
    Ok((statements, parser.variables))
}

impl Parser<'_> {
    fn place(&self) -> Place {
        self.tokens.get(self.at).map_or(self.end, |(place, _)| *place)
    }

    fn token(&self) -> Option<&Token> {
        self.tokens.get(self.at).map(|(_, token)| token)
    }

    fn is_at(&self, sign: &str) -> bool {
        matches!(self.token(), Some(Token::Sign(found)) if *found == sign)
    }

    fn takes(&mut self, sign: &str) -> bool {
        let found = self.is_at(sign);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, sign: &str) -> Result<(), Fault> {
        if self.takes(sign) { Ok(()) } else { fault(self.place(), format!("'{sign}' is expected here.")) }
    }

    fn name(&mut self) -> Option<String> {
        let Some(Token::Name(name)) = self.token() else { return None };
        let name = name.clone();
        self.at += 1;
        Some(name)
    }

    fn statement(&mut self) -> Result<Statement, Fault> {
        let place = self.place();
        let Some(name) = self.name() else { return fault(place, "A statement begins with the name of a variable.") };
        if self.is_at("(") && names::function(&name).is_some_and(|(function, ..)| function == Function::Stop) {
            self.at -= 1;
            return Ok(Statement { target: Target::Nothing, value: self.choice()? });
        }
        if !self.is_at("=") {
            return fault(self.place(), format!("'=' is expected after {name}."));
        }
        self.at += 1;
        let value = self.choice()?;
        let target = match names::known(&name) {
            Some(Name::Setting(setting)) => Target::Setting(setting),
            Some(_) => return fault(place, format!("{name} cannot be set.")),
            None => Target::Own(self.own(name)),
        };
        Ok(Statement { target, value })
    }

    fn own(&mut self, name: String) -> usize {
        let next = self.variables.len();
        *self.numbers.entry(name).or_insert_with_key(|name| {
            self.variables.push(name.clone());
            next
        })
    }

    /// Parses one level deeper; fails beyond [`super::DEPTH_MAX`].
    fn deeper<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, Fault>) -> Result<T, Fault> {
        if self.depth == DEPTH_MAX {
            return fault(self.place(), format!("The formula is nested deeper than {DEPTH_MAX} levels."));
        }
        self.depth += 1;
        let found = read(self);
        self.depth -= 1;
        found
    }

    fn choice(&mut self) -> Result<Expression, Fault> {
        let place = self.place();
        let mut value = self.chain(0)?;
        let mut arms = Vec::new();
        while self.takes("?") {
            let chosen = self.deeper(Self::choice)?;
            self.expect(":")?;
            arms.push((value, chosen));
            value = self.chain(0)?;
        }
        if arms.is_empty() { Ok(value) } else { Ok(Expression { place, kind: Kind::Choice(arms, Box::new(value)) }) }
    }

    fn chain(&mut self, rank: usize) -> Result<Expression, Fault> {
        let Some(operators) = RANKS.get(rank) else { return self.unary() };
        let place = self.place();
        let first = self.chain(rank + 1)?;
        let mut rest = Vec::new();
        loop {
            let at = self.place();
            let Some(operator) = operators.iter().find(|(sign, _)| self.is_at(sign)).map(|(_, operator)| *operator) else { break };
            self.at += 1;
            rest.push((at, operator, self.chain(rank + 1)?));
        }
        if rest.is_empty() { Ok(first) } else { Ok(Expression { place, kind: Kind::Chain(Box::new(first), rest) }) }
    }

    fn unary(&mut self) -> Result<Expression, Fault> {
        let place = self.place();
        let make = if self.takes("!") {
            Kind::Not
        } else if self.takes("-") {
            Kind::Negate
        } else {
            return self.postfix();
        };
        let of = self.deeper(Self::unary)?;
        Ok(Expression { place, kind: make(Box::new(of)) })
    }

    fn postfix(&mut self) -> Result<Expression, Fault> {
        let mut value = self.primary()?;
        let mut count = 0;
        while self.takes(".") {
            let place = self.place();
            count += 1;
            if count > DEPTH_MAX {
                return fault(place, format!("At most {DEPTH_MAX} members may follow each other."));
            }
            let Some(name) = self.name() else { return fault(place, "The name of a member is expected after '.'.") };
            let kind = if self.is_at("(") {
                let Some((method, least, most)) = names::method(&name) else { return fault(place, format!("There is no method {name}.")) };
                let arguments = self.arguments(place, &name, least, most)?;
                Kind::Method(Box::new(value), method, arguments)
            } else {
                let Some(member) = names::member(&name) else { return fault(place, format!("There is no member {name}.")) };
                Kind::Member(Box::new(value), member)
            };
            value = Expression { place, kind };
        }
        Ok(value)
    }

    fn arguments(&mut self, place: Place, name: &str, least: usize, most: usize) -> Result<Vec<Expression>, Fault> {
        self.expect("(")?;
        let arguments = self.deeper(|parser| {
            let mut found = Vec::new();
            if parser.is_at(")") {
                return Ok(found);
            }
            found.push(parser.choice()?);
            while parser.takes(",") {
                found.push(parser.choice()?);
            }
            Ok(found)
        })?;
        self.expect(")")?;
        if (least..=most).contains(&arguments.len()) {
            return Ok(arguments);
        }
        let wanted = match (least, most) {
            (least, most) if least == most => least.to_string(),
            (least, usize::MAX) => format!("at least {least}"),
            (least, most) => format!("{least} to {most}"),
        };
        fault(place, format!("{name} takes {wanted} arguments, not {}.", arguments.len()))
    }

    fn primary(&mut self) -> Result<Expression, Fault> {
        let place = self.place();
        let kind = match self.token().cloned() {
            Some(Token::Number(number)) => {
                self.at += 1;
                Kind::Number(number)
            }
            Some(Token::Text(text)) => {
                self.at += 1;
                Kind::Text(text)
            }
            Some(Token::Sign("(")) => {
                self.at += 1;
                let inner = self.deeper(Self::choice)?;
                self.expect(")")?;
                return Ok(inner);
            }
            Some(Token::Name(name)) => {
                self.at += 1;
                if self.is_at("(") {
                    let Some((function, least, most)) = names::function(&name) else {
                        return fault(place, format!("There is no function {name}."));
                    };
                    Kind::Call(function, self.arguments(place, &name, least, most)?)
                } else {
                    // Statements run in order, so a variable that is read before any assignment is an error that is
                    // found here.
                    let own = self.numbers.get(&name).copied().map(Name::Own);
                    match own.or_else(|| names::known(&name)) {
                        Some(name) => Kind::Name(name),
                        None => return fault(place, format!("{name} is not defined.")),
                    }
                }
            }
            Some(Token::Sign(sign)) => return fault(place, format!("Unexpected '{sign}'.")),
            None => return fault(place, "The formula ends where a value is expected."),
        };
        Ok(Expression { place, kind })
    }
}
