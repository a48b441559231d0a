// SPDX-License-Identifier: GPL-3.0-or-later
//! The rows of some tables out of a dump in SQL: INSERT (or REPLACE) statements of any length, and the order of the columns from
//! CREATE TABLE, from the INSERT itself, or else from the published schema. All other statements are passed over.

use std::collections::HashMap;
use std::io::{self, BufRead};

use super::record::Bad;
use super::table::{Row, Table};
use super::tokens::{Token, Tokens};

/// Most columns that one table may have.
const COLUMNS: usize = 200;

/// A row, or what is wrong with it, and the line where it ends.
pub(super) type Numbered = (u64, Result<Row, Bad>);

/// The rows of `tables` in the dump that a reader gives.
#[derive(Debug)]
pub(super) struct Dump<R> {
    tokens: Tokens<R>,
    tables: &'static [Table],
    /// Columns as CREATE TABLE gave them.
    created: HashMap<&'static str, Vec<String>>,
    /// Within the rows of an INSERT: its table, and which column each value belongs to.
    values: Option<(&'static Table, Vec<Option<usize>>)>,
    /// The last token ended a statement.
    closed: bool,
    ended: bool,
}

/// The rest of the statement makes no sense.
fn misplaced(token: Option<&Token>) -> Bad {
    match token {
        None | Some(Token::Broken) => Bad("the dump ends within a statement".to_owned()),
        Some(Token::TooLong) => Bad("a name is too long".to_owned()),
        Some(Token::Mark(byte)) => Bad(format!("{:?} is not expected here", char::from(*byte))),
        Some(Token::Word(text) | Token::Name(text) | Token::Text(text)) => {
            Bad(format!("{text:?} is not expected here"))
        }
    }
}

impl<R: BufRead> Dump<R> {
    pub(super) fn new(reader: R, tables: &'static [Table]) -> Self {
        Self { tokens: Tokens::new(reader), tables, created: HashMap::new(), values: None, closed: true, ended: false }
    }

    /// Whether one of our tables was made by the dump, even if it is empty.
    pub(super) fn knows_tables(&self) -> bool {
        !self.created.is_empty()
    }

    /// The next row; none at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<Numbered>> {
        while !self.ended {
            let found = match self.values.take() {
                Some((table, places)) => self.row(table, places)?,
                None => self.statement()?,
            };
            if let Some(found) = found {
                return Ok(Some((self.tokens.line(), found)));
            }
        }
        Ok(None)
    }

    /// Reads one statement, an INSERT up to its first row.
    fn statement(&mut self) -> io::Result<Option<Result<Row, Bad>>> {
        match self.token()? {
            None | Some(Token::Mark(b';')) => Ok(None),
            Some(Token::Broken) => Ok(Some(Err(misplaced(None)))),
            Some(Token::Word(word)) if ["insert", "replace"].contains(&&*word.to_ascii_lowercase()) => self.insert(),
            Some(Token::Word(word)) if word.eq_ignore_ascii_case("create") => self.create(),
            Some(_) => self.skip_statement(),
        }
    }

    fn insert(&mut self) -> io::Result<Option<Result<Row, Bad>>> {
        let mut token = self.token()?;
        // INSERT may say IGNORE, LOW_PRIORITY and the like first.
        while let Some(Token::Word(word)) = &token {
            if word.eq_ignore_ascii_case("into") {
                break;
            }
            token = self.token()?;
        }
        let (name, mut token) = self.name()?;
        let Some(table) = self.tables.iter().find(|table| table.name == name) else {
            return self.skip_statement();
        };
        let mut columns = None;
        if token == Some(Token::Mark(b'(')) {
            match self.column_list()? {
                Ok(names) => columns = Some(names),
                Err(bad) => return self.give_up(bad),
            }
            token = self.token()?;
        }
        match token {
            Some(Token::Word(word)) if word.eq_ignore_ascii_case("values") => {}
            other => return self.give_up(misplaced(other.as_ref())),
        }
        let places = places(table, columns.as_ref().or(self.created.get(table.name)));
        self.values = Some((table, places));
        Ok(None)
    }

    /// Reads a row of an INSERT and what follows it.
    fn row(&mut self, table: &'static Table, places: Vec<Option<usize>>) -> io::Result<Option<Result<Row, Bad>>> {
        match self.token()? {
            Some(Token::Mark(b'(')) => {}
            other => return self.give_up(misplaced(other.as_ref())),
        }
        let row = match self.row_values()? {
            Ok(Some(values)) => arranged(table, &places, values),
            Ok(None) => Err(Bad("a value is too long".to_owned())),
            Err(bad) => return self.give_up(bad),
        };
        match self.token()? {
            Some(Token::Mark(b',')) => self.values = Some((table, places)),
            Some(Token::Mark(b';')) => {}
            other => return self.give_up(misplaced(other.as_ref())),
        }
        Ok(Some(row))
    }

