// SPDX-License-Identifier: GPL-3.0-or-later
//! `octroi limit`: how much of its limits a key has used, and what holds for it instead of the configuration. Changes are in the
//! store and in force on every host with the next statement; a host that refuses from memory notices within two seconds.

use std::path::Path;
use std::process::ExitCode;

use common::store::Store;
use common::units::Period;
use policyd::config::Settings;
use policyd::limits::plan::{Limit, RateOf};
use policyd::limits::rate::{MOST, Rate, Span, UNIT};
use policyd::limits::settle::{Bucket, Level, Override, UNLIMITED, wait};
use policyd::store::Connection;
use policyd::store::limits::{clock, overrides};

use crate::session::{self, Failure, columns, expiry, length, moment, printable, say};

/// Buckets shown without a key.
const SHOWN: u32 = 100;

/// What is done with limits.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Action {
    /// Show how full the buckets of a key are; without a key, those for which something is set and those charged last
    Show {
        /// As the log and this command show it: joe@example.org, 192.0.2.0/24
        key: Option<String>,
        /// Of this limit only
        #[arg(long, value_name = "NAME")]
        limit: Option<String>,
    },
    /// Empty the buckets of a key
    Reset {
        /// As `octroi limit show` shows it
        key: String,
        /// Of this limit only
        #[arg(long, value_name = "NAME")]
        limit: Option<String>,
    },
    /// Let a key send more for a while, on top of what its limits allow at once
    Grant {
        /// As `octroi limit show` shows it
        key: String,
        /// So many units: +500
        #[arg(value_parser = units)]
        extra: i64,
        /// For so long
        #[arg(long = "for", value_name = "TIME", default_value = "1d")]
        time: Period,
        /// Of this limit only [default: of all under which the key is known]
        #[arg(long, value_name = "NAME")]
        limit: Option<String>,
    },
    /// Another rate for one key, such as 500/1h, or "unlimited"
    Set {
        /// As `octroi limit show` shows it
        key: String,
        /// 500/1h, 1000/day, unlimited
        rate: String,
        /// The limit
        #[arg(long, value_name = "NAME")]
        limit: String,
        /// Units at once [default: the number of the rate]
        #[arg(long, value_name = "N", value_parser = units)]
        burst: Option<i64>,
        /// Until when: 30d from now, or 2026-12-31 (UTC) [default: no end]
        #[arg(long, value_name = "WHEN", value_parser = expiry)]
        until: Option<i64>,
    },
    /// Take back what was granted or set for a key
    Unset {
        /// As `octroi limit show` shows it
        key: String,
        /// Of this limit only
        #[arg(long, value_name = "NAME")]
        limit: Option<String>,
    },
}

fn units(text: &str) -> Result<i64, String> {
    let number = text.strip_prefix('+').unwrap_or(text);
    match number.parse::<u64>() {
        Ok(number) if (1..=MOST).contains(&number) => Ok(i64::try_from(number).unwrap_or(i64::MAX)),
        _ => Err(format!("{text:?} is not a number between 1 and {MOST}")),
    }
}

pub(crate) fn run(config: Option<&Path>, action: Action) -> ExitCode {
    session::run(config, async |settings, store| {
        let limits = limits(settings)?;
        match action {
            Action::Show { key, limit } => show(&limits, store, key.as_deref(), limit.as_deref()).await,
            Action::Reset { key, limit } => reset(&limits, store, &key, limit.as_deref()).await,
            Action::Grant { key, extra, time, limit } => {
                grant(&limits, store, &key, extra, time, limit.as_deref()).await
            }
            Action::Set { key, rate, limit, burst, until } => {
                let set = wanted(&limits, &limit, &rate, burst, until)?;
                override_rate(store, &key, set).await
            }
            Action::Unset { key, limit } => unset(&limits, store, &key, limit.as_deref()).await,
        }
    })
}

fn limits(settings: &Settings) -> Result<Vec<Limit>, Failure> {
    let basis = settings.key_basis();
    let compile = |entry: &policyd::config::LimitSettings| match entry.compile(basis) {
        Ok((limit, _)) => Ok(limit),
        Err((key, message)) => Err(Failure::Data(format!("limit {:?}: {key}: {message}", entry.name))),
    };
    settings.limit.iter().map(compile).collect()
}

