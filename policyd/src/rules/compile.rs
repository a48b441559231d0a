// SPDX-License-Identifier: GPL-3.0-or-later
//! From the tree of an expression to its compiled form: names are found, types checked, constants worked out, sets and patterns
//! built. Every mistake is found here, when the configuration is read, and none is left for a request.
//!
//! Pure, but for list files. A text in quotes takes the type of what it is compared with: `size > "10MB"`, `time < "08:30"`,
//! `client_address == "192.0.2.1"`. The functions are in `functions`.

use super::Names;
use super::attribute::{ATTRIBUTES, Attribute, Nature, Reading, Unit, WEEKDAYS, Words, read_number};
use super::expression::{Address, Arithmetic, Comparison, Number, Test, Text};
use super::functions;
use super::list::Lists;
use super::need::Needs;
use super::prefilter::Drafts;
use super::sets::{self, Networks, TextSet};
use super::syntax::{Node, Operator, What, Wrong};

/// Most different tags in all rules together: a bit each.
pub const MAX_TAGS: usize = 64;

/// What expressions are compiled with; it collects what they need.
#[derive(Debug)]
pub struct Compiler<'l> {
    /// Where lists come from.
    pub lists: &'l mut Lists,
    /// What else of the configuration can be named.
    pub names: &'l Names<'l>,
    /// What has to be looked up.
    pub needs: Needs,
    /// The names of tags.
    pub tags: Vec<String>,
    /// What patterns can be told apart by.
    pub filters: Drafts,
    /// Some expression looks at the time.
    pub looks_at_time: bool,
}

/// A compiled expression of any type.
#[derive(Debug)]
pub enum Value {
    /// True or false.
    Test(Test),
    /// A text; which lists know it; the words it can be, when they are known.
    Text(Text, Nature, Option<Words>),
    /// A number.
    Number(Number, Unit),
    /// An IP address.
    Address(Address),
}

impl Value {
    /// The type in words.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Test(_) => "true or false",
            Self::Text(..) => "a text",
            Self::Number(_, Unit::Plain) => "a number",
            Self::Number(_, Unit::Bytes) => "a size",
            Self::Number(_, Unit::Time) => "a time of day",
            Self::Number(_, Unit::Date) => "a date",
            Self::Address(_) => "an address",
        }
    }
}

impl<'l> Compiler<'l> {
    /// A compiler.
    pub fn new(lists: &'l mut Lists, names: &'l Names<'l>) -> Self {
        Self {
            lists,
            names,
            needs: Needs::default(),
            tags: Vec::new(),
            filters: Drafts::default(),
            looks_at_time: false,
        }
    }

    /// Compiles what must be true or false.
    pub fn test(&mut self, node: &Node) -> Result<Test, Wrong> {
        match self.value(node)? {
            Value::Test(test) => Ok(test),
            other => Err(Wrong::new(node.at, format!("this is {}; it must be true or false", other.kind()))),
        }
    }

    /// Compiles anything that has one value.
    pub fn value(&mut self, node: &Node) -> Result<Value, Wrong> {
        match &node.what {
            What::Flag(flag) => Ok(Value::Test(Test::Always(*flag))),
            What::Number(number) => Ok(Value::Number(Number::Constant(*number), Unit::Plain)),
            What::Text(text) => Ok(Value::Text(Text::Constant(text.as_str().into()), Nature::Name, None)),
            What::List(_) => Err(Wrong::new(node.at, "a list stands only after \"in\"")),
            What::Name(name) => self.attribute(name, node.at),
            What::Call(name, arguments) => functions::call(self, name, arguments, node.at),
            What::Operation(operator, sides) => self.operation(*operator, sides, node.at),
        }
    }

