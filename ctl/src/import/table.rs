// SPDX-License-Identifier: GPL-3.0-or-later
//! Rows of the tables of greylisters that keep their state in a database, wherever they come from: a dump in SQL or the database
//! itself. What the columns mean is in the file of each program.

use super::record::{self, Bad, Entry, Old};

/// A table that is read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Table {
    /// Its name, in lower case.
    pub(super) name: &'static str,
    /// The columns of its newest published schema in their order, lower case: an INSERT need not name them.
    pub(super) columns: &'static [&'static str],
}

/// A program whose state is in tables.
#[derive(Debug)]
pub(super) struct Program {
    /// The tables that are read; a database need not have all of them.
    pub(super) tables: &'static [Table],
    /// What a row says.
    pub(super) entry: fn(&Row, &Old) -> Result<Entry, Bad>,
}

/// One row; none stands for NULL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    /// Where it is from.
    pub(super) table: &'static Table,
    /// In the order of the columns of `table`.
    pub(super) values: Vec<Option<String>>,
}

impl Row {
    /// The value of a column; none when it is NULL.
    pub(super) fn get(&self, column: &str) -> Option<&str> {
        let at = self.table.columns.iter().position(|name| *name == column)?;
        self.values.get(at)?.as_deref()
    }

    /// The value of a column that is never NULL.
    pub(super) fn text(&self, column: &str) -> Result<&str, Bad> {
        self.get(column).ok_or_else(|| Bad(format!("{column} has no value")))
    }

    /// A whole number.
    pub(super) fn number(&self, column: &str) -> Result<i64, Bad> {
        let text = self.text(column)?;
        text.trim().parse().map_err(|_| Bad(format!("{column}: {text:?} is not a number")))
    }

    /// A time as seconds since 1970, or as date and time in the zone of the old program.
    pub(super) fn time(&self, column: &str, old: &Old) -> Result<i64, Bad> {
        record::time(self.text(column)?, old.utc_offset).map_err(|Bad(why)| Bad(format!("{column}: {why}")))
    }

    /// A mail address.
    pub(super) fn mailbox(&self, column: &str) -> Result<String, Bad> {
        record::mailbox(self.text(column)?).map_err(|Bad(why)| Bad(format!("{column}: {why}")))
    }
}

/// Makes a row as the readers do; for the tests of the programs.
#[cfg(test)]
pub(super) fn row(program: &'static Program, table: &str, values: &[Option<&str>]) -> Row {
    let table = program.tables.iter().find(|one| one.name == table).expect("the program has this table");
    assert_eq!(values.len(), table.columns.len(), "a value for each column of {}", table.name);
    Row { table, values: values.iter().map(|value| value.map(str::to_owned)).collect() }
}
