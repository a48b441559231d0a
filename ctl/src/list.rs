// SPDX-License-Identifier: GPL-3.0-or-later
//! `octroi list`: the access lists in the store, in force on every host within a second.
//!
//! Entries are checked before they are stored, in the format of list files. An exported list is a list file whose comments carry
//! author and expiry; importing it gives the same list again.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::builder::PossibleValuesParser;
use clap::builder::TypedValueParser;
use common::lookup::{AddressTable, ClientTable};
use common::store::Store;
use policyd::store::Connection;
use policyd::store::acl::{self, Entry, List, NewEntry};

use crate::session::{self, Failure, columns, expiry, moment, now, printable, say};

/// Largest file that is imported, in bytes.
const MAX_INPUT: u64 = 64 * 1024 * 1024;

/// What the lists are for.
const KINDS: &str = "\
Lists:
  client_whitelist     no check of policyd stops these clients
  client_blacklist     clients that are refused
  sender_whitelist     senders whose mail is not greylisted
  sender_blacklist     senders that are refused
  recipient_whitelist  recipients whose mail is not greylisted
  recipient_blacklist  recipients that are refused
  optin, optout        recipients that want to be greylisted, or not; the closest entry counts, * is everybody

Entries of clients: address, network, name with its sub-domains, .name (these only), /regular expression/, spf:domain (the
addresses that its SPF record lists). Of senders and recipients: user@domain, user@, @domain, domain with its sub-domains,
.domain (these only), /regular expression/; in sender_whitelist also spf:domain.";

/// What is done with the lists.
#[derive(Debug, clap::Subcommand)]
#[command(after_help = KINDS)]
pub(crate) enum Action {
    /// Put entries into a list; of those in it already, comment, author and expiry are changed
    #[command(after_help = KINDS)]
    Add {
        #[arg(value_parser = list_parser())]
        list: List,
        /// 192.0.2.1, 192.0.2.0/24, spf:example.org, example.org, user@example.org, /regular expression/, ... as in list files
        #[arg(required = true, value_name = "ENTRY")]
        entries: Vec<String>,
        #[command(flatten)]
        about: About,
    },
    /// Take entries out of a list
    Remove {
        #[arg(value_parser = list_parser())]
        list: List,
        /// As `octroi list show` shows them
        #[arg(required = true, value_name = "ENTRY")]
        entries: Vec<String>,
    },
    /// Show one list, or all
    Show {
        #[arg(value_parser = list_parser())]
        list: Option<List>,
        /// Show what has expired too
        #[arg(long)]
        expired: bool,
    },
    /// Put the entries of a list file into a list, all or none
    Import {
        #[arg(value_parser = list_parser())]
        list: List,
        /// "-" is standard input
        file: PathBuf,
        #[command(flatten)]
        about: About,
    },
    /// Write a list as a list file to standard output
    Export {
        #[arg(value_parser = list_parser())]
        list: List,
    },
}

/// What is kept with an entry.
#[derive(Debug, clap::Args)]
pub(crate) struct About {
    /// Why it is there
    #[arg(long, value_name = "TEXT", default_value = "", value_parser = one_line)]
    comment: String,
    /// Who put it there [default: the user who runs this]
    #[arg(long, value_name = "NAME", value_parser = one_line)]
    author: Option<String>,
    /// Until when it is in force: 30d from now, or 2026-12-31 (UTC) [default: no end]
    #[arg(long, value_name = "WHEN", value_parser = expiry)]
    expires: Option<i64>,
}

fn list_parser() -> impl TypedValueParser<Value = List> {
    PossibleValuesParser::new(List::ALL.map(List::word)).try_map(|word| List::named(&word).ok_or("no such list"))
}

fn one_line(text: &str) -> Result<String, String> {
    match text.chars().any(char::is_control) {
        true => Err("must be one line without control characters".to_owned()),
        false => Ok(text.trim().to_owned()),
    }
}

pub(crate) fn run(config: Option<&Path>, action: Action) -> ExitCode {
    session::run(config, async |_, store| match action {
        Action::Add { list, entries, about } => {
            let lines = entries.iter().map(|entry| Line { entry: entry.clone(), ..Line::default() });
            add(store, list, lines.collect(), &about).await
        }
        Action::Remove { list, entries } => remove(store, list, &entries).await,
        Action::Show { list, expired } => show(store, list, expired).await,
        Action::Import { list, file, about } => {
            let text = input(&file).map_err(|error| Failure::Data(format!("{}: {error}", file.display())))?;
            add(store, list, lines(&text, &file.display().to_string()), &about).await
        }
        Action::Export { list } => export(store, list).await,
    })
}

