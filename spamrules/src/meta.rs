// SPDX-License-Identifier: GPL-3.0-or-later
//! Expressions over the hits of other rules: numbers, names, arithmetic, comparison, boolean operators and `? :`, with the values and
//! the precedence that Perl gives them. The conditions of `if` lines are the same language.

use std::fmt;

/// Expressions within expressions: more are refused.
const MAX_DEPTH: u32 = 100;
/// Tokens of one expression.
const MAX_TOKENS: usize = 20_000;

/// What is wrong with an expression.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum Error {
    #[error("{0:?} cannot stand in an expression")]
    Character(char),
    #[error("{0} where a name or a number is expected")]
    Operand(Found),
    #[error("{0} where an operator is expected")]
    Operator(Found),
    #[error("')' is missing")]
    Unclosed,
    #[error("the expression is too long or nested too deeply")]
    TooLarge,
    #[error("the expression can divide by zero")]
    Division,
}

/// A token, or the end, in the words of an error.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Found(String);

impl fmt::Display for Found {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { out.write_str("the end") } else { write!(out, "{:?}", self.0) }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operator {
    Or,
    And,
    Xor,
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    More,
    MoreOrEqual,
    Plus,
    Minus,
    Times,
    Divide,
}

#[derive(Debug, Clone)]
pub(crate) enum Node {
    Number(f64),
    /// The place of a name in the list of names; in a formula the place of a rule in the set.
    Name(usize),
    Not(Box<Node>),
    Negative(Box<Node>),
    /// Operators of one level, from left to right: a list, so that a long chain is not a deep tree.
    Chain(Box<Node>, Vec<(Operator, Node)>),
    Choice(Box<Node>, Box<Node>, Box<Node>),
}

/// A parsed expression.
#[derive(Debug, Clone)]
pub(crate) struct Expression {
    root: Node,
    names: Vec<String>,
}

impl Expression {
    /// Parses an expression. Like SpamAssassin, refuses one that divides by zero when nothing hits.
    pub(crate) fn parse(text: &str) -> Result<Expression, Error> {
        let mut parser = Parser { tokens: tokens(text)?, at: 0, names: Vec::new(), depth: 0 };
        if parser.tokens.iter().map(String::as_str).eq(["(", ")"]) {
            return Ok(Expression { root: Node::Number(0.0), names: Vec::new() });
        }
        let root = parser.choice()?;
        if let Some(token) = parser.tokens.get(parser.at) {
            return Err(Error::Operator(Found(token.clone())));
        }
        let expression = Expression { root, names: parser.names };
        expression.value(|_| 0.0).ok_or(Error::Division)?;
        Ok(expression)
    }

    /// The names used, in the order of their first use; values are asked for by the place in this list.
    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    /// The value, given that of each name; `None` after a division by zero.
    pub(crate) fn value(&self, of: impl Fn(usize) -> f64) -> Option<f64> {
        value(&self.root, &of)
    }

    /// The expression over rules; a name that is none counts 0.
    pub(crate) fn over(mut self, rule: impl Fn(&str) -> Option<u32>) -> Formula {
        let rules: Vec<Option<u32>> = self.names.iter().map(|name| rule(name)).collect();
        self.root.rename(&|place| rules.get(place).copied().flatten());
        Formula { root: self.root, rules: rules.into_iter().flatten().collect() }
    }
}

/// An expression over the rules of a set.
#[derive(Debug, Clone)]
pub(crate) struct Formula {
    root: Node,
    rules: Vec<u32>,
}

impl Formula {
    /// The rules used, each once.
    pub(crate) fn rules(&self) -> &[u32] {
        &self.rules
    }

    /// The formula as a tree.
    pub(crate) fn root(&self) -> &Node {
        &self.root
    }

