// SPDX-License-Identifier: GPL-3.0-or-later
//! `octroi import`: takes over what another greylister has learnt, so that nobody who passed there has to wait again.
//!
//! A path of named stages: input (file, standard input or database) > the parser of the program > `sieve` > `sink` > the store.
//! What each program writes and what becomes of it is in docs/migrating/.

mod choices;
mod clients;
mod cluebringer;
mod database;
mod dump;
mod gld;
mod iredapd;
mod lines;
mod milter_greylist;
mod postgrey;
mod read;
mod record;
mod relaydelay;
mod sieve;
mod sink;
mod sqlgrey;
mod table;
mod tokens;
mod trust;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::ValueEnum;
use common::config::{Mistakes, Source};
use common::exit::{self, fail};
use common::store::{Store, StoreError};
use common::units::Period;
use policyd::config::Settings;
use policyd::store::{Connection, import};

use self::choices::{Choices, OptMethod};
use self::clients::ClientsList;
use self::record::{DAY, Old, SECOND};
use self::sieve::Tally;
use self::sink::Sink;

/// Arguments of `octroi import`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The program whose state is taken over
    #[arg(value_enum, value_name = "PROGRAM")]
    program: Program,
    /// Files: output of db_dump -p (postgrey), greylist.db (milter-greylist), a dump in SQL or a SQLite file (the others); or - for
    /// standard input, or postgres://user@host/database
    #[arg(value_name = "FILE|URL|-", default_value = "-")]
    inputs: Vec<String>,
    /// Read and count, write nothing; the store is not asked
    #[arg(long)]
    dry_run: bool,
    /// How long the old program made a triplet wait [default: its own default]
    #[arg(long, value_name = "TIME")]
    delay: Option<Period>,
    /// How long the old program kept what had passed since it was last seen [default: its own default]
    #[arg(long, value_name = "TIME")]
    max_age: Option<Period>,
    /// From how many passes on the old program trusted a client (postgrey --auto-whitelist-clients)
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    trust_after: u32,
    /// Write the clients that were listed by hand in the old program into a list for client_whitelist, section access
    #[arg(long, value_name = "FILE")]
    clients_list: Option<PathBuf>,
    /// Take over which recipients are greylisted (sqlgrey's optin_* and optout_*) into the lists optin and optout of the store; what was
    /// `optmethod` there
    #[arg(long, value_enum, value_name = "METHOD")]
    opt_method: Option<OptMethod>,
    /// Zone of times that are stored without one, such as +01:00 [default: +00:00; of a PostgreSQL server, its log_timezone]
    #[arg(long, value_name = "OFFSET", value_parser = utc_offset, allow_hyphen_values = true)]
    utc_offset: Option<i64>,
}

/// A greylister whose state can be taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Program {
    Postgrey,
    Sqlgrey,
    Gld,
    MilterGreylist,
    Relaydelay,
    Iredapd,
    Cluebringer,
}

impl Program {
    /// Its default delay and the life of what has passed, in milliseconds; none where an entry tells or nothing is ever forgotten.
    fn defaults(self) -> (i64, Option<i64>) {
        const MINUTE: i64 = 60 * SECOND;
        match self {
            Self::Postgrey => (5 * MINUTE, Some(35 * DAY)),
            Self::Sqlgrey => (5 * MINUTE, Some(60 * DAY)),
            Self::Gld => (MINUTE, None),
            Self::MilterGreylist => (30 * MINUTE, Some(DAY)),
            Self::Relaydelay => (58 * MINUTE, Some(36 * DAY)),
            Self::Iredapd => (15 * MINUTE, Some(30 * DAY)),
            Self::Cluebringer => (4 * MINUTE, None),
        }
    }
}

/// `+01:00`, `-0330` or `Z` in milliseconds.
fn utc_offset(text: &str) -> Result<i64, String> {
    let wrong = || format!("{text:?} is not an offset such as +01:00");
    if text.eq_ignore_ascii_case("z") {
        return Ok(0);
    }
    let (sign, rest) = match text.split_at_checked(1) {
        Some(("+", rest)) => (1, rest),
        Some(("-", rest)) => (-1, rest),
        _ => return Err(wrong()),
    };
    let digits: String = rest.chars().filter(|c| *c != ':').collect();
    if digits.len() != 4 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    let number: i64 = digits.parse().map_err(|_| wrong())?;
    match (number / 100, number % 100) {
        (hours @ 0..=15, minutes @ 0..=59) => Ok(sign * (hours * 60 + minutes) * 60 * SECOND),
        _ => Err(wrong()),
    }
}

