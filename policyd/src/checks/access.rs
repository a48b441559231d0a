// SPDX-License-Identifier: GPL-3.0-or-later
//! The access lists: clients, senders and recipients, white and black, from files and from the store.
//!
//! A whitelisted client passes whatever else is listed; then any blacklist refuses; then a whitelisted sender or
//! recipient passes. To pass means DUNNO: later restrictions of Postfix still count. A client's name counts only
//! when Postfix confirmed it. At stages where Postfix gives no sender or recipient, those lists say nothing.
//! Each list is that of the files and that of the store together.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use common::config::{Mistake, Mistakes};
use common::lookup::{AddressTable, ClientTable, ListFile, Match};
use common::spf::SpfResult;

use super::pool;
use crate::around::Around;
use crate::config::AccessSettings;
use crate::course::{Answer, Course, GreylistOrder};
use crate::request::PolicyRequest;
use crate::store::acl::{Entry, List};
use crate::store::queue::QueueError;
use crate::verdict::{Finding, Reason, blacklisted};

/// The six lists of one source, loaded.
#[derive(Debug, Default)]
pub struct Tables {
    client_whitelist: ClientTable,
    client_blacklist: ClientTable,
    sender_whitelist: AddressTable,
    sender_blacklist: AddressTable,
    recipient_whitelist: AddressTable,
    recipient_blacklist: AddressTable,
    /// What the files looked like before they were read.
    stamps: Vec<Stamp>,
}

impl Tables {
    fn from_files(settings: &AccessSettings) -> Result<Self, Mistakes> {
        let mut mistakes = Mistakes::new();
        let tables = Self {
            stamps: stamps(settings),
            client_whitelist: taken(ClientTable::load(&settings.client_whitelist), &mut mistakes),
            client_blacklist: taken(ClientTable::load(&settings.client_blacklist), &mut mistakes),
            sender_whitelist: taken(AddressTable::load_senders(&settings.sender_whitelist), &mut mistakes),
            sender_blacklist: taken(AddressTable::load(&settings.sender_blacklist), &mut mistakes),
            recipient_whitelist: taken(AddressTable::load(&settings.recipient_whitelist), &mut mistakes),
            recipient_blacklist: taken(AddressTable::load(&settings.recipient_blacklist), &mut mistakes),
        };
        mistakes.into_result(tables)
    }

    /// The lists of entries from the store. Wrong entries, which somebody has put there by hand, are left out and told.
    pub fn from_entries<'a>(entries: impl Iterator<Item = &'a Entry> + Clone) -> (Self, Mistakes) {
        let mut mistakes = Mistakes::new();
        let of = |list: List| entries.clone().filter(move |entry| entry.list == list).map(|entry| entry.entry.as_str());
        let mut clients = |list: List| {
            let (table, wrong) = ClientTable::from_entries(&origin(list), of(list));
            mistakes.extend(wrong);
            table
        };
        let (client_whitelist, client_blacklist) = (clients(List::ClientWhitelist), clients(List::ClientBlacklist));
        let mut addresses = |list: List| {
            let (table, wrong) = match list {
                List::SenderWhitelist => AddressTable::from_sender_entries(&origin(list), of(list)),
                _ => AddressTable::from_entries(&origin(list), of(list)),
            };
            mistakes.extend(wrong);
            table
        };
        let tables = Self {
            client_whitelist,
            client_blacklist,
            sender_whitelist: addresses(List::SenderWhitelist),
            sender_blacklist: addresses(List::SenderBlacklist),
            recipient_whitelist: addresses(List::RecipientWhitelist),
            recipient_blacklist: addresses(List::RecipientBlacklist),
            stamps: Vec::new(),
        };
        (tables, mistakes)
    }

    /// Number of entries in all lists.
    pub fn len(&self) -> usize {
        let clients = self.client_whitelist.len() + self.client_blacklist.len();
        let senders = self.sender_whitelist.len() + self.sender_blacklist.len();
        clients + senders + self.recipient_whitelist.len() + self.recipient_blacklist.len()
    }

    /// True when there is no entry at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn notices(&self) -> Vec<String> {
        let clients = [&self.client_whitelist, &self.client_blacklist].map(ClientTable::notices);
        let addresses =
            [&self.sender_whitelist, &self.sender_blacklist, &self.recipient_whitelist, &self.recipient_blacklist]
                .map(AddressTable::notices);
        clients.into_iter().chain(addresses).flat_map(Mistakes::iter).map(Mistake::to_string).collect()
    }
}

/// What a match in the store names as its place.
fn origin(list: List) -> String {
    format!("store:{}", list.word())
}

/// The lists of the store, replaced as a whole by whoever follows their changes.
pub type Stored = Arc<ArcSwap<Tables>>;

/// The lists in force: those of the files and those of the store.
#[derive(Debug, Default)]
pub struct Lists {
    files: ArcSwap<Tables>,
    stored: Stored,
}

