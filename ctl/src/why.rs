// SPDX-License-Identifier: GPL-3.0-or-later
//! `octroi why ID`: why a sender was told to come again, how it stands now, and what would let the mail through.
//!
//! Works on any host of a farm. The id is in the reply that the sender got and in the log.

use std::path::Path;
use std::process::ExitCode;

use common::store::Store;
use policyd::config::Settings;
use policyd::explain::{Explained, Key};
use policyd::store::explain::{self, Known};
use policyd::store::{Connection, import};
use policyd::verdict::DecisionId;

use crate::decisions;
use crate::session::{self, Failure, length, moment, printable, say};

/// An id as a person copies it from a reply or a log.
pub(crate) fn id(text: &str) -> Result<DecisionId, String> {
    DecisionId::parse(text.trim()).ok_or_else(|| format!("{text:?} is not an id; it has ten letters and digits"))
}

/// The decision of an id, and the clock of the store.
pub(crate) async fn find(connection: &mut Connection, id: DecisionId) -> Result<(Explained, i64), Failure> {
    let unknown = || {
        Failure::Data(format!(
            "nothing is known of {}: it is too old (greylist.keep_explained), was lost with a store that was away, or was never given",
            id.as_str()
        ))
    };
    let found = explain::find(connection, id.bits()).await?.ok_or_else(unknown)?;
    Ok((found, import::clock(connection).await?))
}

pub(crate) fn run(config: Option<&Path>, id: DecisionId) -> ExitCode {
    session::run(config, async |settings, store| why(settings, store, id).await)
}

async fn why(settings: &Settings, store: &Store, id: DecisionId) -> Result<(), Failure> {
    let mut connection = Connection::acquire(store).await?;
    if explain::find(&mut connection, id.bits()).await?.is_none() {
        // What went on is not explained, but may be in the log of decisions.
        let logged = decisions::of_id(&mut connection, id).await?;
        if !logged.is_empty() {
            decisions::show(&logged);
            return Ok(());
        }
    }
    let (found, now) = find(&mut connection, id).await?;
    request(&found, id, now);
    if found.key == Key::default() {
        say("state       the greylist was not asked; see reason");
        return Ok(());
    }
    let known = explain::known(&mut connection, &found.key).await?.filter(|known| known.expires > now);
    state(settings, &found, known, id, now);
    Ok(())
}

fn line(name: &str, value: &str) {
    let mut lines = value.lines();
    say(format_args!("{name:<11} {}", printable(lines.next().unwrap_or("-"))));
    lines.for_each(|rest| say(format_args!("{:<11} {}", "", printable(rest))));
}

fn ago(then: i64, now: i64) -> String {
    format!("{}, {} ago", moment(then), length((now - then).max(0)))
}

fn request(found: &Explained, id: DecisionId, now: i64) {
    line("id", id.as_str());
    line("when", &ago(found.at, now));
    line("host", &found.host);
    let name = if found.client_name.is_empty() { "no confirmed name" } else { &found.client_name };
    line("client", &format!("{} ({name}), HELO {}", found.client, found.helo));
    line("sender", &format!("<{}>", found.sender));
    line("recipient", &format!("<{}>", found.recipient));
    line("stage", &format!("{}, instance {}", found.state, found.instance));
    line("verdict", &found.verdict);
    line("reason", &found.reason);
    line("trace", &found.trace);
}

fn state(settings: &Settings, found: &Explained, known: Option<Known>, id: DecisionId, now: i64) {
    let Key { client, sender, recipient } = &found.key;
    line("key", &format!("client {client}\nsender <{sender}>\nrecipient <{recipient}>"));
    let delay = found.delay.unwrap_or(settings.greylist.delay.as_millis());
    let window = settings.greylist.retry_window.as_millis();
    let Some(known) = known else {
        line("state", "forgotten: it did not come again in time, or was removed");
        line("would pass", &format!("two tries at least {} and at most {} apart", length(delay), length(window)));
        return;
    };
    line("first seen", &ago(known.first_seen, now));
    line("last seen", &ago(known.last_seen, now));
    line("tries", &known.tries.to_string());
    let left = known.first_seen.saturating_add(delay) - now;
    if known.passes > 0 {
        line(
            "state",
            &format!("has passed; passes without waiting until {} if nothing more comes", moment(known.expires)),
        );
        return;
    }
    let until = moment(known.expires);
    if left > 0 {
        line("state", &format!("waits; {} left", length(left)));
        line("would pass", &format!("a try from this client key after {}, before {until}", moment(now + left)));
        line("", &format!("or the next one, after: octroi allow {}", id.as_str()));
    } else {
        line("state", "has waited long enough, and has not come again");
        line("would pass", &format!("a try from this client key before {until}"));
    }
}
