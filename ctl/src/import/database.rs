// SPDX-License-Identifier: GPL-3.0-or-later
//! Reads the tables of another greylister out of its own database, PostgreSQL or a SQLite file, a page of rows at a time. It is only
//! read. The one place of this command that knows SQL of others.

use std::path::PathBuf;
use std::str::FromStr;

use common::store::StoreError;
use sqlx::postgres::{PgConnectOptions, PgRow};
use sqlx::sqlite::{SqliteConnectOptions, SqliteRow};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, Row as _, SqliteConnection};

use super::record::Bad;
use super::table::{Row, Table};

/// Rows that are in memory at once.
const PAGE: usize = 1000;

/// Where a database is.
#[derive(Debug, Clone)]
pub(super) enum Target {
    /// A PostgreSQL server.
    Postgres(Box<PgConnectOptions>),
    /// A SQLite file.
    Sqlite(PathBuf),
}

impl Target {
    /// `postgres://...` or `sqlite:FILE`; none when the text is neither. The error does not repeat the URL, which may hold a password.
    pub(super) fn parse(text: &str) -> Option<Result<Self, String>> {
        if let Some(path) = text.strip_prefix("sqlite:") {
            return Some(Ok(Self::Sqlite(PathBuf::from(path.strip_prefix("//").unwrap_or(path)))));
        }
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            let options = PgConnectOptions::from_str(text);
            return Some(
                options
                    .map(|options| Self::Postgres(Box::new(options)))
                    .map_err(|_| "not a PostgreSQL URL; write postgres://user@host:5432/database".to_owned()),
            );
        }
        None
    }

    /// Connects.
    pub(super) async fn open(&self) -> Result<Reader, StoreError> {
        Ok(match self {
            Self::Postgres(options) => {
                let mut connection = options.connect().await?;
                sqlx::raw_sql("set datestyle = iso").execute(&mut connection).await?;
                Reader::Postgres(connection)
            }
            Self::Sqlite(path) => {
                let options = SqliteConnectOptions::new().filename(path).read_only(true);
                Reader::Sqlite(options.connect().await?)
            }
        })
    }
}

/// An open database.
#[derive(Debug)]
pub(super) enum Reader {
    /// PostgreSQL.
    Postgres(PgConnection),
    /// SQLite.
    Sqlite(SqliteConnection),
}

/// A table that is being read.
#[derive(Debug)]
pub(super) struct Cursor {
    table: &'static Table,
    /// Which column of ours each column of the answer is.
    places: Vec<usize>,
    sql: String,
    /// SQLite: the row id of the latest row.
    after: i64,
}

impl Reader {
    /// By how many milliseconds the zone of the server is ahead of UTC. Times without a zone are in the zone in which the server
    /// also writes its log; the zone of a session is the one of its client.
    pub(super) async fn utc_offset(&mut self) -> Result<i64, StoreError> {
        const OFFSET: &str = "select (extract(epoch from (now() at time zone current_setting('log_timezone')) \
            - (now() at time zone 'UTC')) * 1000)::bigint";
        Ok(match self {
            Self::Postgres(connection) => sqlx::query_scalar(OFFSET).fetch_one(connection).await?,
            Self::Sqlite(_) => 0,
        })
    }

    /// Begins to read a table; none when it is not there.
    pub(super) async fn begin(&mut self, table: &'static Table) -> Result<Option<Cursor>, StoreError> {
        const POSTGRES: &str = "select column_name::text from information_schema.columns \
            where lower(table_name) = $1 and table_schema = any (current_schemas(false))";
        let there: Vec<String> = match self {
            Self::Postgres(connection) => {
                sqlx::query_scalar(POSTGRES).bind(table.name).fetch_all(&mut *connection).await?
            }
            Self::Sqlite(connection) => {
                let names = sqlx::query_scalar("select name from pragma_table_info($1)");
                names.bind(table.name).fetch_all(&mut *connection).await?
            }
        };
        let place = |name: &String| table.columns.iter().position(|column| name.eq_ignore_ascii_case(column));
        let (places, names): (Vec<usize>, Vec<&String>) =
            there.iter().filter_map(|name| Some((place(name)?, name))).unzip();
        if names.is_empty() {
            return Ok(None);
        }
        let columns: Vec<String> =
            names.iter().map(|name| format!("cast(\"{}\" as text)", name.replace('"', "\"\""))).collect();
        let columns = columns.join(", ");
        let sql = match self {
            Self::Postgres(connection) => {
                // A snapshot for the whole of the table, however long it takes.
                let sql = format!(
                    "begin read only; declare import no scroll cursor for select {columns} from {}",
                    table.name
                );
                sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await?;
                format!("fetch forward {PAGE} from import")
            }
            Self::Sqlite(_) => {
                format!("select {columns}, rowid from {} where rowid > $1 order by rowid limit {PAGE}", table.name)
            }
        };
        Ok(Some(Cursor { table, places, sql, after: i64::MIN }))
    }

    /// The next rows of a table; an empty page ends it.
    pub(super) async fn page(&mut self, cursor: &mut Cursor) -> Result<Vec<Result<Row, Bad>>, StoreError> {
        let sql = AssertSqlSafe(cursor.sql.clone());
        match self {
            Self::Postgres(connection) => {
                let rows: Vec<PgRow> = sqlx::query(sql).fetch_all(&mut *connection).await?;
                if rows.is_empty() {
                    sqlx::raw_sql("rollback").execute(connection).await?;
                }
                Ok(rows.iter().map(|row| cursor.row(|at| row.try_get(at))).collect())
            }
            Self::Sqlite(connection) => {
                let rows: Vec<SqliteRow> = sqlx::query(sql).bind(cursor.after).fetch_all(connection).await?;
                if let Some(last) = rows.last() {
                    cursor.after = last.try_get(cursor.places.len())?;
                }
                Ok(rows.iter().map(|row| cursor.row(|at| row.try_get(at))).collect())
            }
        }
    }

    /// Ends the connection.
    pub(super) async fn close(self) -> Result<(), StoreError> {
        match self {
            Self::Postgres(connection) => connection.close().await?,
            Self::Sqlite(connection) => connection.close().await?,
        }
        Ok(())
    }
}

impl Cursor {
    fn row(&self, value: impl Fn(usize) -> Result<Option<String>, sqlx::Error>) -> Result<Row, Bad> {
        let mut values = vec![None; self.table.columns.len()];
        for (at, place) in self.places.iter().enumerate() {
            let value = value(at).map_err(|_| Bad("a value that is not text in UTF-8".to_owned()))?;
            if let Some(slot) = values.get_mut(*place) {
                *slot = value;
            }
        }
        Ok(Row { table: self.table, values })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_told_from_files_and_passwords_are_not_repeated() {
        assert!(
            matches!(Target::parse("sqlite:/a/b.db"), Some(Ok(Target::Sqlite(path))) if path.to_str() == Some("/a/b.db"))
        );
        assert!(matches!(Target::parse("postgres://u:p@h/d"), Some(Ok(Target::Postgres(_)))));
        assert!(matches!(Target::parse("postgres://u:secret@h:port/d"), Some(Err(told)) if !told.contains("secret")));
        assert!(Target::parse("dump.sql").is_none());
    }
}