    /// The value, given that of each rule by its place; `None` after a division by zero.
    pub(crate) fn value(&self, of: impl Fn(usize) -> f64) -> Option<f64> {
        value(&self.root, &of)
    }
}

impl Node {
    fn rename(&mut self, rule: &dyn Fn(usize) -> Option<u32>) {
        match self {
            Node::Number(_) => {}
            Node::Name(place) => match rule(*place).and_then(|rule| usize::try_from(rule).ok()) {
                Some(rule) => *place = rule,
                None => *self = Node::Number(0.0),
            },
            Node::Not(inner) | Node::Negative(inner) => inner.rename(rule),
            Node::Chain(first, rest) => {
                first.rename(rule);
                rest.iter_mut().for_each(|(_, node)| node.rename(rule));
            }
            Node::Choice(condition, yes, no) => [condition, yes, no].into_iter().for_each(|node| node.rename(rule)),
        }
    }
}

fn truth(value: bool) -> f64 {
    f64::from(u8::from(value))
}

fn value(node: &Node, of: &impl Fn(usize) -> f64) -> Option<f64> {
    Some(match node {
        Node::Number(number) => *number,
        Node::Name(place) => of(*place),
        Node::Not(inner) => truth(value(inner, of)? == 0.0),
        Node::Negative(inner) => -value(inner, of)?,
        Node::Choice(condition, yes, no) => value(if value(condition, of)? == 0.0 { no } else { yes }, of)?,
        Node::Chain(first, rest) => {
            let mut left = value(first, of)?;
            for (operator, right) in rest {
                left = two(*operator, left, right, of)?;
            }
            left
        }
    })
}

/// `&&` and `||` give the value of the side that decided, as in Perl.
fn two(operator: Operator, left: f64, right: &Node, of: &impl Fn(usize) -> f64) -> Option<f64> {
    match operator {
        Operator::Or if left != 0.0 => return Some(left),
        Operator::And if left == 0.0 => return Some(0.0),
        _ => {}
    }
    let right = value(right, of)?;
    Some(match operator {
        Operator::Or | Operator::And => right,
        Operator::Xor => exclusive_or(left, right),
        Operator::Equal => truth(left == right),
        Operator::Unequal => truth(left != right),
        Operator::Less => truth(left < right),
        Operator::LessOrEqual => truth(left <= right),
        Operator::More => truth(left > right),
        Operator::MoreOrEqual => truth(left >= right),
        Operator::Plus => left + right,
        Operator::Minus => left - right,
        Operator::Times => left * right,
        Operator::Divide if right == 0.0 => return None,
        Operator::Divide => left / right,
    })
}

/// Perl's `^` works on the bits of whole numbers.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
pub(crate) fn exclusive_or(left: f64, right: f64) -> f64 {
    ((left as u64) ^ (right as u64)) as f64
}

struct Parser {
    tokens: Vec<String>,
    at: usize,
    names: Vec<String>,
    depth: u32,
}

/// Operators from the loosest to the tightest.
const LEVELS: &[&[(&str, Operator)]] = &[
    &[("||", Operator::Or)],
    &[("&&", Operator::And)],
    &[("^", Operator::Xor)],
    &[("==", Operator::Equal), ("!=", Operator::Unequal)],
    &[("<", Operator::Less), ("<=", Operator::LessOrEqual), (">", Operator::More), (">=", Operator::MoreOrEqual)],
    &[("+", Operator::Plus), ("-", Operator::Minus)],
    &[("*", Operator::Times), ("/", Operator::Divide)],
];

impl Parser {
    fn peek(&self) -> &str {
        self.tokens.get(self.at).map_or("", String::as_str)
    }

    fn take(&mut self, token: &str) -> bool {
        let found = self.peek() == token;
        self.at += usize::from(found);
        found
    }

    fn deeper<T>(&mut self, parse: impl FnOnce(&mut Parser) -> Result<T, Error>) -> Result<T, Error> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(Error::TooLarge);
        }
        let parsed = parse(self);
        self.depth -= 1;
        parsed
    }

    fn choice(&mut self) -> Result<Node, Error> {
        self.deeper(|parser| {
            let condition = parser.level(LEVELS)?;
            if !parser.take("?") {
                return Ok(condition);
            }
            let yes = parser.choice()?;
            if !parser.take(":") {
                return Err(Error::Operator(Found(parser.peek().to_owned())));
            }
            let no = parser.choice()?;
            Ok(Node::Choice(Box::new(condition), Box::new(yes), Box::new(no)))
        })
    }

    fn level(&mut self, levels: &[&[(&str, Operator)]]) -> Result<Node, Error> {
        let Some((operators, tighter)) = levels.split_first() else { return self.operand() };
        let first = self.level(tighter)?;
        let mut rest = Vec::new();
        while let Some(&(token, operator)) = operators.iter().find(|(token, _)| self.peek() == *token) {
            self.take(token);
            rest.push((operator, self.level(tighter)?));
        }
        Ok(if rest.is_empty() { first } else { Node::Chain(Box::new(first), rest) })
    }

    fn operand(&mut self) -> Result<Node, Error> {
        let token = self.peek().to_owned();
        self.at += 1;
        match token.as_bytes().first() {
            Some(b'!') if token == "!" => self.deeper(Parser::operand).map(|inner| Node::Not(Box::new(inner))),
            Some(b'-') => self.deeper(Parser::operand).map(|inner| Node::Negative(Box::new(inner))),
            Some(b'+') => self.deeper(Parser::operand),
            Some(b'(') => {
                let inner = self.choice()?;
                if self.take(")") { Ok(inner) } else { Err(Error::Unclosed) }
            }
            Some(b'0'..=b'9' | b'.') => token.parse().map(Node::Number).map_err(|_| Error::Operand(Found(token))),
            Some(first) if *first == b'_' || first.is_ascii_alphabetic() => Ok(Node::Name(self.name(token))),
            _ => Err(Error::Operand(Found(token))),
        }
    }

    fn name(&mut self, name: String) -> usize {
        if let Some(place) = self.names.iter().position(|known| *known == name) {
            return place;
        }
        self.names.push(name);
        self.names.len() - 1
    }
}