    fn attribute(&mut self, name: &str, at: usize) -> Result<Value, Wrong> {
        let Some(attribute) = Attribute::find(name) else {
            let names = ATTRIBUTES.iter().map(|attribute| attribute.name);
            let hint = match functions::exists(name) {
                true => format!("; the function is written {name}(...)"),
                false => meant(name, names),
            };
            return Err(Wrong::new(at, format!("there is no attribute {name:?}{hint}")));
        };
        self.looks_at_time |= matches!(attribute.reading, Reading::Time | Reading::Date | Reading::Weekday);
        Ok(match attribute.reading {
            Reading::Text(nature, read) => Value::Text(Text::Read(read), nature, None),
            Reading::Word(words, read) => Value::Text(Text::Read(read), Nature::Name, Some(words)),
            Reading::Number(unit, read) => Value::Number(Number::Read(read), unit),
            Reading::Flag(read) => Value::Test(Test::Flag(read)),
            Reading::Address(read) => Value::Address(Address::Read(read)),
            Reading::Time => Value::Number(Number::Minutes, Unit::Time),
            Reading::Date => Value::Number(Number::Date, Unit::Date),
            Reading::Weekday => Value::Text(Text::Weekday, Nature::Name, Some(WEEKDAYS)),
        })
    }

    fn operation(&mut self, operator: Operator, sides: &[Node], at: usize) -> Result<Value, Wrong> {
        match (operator, sides) {
            (Operator::Not, [inner]) => Ok(Value::Test(not(self.test(inner)?))),
            (Operator::And | Operator::Or, sides) => {
                let tests = sides.iter().map(|side| self.test(side)).collect::<Result<Vec<_>, _>>()?;
                Ok(Value::Test(joined(tests, operator == Operator::Or)))
            }
            (Operator::If, [condition, yes, no]) => self.choice(condition, yes, no, at),
            (Operator::In, [item, list]) => self.membership(item, list).map(Value::Test),
            (Operator::Negate, [inner]) => self.arithmetic(Arithmetic::Subtract, None, inner, at),
            (Operator::Equal, [left, right]) => self.equality(left, right, at).map(Value::Test),
            (Operator::NotEqual, [left, right]) => Ok(Value::Test(not(self.equality(left, right, at)?))),
            (Operator::Less, [left, right]) => self.order(Comparison::Less, left, right, at),
            (Operator::LessEqual, [left, right]) => self.order(Comparison::LessEqual, left, right, at),
            (Operator::Greater, [left, right]) => self.order(Comparison::Less, right, left, at),
            (Operator::GreaterEqual, [left, right]) => self.order(Comparison::LessEqual, right, left, at),
            (Operator::Add, [left, right]) => self.arithmetic(Arithmetic::Add, Some(left), right, at),
            (Operator::Subtract, [left, right]) => self.arithmetic(Arithmetic::Subtract, Some(left), right, at),
            (Operator::Multiply, [left, right]) => self.arithmetic(Arithmetic::Multiply, Some(left), right, at),
            (Operator::Divide, [left, right]) => self.arithmetic(Arithmetic::Divide, Some(left), right, at),
            (Operator::Remainder, [left, right]) => self.arithmetic(Arithmetic::Remainder, Some(left), right, at),
            _ => Err(Wrong::new(at, format!("{} stands between other values", operator.word()))),
        }
    }

    fn choice(&mut self, condition: &Node, yes: &Node, no: &Node, at: usize) -> Result<Value, Wrong> {
        let condition = self.test(condition)?;
        match (self.value(yes)?, self.value(no)?) {
            (Value::Test(yes), Value::Test(no)) => Ok(Value::Test(Test::If(Box::new([condition, yes, no])))),
            (Value::Text(yes, nature, words), Value::Text(no, other, more)) => {
                let nature = if nature == other { nature } else { Nature::Name };
                let words = words.filter(|words| more == Some(*words));
                Ok(Value::Text(Text::If(Box::new((condition, yes, no))), nature, words))
            }
            (Value::Number(yes, unit), Value::Number(no, other)) if unit.counts_like(other) => {
                let unit = if unit == Unit::Bytes { unit } else { other };
                Ok(Value::Number(Number::If(Box::new((condition, yes, no))), unit))
            }
            (yes, no) => Err(Wrong::new(at, format!("one side is {}, the other {}", yes.kind(), no.kind()))),
        }
    }

