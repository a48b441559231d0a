// SPDX-License-Identifier: GPL-3.0-or-later
//! The access lists: clients, senders and recipients, white and black, from files.
//!
//! A whitelisted client passes whatever else is listed; then any blacklist refuses; then a whitelisted sender or
//! recipient passes. To pass means DUNNO: later restrictions of Postfix still count. A client's name counts only
//! when Postfix confirmed it. At stages where Postfix gives no sender or recipient, those lists say nothing.

use common::config::Mistakes;
use common::lookup::{AddressTable, ClientTable, Match};

use crate::config::AccessSettings;
use crate::request::PolicyRequest;
use crate::verdict::{Finding, Reason, blacklisted};

/// The six lists, loaded.
#[derive(Debug, Default)]
pub struct Lists {
    client_whitelist: ClientTable,
    client_blacklist: ClientTable,
    sender_whitelist: AddressTable,
    sender_blacklist: AddressTable,
    recipient_whitelist: AddressTable,
    recipient_blacklist: AddressTable,
}

impl Lists {
    /// Reads the files; every mistake in any of them is named with file and line.
    pub fn load(settings: &AccessSettings) -> Result<Self, Mistakes> {
        let mut mistakes = Mistakes::new();
        let lists = Self {
            client_whitelist: taken(ClientTable::load(&settings.client_whitelist), &mut mistakes),
            client_blacklist: taken(ClientTable::load(&settings.client_blacklist), &mut mistakes),
            sender_whitelist: taken(AddressTable::load(&settings.sender_whitelist), &mut mistakes),
            sender_blacklist: taken(AddressTable::load(&settings.sender_blacklist), &mut mistakes),
            recipient_whitelist: taken(AddressTable::load(&settings.recipient_whitelist), &mut mistakes),
            recipient_blacklist: taken(AddressTable::load(&settings.recipient_blacklist), &mut mistakes),
        };
        mistakes.into_result(lists)
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
}

fn taken<T: Default>(loaded: Result<T, Mistakes>, mistakes: &mut Mistakes) -> T {
    loaded.unwrap_or_else(|found| {
        mistakes.extend(found);
        T::default()
    })
}

/// What the lists say to a request; none when it is in no list.
pub fn check(lists: &Lists, request: &PolicyRequest<'_>) -> Option<Finding> {
    client(&lists.client_whitelist, request)
        .map(|entry| found(Reason::ClientWhitelisted, entry))
        .or_else(|| client(&lists.client_blacklist, request).map(|entry| found(Reason::ClientBlacklisted, entry)))
        .or_else(|| sender(&lists.sender_blacklist, request).map(|entry| found(Reason::SenderBlacklisted, entry)))
        .or_else(|| {
            recipient(&lists.recipient_blacklist, request).map(|entry| found(Reason::RecipientBlacklisted, entry))
        })
        .or_else(|| sender(&lists.sender_whitelist, request).map(|entry| found(Reason::SenderWhitelisted, entry)))
        .or_else(|| {
            recipient(&lists.recipient_whitelist, request).map(|entry| found(Reason::RecipientWhitelisted, entry))
        })
}

fn client<'a>(table: &'a ClientTable, request: &PolicyRequest<'_>) -> Option<Match<'a>> {
    if table.is_empty() {
        return None;
    }
    table.find(request.client_address, request.client_name.as_deref())
}

fn sender<'a>(table: &'a AddressTable, request: &PolicyRequest<'_>) -> Option<Match<'a>> {
    if table.is_empty() || !request.state.has_sender() {
        return None;
    }
    table.find(&request.sender)
}

fn recipient<'a>(table: &'a AddressTable, request: &PolicyRequest<'_>) -> Option<Match<'a>> {
    if table.is_empty() || request.recipient.is_empty() {
        return None;
    }
    table.find(&request.recipient)
}

fn found(reason: Reason, entry: Match<'_>) -> Finding {
    let fact = format!("{} ({})", entry.entry, entry.origin);
    match reason {
        Reason::ClientBlacklisted | Reason::SenderBlacklisted | Reason::RecipientBlacklisted => {
            Finding { verdict: blacklisted(reason), reason, fact }
        }
        _ => Finding::pass(reason).because(fact),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::ProtocolState;
    use crate::verdict::Verdict;
    use std::path::PathBuf;

    /// Lists of one entry each; an empty entry makes an empty list.
    fn lists(entries: [&str; 6]) -> (tempfile::TempDir, Lists) {
        let folder = tempfile::tempdir().unwrap();
        let mut files = entries.iter().enumerate().map(|(number, entry)| {
            let path: PathBuf = folder.path().join(number.to_string());
            std::fs::write(&path, entry).unwrap();
            vec![path]
        });
        let mut next = || files.next().unwrap();
        let settings = AccessSettings {
            client_whitelist: next(),
            client_blacklist: next(),
            sender_whitelist: next(),
            sender_blacklist: next(),
            recipient_whitelist: next(),
            recipient_blacklist: next(),
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
        check(&lists, request).map(|finding| finding.reason)
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
        let finding = check(&lists, &request(ProtocolState::Rcpt)).unwrap();
        assert!(matches!(finding.verdict, Verdict::Reject(_)));
        assert_eq!(finding.fact, format!("ann@example.org ({}:2)", folder.path().join("5").display()));
    }

    #[test]
    fn mistakes_of_all_lists_are_told_together() {
        let settings = AccessSettings {
            client_whitelist: vec!["/no/such/a".into()],
            recipient_blacklist: vec!["/no/such/b".into()],
            ..AccessSettings::default()
        };
        let told = Lists::load(&settings).unwrap_err().to_string();
        assert!(told.contains("/no/such/a") && told.contains("/no/such/b"), "{told}");
    }
}