    /// The values up to the closing parenthesis, an inner none for NULL; an outer none when one is too long.
    fn row_values(&mut self) -> io::Result<Result<Option<Vec<Option<String>>>, Bad>> {
        let mut values = Vec::new();
        let (mut value, mut given, mut too_long) = (None, false, false);
        loop {
            match self.token()? {
                Some(Token::Mark(mark @ (b',' | b')'))) if given && values.len() < COLUMNS => {
                    values.push(value.take());
                    given = false;
                    if mark == b')' {
                        return Ok(Ok(Some(values).filter(|_| !too_long)));
                    }
                }
                // The character set of a string: _binary 'text'.
                Some(Token::Word(word)) if !given && word.starts_with('_') => {}
                Some(Token::Word(word)) if !given => {
                    value = Some(word).filter(|word| !word.eq_ignore_ascii_case("null"));
                    given = true;
                }
                Some(Token::Text(text)) if !given => (value, given) = (Some(text), true),
                Some(Token::TooLong) if !given => (given, too_long) = (true, true),
                other => return Ok(Err(misplaced(other.as_ref()))),
            }
        }
    }

    /// CREATE TABLE name (column type, ..., KEY ...): remembers the columns of our tables.
    fn create(&mut self) -> io::Result<Option<Result<Row, Bad>>> {
        loop {
            match self.token()? {
                Some(Token::Word(word)) if word.eq_ignore_ascii_case("temporary") => {}
                Some(Token::Word(word)) if word.eq_ignore_ascii_case("table") => break,
                None | Some(Token::Mark(b';')) => return Ok(None),
                Some(_) => return self.skip_statement(),
            }
        }
        let (name, token) = self.name()?;
        let table = self.tables.iter().find(|table| table.name == name);
        match (table, token) {
            (_, None | Some(Token::Mark(b';'))) => Ok(None),
            (Some(table), Some(Token::Mark(b'('))) => match self.definitions()? {
                Ok(columns) => {
                    self.created.insert(table.name, columns);
                    self.skip_statement()
                }
                Err(bad) => self.give_up(bad),
            },
            _ => self.skip_statement(),
        }
    }

    /// The first word of each definition within the parentheses, keys left out.
    fn definitions(&mut self) -> io::Result<Result<Vec<String>, Bad>> {
        const OTHERS: [&str; 9] =
            ["primary", "key", "unique", "constraint", "index", "fulltext", "spatial", "check", "foreign"];
        let (mut columns, mut depth, mut first) = (Vec::new(), 1, true);
        while depth > 0 && columns.len() <= COLUMNS {
            match self.token()? {
                None | Some(Token::Broken | Token::Mark(b';')) => return Ok(Err(misplaced(None))),
                Some(Token::Mark(b'(')) => depth += 1,
                Some(Token::Mark(b')')) => depth -= 1,
                Some(Token::Mark(b',')) if depth == 1 => {
                    first = true;
                    continue;
                }
                Some(Token::Name(name)) if first => columns.push(name.to_ascii_lowercase()),
                Some(Token::Word(word)) if first => {
                    let word = word.to_ascii_lowercase();
                    if !OTHERS.contains(&&*word) {
                        columns.push(word);
                    }
                }
                Some(_) => {}
            }
            first = false;
        }
        Ok(Ok(columns))
    }

    /// The names up to the closing parenthesis, in lower case.
    fn column_list(&mut self) -> io::Result<Result<Vec<String>, Bad>> {
        let mut columns = Vec::new();
        loop {
            match self.token()? {
                Some(Token::Name(name) | Token::Word(name)) if columns.len() < COLUMNS => {
                    columns.push(name.to_ascii_lowercase());
                }
                other => return Ok(Err(misplaced(other.as_ref()))),
            }
            match self.token()? {
                Some(Token::Mark(b',')) => {}
                Some(Token::Mark(b')')) => return Ok(Ok(columns)),
                other => return Ok(Err(misplaced(other.as_ref()))),
            }
        }
    }

    /// The name of a table in lower case, without its schema, and the token after it.
    fn name(&mut self) -> io::Result<(String, Option<Token>)> {
        let mut name = String::new();
        loop {
            match self.token()? {
                // CREATE TABLE IF NOT EXISTS name
                Some(Token::Word(word)) if ["if", "not", "exists"].contains(&&*word.to_ascii_lowercase()) => {}
                Some(Token::Word(word)) if name.is_empty() || word.starts_with('.') => {
                    name = word.rsplit('.').next().unwrap_or_default().to_ascii_lowercase();
                }
                Some(Token::Name(text)) => name = text.to_ascii_lowercase(),
                other => return Ok((name, other)),
            }
        }
    }

    /// Nothing tells where the next row begins, so the rest of the statement is left out.
    fn give_up(&mut self, Bad(why): Bad) -> io::Result<Option<Result<Row, Bad>>> {
        self.skip_statement()?;
        Ok(Some(Err(Bad(format!("{why}; the rest of the statement is left out")))))
    }

    fn skip_statement(&mut self) -> io::Result<Option<Result<Row, Bad>>> {
        while !self.closed {
            self.token()?;
        }
        Ok(None)
    }