/// An entry with what stands beside it in a list file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Line {
    /// `file:line`; empty for an entry of the command line.
    place: String,
    entry: String,
    comment: String,
    author: Option<String>,
    expires: Option<i64>,
}

async fn add(store: &Store, list: List, lines: Vec<Line>, about: &About) -> Result<(), Failure> {
    let mut wrong = Vec::new();
    let mut entries = Vec::new();
    let user = user();
    for line in lines {
        match checked(list, &line.entry) {
            // An expired entry of an exported list is not brought back.
            Ok(_) if line.expires.is_some_and(|expires| expires <= now()) => {}
            Ok(entry) => entries.push(NewEntry {
                entry,
                comment: if line.comment.is_empty() { about.comment.clone() } else { line.comment },
                author: about.author.clone().or(line.author).unwrap_or_else(|| user.clone()),
                expires: about.expires.or(line.expires),
            }),
            Err(message) if line.place.is_empty() => wrong.push(message),
            Err(message) => wrong.push(format!("{}: {message}", line.place)),
        }
    }
    if !wrong.is_empty() {
        return Err(Failure::Data(format!("{}\nnothing was changed", wrong.join("\n"))));
    }
    if about.expires.is_some_and(|expires| expires <= now()) {
        return Err(Failure::Usage("--expires lies in the past".to_owned()));
    }
    let added = acl::add(store, list, &entries).await?;
    say(format_args!("{}: {} new, {} changed", list.word(), added.new, added.changed));
    Ok(())
}

/// The entry as it is stored, in lower case unless it is a regular expression; an error says what is wrong with it.
fn checked(list: List, entry: &str) -> Result<String, String> {
    let entry = entry.trim();
    let pattern = entry.len() > 1 && entry.starts_with('/') && entry.ends_with('/');
    let entry = if pattern { entry.to_owned() } else { entry.to_lowercase() };
    if entry.is_empty() || entry.contains('#') || entry.chars().any(char::is_control) {
        return Err(format!("{entry:?} is not an entry"));
    }
    let alone = std::iter::once(entry.as_str());
    let wrong = match list {
        List::ClientWhitelist | List::ClientBlacklist => ClientTable::from_entries("", alone).1,
        List::SenderWhitelist => AddressTable::from_sender_entries("", alone).1,
        List::Optin | List::Optout => AddressTable::from_recipient_entries("", alone).1,
        _ => AddressTable::from_entries("", alone).1,
    };
    match wrong.iter().next() {
        Some(mistake) => Err(mistake.message.clone()),
        None => Ok(entry),
    }
}

