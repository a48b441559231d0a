// SPDX-License-Identifier: GPL-3.0-or-later
//! `octroi quarantine`: what is kept there, on any host; showing, releasing and deleting a message, on the host that keeps it.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use bytes::Bytes;
use common::config::Source;
use common::exit::{self, fail};
use common::store::Store;
use contentd::config::Settings;
use contentd::envelope::{Client, Envelope, MessageId, Path as MailPath};
use contentd::findings::Spam;
use contentd::quarantine::file;
use contentd::quarantine::release::{self, End, Kept, ReleaseError};
use contentd::smtp::xforward::Attribute;
use contentd::spam::account::{self, Class};
use contentd::spam::job::{Job, Limits};
use contentd::spam::set::Rules;
use contentd::store::quarantine::{self as index, HELD, Question, RELEASED, RELEASING};

use crate::session::{self, Failure, columns, length, moment, now, printable, say};

/// Header lines that `show` prints at most, and their longest.
const SHOWN: (usize, usize) = (60, 500);

/// What is done with the quarantine.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Action {
    /// List the messages, of all hosts, the newest first
    List {
        /// For this recipient
        #[arg(long, value_name = "ADDRESS", default_value = "", hide_default_value = true)]
        recipient: String,
        /// From this sender; "<>" is the null sender
        #[arg(long, value_name = "ADDRESS", default_value = "", hide_default_value = true)]
        sender: String,
        /// Of this category or for this reason: virus, banned, unchecked, encrypted, discarded, ...
        #[arg(long, value_name = "WORD", default_value = "", hide_default_value = true)]
        why: String,
        /// Kept by this host
        #[arg(long, value_name = "HOST", default_value = "", hide_default_value = true)]
        host: String,
        /// Not older than this
        #[arg(long, value_name = "TIME", default_value = "30d")]
        since: common::units::Period,
        /// At most so many
        #[arg(long, value_name = "NUMBER", default_value_t = 100, value_parser = clap::value_parser!(i64).range(1..))]
        most: i64,
    },
    /// Show what is known of a message, and its header section
    Show {
        id: String,
        /// The message itself, byte for byte, and nothing else
        #[arg(long)]
        raw: bool,
    },
    /// Hand a message to the next hop; each recipient gets it once, however often this is said
    Release {
        id: String,
        /// Only for this recipient; may be repeated [default: for all]
        #[arg(long = "to", value_name = "ADDRESS")]
        to: Vec<String>,
        /// Also for recipients of whom nobody knows whether an earlier release has reached them
        #[arg(long)]
        again: bool,
        /// It is no spam: count that for each of the spam rules that it hits (octroi rules stats)
        #[arg(long)]
        not_spam: bool,
    },
    /// Delete messages for good
    Delete {
        #[arg(required = true)]
        id: Vec<String>,
    },
}

pub(crate) fn run(config: Option<&Path>, action: Action) -> ExitCode {
    let settings = match Source::load(config).and_then(|source| Settings::read(&source)) {
        Ok(settings) => settings,
        Err(mistakes) => return fail(crate::NAME, exit::CONFIG, mistakes),
    };
    session::run(config, async |_, store| match action {
        Action::List { recipient, sender, why, host, since, most } => {
            let since = now().saturating_sub(since.as_millis());
            list(store, &Question { since, why, sender, recipient, host, most }).await
        }
        Action::Show { id, raw } => show(&settings, store, &plain(&id), raw).await,
        Action::Release { id, to, again, not_spam } => {
            release(&settings, store, &plain(&id), &to, again).await?;
            if not_spam { tell_rules(&settings, store, &plain(&id)).await } else { Ok(()) }
        }
        Action::Delete { id } => {
            for id in id {
                delete(&settings, store, &plain(&id)).await?;
            }
            Ok(())
        }
    })
}

/// An id as a person copies it.
fn plain(id: &str) -> String {
    id.trim().to_ascii_uppercase()
}

fn failure(error: ReleaseError) -> Failure {
    match error {
        ReleaseError::Store(error) => Failure::Store(error),
        ReleaseError::NotARecipient(_) => Failure::Usage(error.to_string()),
        ReleaseError::Hop(_) | ReleaseError::Silent(_) => Failure::Unavailable(error.to_string()),
        _ => Failure::Data(error.to_string()),
    }
}

async fn list(store: &Store, question: &Question) -> Result<(), Failure> {
    let rows = index::list(store, question).await?.into_iter().map(|row| {
        let state = match (row.held, row.released) {
            (held, _) if held == row.recipients => HELD.to_owned(),
            (_, released) if released == row.recipients => RELEASED.to_owned(),
            (_, 0) => RELEASING.to_owned(),
            (_, released) => format!("{released}/{} {RELEASED}", row.recipients),
        };
        let more = if row.recipients > 1 { format!(" +{}", row.recipients - 1) } else { String::new() };
        [
            row.id,
            moment(row.at),
            printable(&row.host),
            row.category,
            row.reason,
            row.size.to_string(),
            state,
            printable(&format!("<{}>", row.sender)),
            printable(&format!("<{}>{more}", row.recipient)),
        ]
    });
    columns(
        ["ID", "TIME", "HOST", "CATEGORY", "REASON", "SIZE", "STATE", "SENDER", "RECIPIENT"],
        &rows.collect::<Vec<_>>(),
    );
    Ok(())
}