/// The buckets of a key in the configured limits, with their rates.
fn buckets<'l>(
    limits: &'l [Limit],
    name: Option<&str>,
    key: &str,
) -> Result<Vec<(String, &'l Limit, &'l RateOf)>, Failure> {
    let wanted = |limit: &&Limit| name.is_none_or(|name| limit.name == name);
    let found: Vec<_> = limits.iter().filter(wanted).collect();
    if found.is_empty() {
        let names: Vec<&str> = limits.iter().map(|limit| limit.name.as_str()).collect();
        return Err(Failure::Data(match name {
            Some(name) => format!("there is no limit {name:?}; there are: {}", names.join(", ")),
            None => "no limit is configured".to_owned(),
        }));
    }
    let key = key.to_lowercase();
    let bucket = |limit: &'l Limit, rate: &'l RateOf| (rate.bucket_name(&limit.name, &key), limit, rate);
    Ok(found.into_iter().flat_map(|limit| limit.rates.iter().map(move |rate| bucket(limit, rate))).collect())
}

/// Those of them that the store knows.
async fn known(
    connection: &mut Connection,
    limits: &[Limit],
    name: Option<&str>,
    key: &str,
) -> Result<Vec<overrides::Stored>, Failure> {
    let mut known = Vec::new();
    for (bucket, _, _) in buckets(limits, name, key)? {
        known.extend(overrides::read(connection, &bucket).await?);
    }
    match known.is_empty() {
        true => Err(Failure::Data(format!(
            "no limit knows {:?}; keys are as `octroi limit show` shows them",
            printable(key)
        ))),
        false => Ok(known),
    }
}

async fn show(limits: &[Limit], store: &Store, key: Option<&str>, name: Option<&str>) -> Result<(), Failure> {
    let mut connection = Connection::acquire(store).await?;
    let stored = match key {
        Some(key) => known(&mut connection, limits, name, key).await?,
        None => overrides::list(&mut connection, SHOWN).await?,
    };
    let now = clock(&mut connection).await?;
    let row = |stored: &overrides::Stored| row(limits, stored, now);
    let in_limit = |stored: &&overrides::Stored| name.is_none_or(|name| stored.bucket.split(' ').next() == Some(name));
    let rows: Vec<_> = stored.iter().filter(in_limit).map(row).collect();
    columns(["LIMIT", "TIME", "KEY", "USED", "OF", "NEXT IN", "SET"], &rows);
    Ok(())
}

/// Limit, time and key of the name of a bucket.
fn parts(bucket: &str) -> (&str, &str, &str) {
    let mut parts = bucket.splitn(3, ' ');
    let mut next = || parts.next().unwrap_or_default();
    (next(), next(), next())
}

fn row(limits: &[Limit], stored: &overrides::Stored, now: i64) -> [String; 7] {
    let (name, time, key) = parts(&stored.bucket);
    let limit = limits.iter().find(|limit| limit.name == name);
    let rate = limit.and_then(|limit| limit.rates.iter().find(|rate| rate.bucket_name(name, key) == stored.bucket));
    let [used, of, next] = match rate {
        // A limit that is configured no more.
        None => {
            [stored.level.map_or_else(|| "0".to_owned(), |level| whole(level.level)), "-".to_owned(), "-".to_owned()]
        }
        Some(rate) => usage(rate, stored, now),
    };
    let set = stored.set.as_ref().map(|set| told(set, &stored.author, now)).unwrap_or_default();
    [name.to_owned(), time.to_owned(), printable(key), used, of, next, set]
}

fn whole(millionths: i64) -> String {
    (millionths.saturating_add(UNIT - 1) / UNIT).to_string()
}

/// Used, of how much, and when there is room for one more.
fn usage(rate: &RateOf, stored: &overrides::Stored, now: i64) -> [String; 3] {
    let capacity = i64::try_from(rate.burst).unwrap_or(i64::MAX).saturating_mul(UNIT);
    let bucket = Bucket { name: String::new(), capacity, drain: rate.rate.drain(), since: 0, keep: 0 };
    let force = stored.set.clone().unwrap_or_default().applied(&bucket, now);
    let level = stored.level.unwrap_or(Level { level: 0, at: 0 });
    // Of a calendar window that ended long ago the daemon will see by itself that it has ended.
    let level = if force.drain > 0.0 { level.at(now, force.drain, 0) } else { level };
    let of = if force.capacity >= UNLIMITED { "unlimited".to_owned() } else { whole(force.capacity) };
    let next = match rate.rate.span {
        Span::Calendar(window) if level.level.saturating_add(UNIT) > force.capacity => {
            format!("next {}", window.word())
        }
        _ => match wait(level.level, UNIT, force, now, now) {
            Some(0) => "now".to_owned(),
            Some(left) => length(left),
            None => "never".to_owned(),
        },
    };
    [whole(level.level), of, next]
}