    fn equality(&mut self, left: &Node, right: &Node, at: usize) -> Result<Test, Wrong> {
        // A constant reads better on either side.
        let (first, second) = (self.value(left)?, self.value(right)?);
        let (value, other, place) = match &first {
            Value::Text(Text::Constant(_), ..) => (second, first, left.at),
            _ => (first, second, right.at),
        };
        Ok(match (value, other) {
            (Value::Test(left), Value::Test(right)) => Test::Same(Box::new([left, right])),
            (Value::Text(text, _, words), Value::Text(other, ..)) => {
                if let (Some(words), Text::Constant(word)) = (words, &other) {
                    check_word(words, word, place)?;
                }
                Test::SameText(text, other)
            }
            (Value::Address(address), Value::Text(Text::Constant(text), ..)) => same_address(address, &text, place)?,
            (Value::Address(address), Value::Address(other)) => Test::SameAddress(address, other),
            (Value::Number(number, unit), other) => {
                let other = number_like(unit, other, place, at)?;
                compared(number, Comparison::Equal, other)
            }
            (value, other) => return Err(incomparable(&value, &other, at)),
        })
    }

    fn order(&mut self, how: Comparison, left: &Node, right: &Node, at: usize) -> Result<Value, Wrong> {
        let test = match (self.value(left)?, self.value(right)?) {
            (Value::Number(number, unit), other) => compared(number, how, number_like(unit, other, right.at, at)?),
            (other, Value::Number(number, unit)) => compared(number_like(unit, other, left.at, at)?, how, number),
            (value, other) => return Err(incomparable(&value, &other, at)),
        };
        Ok(Value::Test(test))
    }

    /// `left` none: a sign.
    fn arithmetic(&mut self, how: Arithmetic, left: Option<&Node>, right: &Node, at: usize) -> Result<Value, Wrong> {
        let mut number = |node: &Node| match self.value(node)? {
            Value::Number(number, unit @ (Unit::Plain | Unit::Bytes)) => Ok((number, unit)),
            Value::Text(..) if how == Arithmetic::Add => {
                Err(Wrong::new(node.at, "texts cannot be put together; compare them one by one"))
            }
            other => Err(Wrong::new(node.at, format!("this is {}; here stands a number", other.kind()))),
        };
        let (left, unit) = left.map_or(Ok((Number::Constant(0), Unit::Plain)), &mut number)?;
        let (right, other) = number(right)?;
        let unit = if unit == Unit::Bytes { unit } else { other };
        match (&left, &right) {
            (Number::Constant(left), Number::Constant(right)) => match how.apply(*left, *right) {
                Some(number) => Ok(Value::Number(Number::Constant(number), unit)),
                None => Err(Wrong::new(at, "there is no such number")),
            },
            _ => Ok(Value::Number(Number::Of(how, Box::new([left, right])), unit)),
        }
    }

    fn membership(&mut self, item: &Node, list: &Node) -> Result<Test, Wrong> {
        let What::List(items) = &list.what else {
            let message = "after \"in\" stands a list in brackets, [\"a\", \"b\"]; for a file there is in_list()";
            return Err(Wrong::new(list.at, message));
        };
        if items.is_empty() {
            return Err(Wrong::new(list.at, "nothing is in an empty list"));
        }
        let text = |item: &Node| match &item.what {
            What::Text(text) => Ok(text.clone()),
            _ => Err(Wrong::new(item.at, "the items of this list are texts in quotes")),
        };
        match self.value(item)? {
            Value::Text(value, _, words) => {
                let texts = items.iter().map(text).collect::<Result<Vec<_>, _>>()?;
                if let Some(words) = words {
                    texts.iter().zip(items).try_for_each(|(word, item)| check_word(words, word, item.at))?;
                }
                Ok(Test::OneOf(value, TextSet::new(texts.into_iter())))
            }
            Value::Address(address) => networks(address, items),
            Value::Number(value, unit) => {
                let number = |item: &Node| match &item.what {
                    What::Number(number) if matches!(unit, Unit::Plain | Unit::Bytes) => Ok(*number),
                    What::Text(text) => read_number(unit, text).map_err(|message| Wrong::new(item.at, message)),
                    _ => Err(Wrong::new(item.at, "the items of this list are constant numbers")),
                };
                Ok(Test::NumberIn(value, items.iter().map(number).collect::<Result<_, _>>()?))
            }
            Value::Test(_) => Err(Wrong::new(item.at, "this is true or false and in no list")),
        }
    }

    /// The bit of a tag.
    pub fn tag(&mut self, name: &str) -> Result<u64, String> {
        let index = self.tags.iter().position(|tag| tag == name).unwrap_or(self.tags.len());
        if index == self.tags.len() {
            if index == MAX_TAGS {
                return Err(format!("there are {MAX_TAGS} tags already"));
            }
            self.tags.push(name.to_owned());
        }
        Ok(1 << index)
    }
}