    fn token(&mut self) -> io::Result<Option<Token>> {
        let token = self.tokens.next()?;
        self.ended |= token.is_none();
        self.closed = matches!(token, None | Some(Token::Mark(b';')));
        Ok(token)
    }
}

/// Which column of ours each value of a row is; none for columns that are not read.
fn places(table: &'static Table, columns: Option<&Vec<String>>) -> Vec<Option<usize>> {
    match columns {
        Some(names) => names.iter().map(|name| table.columns.iter().position(|column| name == column)).collect(),
        None => (0..table.columns.len()).map(Some).collect(),
    }
}

fn arranged(table: &'static Table, places: &[Option<usize>], given: Vec<Option<String>>) -> Result<Row, Bad> {
    if given.len() != places.len() {
        return Err(Bad(format!("{} values for the {} columns of {}", given.len(), places.len(), table.name)));
    }
    let mut values = vec![None; table.columns.len()];
    for (place, value) in places.iter().zip(given) {
        if let Some(slot) = place.and_then(|at| values.get_mut(at)) {
            *slot = value;
        }
    }
    Ok(Row { table, values })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    static TABLES: [Table; 1] = [Table { name: "pairs", columns: &["a", "b"] }];

    type Values = Result<Vec<Option<String>>, String>;

    fn all(text: &str) -> Vec<(u64, Values)> {
        let mut dump = Dump::new(text.as_bytes(), &TABLES);
        std::iter::from_fn(|| dump.next().unwrap())
            .map(|(line, row)| (line, row.map(|row| row.values).map_err(|Bad(why)| why)))
            .collect()
    }

    fn pair(a: &str, b: Option<&str>) -> Values {
        Ok(vec![Some(a.to_owned()), b.map(str::to_owned)])
    }

    #[test]
    fn rows_of_our_tables_are_found_among_other_statements() {
        let dump = "SET NAMES utf8mb4;\nCREATE TABLE `other` (`a` int);\nINSERT INTO `other` VALUES (1),(2);\n\
            INSERT INTO `pairs` VALUES ('x',1),\n('y',NULL);\nINSERT INTO db.pairs VALUES ('z', _binary 'q');\nUNLOCK TABLES;\n";
        assert_eq!(all(dump), [(4, pair("x", Some("1"))), (5, pair("y", None)), (6, pair("z", Some("q")))]);
    }

    #[test]
    fn columns_are_taken_from_the_dump() {
        let dump = "CREATE TABLE IF NOT EXISTS `pairs` (\n `b` varchar(20) DEFAULT ',',\n id decimal(3,1), `a` text,\n PRIMARY KEY (`a`,`b`)\n) ENGINE=x;\n\
            INSERT INTO `pairs` VALUES ('b',7,'a');\nINSERT INTO \"public\".\"pairs\" (a, B) VALUES ('c','d');";
        assert_eq!(all(dump), [(6, pair("a", Some("b"))), (7, pair("c", Some("d")))]);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        let dump = "INSERT INTO pairs VALUES ('x',1),(2);\nINSERT INTO pairs VALUES ('x' 1),('y',2);\nINSERT INTO pairs SELECT 1;\n\
            INSERT INTO pairs VALUES ('z',3);\nINSERT INTO pairs VALUES ('end";
        let told: Vec<(u64, bool)> = all(dump).iter().map(|(line, row)| (*line, row.is_ok())).collect();
        assert_eq!(told, [(1, true), (1, false), (2, false), (3, false), (4, true), (5, false)]);
        assert_eq!(all("INSERT INTO pairs VALUES (1)").len(), 1);
        let dump = format!("INSERT INTO pairs VALUES ('{}',1),('y',2);", "x".repeat(5000));
        let told: Vec<bool> = all(&dump).iter().map(|(_, row)| row.is_ok()).collect();
        assert_eq!(told, [false, true]);
        // The statement after a broken one is read.
        assert_eq!(
            all("INSERT INTO pairs VALUES ('x';INSERT INTO pairs VALUES ('y',2);")[1],
            (1, pair("y", Some("2")))
        );
    }

    proptest! {
        #[test]
        fn any_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut dump = Dump::new(&bytes[..], &TABLES);
            while dump.next().unwrap().is_some() {}
        }

        #[test]
        fn any_statements_end(words in proptest::collection::vec("INSERT|INTO|CREATE|TABLE|pairs|VALUES|'x'|NULL|[(),;'`]| |\n", 0..40)) {
            let text = words.concat();
            prop_assert!(all(&text).len() <= text.len());
        }

        #[test]
        fn any_values_are_read_back(a in "\\PC{0,30}", b in "[\\\\'\n\r\t\"]{0,9}") {
            let quoted = |text: &str| text.replace('\\', "\\\\").replace('\'', "''").replace('\n', "\\n").replace('\r', "\\r");
            let dump = format!("INSERT INTO `pairs` VALUES ('{}','{}');", quoted(&a), quoted(&b));
            prop_assert_eq!(all(&dump), [(1, pair(&a, Some(&b)))]);
        }
    }
}