/// What is set, in words.
fn told(set: &Override, author: &str, now: i64) -> String {
    let mut told = Vec::new();
    if set.until.is_none_or(|until| until > now) && (set.unlimited || set.number.is_some()) {
        let rate = match set.number.zip(set.period) {
            Some((number, period)) if !set.unlimited => format!("{number} in {}", length(period)),
            _ => "unlimited".to_owned(),
        };
        let until = set.until.map_or_else(String::new, |until| format!(" until {}", moment(until)));
        told.push(format!("{rate}{until}"));
    }
    if let Some(until) = set.extra_until.filter(|until| *until > now) {
        told.push(format!("+{} until {}", set.extra, moment(until)));
    }
    match told.is_empty() {
        true => String::new(),
        false => format!("{} ({})", told.join(", "), printable(author)),
    }
}

async fn reset(limits: &[Limit], store: &Store, key: &str, name: Option<&str>) -> Result<(), Failure> {
    let mut connection = Connection::acquire(store).await?;
    for stored in known(&mut connection, limits, name, key).await? {
        if overrides::reset(&mut connection, &stored.bucket).await? {
            say(format_args!("emptied: {}", printable(&stored.bucket)));
        }
    }
    Ok(())
}

async fn grant(
    limits: &[Limit],
    store: &Store,
    key: &str,
    extra: i64,
    time: Period,
    name: Option<&str>,
) -> Result<(), Failure> {
    let mut connection = Connection::acquire(store).await?;
    // A limit that is named need not know the key yet.
    let chosen: Vec<String> = match name {
        Some(_) => buckets(limits, name, key)?.into_iter().map(|(bucket, _, _)| bucket).collect(),
        None => known(&mut connection, limits, name, key).await?.into_iter().map(|stored| stored.bucket).collect(),
    };
    let until = clock(&mut connection).await?.saturating_add(time.as_millis());
    for bucket in chosen.iter().filter(|bucket| !bucket.contains(" warn:")) {
        overrides::grant(&mut connection, bucket, (extra, until), &author()).await?;
        say(format_args!("+{extra} until {}: {}", moment(until), printable(bucket)));
    }
    Ok(())
}

fn author() -> String {
    std::env::var("SUDO_USER").or_else(|_| std::env::var("USER")).unwrap_or_else(|_| "unknown".to_owned())
}

/// A limit, the rate of it that is meant, and what is to hold instead.
type Wanted = (String, RateOf, Override);

fn wanted(
    limits: &[Limit],
    name: &str,
    rate: &str,
    burst: Option<i64>,
    until: Option<i64>,
) -> Result<Vec<Wanted>, Failure> {
    let found = buckets(limits, Some(name), "")?;
    let rates = || found.iter().map(|(_, _, rate)| *rate).filter(|rate| !rate.watch);
    if rate == "unlimited" {
        let set = Override { unlimited: true, until, ..Override::default() };
        return Ok(rates().map(|rate| (name.to_owned(), rate.clone(), set.clone())).collect());
    }
    let wanted: Rate = rate.parse().map_err(Failure::Usage)?;
    let same = rates().find(|rate| rate.rate.span == wanted.span);
    let sliding = |rate: &RateOf| matches!(rate.rate.span, Span::Sliding(_));
    let only = rates().next().filter(|rate| rates().count() == 1 && sliding(rate));
    let Some(rate) = same.or(only.filter(|_| matches!(wanted.span, Span::Sliding(_)))) else {
        let spans: Vec<String> = rates().map(|rate| rate.rate.span.to_string()).collect();
        return Err(Failure::Usage(format!(
            "limit {name:?} has no rate per {}; it has: {}",
            wanted.span,
            spans.join(", ")
        )));
    };
    let number = i64::try_from(wanted.number).unwrap_or(i64::MAX);
    let period = match wanted.span {
        Span::Sliding(period) => period.as_millis(),
        Span::Calendar(window) => window.longest(),
    };
    let set = Override {
        number: Some(number),
        period: Some(period),
        burst: Some(burst.unwrap_or(number)),
        until,
        ..Override::default()
    };
    Ok(vec![(name.to_owned(), rate.clone(), set)])
}

async fn override_rate(store: &Store, key: &str, wanted: Vec<Wanted>) -> Result<(), Failure> {
    let mut connection = Connection::acquire(store).await?;
    for (name, rate, set) in wanted {
        let bucket = rate.bucket_name(&name, &key.to_lowercase());
        overrides::set(&mut connection, &bucket, &set, &author()).await?;
        say(format_args!("{}: {}", told(&set, &author(), 0), printable(&bucket)));
    }
    Ok(())
}

async fn unset(limits: &[Limit], store: &Store, key: &str, name: Option<&str>) -> Result<(), Failure> {
    let mut connection = Connection::acquire(store).await?;
    for stored in known(&mut connection, limits, name, key).await? {
        if overrides::unset(&mut connection, &stored.bucket).await? {
            say(format_args!("as configured again: {}", printable(&stored.bucket)));
        }
    }
    Ok(())
}