/// Who runs this; behind sudo, who ran that.
fn user() -> String {
    let name = ["SUDO_USER", "USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok());
    name.map(|name| printable(&name)).unwrap_or_default()
}

async fn remove(store: &Store, list: List, entries: &[String]) -> Result<(), Failure> {
    // Entries come in any case, and were perhaps put there with SQL.
    let known: Vec<String> = read(store).await?.into_iter().filter(|at| at.list == list).map(|at| at.entry).collect();
    let spelled = |entry: &String| {
        let same = known.iter().find(|known| *known == entry);
        same.or_else(|| known.iter().find(|known| known.to_lowercase() == entry.to_lowercase()))
            .unwrap_or(entry)
            .clone()
    };
    let entries: Vec<String> = entries.iter().map(spelled).collect();
    let missing = acl::remove(store, list, &entries).await?;
    say(format_args!("{}: {} removed", list.word(), entries.len() - missing.len()));
    if missing.is_empty() {
        return Ok(());
    }
    let missing: Vec<String> = missing.iter().map(|entry| format!("{entry:?} is not in {}", list.word())).collect();
    Err(Failure::Data(missing.join("\n")))
}

async fn show(store: &Store, list: Option<List>, expired: bool) -> Result<(), Failure> {
    let now = now();
    let rows: Vec<[String; 6]> = (read(store).await?.into_iter())
        .filter(|at| list.is_none_or(|list| at.list == list))
        .filter(|at| expired || at.expires.is_none_or(|expires| expires > now))
        .map(|at| {
            let expires = at.expires.map_or_else(|| "-".to_owned(), moment);
            let author = if at.author.is_empty() { "-".to_owned() } else { printable(&at.author) };
            let (entry, comment) = (printable(&at.entry), printable(&at.comment));
            [at.list.word().to_owned(), entry, expires, moment(at.created), author, comment]
        })
        .collect();
    columns(["LIST", "ENTRY", "EXPIRES", "CREATED", "AUTHOR", "COMMENT"], &rows);
    Ok(())
}

async fn read(store: &Store) -> Result<Vec<Entry>, Failure> {
    Ok(acl::all(&mut Connection::acquire(store).await?).await?)
}

async fn export(store: &Store, list: List) -> Result<(), Failure> {
    let now = now();
    let entries = read(store).await?;
    for at in entries.into_iter().filter(|at| at.list == list && at.expires.is_none_or(|expires| expires > now)) {
        say(written(&at));
    }
    Ok(())
}

/// `entry # author=… expires=… comment`.
fn written(at: &Entry) -> String {
    let author = printable(&at.author).replace(char::is_whitespace, "_");
    let words = [
        (!author.is_empty()).then(|| format!("author={author}")),
        at.expires.map(|expires| format!("expires={}", moment(expires))),
        (!at.comment.is_empty()).then(|| printable(&at.comment)),
    ];
    let words: Vec<String> = words.into_iter().flatten().collect();
    match words.is_empty() {
        true => printable(&at.entry),
        false => format!("{} # {}", printable(&at.entry), words.join(" ")),
    }
}

/// The entries of a list file.
fn lines(text: &str, name: &str) -> Vec<Line> {
    let line = |(number, line): (usize, &str)| {
        let (entry, comment) = line.split_once('#').unwrap_or((line, ""));
        let entry = entry.trim();
        if entry.is_empty() {
            return None;
        }
        let place = format!("{name}:{}", number + 1);
        let mut line = Line { place, entry: entry.to_owned(), ..Line::default() };
        let mut rest = comment.trim();
        loop {
            let (word, after) = rest.split_once(' ').unwrap_or((rest, ""));
            match word.split_once('=') {
                Some(("author", author)) => line.author = Some(printable(author)),
                Some(("expires", when)) if expiry(when).is_ok() => line.expires = expiry(when).ok(),
                _ => break,
            }
            rest = after.trim_start();
        }
        line.comment = printable(rest);
        Some(line)
    };
    text.lines().enumerate().filter_map(line).collect()
}

fn input(file: &Path) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    if file == Path::new("-") {
        std::io::stdin().lock().take(MAX_INPUT).read_to_end(&mut bytes)?;
    } else {
        std::fs::File::open(file)?.take(MAX_INPUT).read_to_end(&mut bytes)?;
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let entry = |comment: &str, author: &str, expires| Entry {
            list: List::ClientWhitelist,
            entry: "192.0.2.0/24".to_owned(),
            comment: comment.to_owned(),
            author: author.to_owned(),
            created: 0,
            expires,
        };
        for (at, text) in [
            (entry("", "", None), "192.0.2.0/24"),
            (entry("a branch office", "", None), "192.0.2.0/24 # a branch office"),
            (
                entry("for # now", "joe", Some(1_798_675_200_000)),
                "192.0.2.0/24 # author=joe expires=2026-12-31T00:00:00Z for # now",
            ),
        ] {
            assert_eq!(written(&at), text);
            let [line] = &lines(text, "f")[..] else { panic!("{text}") };
            assert_eq!((line.entry.as_str(), line.comment.as_str()), (at.entry.as_str(), at.comment.as_str()));
            assert_eq!((line.author.clone().unwrap_or_default(), line.expires), (at.author, at.expires));
        }
        assert_eq!(lines("# only\n\n", "f"), []);
    }

    #[test]
    fn entries_are_checked_for_their_list() {
        assert_eq!(checked(List::ClientWhitelist, " Example.ORG "), Ok("example.org".to_owned()));
        assert_eq!(checked(List::ClientWhitelist, "/^MX/"), Ok("/^MX/".to_owned()));
        assert_eq!(checked(List::SenderBlacklist, "Joe@Example.ORG"), Ok("joe@example.org".to_owned()));
        assert!(checked(List::SenderWhitelist, "spf:example.org").is_ok());
        assert_eq!(checked(List::ClientBlacklist, "SPF:Example.org"), Ok("spf:example.org".to_owned()));
        assert!(checked(List::Optout, "*").is_ok());
        for (list, entry) in [
            (List::ClientWhitelist, "joe@example.org"),
            (List::ClientBlacklist, "10.1"),
            (List::SenderWhitelist, "/(/"),
            (List::SenderWhitelist, ""),
            (List::RecipientBlacklist, "a#b"),
            (List::SenderBlacklist, "spf:example.org"),
            (List::RecipientWhitelist, "*"),
            (List::Optin, "spf:example.org"),
        ] {
            assert!(checked(list, entry).is_err(), "{entry}");
        }
    }
}
