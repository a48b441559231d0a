// SPDX-License-Identifier: GPL-3.0-or-later
//! The database that the hosts of a farm share (PostgreSQL), or the file of a single host (SQLite): pool, migrations and the
//! distinction between "not there now" and "broken". Statements are in the `store` modules of the daemons.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection as _, PgPool, SqlitePool};

use crate::config::{Mistakes, Source};
use crate::units::Period;

static POSTGRES_MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("../migrations/postgres");
static SQLITE_MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("../migrations/sqlite");

/// Section `[store]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreSettings {
    /// `postgres://user@host/database`, or `sqlite:/path`; plain `sqlite:` is `octroi.db` in $STATE_DIRECTORY, else in /var/lib/octroi.
    pub url: String,
    /// A file that holds the URL, for a password that should not stand in the configuration. Excludes `url`.
    pub url_file: Option<PathBuf>,
    /// Connections of one daemon to the database.
    pub max_connections: u32,
    /// Time limit for a new connection and for waiting for a free one.
    pub connect_timeout: Period,
}

/// Connections to a SQLite file, at most.
const SQLITE_CONNECTIONS: u32 = 4;
/// The URL that stands for the default file.
const DEFAULT_URL: &str = "sqlite:";

impl Default for StoreSettings {
    fn default() -> Self {
        Self { url: DEFAULT_URL.to_owned(), url_file: None, max_connections: 8, connect_timeout: Period::seconds(2) }
    }
}

impl StoreSettings {
    /// Reads the section and checks it, so far as that is possible without a connection.
    pub fn read(source: &Source, mistakes: &mut Mistakes) -> Self {
        let settings: Self = source.section("store", mistakes);
        if settings.max_connections == 0 {
            mistakes.push(source.mistake("store.max_connections", "must be at least 1"));
        }
        if settings.connect_timeout.0.is_zero() {
            mistakes.push(source.mistake("store.connect_timeout", "must be longer than 0s"));
        }
        match &settings.url_file {
            Some(_) if settings.url != DEFAULT_URL => {
                mistakes.push(source.mistake("store.url_file", "give url or url_file, not both"))
            }
            Some(_) => {
                if let Err(error) = settings.target() {
                    mistakes.push(source.mistake("store.url_file", error));
                }
            }
            None => {
                if let Err(error) = settings.target() {
                    mistakes.push(source.mistake("store.url", error));
                }
            }
        }
        settings
    }

    /// The file of a SQLite store; none for PostgreSQL and for a URL that cannot be read.
    pub fn sqlite_file(&self) -> Option<PathBuf> {
        match self.target() {
            Ok(Target::Sqlite(path)) => Some(path),
            Ok(Target::Postgres(_)) | Err(_) => None,
        }
    }

    fn target(&self) -> Result<Target, String> {
        let url = match &self.url_file {
            Some(path) => std::fs::read_to_string(path)
                .map_err(|error| format!("cannot read {}: {error}", path.display()))?
                .trim()
                .to_owned(),
            None => self.url.clone(),
        };
        if let Some(path) = url.strip_prefix("sqlite:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return Ok(Target::Sqlite(if path.is_empty() { default_file() } else { PathBuf::from(path) }));
        }
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            // The parser's message could repeat the URL, and with it the password.
            return PgConnectOptions::from_str(&url)
                .map(|options| Target::Postgres(Box::new(options)))
                .map_err(|_| "not a PostgreSQL URL; write \"postgres://user@host:5432/database\"".to_owned());
        }
        Err("must begin with \"postgres://\" or \"sqlite:\"".to_owned())
    }
}

enum Target {
    Postgres(Box<PgConnectOptions>),
    Sqlite(PathBuf),
}

fn default_file() -> PathBuf {
    state_folder().join("octroi.db")
}

/// Where a daemon keeps what shall survive it: $STATE_DIRECTORY, as systemd sets it, else /var/lib/octroi.
pub fn state_folder() -> PathBuf {
    // systemd may name several folders, separated by colons.
    let state = std::env::var("STATE_DIRECTORY").unwrap_or_default();
    match state.split(':').next() {
        Some(folder) if !folder.is_empty() => PathBuf::from(folder),
        _ => PathBuf::from("/var/lib/octroi"),
    }
}

