// SPDX-License-Identifier: GPL-3.0-or-later
//! The text of an expression as a tree of ours. The grammar is that of CEL (Common Expression Language, cel-spec "Syntax"), read by
//! the crate `cel`, which nothing but this file knows.
//!
//! Pure. Says nothing of names and types; that is the compiler's. The grammar is recursive, so length and nesting are bounded before it
//! is asked, it works on a thread with stack enough for whatever fits these bounds, and nothing deep leaves that thread.

use cel::IdedExpr;
use cel::common::ast::{Expr, LiteralValue, SourceInfo, operators};
use cel::parser::{ParseErrors, Parser};

/// Longest expression, in bytes.
pub const MAX_LENGTH: usize = 8192;
/// Most brackets inside brackets.
pub const MAX_NESTING: usize = 24;
/// Most operators and calls inside each other.
pub const MAX_DEPTH: usize = 64;
/// The deepest text of [`MAX_LENGTH`] bytes needs between 4 and 8 MB in an unoptimised build.
const STACK: usize = 32 << 20;

/// What is wrong with an expression, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Wrong {
    /// Position in the expression, in bytes.
    pub at: usize,
    /// What is wrong and what would be right.
    pub message: String,
}

impl Wrong {
    /// A mistake at a position.
    pub fn new(at: usize, message: impl Into<String>) -> Self {
        Self { at, message: message.into() }
    }

    /// The message with its place in `text`.
    pub fn told(&self, text: &str) -> String {
        let (before, rest) = text.split_at(text.floor_char_boundary(self.at));
        let (line, column) =
            (before.matches('\n').count(), before.chars().rev().take_while(|c| *c != '\n').count() + 1);
        let near: String = rest.lines().next().unwrap_or_default().chars().take(24).collect();
        let place =
            if line == 0 { format!("character {column}") } else { format!("line {}, character {column}", line + 1) };
        match near.trim() {
            "" => format!("{place}: {}", self.message),
            near => format!("{place}, at {near:?}: {}", self.message),
        }
    }
}

/// An operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// `!`
    Not,
    /// `&&`
    And,
    /// `||`
    Or,
    /// `? :`
    If,
    /// `in`
    In,
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterEqual,
    /// `+`
    Add,
    /// Binary `-`
    Subtract,
    /// `*`
    Multiply,
    /// `/`
    Divide,
    /// `%`
    Remainder,
    /// Unary `-`
    Negate,
}

impl Operator {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            operators::LOGICAL_NOT => Self::Not,
            operators::LOGICAL_AND => Self::And,
            operators::LOGICAL_OR => Self::Or,
            operators::CONDITIONAL => Self::If,
            operators::IN => Self::In,
            operators::EQUALS => Self::Equal,
            operators::NOT_EQUALS => Self::NotEqual,
            operators::LESS => Self::Less,
            operators::LESS_EQUALS => Self::LessEqual,
            operators::GREATER => Self::Greater,
            operators::GREATER_EQUALS => Self::GreaterEqual,
            operators::ADD => Self::Add,
            operators::SUBSTRACT => Self::Subtract,
            operators::MULTIPLY => Self::Multiply,
            operators::DIVIDE => Self::Divide,
            operators::MODULO => Self::Remainder,
            operators::NEGATE => Self::Negate,
            _ => return None,
        })
    }

    /// How it is written.
    pub fn word(self) -> &'static str {
        match self {
            Self::Not => "!",
            Self::And => "&&",
            Self::Or => "||",
            Self::If => "? :",
            Self::In => "in",
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessEqual => "<=",
            Self::Greater => ">",
            Self::GreaterEqual => ">=",
            Self::Add => "+",
            Self::Subtract | Self::Negate => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Remainder => "%",
        }
    }
}

/// A piece of an expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// `true`, `false`
    Flag(bool),
    /// A whole number.
    Number(i64),
    /// A text in quotes.
    Text(String),
    /// `[a, b]`
    List(Vec<Node>),
    /// A name.
    Name(String),
    /// An operator and what it works on.
    Operation(Operator, Vec<Node>),
    /// A function and its arguments; of `a.f(b)` these are `a` and `b`.
    Call(String, Vec<Node>),
}