fn line(name: &str, value: &str) {
    say(format_args!("{name:<10} {}", printable(value)));
}

async fn show(settings: &Settings, store: &Store, id: &str, raw: bool) -> Result<(), Failure> {
    if raw {
        let bytes = kept(settings, store, id).await?.message().map_err(|error| failure(error.into()))?;
        // A reader that has gone away is no error of ours.
        let _ = std::io::stdout().lock().write_all(&bytes);
        return Ok(());
    }
    let Some(entry) = index::find(store, id).await? else { return Err(failure(ReleaseError::Unknown(id.to_owned()))) };
    line("id", &entry.id);
    line("time", &format!("{}, kept until {}", moment(entry.at), moment(entry.expires)));
    line("host", &entry.host);
    line("client", &entry.client);
    line("sender", &entry.sender_path);
    line("why", &format!("{}, {}", entry.category, entry.reason));
    line("detail", &entry.detail);
    line("size", &format!("{} bytes, {} in the file", entry.size, entry.stored));
    line("sha256", &entry.digest);
    for recipient in index::recipients(store, id).await? {
        let since = format!("{} since {}", recipient.state, moment(recipient.changed));
        line("recipient", &format!("{}: {since} {}", recipient.path, recipient.reply));
    }
    // Another host shows all of it but the message.
    match kept(settings, store, id).await {
        Ok(kept) => {
            line("file", &kept.path.display().to_string());
            headers(&kept.message().map_err(|error| failure(error.into()))?);
        }
        Err(Failure::Data(elsewhere)) => say(elsewhere),
        Err(failure) => return Err(failure),
    }
    Ok(())
}

/// The header section, safe for a terminal.
fn headers(message: &[u8]) {
    say("");
    let lines = message.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end);
    for line in lines.take_while(|line| !line.is_empty()).take(SHOWN.0) {
        say(printable(&String::from_utf8_lossy(&line[..line.len().min(SHOWN.1)])));
    }
}

async fn kept(settings: &Settings, store: &Store, id: &str) -> Result<Kept, Failure> {
    Kept::find(store, &settings.quarantine, id).await.map_err(failure)
}

async fn release(settings: &Settings, store: &Store, id: &str, to: &[String], again: bool) -> Result<(), Failure> {
    let kept = kept(settings, store, id).await?;
    let target = settings.contentd.target();
    let ended = release::release(store, &kept, &settings.headers, &target, to, again).await.map_err(failure)?;
    let mut wrong = 0;
    for ended in ended {
        let told = match ended.end {
            End::Released(reply) => format!("released: {reply}"),
            End::Before(reply) => format!("was released before: {reply}"),
            End::Refused(reply) => {
                wrong += 1;
                format!("not released: {reply}")
            }
            End::Taken => {
                wrong += 1;
                "a release has begun and not told how it ended; look whether it has arrived, --again sends it once more"
                    .to_owned()
            }
        };
        say(printable(&format!("<{}> {told}", ended.address)));
    }
    if wrong > 0 { Err(Failure::Unavailable(format!("not released for {wrong} of its recipients"))) } else { Ok(()) }
}

/// Counts that the message is no spam, for the rules in their present state; once, however often it is released.
async fn tell_rules(settings: &Settings, store: &Store, id: &str) -> Result<(), Failure> {
    let set = Rules::default().read(&settings.spam).map_err(|error| Failure::Data(format!("spam rules: {error}")))?;
    let Some(set) = set else {
        return Err(Failure::Data("released; but no spam rules are configured that could be told".to_owned()));
    };
    let kept = kept(settings, store, id).await?;
    let raw = kept.message().map_err(|error| failure(error.into()))?;
    let mut client = Client::default();
    client.set(Attribute::Addr, kept.entry.client.as_bytes());
    let envelope = Envelope::new(MessageId::generate(), MailPath::from_address(&kept.entry.sender), client);
    let limits = Limits::of(&settings.spam);
    let seen = Bytes::copy_from_slice(raw.get(..limits.size).unwrap_or(&raw));
    let mut job = Job::new(Arc::new(set), &envelope, &settings.contentd.own_name(), seen, limits);
    let report = job.run().report;
    let required = settings.spam.tag_level.map_or(report.required, |level| level.0);
    let hits = report.hits.len();
    // The message was taken for what it was kept for, whatever its score is by rules alone, or by those of today.
    let was_tagged = ["spam", "tagged"].contains(&kept.entry.reason.as_str());
    let score = if was_tagged { report.score.max(required) } else { report.score };
    let spam = Spam { score, required, report, rules: job.rules };
    match account::tell(store, &spam, Class::Ham, id).await? {
        true => say(format_args!("told {hits} spam rules that it is no spam")),
        false => say("the spam rules were told before that it is no spam"),
    }
    Ok(())
}

async fn delete(settings: &Settings, store: &Store, id: &str) -> Result<(), Failure> {
    let kept = kept(settings, store, id).await?;
    let folder = settings.quarantine.folder();
    let name = file::name(&kept.entry.id, kept.entry.at);
    // The file first: a row without a file can be seen and deleted again, a file without a row cannot.
    let removed = name.map_or(Ok(false), |name| file::remove(&folder, &name));
    removed.map_err(|error| Failure::Data(format!("{}: {error}", kept.path.display())))?;
    index::remove(store, id).await?;
    say(format_args!("{id} is deleted, {} after it came", length(now() - kept.entry.at)));
    Ok(())
}