/// Why the store gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot be reached now, or is overloaded: another try may succeed.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// Trying again does not help: wrong configuration, wrong schema, a bug.
    #[error("the store is broken: {0}")]
    Broken(String),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let temporary = match &error {
            sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => {
                true
            }
            sqlx::Error::Database(database) => match database.code() {
                Some(code) => is_temporary(&code),
                None => false,
            },
            // A connection that breaks in the middle of an answer.
            sqlx::Error::Protocol(_) => true,
            _ => false,
        };
        if temporary { Self::Unavailable(error.to_string()) } else { Self::Broken(error.to_string()) }
    }
}

/// PostgreSQL: classes 08 connection, 40 rollback (deadlock, serialization), 53 resources, 57 operator intervention, 58 system, and 25006
/// read-only (a standby before its promotion). SQLite: primary result codes 5 busy, 6 locked, 10 I/O, 13 full.
fn is_temporary(code: &str) -> bool {
    match code.parse::<u32>() {
        Ok(sqlite) if code.len() < 5 => matches!(sqlite & 0xff, 5 | 6 | 10 | 13),
        _ => code == "25006" || ["08", "40", "53", "57", "58"].iter().any(|class| code.starts_with(class)),
    }
}

impl From<sqlx::migrate::MigrateError> for StoreError {
    fn from(error: sqlx::migrate::MigrateError) -> Self {
        match error {
            sqlx::migrate::MigrateError::Execute(error) => error.into(),
            other => Self::Broken(other.to_string()),
        }
    }
}

/// A pool of connections to one of the two databases.
#[derive(Debug, Clone)]
pub enum Store {
    /// Shared by the hosts of a farm.
    Postgres(PgPool),
    /// A file of this host.
    Sqlite(SqlitePool),
}

impl Store {
    /// Makes the pool. PostgreSQL is not contacted yet, it may be down when a daemon starts; a SQLite file is opened or
    /// made at once, since a folder without write permission will not mend itself.
    pub async fn open(settings: &StoreSettings) -> Result<Self, StoreError> {
        match settings.target().map_err(StoreError::Broken)? {
            Target::Postgres(options) => {
                let options = options.application_name("octroi");
                let pool = PgPoolOptions::new()
                    .max_connections(settings.max_connections)
                    .acquire_timeout(settings.connect_timeout.0)
                    // The ping before each use would cost a round trip per request; a dead connection shows by its error.
                    .test_before_acquire(false)
                    .connect_lazy_with(options);
                Ok(Self::Postgres(pool))
            }
            Target::Sqlite(path) => {
                let options = SqliteConnectOptions::new()
                    .filename(&path)
                    .create_if_missing(true)
                    .journal_mode(SqliteJournalMode::Wal)
                    .synchronous(SqliteSynchronous::Normal)
                    // In KiB, of each connection: with the usual 2 MB they would be the largest part of the daemon.
                    .pragma("cache_size", "-128")
                    // Pages of the log until it is written back (16 MB): new triplets change the same pages again and again.
                    .pragma("wal_autocheckpoint", "4000")
                    .busy_timeout(Duration::from_secs(5));
                let pool = SqlitePoolOptions::new()
                    // Each is a thread with memory of its own, and only one can write.
                    .max_connections(settings.max_connections.min(SQLITE_CONNECTIONS))
                    .acquire_timeout(settings.connect_timeout.0)
                    // SQLite itself takes a transaction back when the disk is full; sqlx then counts it as open for ever, and all that is
                    // done on this connection would end up in a transaction that nobody commits.
                    .before_acquire(|connection, _| Box::pin(async move { Ok(!connection.is_in_transaction()) }));
                let pool = pool
                    .connect_with(options)
                    .await
                    .map_err(|error| StoreError::Broken(format!("{}: {error}", path.display())))?;
                Ok(Self::Sqlite(pool))
            }
        }
    }