/// A piece of an expression and its position in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// What it is.
    pub what: What,
    /// Where it is.
    pub at: usize,
}

/// Reads expressions, each to its tree or its first mistake.
pub fn parse_all(texts: &[&str]) -> Vec<Result<Node, Wrong>> {
    if texts.is_empty() {
        return Vec::new();
    }
    let failed = |message: &str| texts.iter().map(|_| Err(Wrong::new(0, message))).collect();
    std::thread::scope(|scope| {
        let worker = std::thread::Builder::new().name("expressions".to_owned()).stack_size(STACK);
        match worker.spawn_scoped(scope, || texts.iter().map(|text| parse(text)).collect()) {
            Ok(parsing) => parsing.join().unwrap_or_else(|_| failed("cannot be read")),
            Err(error) => failed(&format!("cannot be read: no thread for it: {error}")),
        }
    })
}

fn parse(text: &str) -> Result<Node, Wrong> {
    check_bounds(text)?;
    // Its own bound counts brackets only, as ours, which has been met.
    let parser = Parser::new().max_recursion_depth(u16::MAX).error_recovery_limit(1);
    match parser.parse_with_source_info(text) {
        Ok((expression, places)) => Converter { text, places }.node(&expression, 0),
        Err(errors) => Err(first_error(text, &errors)),
    }
}

/// Refuses what is too long or too deep. Brackets in quotes do not count; an unfinished text hides the rest, as it does for the grammar.
fn check_bounds(text: &str) -> Result<(), Wrong> {
    if text.len() > MAX_LENGTH {
        return Err(Wrong::new(0, format!("is longer than {MAX_LENGTH} bytes; use in_list() or several rules")));
    }
    let (mut depth, mut quote) = (0usize, None);
    let mut bytes = text.bytes().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match (quote, byte) {
            (Some(_), b'\\') => drop(bytes.next()),
            (Some(open), byte) if byte == open => quote = None,
            (Some(_), _) => {}
            (None, b'"' | b'\'') => quote = Some(byte),
            (None, b'(' | b'[' | b'{') => {
                depth += 1;
                if depth > MAX_NESTING {
                    return Err(Wrong::new(at, format!("more than {MAX_NESTING} brackets inside each other")));
                }
            }
            (None, b')' | b']' | b'}') => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

/// The first mistake in words of ours: the parser tells all that could have come, which helps nobody.
fn first_error(text: &str, errors: &ParseErrors) -> Wrong {
    let Some(first) = errors.errors.first() else { return Wrong::new(0, "cannot be read") };
    let (line, column) = first.pos;
    let before = |lines: usize| text.split_inclusive('\n').take(lines).map(str::len).sum::<usize>();
    let start = before(usize::try_from(line).unwrap_or_default().saturating_sub(1));
    let skip = usize::try_from(column).unwrap_or_default().saturating_sub(1);
    let at = text[start..].char_indices().nth(skip).map_or(text.len(), |(offset, _)| start + offset);
    Wrong::new(at, explained(&text[at..], &first.msg))
}

fn explained(rest: &str, message: &str) -> String {
    let word = rest.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).next().unwrap_or_default();
    let known = match rest.chars().next() {
        None => "the expression ends too early",
        Some('"' | '\'') if message.contains("recognition") => {
            "this text has no end, or a \\ in it that means nothing; write \\\\ for one, or r\"...\" for a pattern"
        }
        Some('=') if !rest.starts_with("==") && rest[1..].starts_with('~') => {
            "there is no =~; write matches(value, \"pattern\")"
        }
        Some('=') if !rest.starts_with("==") => "compare with ==",
        Some('~') => "there is no ~; write matches(value, \"pattern\")",
        Some('&') => "write && for \"and\"",
        Some('|') => "write || for \"or\"",
        _ => match word {
            "and" | "AND" => "write && for \"and\"",
            "or" | "OR" => "write || for \"or\"",
            "not" | "NOT" => "write ! for \"not\"",
            "KB" | "MB" | "GB" | "KiB" | "MiB" | "GiB" => "a size with its unit stands in quotes, such as \"10MB\"",
            _ => "",
        },
    };
    match (known, word) {
        ("", _) if message.contains("recognition") => "this does not belong into an expression".to_owned(),
        ("", _) if !message.starts_with("Syntax error") => message.to_owned(),
        ("", "") => "this is not expected here".to_owned(),
        ("", word) => format!("{word:?} is not expected here"),
        (known, _) => known.to_owned(),
    }
}

/// Makes our tree of the parser's.
struct Converter<'t> {
    text: &'t str,
    places: SourceInfo,
}