/// Networks that arguments name, as a test of an address.
pub fn networks(address: Address, items: &[Node]) -> Result<Test, Wrong> {
    let network = |item: &Node| match &item.what {
        What::Text(text) => sets::network(text).map_err(|message| Wrong::new(item.at, message)),
        _ => Err(Wrong::new(item.at, "a network is written in quotes, such as \"192.0.2.0/24\"")),
    };
    let networks = items.iter().map(network).collect::<Result<Vec<_>, _>>()?;
    Ok(Test::InNetworks(address, Networks::new(&networks)))
}

fn same_address(address: Address, text: &str, at: usize) -> Result<Test, Wrong> {
    let network = sets::network(text).map_err(|message| Wrong::new(at, message))?;
    let single = network.prefix_len() == network.max_prefix_len();
    Ok(match single {
        true => Test::SameAddress(address, Address::Constant(network.addr())),
        false => Test::InNetworks(address, Networks::new(&[network])),
    })
}

/// A value that is compared with a number of this unit.
fn number_like(unit: Unit, other: Value, place: usize, at: usize) -> Result<Number, Wrong> {
    match other {
        Value::Number(number, other) if unit.counts_like(other) => Ok(number),
        Value::Text(Text::Constant(text), ..) => {
            read_number(unit, &text).map(Number::Constant).map_err(|message| Wrong::new(place, message))
        }
        other => Err(incomparable(&Value::Number(Number::Constant(0), unit), &other, at)),
    }
}

fn incomparable(value: &Value, other: &Value, at: usize) -> Wrong {
    let message = match (value.kind(), other.kind()) {
        (one, two) if one == two => format!("these cannot be ordered: each is {one}"),
        (one, two) => format!("{one} cannot be compared with {two}"),
    };
    Wrong::new(at, message)
}

fn compared(left: Number, how: Comparison, right: Number) -> Test {
    Test::Compare(left, how, right)
}

fn check_word(words: Words, word: &str, at: usize) -> Result<(), Wrong> {
    match words.iter().any(|known| known.eq_ignore_ascii_case(word)) {
        true => Ok(()),
        false => Err(Wrong::new(at, format!("it is never {word:?}; it is one of {}", words.join(", ")))),
    }
}

/// The opposite.
fn not(test: Test) -> Test {
    match test {
        Test::Always(flag) => Test::Always(!flag),
        Test::Not(inner) => *inner,
        test => Test::Not(Box::new(test)),
    }
}

/// A row of tests joined by `&&`, or by `||` where true is `decisive`; rows in rows are one row, constants are worked out.
fn joined(tests: Vec<Test>, decisive: bool) -> Test {
    let mut row = Vec::with_capacity(tests.len());
    for test in tests {
        match test {
            Test::Always(flag) if flag == decisive => return Test::Always(decisive),
            Test::Always(_) => {}
            Test::All(inner) if !decisive => row.extend(inner),
            Test::Any(inner) if decisive => row.extend(inner),
            test => row.push(test),
        }
    }
    match row.len() {
        0 => Test::Always(!decisive),
        1 => row.swap_remove(0),
        _ if decisive => Test::Any(row.into_boxed_slice()),
        _ => Test::All(row.into_boxed_slice()),
    }
}

/// A hint when a known name looks like the unknown one.
pub fn meant<'a>(unknown: &str, known: impl Iterator<Item = &'a str>) -> String {
    let near = known.map(|name| (distance(unknown, name), name)).min();
    match near {
        Some((away, name)) if away <= 2 && away < name.len() => format!("; did you mean {name:?}?"),
        _ => String::new(),
    }
}

/// Number of characters that are added, missing or other (Levenshtein).
fn distance(one: &str, two: &str) -> usize {
    let two: Vec<char> = two.chars().collect();
    let mut row: Vec<usize> = (0..=two.len()).collect();
    for (line, here) in one.chars().take(64).enumerate() {
        let mut corner = std::mem::replace(&mut row[0], line + 1);
        for (column, there) in two.iter().enumerate() {
            let replaced = corner + usize::from(here != *there);
            corner = row[column + 1];
            row[column + 1] = replaced.min(row[column] + 1).min(corner + 1);
        }
    }
    row[two.len()]
}