/// What became of a look at the list files.
#[derive(Debug)]
pub enum Refreshed {
    /// They are as they were.
    Unchanged,
    /// They were read again.
    Changed {
        /// Number of entries now.
        entries: usize,
        /// What is odd in them.
        notices: Vec<String>,
    },
    /// They cannot be read as they are now; the old ones stay.
    Wrong(Mistakes),
}

impl Lists {
    /// Reads the files; every mistake in any of them is named with file and line. Those of the store come later.
    pub fn load(settings: &AccessSettings) -> Result<Self, Mistakes> {
        Ok(Self { files: ArcSwap::from_pointee(Tables::from_files(settings)?), stored: Stored::default() })
    }

    /// Shares the lists of the store with `other`: after a reload of the configuration they go on as they were.
    pub fn share_stored(&mut self, other: &Self) {
        self.stored = other.stored.clone();
    }

    /// Where the lists of the store are put.
    pub fn stored(&self) -> Stored {
        self.stored.clone()
    }

    /// Reads the files again if one of them has changed since it was read, and since `tried`, the last try of this.
    pub fn refresh(&self, settings: &AccessSettings, tried: &mut Option<Vec<Stamp>>) -> Refreshed {
        let now = stamps(settings);
        if now == self.files.load().stamps || tried.as_ref() == Some(&now) {
            return Refreshed::Unchanged;
        }
        *tried = Some(now);
        match Tables::from_files(settings) {
            Ok(tables) => {
                let refreshed = Refreshed::Changed { entries: tables.len(), notices: tables.notices() };
                self.files.store(Arc::new(tables));
                refreshed
            }
            Err(mistakes) => Refreshed::Wrong(mistakes),
        }
    }

    /// What is odd in list files of other programs, each with file and line.
    pub fn notices(&self) -> Vec<String> {
        self.files.load().notices()
    }

    /// Number of entries in all lists.
    pub fn len(&self) -> usize {
        self.files.load().len() + self.stored.load().len()
    }

    /// True when there is no entry at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn taken<T: Default>(loaded: Result<T, Mistakes>, mistakes: &mut Mistakes) -> T {
    loaded.unwrap_or_else(|found| {
        mistakes.extend(found);
        T::default()
    })
}

/// By what a changed file is recognised: its time and length; none for one that is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp(PathBuf, Option<(SystemTime, u64)>);

fn stamps(settings: &AccessSettings) -> Vec<Stamp> {
    let stamp = |file: &ListFile| {
        let seen = std::fs::metadata(&file.path).and_then(|data| Ok((data.modified()?, data.len())));
        Stamp(file.path.clone(), seen.ok())
    };
    settings.files().map(stamp).collect()
}

/// What the lists say. A sender or recipient that is whitelisted is not greylisted; a client that is meets no further check.
pub async fn check(around: Around<'_>, request: &PolicyRequest<'_>, course: &mut Course) -> Result<Answer, QueueError> {
    let found = match listed(&around.policy.lists, request) {
        None => authorised(around, request, course).await,
        found => found,
    };
    Ok(match found {
        None => Answer::Nothing,
        Some(finding) if finding.reason == Reason::ClientWhitelisted => Answer::Final(finding),
        Some(finding) => {
            if finding.verdict.goes_on() {
                course.greylist = GreylistOrder::Skip;
            }
            finding.into()
        }
    })
}