impl Converter<'_> {
    fn node(&self, expression: &IdedExpr, depth: usize) -> Result<Node, Wrong> {
        let at = self.places.offset_for(expression.id).map_or(0, |(start, _)| start as usize);
        if depth > MAX_DEPTH {
            return Err(Wrong::new(at, format!("more than {MAX_DEPTH} operators and calls inside each other")));
        }
        let all = |list: &[IdedExpr]| list.iter().map(|item| self.node(item, depth + 1)).collect::<Result<Vec<_>, _>>();
        let foreign = |what: &str| Err(Wrong::new(at, format!("{what} cannot be used in rules")));
        match &expression.expr {
            Expr::Ident(name) => Ok(Node { what: What::Name(name.clone()), at }),
            Expr::List(list) => Ok(Node { what: What::List(all(&list.elements)?), at }),
            Expr::Literal(literal) => literal_node(literal, at),
            Expr::Call(call) => {
                let mut arguments = match &call.target {
                    Some(target) => vec![self.node(target, depth + 1)?],
                    None => Vec::new(),
                };
                arguments.extend(all(&call.args)?);
                if let Some(operator) = Operator::parse(&call.func_name) {
                    return Ok(Node { what: What::Operation(operator, arguments), at });
                }
                match call.func_name.as_str() {
                    operators::INDEX | operators::OPT_INDEX | operators::OPT_SELECT => foreign("an index"),
                    name => Ok(Node { what: What::Call(name.to_owned(), arguments), at: self.start_of_call(name, at) }),
                }
            }
            Expr::Select(select) => Err(Wrong::new(
                at,
                format!("there is nothing with a field {:?}; attributes have no fields", select.field),
            )),
            Expr::Comprehension(_) => foreign("all(), exists(), map() and filter()"),
            Expr::Map(_) => foreign("a map"),
            Expr::Struct(_) => foreign("a message"),
            Expr::Unspecified => foreign("this"),
        }
    }

    /// Calls are placed at their bracket; people look for the name.
    fn start_of_call(&self, name: &str, bracket: usize) -> usize {
        let before = self.text.get(..bracket).unwrap_or_default().trim_end();
        before.strip_suffix(name).map_or(bracket, str::len)
    }
}

