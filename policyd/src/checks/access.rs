// SPDX-License-Identifier: GPL-3.0-or-later
//! The access lists: clients, senders and recipients, white and black, from files and from the store.
//!
//! A whitelisted client passes whatever else is listed; then any blacklist refuses; then a whitelisted sender or
//! recipient passes. To pass means DUNNO: later restrictions of Postfix still count. A client's name counts only
//! when Postfix confirmed it. At stages where Postfix gives no sender or recipient, those lists say nothing.
//! Each list is that of the files and that of the store together.

use common::lookup::{AddressTable, ClientTable};
use common::spf::SpfResult;

use super::pool;
use crate::around::Around;
use crate::course::{Answer, Course, GreylistOrder};
use crate::lists::{Found, Lists, Tables};
use crate::request::PolicyRequest;
use crate::store::queue::QueueError;
use crate::verdict::{Finding, Reason, blacklisted};

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
    // One state of all for the whole request.
    let now = lists.now();
    let client = |list: fn(&Tables) -> &ClientTable, reason| now.client(list, request).map(|at| found(reason, &at));
    let sender = |list: fn(&Tables) -> &AddressTable, reason| {
        let at = if request.state.has_sender() { now.address(list, &request.sender)? } else { return None };
        Some(found(reason, &at))
    };
    let recipient =
        |list: fn(&Tables) -> &AddressTable, reason| now.recipient(list, request).map(|at| found(reason, &at));
    client(|tables| &tables.client_whitelist, Reason::ClientWhitelisted)
        .or_else(|| client(|tables| &tables.client_blacklist, Reason::ClientBlacklisted))
        .or_else(|| sender(|tables| &tables.sender_blacklist, Reason::SenderBlacklisted))
        .or_else(|| recipient(|tables| &tables.recipient_blacklist, Reason::RecipientBlacklisted))
        .or_else(|| sender(|tables| &tables.sender_whitelist, Reason::SenderWhitelisted))
        .or_else(|| recipient(|tables| &tables.recipient_whitelist, Reason::RecipientWhitelisted))
}

/// Whether the sender is whitelisted under the condition of SPF (`spf:domain`), and SPF says that the client sends for it. Asked when no
/// list has decided; SPF is looked up only for senders of listed domains. A pass that every client gets proves nothing.
async fn authorised(around: Around<'_>, request: &PolicyRequest<'_>, course: &mut Course) -> Option<Finding> {
    let entry = {
        let now = around.policy.lists.now();
        let find = |tables: &Tables| tables.sender_whitelist.find_authorised(&request.sender).map(Found::from);
        now.tables().into_iter().find_map(find)?
    };
    let spf = pool::spf_of(around, request, course, around.deadline).await?;
    let passes = spf.result == SpfResult::Pass && !spf.everybody;
    passes.then(|| found(Reason::SenderWhitelisted, &entry))
}

fn found(reason: Reason, entry: &Found) -> Finding {
    let fact = entry.fact();
    match reason {
        Reason::ClientBlacklisted | Reason::SenderBlacklisted | Reason::RecipientBlacklisted => {
            Finding { verdict: blacklisted(reason), ..Finding::pass(reason) }.because(fact)
        }
        _ => Finding::pass(reason).because(fact),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Arc;

    use common::lookup::ListFile;

    use super::*;
    use crate::config::{AccessSettings, Settings};
    use crate::lists::Refreshed;
    use crate::request::ProtocolState;
    use crate::store::acl::{Entry, List};
    use crate::verdict::Verdict;

    fn with(access: AccessSettings) -> Settings {
        Settings { access, ..Settings::default() }
    }

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
        let lists = Lists::load(&with(settings)).unwrap();
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
        let told = Lists::load(&with(settings)).unwrap_err().to_string();
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
        let settings = with(settings);
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