/// Why nothing, or not everything, was imported.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Usage(String),
    #[error("{name}: {why}")]
    Input { name: String, why: String },
    #[error("{name}: {why}")]
    Unreachable { name: String, why: String },
    #[error("{0}; what was imported stays, and the import may be run again")]
    Store(#[from] StoreError),
}

impl Failure {
    fn status(&self) -> u8 {
        match self {
            Self::Usage(_) => exit::USAGE,
            Self::Input { .. } => exit::DATA,
            Self::Unreachable { .. } | Self::Store(StoreError::Unavailable(_)) => exit::UNAVAILABLE,
            Self::Store(StoreError::Broken(_)) => exit::CONFIG,
        }
    }
}

/// One line on standard error.
fn warn(text: &str) {
    // Only prints; the status is for the end.
    let _ = fail(crate::NAME, exit::DATA, text);
}

pub(crate) fn run(config: Option<&Path>, args: &Args) -> ExitCode {
    let settings = match settings(config) {
        Ok(settings) => settings,
        Err(mistakes) => return fail(crate::NAME, exit::CONFIG, mistakes),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(crate::NAME, exit::UNAVAILABLE, format!("cannot start: {error}")),
    };
    match runtime.block_on(import(&settings, args)) {
        Ok(bad @ 1..) => fail(crate::NAME, exit::DATA, format!("bad lines: {bad}; the others were read")),
        Ok(0) => ExitCode::from(exit::OK),
        Err(failure) => fail(crate::NAME, failure.status(), failure),
    }
}

fn settings(config: Option<&Path>) -> Result<Settings, Mistakes> {
    Settings::read(&Source::load(config)?)
}

/// Imports, and gives the number of bad lines.
async fn import(settings: &Settings, args: &Args) -> Result<u64, Failure> {
    let list = match &args.clients_list {
        Some(path) => {
            let list = ClientsList::new(path);
            Some(list.map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))?)
        }
        None => None,
    };
    let store = if args.dry_run { None } else { Some(Store::open(&settings.store).await?) };
    let (connection, now) = match &store {
        Some(store) => {
            store.migrate().await?;
            let mut connection = Connection::acquire(store).await?;
            let now = import::clock(&mut connection).await?;
            (Some(connection), now)
        }
        None => (None, system_clock()),
    };
    let choices = Choices::new(args.opt_method);
    let mut sink = Sink::new(old(args, settings, now), &settings.greylist, connection, list, choices);
    let read = read::all(args, &mut sink).await;
    // What had been read before an error is written, and counted.
    let finished = sink.finish(read.is_ok()).await;
    let (list, choices, mut tally) = sink.into_parts();
    let chosen = if read.is_ok() && finished.is_ok() { choices.write(store.as_ref()).await } else { Ok(0) };
    tally.chosen = *chosen.as_ref().unwrap_or(&0);
    if let Some(store) = store {
        store.close().await;
    }
    print(&tally, args.dry_run);
    read?;
    finished?;
    chosen?;
    if let (Some(list), Some(path), false) = (list, &args.clients_list, args.dry_run) {
        let source = args.program.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
        list.write(&source)
            .map_err(|error| Failure::Unreachable { name: path.display().to_string(), why: error.to_string() })?;
    }
    Ok(tally.bad)
}

fn old(args: &Args, settings: &Settings, now: i64) -> Old {
    let (delay, max_age) = args.program.defaults();
    Old {
        delay: args.delay.map_or(delay, Period::as_millis),
        max_age: args.max_age.map(Period::as_millis).or(max_age).unwrap_or(settings.greylist.keep_passed.as_millis()),
        trust_after: args.trust_after,
        utc_offset: args.utc_offset.unwrap_or(0),
        now,
    }
}

fn system_clock() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

fn print(tally: &Tally, dry_run: bool) {
    use std::io::Write;
    let note = if dry_run { "dry run: nothing was written\n" } else { "" };
    // Standard output may be closed; the exit status still tells.
    let _ = write!(std::io::stdout().lock(), "{tally}{note}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_have_a_sign_and_four_digits() {
        for (text, minutes) in [("+01:00", 60), ("-0330", -210), ("Z", 0), ("+00:00", 0)] {
            assert_eq!(utc_offset(text), Ok(minutes * 60 * SECOND), "{text}");
        }
        for text in ["", "1", "01:00", "+1", "+25:00", "+01:75", "+0x:00", "CET"] {
            assert!(utc_offset(text).is_err(), "{text}");
        }
    }
}