fn literal_node(literal: &LiteralValue, at: usize) -> Result<Node, Wrong> {
    let what = match literal {
        LiteralValue::Boolean(flag) => What::Flag(*flag.inner()),
        LiteralValue::Int(number) => What::Number(*number.inner()),
        LiteralValue::String(text) => What::Text(text.inner().to_owned()),
        LiteralValue::UInt(_) => return Err(Wrong::new(at, "write numbers without u")),
        LiteralValue::Double(_) => return Err(Wrong::new(at, "numbers are whole numbers")),
        LiteralValue::Bytes(_) => return Err(Wrong::new(at, "write texts without b")),
        LiteralValue::Null => {
            return Err(Wrong::new(at, "there is no null; what Postfix does not know is an empty text, or 0"));
        }
    };
    Ok(Node { what, at })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn one(text: &str) -> Result<Node, Wrong> {
        parse_all(&[text]).remove(0)
    }

    #[test]
    fn expressions_become_trees_with_places() {
        let node = one("'äö' == sender && in_network(client_address, \"192.0.2.0/24\")").unwrap();
        let What::Operation(Operator::And, sides) = node.what else { panic!("{node:?}") };
        let What::Operation(Operator::Equal, texts) = &sides[0].what else { panic!("{sides:?}") };
        assert_eq!(texts[0], Node { what: What::Text("äö".into()), at: 0 });
        assert_eq!(texts[1], Node { what: What::Name("sender".into()), at: 10 });
        let What::Call(name, arguments) = &sides[1].what else { panic!("{sides:?}") };
        assert_eq!((name.as_str(), arguments.len(), sides[1].at), ("in_network", 2, 20));
        let method = one("sender.matches('x')").unwrap();
        assert!(
            matches!(method, Node { what: What::Call(name, arguments), at: 7 } if name == "matches" && arguments.len() == 2)
        );
        assert_eq!(one("-5").unwrap().what, What::Number(-5));
    }

    #[test]
    fn mistakes_are_explained_at_their_place() {
        for (text, told) in [
            ("", "character 1: the expression ends too early"),
            ("a &&", "character 5: the expression ends too early"),
            ("a and b", "character 3, at \"and b\": write && for"),
            ("a = 'x'", "character 3, at \"= 'x'\": compare with =="),
            ("a =~ 'x'", "character 3, at \"=~ 'x'\": there is no =~"),
            ("size > 10MB", "character 10, at \"MB\": a size with its unit stands in quotes"),
            ("a == 'x", "character 6, at \"'x\": this text has no end"),
            ("a == \"\\.x\"", "character 6, at \"\\\"\\\\.x\\\"\": this text has no end, or a"),
            ("a b", "character 3, at \"b\": \"b\" is not expected here"),
            ("f(a, b))", "character 8, at \")\": this is not expected here"),
            ("ä == 1", "character 1, at \"ä == 1\": this does not belong"),
            ("a &&\n  b and c", "line 2, character 5, at \"and c\": write &&"),
            ("99999999999999999999", "character 1, at \"99999999999999999999\": invalid int literal"),
            ("a.b", "character 2, at \".b\": there is nothing with a field \"b\""),
            ("a.exists(x, x)", "character 9, at \"(x, x)\": all(), exists()"),
            ("a[1]", "character 2, at \"[1]\": an index"),
            ("{1: 2}", "character 1, at \"{1: 2}\": a map"),
            ("1u", "character 1, at \"1u\": write numbers"),
            ("1.5", "character 1, at \"1.5\": numbers are whole"),
            ("null", "character 1, at \"null\": there is no null"),
        ] {
            let wrong = one(text).unwrap_err();
            assert!(wrong.told(text).starts_with(told), "{text:?} gave {}", wrong.told(text));
        }
    }

    /// Whatever nests, at the greatest length: refused or read, and the process lives.
    #[test]
    fn deep_nesting_is_refused() {
        let piece = |start: &str, again: &str, end: &str| {
            let count = (MAX_LENGTH - start.len()) / (again.len() + end.len());
            format!("{start}{}{}", again.repeat(count), end.repeat(count))
        };
        for text in [
            piece("", "(", ""),
            piece("", "[", "]"),
            piece("", "f(", ""),
            piece("", "{", ""),
            piece("a", ".a", ""),
            piece("a", ".a()", ""),
            piece("a", "[a]", ""),
            piece("a", "+a", ""),
            piece("a", "<a", ""),
            piece("", "-a", ""),
            piece("", "a?a:", ""),
            piece("", "'", ""),
        ] {
            assert!(one(&text).is_err(), "{}", &text[..20]);
        }
        assert!(one(&piece("a", "&&a", "")).is_ok(), "a long row is not deep");
        let long = format!("sender == '{}'", "x".repeat(MAX_LENGTH));
        assert!(one(&long).unwrap_err().message.starts_with("is longer than"));
        assert!(one(&format!("a == '{}'", "(".repeat(100))).is_ok(), "brackets in a text are text");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_text_is_read_or_refused(texts in proptest::collection::vec("\\PC{0,60}", 8), pieces in proptest::collection::vec(
            proptest::sample::select(vec!["a", "f(", "(", ")", "[", "]", "{", "}", "?", ":", ".", ",", "+", "-", "!", "&&", "||", "==", "in", " ",
                "\n", "'x'", "\"", "'", "\\", "r'", "1", "0x", "1e", "é", "`", "has(", "a.all(x,", "\u{0}", "//", "9223372036854775808"]), 0..200)) {
            let joined: String = pieces.concat();
            let all: Vec<&str> = texts.iter().map(String::as_str).chain([joined.as_str()]).collect();
            for (result, text) in parse_all(&all).iter().zip(&all) {
                if let Err(wrong) = result {
                    prop_assert!(wrong.at <= text.len());
                    prop_assert!(!wrong.told(text).is_empty());
                }
            }
        }
    }
}
