// SPDX-License-Identifier: GPL-3.0-or-later
//! Latency while a large table is cleaned, beside that of the same table before cleaning begins: a daemon that has just started leaves
//! expired triplets alone for ten seconds, and then deletes them bit by bit. That it does is seen in its metrics.

use std::path::Path;
use std::time::Duration;

use ::tests::daemon::page;
use ::tests::ports::free_port;
use ::tests::postgres::Cluster;
use ::tests::process::{Trouble, await_that};

use crate::measure::{Bounds, Row, Subject};
use crate::policy::{self, Load};
use crate::servers::{Policyd, Rows, Tested, temporary};
use crate::table::Report;

/// Until cleaning has begun, from the start of the daemon.
const PATIENCE: Duration = Duration::from_secs(60);
const CLEANED: &str = "octroi_policyd_greylist_expired_total ";

/// Measures `rounds` times: before, and while it is cleaned.
pub(crate) async fn measure(
    report: &mut Report,
    rows: Rows,
    clients: &[usize],
    (rounds, bounds): (usize, Bounds),
) -> Result<(), Trouble> {
    let directory = temporary()?;
    let file = format!("sqlite:{}", directory.path().join("octroi.db").display());
    one_store(report, ("policyd, SQLite", &file, None), rows, clients, (rounds, bounds), directory.path()).await?;
    let cluster = Cluster::try_start()?;
    let url = cluster.new_database().await;
    let beside = cluster.id();
    one_store(report, ("policyd, PostgreSQL", &url, beside), rows, clients, (rounds, bounds), directory.path()).await
}

async fn one_store(
    report: &mut Report,
    (name, url, beside): (&'static str, &str, Option<u32>),
    rows: Rows,
    clients: &[usize],
    (rounds, bounds): (usize, Bounds),
    root: &Path,
) -> Result<(), Trouble> {
    rows.fill(url).await?;
    let http = free_port();
    let policyd = Policyd { url, whitelist: None, http, greylist: "", more: "" };
    let mut tested = Tested::start(name, "policyd", root, |port, _| policyd.configuration(port))?;
    let row = |load: &str, clients: usize| -> Result<Row, Trouble> {
        Ok(Row::new(&Subject { beside, ..tested.subject()? }, load, clients))
    };
    let mut pairs = Vec::new();
    for &clients in clients {
        pairs.push([row("first contact, at rest", clients)?, row("first contact, cleaning", clients)?]);
    }
    for round in 0..rounds {
        if round > 0 {
            tested.restart()?;
        }
        let subject = Subject { beside, ..tested.subject()? };
        for [at_rest, _] in &mut pairs {
            one_round(at_rest, &subject, bounds).await?;
        }
        if cleaned(http)? > 0 {
            return Err(Trouble(
                "cleaning began before it was measured without; ask for fewer --connections".to_owned(),
            ));
        }
        await_that("cleaning to begin", PATIENCE, || Ok((cleaned(http)? > 0).then_some(())))?;
        for [_, cleaning] in &mut pairs {
            let before = cleaned(http)?;
            one_round(cleaning, &subject, bounds).await?;
            if cleaned(http)? == before {
                return Err(Trouble("nothing was left to clean; ask for more --rows".to_owned()));
            }
        }
    }
    tested.end()?;
    for [at_rest, cleaning] in pairs {
        let p99 = |row: &Row| row.median(|round| round.p99) / 1000.0;
        report.notes.push(format!(
            "{name}, {} at a time: p99 {:.2} ms while cleaning, {:.2} ms at rest, {:.2} times as long",
            at_rest.clients,
            p99(&cleaning),
            p99(&at_rest),
            p99(&cleaning) / p99(&at_rest)
        ));
        report.rows.extend([at_rest, cleaning]);
    }
    Ok(())
}

async fn one_round(row: &mut Row, subject: &Subject, bounds: Bounds) -> Result<(), Trouble> {
    let clients = row.clients;
    row.one_round(subject, bounds, &async |subject: &Subject, bounds| {
        policy::run(Load::New, subject, clients, bounds).await
    })
    .await
}

/// How many expired triplets the daemon has deleted since it started.
fn cleaned(http: u16) -> Result<u64, Trouble> {
    let text = page(http, "/metrics")?;
    let number = text.lines().find_map(|line| line.strip_prefix(CLEANED));
    Ok(number.and_then(|number| number.parse().ok()).unwrap_or(0))
}