fn tokens(text: &str) -> Result<Vec<String>, Error> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = if first == '_' || first.is_ascii_alphabetic() {
            rest.find(|letter: char| !(letter == '_' || letter.is_ascii_alphanumeric())).unwrap_or(rest.len())
        } else if first.is_ascii_digit() || first == '.' {
            rest.find(|letter: char| !(letter == '.' || letter.is_ascii_digit())).unwrap_or(rest.len())
        } else {
            let two = ["||", "&&", ">=", "<=", "==", "!="].iter().any(|operator| rest.starts_with(operator));
            if !two && !"!()+-*/<>^?:".contains(first) {
                return Err(Error::Character(first));
            }
            1 + usize::from(two)
        };
        let (token, after) = rest.split_at(length);
        tokens.push(token.to_owned());
        if tokens.len() > MAX_TOKENS {
            return Err(Error::TooLarge);
        }
        rest = after.trim_start();
    }
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(text: &str, hits: &[(&str, f64)]) -> Option<f64> {
        let expression = Expression::parse(text).unwrap();
        let names = expression.names().to_vec();
        expression.value(|place| {
            hits.iter()
                .find(|(name, _)| names.get(place).is_some_and(|known| known == name))
                .map_or(0.0, |(_, value)| *value)
        })
    }

    #[test]
    fn values_and_precedence() {
        assert_eq!(given("A && !B", &[("A", 3.0)]), Some(1.0));
        assert_eq!(given("A && B", &[("A", 3.0), ("B", 2.0)]), Some(2.0));
        assert_eq!(given("A || B && C", &[("A", 3.0)]), Some(3.0));
        assert_eq!(given("!A > 0", &[]), Some(1.0));
        assert_eq!(given("A + B + C > 1", &[("A", 1.0), ("C", 1.0)]), Some(1.0));
        assert_eq!(given("A * 2 - 1", &[("A", 2.0)]), Some(3.0));
        assert_eq!(given("A ? 5 : 7", &[]), Some(7.0));
        assert_eq!(given("(A + 0.5) / 2 == 1", &[("A", 1.5)]), Some(1.0));
        assert_eq!(given("2 - 1 - 1", &[]), Some(0.0));
        assert_eq!(given("A ^ 1", &[("A", 1.0)]), Some(0.0));
        assert_eq!(given("()", &[]), Some(0.0));
    }

    #[test]
    fn what_is_wrong() {
        assert_eq!(Expression::parse("A / B").unwrap_err(), Error::Division);
        assert_eq!(Expression::parse("(A").unwrap_err(), Error::Unclosed);
        assert_eq!(Expression::parse("A B").unwrap_err().to_string(), "\"B\" where an operator is expected");
        assert_eq!(Expression::parse("A &&").unwrap_err().to_string(), "the end where a name or a number is expected");
        assert_eq!(Expression::parse("A & B").unwrap_err(), Error::Character('&'));
        assert_eq!(Expression::parse(&"(".repeat(100_000)).unwrap_err(), Error::TooLarge);
        assert_eq!(Expression::parse(&"!".repeat(19_000)).unwrap_err(), Error::TooLarge);
        assert_eq!(
            Expression::parse("1.2.3").unwrap_err().to_string(),
            "\"1.2.3\" where a name or a number is expected"
        );
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_taken_or_refused(text in r"[AB01.()!&|^<>=+*/?: -]{0,40}") {
            if let Ok(expression) = Expression::parse(&text) {
                let _ = expression.value(|_| 1.0);
            }
        }
    }
}