    /// Brings the schema up to date. Several hosts may do so at once: PostgreSQL under an advisory lock, SQLite under a
    /// lock on a file beside the database.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        match self {
            Self::Postgres(pool) => Ok(POSTGRES_MIGRATIONS.run(pool).await?),
            Self::Sqlite(pool) => {
                let lock = lock_beside(pool.connect_options().get_filename().to_path_buf()).await?;
                let done = SQLITE_MIGRATIONS.run(pool).await;
                drop(lock);
                Ok(done?)
            }
        }
    }

    /// One round trip to the database.
    pub async fn ping(&self) -> Result<(), StoreError> {
        match self {
            Self::Postgres(pool) => sqlx::query("select 1").execute(pool).await.map(drop)?,
            Self::Sqlite(pool) => sqlx::query("select 1").execute(pool).await.map(drop)?,
        }
        Ok(())
    }

    /// Closes all connections; SQLite writes its log back into the file.
    pub async fn close(&self) {
        match self {
            Self::Postgres(pool) => pool.close().await,
            Self::Sqlite(pool) => pool.close().await,
        }
    }

    /// `postgres` or `sqlite`, for log and metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Postgres(_) => "postgres",
            Self::Sqlite(_) => "sqlite",
        }
    }
}

async fn lock_beside(database: PathBuf) -> Result<std::fs::File, StoreError> {
    let path = database.with_extension("migrate-lock");
    let failed = {
        let path = path.clone();
        move |error: std::io::Error| StoreError::Broken(format!("cannot lock {}: {error}", path.display()))
    };
    let file = std::fs::File::options().create(true).append(true).open(&path).map_err(&failed)?;
    let locked = tokio::task::spawn_blocking(move || file.lock().map(|()| file)).await;
    locked.map_err(|_| StoreError::Unavailable("the runtime is ending".to_owned()))?.map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistakes_of(text: &str) -> String {
        let mut mistakes = Mistakes::new();
        StoreSettings::read(&Source::from_text("f", text).unwrap(), &mut mistakes);
        mistakes.to_string()
    }

    #[test]
    fn urls_are_checked_and_passwords_are_not_repeated() {
        for text in ["", "[store]\nurl = 'postgres://u:p@h/d'", "[store]\nurl = 'sqlite:/x/y.db'"] {
            assert_eq!(mistakes_of(text), "", "{text}");
        }
        assert!(mistakes_of("[store]\nurl = 'mysql://h/d'").starts_with("f:2: store.url: must begin with"));
        let told = mistakes_of("[store]\nurl = 'postgres://u:secret@h:port/d'");
        assert!(told.starts_with("f:2: store.url: not a PostgreSQL URL") && !told.contains("secret"), "{told}");
        assert!(mistakes_of("[store]\nurl_file = '/no/such'").starts_with("f:2: store.url_file: cannot read /no/such"));
        assert!(
            mistakes_of("[store]\nurl = 'postgres://h/d'\nurl_file = '/x'")
                .contains("f:3: store.url_file: give url or url_file")
        );
        assert!(mistakes_of("[store]\nmax_connections = 0").starts_with("f:2: store.max_connections: "));
    }

    #[test]
    fn errors_are_told_apart_by_their_code() {
        for (code, temporary) in [
            ("57P01", true),
            ("08006", true),
            ("40P01", true),
            ("25006", true),
            ("5", true),
            ("261", true),
            ("23505", false),
            ("42P01", false),
            ("1", false),
            ("14", false),
        ] {
            assert_eq!(is_temporary(code), temporary, "{code}");
        }
    }

    #[tokio::test]
    async fn a_folder_that_is_not_there_is_named() {
        let settings = StoreSettings { url: "sqlite:/no/such/folder/octroi.db".to_owned(), ..StoreSettings::default() };
        let error = Store::open(&settings).await.unwrap_err();
        assert!(
            matches!(error, StoreError::Broken(_)) && error.to_string().contains("/no/such/folder/octroi.db"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn two_openers_migrate_one_file() {
        let folder = tempfile::tempdir().unwrap();
        let settings = StoreSettings {
            url: format!("sqlite:{}", folder.path().join("o.db").display()),
            ..StoreSettings::default()
        };
        let (first, second) = (Store::open(&settings).await.unwrap(), Store::open(&settings).await.unwrap());
        let (one, two) = tokio::join!(first.migrate(), second.migrate());
        one.unwrap();
        two.unwrap();
        first.ping().await.unwrap();
    }
}
