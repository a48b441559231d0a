// SPDX-License-Identifier: GPL-3.0-or-later
//! `octroi why --client|--sender|--recipient`: what was decided about them lately, out of the log of decisions in the store, which is kept
//! when `[decision_log]` says so.

use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use common::units::Period;
use policyd::store::Connection;
use policyd::store::decisions::{Logged, Question, find};
use policyd::verdict::DecisionId;

use crate::session::{self, Failure, columns, moment, printable};

/// Which decisions are to be shown.
#[derive(Debug, Args)]
pub(crate) struct About {
    /// About this client address
    #[arg(long, value_name = "IP")]
    pub(crate) client: Option<std::net::IpAddr>,
    /// About this sender; <> is the null sender
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) sender: Option<String>,
    /// About this recipient
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) recipient: Option<String>,
    /// Not older than this
    #[arg(long, value_name = "TIME", default_value = "1d")]
    pub(crate) since: Period,
    /// Not more than so many, the latest first
    #[arg(long, value_name = "NUMBER", default_value_t = 100)]
    pub(crate) most: u32,
}

/// Shows what fits.
pub(crate) fn run(config: Option<&Path>, about: &About) -> ExitCode {
    session::run(config, async |_, store| {
        let question = Question {
            id: None,
            client: about.client.map(|ip| ip.to_string()),
            sender: about.sender.as_deref().map(|sender| sender.trim_matches(['<', '>']).to_owned()),
            recipient: about.recipient.clone(),
            since: session::now().saturating_sub(about.since.as_millis()),
            most: i64::from(about.most),
        };
        let mut connection = Connection::acquire(store).await?;
        let found = find(&mut connection, &question).await?;
        if found.is_empty() {
            let told = "no such decision is in the log; it is kept when decision_log.keep is longer than 0s";
            return Err(Failure::Data(told.to_owned()));
        }
        show(&found);
        Ok(())
    })
}

/// The decision of an id, when it is in the log.
pub(crate) async fn of_id(connection: &mut Connection, id: DecisionId) -> Result<Vec<Logged>, Failure> {
    Ok(find(connection, &Question { id: Some(id.bits()), since: 0, most: 1, ..Question::default() }).await?)
}

/// A table, one line a decision.
pub(crate) fn show(found: &[Logged]) {
    let row = |one: &Logged| {
        let fact = printable(&one.fact);
        [
            moment(one.at),
            DecisionId::from_bits(u64::try_from(one.id).unwrap_or_default()).as_str().to_owned(),
            one.host.clone(),
            one.state.clone(),
            one.client.clone(),
            format!("<{}>", printable(&one.sender)),
            format!("<{}>", printable(&one.recipient)),
            one.verdict.clone(),
            if fact.is_empty() { one.reason.clone() } else { format!("{}: {fact}", one.reason) },
        ]
    };
    let heading = ["when", "id", "host", "stage", "client", "sender", "recipient", "verdict", "reason"];
    columns(heading, &found.iter().map(row).collect::<Vec<_>>());
}
