// SPDX-License-Identifier: GPL-3.0-or-later
//! What the sub-commands that work on the store share: settings, store, runtime, exit status, times as text.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::config::{Mistakes, Source};
use common::exit::{self, fail};
use common::store::{Store, StoreError};
use common::units::Period;
use policyd::config::Settings;

/// Why a sub-command did not do what it was told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Something in the arguments that is not theirs to check alone.
    #[error("{0}")]
    Usage(String),
    /// What was asked for does not exist, or an input is wrong.
    #[error("{0}")]
    Data(String),
    /// A service besides the store that did not do what it should.
    #[error("{0}")]
    Unavailable(String),
    /// The configuration.
    #[error("{0}")]
    Config(Mistakes),
    /// The store.
    #[error("{0}")]
    Store(#[from] StoreError),
}

impl Failure {
    fn status(&self) -> u8 {
        match self {
            Self::Usage(_) => exit::USAGE,
            Self::Data(_) => exit::DATA,
            Self::Unavailable(_) | Self::Store(StoreError::Unavailable(_)) => exit::UNAVAILABLE,
            Self::Config(_) | Self::Store(StoreError::Broken(_)) => exit::CONFIG,
        }
    }
}

/// Reads the configuration, opens the store with its schema up to date, and does the work.
pub(crate) fn run(config: Option<&Path>, work: impl AsyncFnOnce(&Settings, &Store) -> Result<(), Failure>) -> ExitCode {
    let settings = match Source::load(config).and_then(|source| Settings::read(&source)) {
        Ok(settings) => settings,
        Err(mistakes) => return fail(crate::NAME, exit::CONFIG, mistakes),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(crate::NAME, exit::UNAVAILABLE, format!("cannot start: {error}")),
    };
    let done = runtime.block_on(async {
        let store = Store::open(&settings.store).await?;
        store.migrate().await?;
        let done = work(&settings, &store).await;
        store.close().await;
        done
    });
    end(done)
}

/// The exit status of what has been done, with a line about what went wrong.
pub(crate) fn end(done: Result<(), Failure>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::from(exit::OK),
        Err(failure) => fail(crate::NAME, failure.status(), failure),
    }
}

/// Writes a line to standard output; a reader that has gone away (`| head`) is no error of ours.
pub(crate) fn say(text: impl std::fmt::Display) {
    let _ = writeln!(io::stdout().lock(), "{text}");
}

/// Milliseconds since 1970, by the clock of this host.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// A moment as text, in UTC to the second.
pub(crate) fn moment(milliseconds: i64) -> String {
    let since = Duration::from_millis(u64::try_from(milliseconds).unwrap_or_default());
    match UNIX_EPOCH.checked_add(since) {
        Some(time) if milliseconds < 253_402_300_800_000 => humantime::format_rfc3339_seconds(time).to_string(),
        _ => "-".to_owned(),
    }
}

/// A length of time as text, to the second.
pub(crate) fn length(milliseconds: i64) -> String {
    let seconds = u64::try_from(milliseconds).unwrap_or_default().div_ceil(1000);
    humantime::format_duration(Duration::from_secs(seconds)).to_string()
}

/// `30d` from now, `2026-12-31` or `2026-12-31T12:00:00Z`, as milliseconds since 1970.
pub(crate) fn expiry(text: &str) -> Result<i64, String> {
    if let Ok(period) = text.parse::<Period>() {
        return Ok(now().saturating_add(period.as_millis()));
    }
    let whole = if text.len() == 10 { format!("{text}T00:00:00Z") } else { text.to_owned() };
    let time = humantime::parse_rfc3339_weak(&whole)
        .map_err(|_| format!("{text:?} is neither a time such as \"30d\" nor a date such as \"2026-12-31\""))?;
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Text from outside for a terminal: nothing in it moves the cursor.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// Rows under a heading, each column as wide as its widest cell; the last one is as it is.
pub(crate) fn columns<const N: usize>(heading: [&str; N], rows: &[[String; N]]) {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or_default().max(heading[column].len())
    };
    let widths: Vec<usize> = (0..N).map(width).collect();
    let line = |cells: [&str; N]| {
        let cells = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        say(cells.collect::<Vec<_>>().join("  ").trim_end());
    };
    line(heading);
    for row in rows {
        line(std::array::from_fn(|column| row[column].as_str()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_and_read() {
        assert_eq!(moment(1_798_675_200_000), "2026-12-31T00:00:00Z");
        assert_eq!(expiry("2026-12-31"), Ok(1_798_675_200_000));
        assert_eq!(expiry("2026-12-31T00:00:01Z"), Ok(1_798_675_201_000));
        assert!(expiry("30d").unwrap() - now() > 29 * 86_400_000);
        assert!(expiry("30").is_err() && expiry("tomorrow").is_err());
        assert_eq!(moment(i64::MAX), "-");
        assert_eq!(length(61_500), "1m 2s");
        assert_eq!(printable("a\x1b[31m"), "a?[31m");
    }
}
