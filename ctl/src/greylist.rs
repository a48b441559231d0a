// SPDX-License-Identifier: GPL-3.0-or-later
//! `octroi greylist stats`: what greylisting stopped, what it delayed and by how much, per sender system; `traps` and `release`: which
//! networks wrote to a trap.
//!
//! Costs are counted over the deferrals and first passes that are kept (greylist.keep_explained).

use std::path::Path;
use std::process::ExitCode;

use common::store::Store;
use common::units::Period;
use policyd::checks::marks as keys;
use policyd::config::Settings;
use policyd::store::explain::{self, Cost};
use policyd::store::{Connection, import, marks};

use crate::session::{self, Failure, columns, length, printable, say};

/// What is asked of the greylist.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Action {
    /// What it stopped, what it delayed and by how much, per sender system
    Stats {
        /// How far back [default: as far as is kept]
        #[arg(long, value_name = "TIME")]
        last: Option<Period>,
        /// Who has not come again for so long counts as never
        #[arg(long, value_name = "TIME", default_value = "4h")]
        never_after: Period,
        /// How many sender systems are shown
        #[arg(long, value_name = "N", default_value_t = 20)]
        systems: u32,
    },
    /// Networks that wrote to a trap, and for how long they must wait still
    Traps,
    /// Let a trapped network go
    Release {
        /// As traps shows it
        network: String,
    },
}

pub(crate) fn run(config: Option<&Path>, action: Action) -> ExitCode {
    session::run(config, async |settings, store| match action {
        Action::Stats { last, never_after, systems } => stats(settings, store, last, never_after, systems).await,
        Action::Traps => traps(store).await,
        Action::Release { network } => release(store, &network).await,
    })
}

async fn traps(store: &Store) -> Result<(), Failure> {
    let mut connection = Connection::acquire(store).await?;
    let trapped = marks::list(&mut connection, keys::TRAP).await?;
    if trapped.is_empty() {
        say("nobody is trapped");
        return Ok(());
    }
    let row = |(key, fact, left): &(String, String, i64)| {
        [printable(key.strip_prefix(keys::TRAP).unwrap_or(key)), length(*left), printable(fact)]
    };
    columns(["NETWORK", "LEFT", "BECAUSE"], &trapped.iter().map(row).collect::<Vec<_>>());
    Ok(())
}

async fn release(store: &Store, network: &str) -> Result<(), Failure> {
    let mut connection = Connection::acquire(store).await?;
    match marks::remove(&mut connection, &format!("{}{network}", keys::TRAP)).await? {
        true => {
            say(format_args!("{network} is released; every host knows within a minute"));
            Ok(())
        }
        false => Err(Failure::Data(format!("{network} is not trapped"))),
    }
}

async fn stats(
    settings: &Settings,
    store: &Store,
    last: Option<Period>,
    never_after: Period,
    systems: u32,
) -> Result<(), Failure> {
    let mut connection = Connection::acquire(store).await?;
    let now = import::clock(&mut connection).await?;
    let last = last.unwrap_or(settings.greylist.keep_explained);
    let since = now.saturating_sub(last.as_millis());
    let gone_before = now.saturating_sub(never_after.as_millis());
    let (total, systems) = explain::costs(&mut connection, since, gone_before, i64::from(systems)).await?;
    let Some(total) = total else {
        say(format_args!("nothing was greylisted in the last {last}"));
        return Ok(());
    };
    let rest = total.triplets - total.came - total.gone;
    say(format_args!(
        "In the last {last}: {} triplets were told to come again, {} times.",
        total.triplets, total.deferrals
    ));
    say(format_args!("stopped  {:>8}  never came again within {never_after}", total.gone));
    say(format_args!(
        "delayed  {:>8}  median {}, 95 of 100 within {}",
        total.came,
        wait(total.median),
        wait(total.p95)
    ));
    say(format_args!("waiting  {rest:>8}  may still come"));
    say("");
    let rows: Vec<[String; 7]> = systems.iter().map(row).collect();
    columns(["SYSTEM", "TRIPLETS", "STOPPED", "DELAYED", "DEFERRALS", "MEDIAN", "P95"], &rows);
    Ok(())
}

fn row(cost: &Cost) -> [String; 7] {
    [
        printable(&cost.system),
        cost.triplets.to_string(),
        cost.gone.to_string(),
        cost.came.to_string(),
        cost.deferrals.to_string(),
        wait(cost.median),
        wait(cost.p95),
    ]
}

fn wait(milliseconds: Option<i64>) -> String {
    milliseconds.map_or_else(|| "-".to_owned(), length)
}