/// What the lists say to a request; none when it is in no list.
pub fn listed(lists: &Lists, request: &PolicyRequest<'_>) -> Option<Finding> {
    // One state of both for the whole request.
    let (files, stored) = (lists.files.load(), lists.stored.load());
    let client = |table: fn(&Tables) -> &ClientTable, reason: Reason| {
        [table(&files), table(&stored)].into_iter().find_map(|table| client(table, request)).map(|at| found(reason, at))
    };
    type Look = fn(&AddressTable, &PolicyRequest<'_>) -> Option<(String, String)>;
    let address = |table: fn(&Tables) -> &AddressTable, look: Look, reason: Reason| {
        let hit = [table(&files), table(&stored)].into_iter().find_map(|table| look(table, request));
        hit.map(|(entry, origin)| found(reason, Match { entry: &entry, origin }))
    };
    client(|tables| &tables.client_whitelist, Reason::ClientWhitelisted)
        .or_else(|| client(|tables| &tables.client_blacklist, Reason::ClientBlacklisted))
        .or_else(|| address(|tables| &tables.sender_blacklist, sender, Reason::SenderBlacklisted))
        .or_else(|| address(|tables| &tables.recipient_blacklist, recipient, Reason::RecipientBlacklisted))
        .or_else(|| address(|tables| &tables.sender_whitelist, sender, Reason::SenderWhitelisted))
        .or_else(|| address(|tables| &tables.recipient_whitelist, recipient, Reason::RecipientWhitelisted))
}

/// Whether the sender is whitelisted under the condition of SPF (`spf:domain`), and SPF says that the client sends for it. Asked when no
/// list has decided; SPF is looked up only for senders of listed domains. A pass that every client gets proves nothing.
async fn authorised(around: Around<'_>, request: &PolicyRequest<'_>, course: &mut Course) -> Option<Finding> {
    let entry = {
        let lists = &around.policy.lists;
        let (files, stored) = (lists.files.load(), lists.stored.load());
        let found = [&files, &stored].into_iter().find_map(|tables| {
            let at = tables.sender_whitelist.find_authorised(&request.sender)?;
            Some((at.entry.to_owned(), at.origin))
        });
        found?
    };
    let spf = pool::spf_of(around, request, course, around.deadline).await?;
    let passes = spf.result == SpfResult::Pass && !spf.everybody;
    passes.then(|| found(Reason::SenderWhitelisted, Match { entry: &entry.0, origin: entry.1 }))
}

fn client<'a>(table: &'a ClientTable, request: &PolicyRequest<'_>) -> Option<Match<'a>> {
    if table.is_empty() {
        return None;
    }
    table.find(request.client_address, request.client_name.as_deref())
}

fn sender(table: &AddressTable, request: &PolicyRequest<'_>) -> Option<(String, String)> {
    if table.is_empty() || !request.state.has_sender() {
        return None;
    }
    table.find(&request.sender).map(|at| (at.entry.to_owned(), at.origin))
}

fn recipient(table: &AddressTable, request: &PolicyRequest<'_>) -> Option<(String, String)> {
    if table.is_empty() || request.recipient.is_empty() {
        return None;
    }
    table.find(&request.recipient).map(|at| (at.entry.to_owned(), at.origin))
}

fn found(reason: Reason, entry: Match<'_>) -> Finding {
    let fact = format!("{} ({})", entry.entry, entry.origin);
    match reason {
        Reason::ClientBlacklisted | Reason::SenderBlacklisted | Reason::RecipientBlacklisted => {
            Finding { verdict: blacklisted(reason), ..Finding::pass(reason) }.because(fact)
        }
        _ => Finding::pass(reason).because(fact),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::ProtocolState;
    use crate::verdict::Verdict;

    /// Lists of one entry each; an empty entry makes an empty list.
    fn lists(entries: [&str; 6]) -> (tempfile::TempDir, Lists) {
        let folder = tempfile::tempdir().unwrap();
        let mut files = entries.iter().enumerate().map(|(number, entry)| {
            let path: PathBuf = folder.path().join(number.to_string());
            std::fs::write(&path, entry).unwrap();
            vec![ListFile::from(path)]
        });
        let mut next = || files.next().unwrap();
        let settings = AccessSettings {
            client_whitelist: next(),
            client_blacklist: next(),
            sender_whitelist: next(),
            sender_blacklist: next(),
            recipient_whitelist: next(),
            recipient_blacklist: next(),
            ..AccessSettings::default()
        };
        let lists = Lists::load(&settings).unwrap();
        drop(files);
        (folder, lists)
    }

    fn request(state: ProtocolState) -> PolicyRequest<'static> {
        PolicyRequest {
            state,
            client_address: "192.0.2.1".parse().ok(),
            client_name: Some("mx.example.net".into()),
            sender: "joe@example.net".into(),
            recipient: "ann@example.org".into(),
            ..PolicyRequest::default()
        }
    }

    fn reason(entries: [&str; 6], request: &PolicyRequest<'_>) -> Option<Reason> {
        let (_folder, lists) = lists(entries);
        listed(&lists, request).map(|finding| finding.reason)
    }

    #[test]
    fn lists_are_asked_in_order() {
        let rcpt = request(ProtocolState::Rcpt);
        let (client, sender, recipient) = ("192.0.2.0/24\n", "example.net\n", "ann@example.org\n");
        for (entries, expected) in [
            ([client, client, sender, sender, recipient, recipient], Some(Reason::ClientWhitelisted)),
            (["", client, sender, sender, recipient, recipient], Some(Reason::ClientBlacklisted)),
            (["", "", sender, sender, recipient, recipient], Some(Reason::SenderBlacklisted)),
            (["", "", sender, "", recipient, recipient], Some(Reason::RecipientBlacklisted)),
            (["", "", sender, "", recipient, ""], Some(Reason::SenderWhitelisted)),
            (["", "", "", "", recipient, ""], Some(Reason::RecipientWhitelisted)),
            (["", "", "", "", "", ""], None),
        ] {
            assert_eq!(reason(entries, &rcpt), expected);
        }
    }

    #[test]
    fn only_a_confirmed_name_counts() {
        let mut request = request(ProtocolState::Rcpt);
        let entries = ["mx.example.net\n", "", "", "", "", ""];
        assert_eq!(reason(entries, &request), Some(Reason::ClientWhitelisted));
        request.reverse_client_name = request.client_name.take();
        assert_eq!(reason(entries, &request), None);
    }

    #[test]
    fn before_mail_only_clients_are_looked_up() {
        let mut request = request(ProtocolState::Connect);
        (request.sender, request.recipient) = ("".into(), "".into());
        assert_eq!(reason(["", "", "", "<>\n", "", "<>\n"], &request), None);
        assert_eq!(reason(["", "192.0.2.1\n", "", "", "", ""], &request), Some(Reason::ClientBlacklisted));
        request.state = ProtocolState::Mail;
        assert_eq!(reason(["", "", "", "<>\n", "", ""], &request), Some(Reason::SenderBlacklisted));
    }

    #[test]
    fn a_finding_names_the_entry_and_its_place() {
        let (folder, lists) = lists(["", "", "", "", "", "# comment\nann@example.org\n"]);
        let finding = listed(&lists, &request(ProtocolState::Rcpt)).unwrap();
        assert!(matches!(finding.verdict, Verdict::Reject(_)));
        assert_eq!(finding.fact, format!("ann@example.org ({}:2)", folder.path().join("5").display()));
    }

    #[test]
    fn mistakes_of_all_lists_are_told_together() {
        let settings = AccessSettings {
            client_whitelist: vec![PathBuf::from("/no/such/a").into()],
            recipient_blacklist: vec![PathBuf::from("/no/such/b").into()],
            ..AccessSettings::default()
        };
        let told = Lists::load(&settings).unwrap_err().to_string();
        assert!(told.contains("/no/such/a") && told.contains("/no/such/b"), "{told}");
    }

    fn stored(list: List, entry: &str) -> Entry {
        let (comment, author) = (String::new(), "test".to_owned());
        Entry { list, entry: entry.to_owned(), comment, author, created: 0, expires: None }
    }

    #[test]
    fn entries_of_the_store_join_those_of_the_files() {
        let (_folder, lists) = lists(["", "", "", "", "ann@example.org\n", ""]);
        let rcpt = request(ProtocolState::Rcpt);
        assert_eq!(listed(&lists, &rcpt).map(|finding| finding.reason), Some(Reason::RecipientWhitelisted));
        let entries = [stored(List::SenderBlacklist, "example.net"), stored(List::ClientBlacklist, "joe@example.net")];
        let (tables, wrong) = Tables::from_entries(entries.iter());
        assert!(wrong.to_string().starts_with("store:client_blacklist: "), "{wrong}");
        lists.stored().store(Arc::new(tables));
        let finding = listed(&lists, &rcpt).unwrap();
        assert_eq!((finding.reason, lists.len()), (Reason::SenderBlacklisted, 2), "a blacklist before a whitelist");
        assert_eq!(finding.fact, "example.net (store:sender_blacklist)");
        let (tables, _) = Tables::from_entries([stored(List::ClientWhitelist, "192.0.2.1")].iter());
        lists.stored().store(Arc::new(tables));
        assert_eq!(listed(&lists, &rcpt).map(|finding| finding.reason), Some(Reason::ClientWhitelisted));
        let mut reloaded = Lists::default();
        reloaded.share_stored(&lists);
        assert_eq!(listed(&reloaded, &rcpt).map(|finding| finding.reason), Some(Reason::ClientWhitelisted));
    }

    #[test]
    fn changed_files_are_read_again_and_wrong_ones_are_tried_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("clients");
        std::fs::write(&path, "192.0.2.9\n").unwrap();
        let settings = AccessSettings { client_blacklist: vec![path.clone().into()], ..AccessSettings::default() };
        let lists = Lists::load(&settings).unwrap();
        let rcpt = request(ProtocolState::Rcpt);
        let mut tried = None;
        assert!(matches!(lists.refresh(&settings, &mut tried), Refreshed::Unchanged));
        std::fs::write(&path, "192.0.2.1\n192.0.2.9\n").unwrap();
        assert!(matches!(lists.refresh(&settings, &mut tried), Refreshed::Changed { entries: 2, .. }));
        assert_eq!(listed(&lists, &rcpt).map(|finding| finding.reason), Some(Reason::ClientBlacklisted));
        std::fs::write(&path, "not an entry\n").unwrap();
        assert!(matches!(lists.refresh(&settings, &mut tried), Refreshed::Wrong(_)));
        assert!(matches!(lists.refresh(&settings, &mut tried), Refreshed::Unchanged), "told once");
        assert!(listed(&lists, &rcpt).is_some(), "the old list stays");
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(lists.refresh(&settings, &mut tried), Refreshed::Wrong(_)));
        assert!(listed(&lists, &rcpt).is_some());
    }
}
