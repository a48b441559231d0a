// SPDX-License-Identifier: GPL-3.0-or-later
//! Postfix's tables and rules for attachments on a message that goes through: what is refused, what changes on the way, who is asked to
//! come alone.

use std::path::Path;
use tempfile::TempDir;
use tests::filter::Filter;
use tests::nexthop::NextHop;
use tests::smtp_client::SmtpClient;

/// A filter with these tables and sections.
async fn pair(folder: &Path, tables: &[(&str, &str)], lines: &str) -> (Filter, NextHop) {
    let mut checks = "[checks]\n".to_owned();
    for (name, text) in tables {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        checks += &format!("{name} = [\"pcre:{}\"]\n", path.display());
    }
    let hop = NextHop::start(Vec::new()).await;
    let filter = Filter::start(hop.address(), &format!("{checks}{lines}")).await;
    (filter, hop)
}

const MESSAGE: &str = "From: a@example.org\r\nDate: Sun, 22 Nov 2026 12:00:00 +0000\r\nSubject: hello\r\n  there\r\n\
    X-Mailer: Spam-O-Matic 3\r\nContent-Type: multipart/mixed; boundary=A\r\n\r\n--A\r\n\r\nfirst line\r\nsecond line\r\n--A\r\n\
    Content-Type: text/plain; name=x.bat\r\n\r\necho\r\n--A--\r\n";

#[tokio::test]
async fn lines_change_on_their_way() {
    let folder = TempDir::new().unwrap();
    let header = "/^Subject: (?<word>\\w+)\\s+there/ REPLACE Subject: $1 you\n/^X-Mailer: (?!Honest)/ STRIP mailer\n\
        /^From:/ PREPEND X-Seen: yes\n";
    let tables = [("header_checks", header), ("body_checks", "/^second (.*)/ REPLACE 2nd $1\n")];
    let rename = "[[banned.rule]]\nname = 'batch'\naction = 'rename'\nextensions = ['bat']\nto = '{name}.txt'\n";
    let (filter, hop) = pair(folder.path(), &tables, rename).await;
    assert_eq!(SmtpClient::deliver(&filter.address, MESSAGE.as_bytes()).await.code(), 250);
    let message = hop.idle().await.messages[0].message();
    let text = String::from_utf8_lossy(&message);
    let at = text.find("X-Seen:").unwrap();
    let expected = MESSAGE
        .replace("From:", "X-Seen: yes\r\nFrom:")
        .replace("Subject: hello\r\n  there", "Subject: hello you")
        .replace("X-Mailer: Spam-O-Matic 3\r\n", "")
        .replace("second line", "2nd line")
        .replace(
            "Content-Type: text/plain; name=x.bat\r\n",
            "Content-Type: application/octet-stream; name=\"x.bat.txt\"\r\nContent-Disposition: attachment; filename=\"x.bat.txt\"\r\n",
        );
    assert_eq!(text[at..], expected);
    filter.stop().await;
}

#[tokio::test]
async fn messages_are_refused_discarded_and_redirected() {
    let folder = TempDir::new().unwrap();
    let header = "/^Subject: no/ REJECT 5.7.9 Not today\n/^Subject: later/ REJECT 4.7.1 Later\n/^Subject: gone/ DISCARD\n\
        /^Subject: other/ REDIRECT box@example.net\n";
    // What is discarded stays in the quarantine for a while.
    let place = folder.path().display();
    let lines =
        format!("[store]\nurl = \"sqlite:{place}/octroi.db\"\n[quarantine]\ndirectory = \"{place}/quarantine\"\n");
    let (filter, hop) = pair(folder.path(), &[("header_checks", header)], &lines).await;
    filter.store_opened().await;
    let deliver = async |subject: &str| {
        let head = "From: a@example.org\r\nDate: Sun, 22 Nov 2026 12:00:00 +0000\r\n";
        let answer =
            SmtpClient::deliver(&filter.address, format!("{head}Subject: {subject}\r\n\r\nx\r\n").as_bytes()).await;
        let text = answer.text();
        let words: Vec<&str> = text.split_whitespace().filter(|word| !word.starts_with("id=")).collect();
        words.join(" ")
    };
    assert_eq!(deliver("no").await, "550 5.7.9 - Not today");
    assert_eq!(deliver("later").await, "450 4.7.1 - Later");
    let gone = deliver("gone").await;
    assert!(gone.starts_with("250 2."), "{gone}");
    assert!(deliver("fine").await.starts_with("250 2.0.0"));
    assert!(deliver("other").await.starts_with("250 2.0.0"));
    let seen = hop.wait("two messages", |seen| seen.completed() == 2).await;
    let recipients: Vec<Vec<String>> =
        seen.messages.iter().filter(|message| !message.wire.is_empty()).map(|message| message.lines("RCPT")).collect();
    assert_eq!(recipients.last().unwrap().as_slice(), ["RCPT TO:<box@example.net>"]);
    filter.stop().await;
}

#[tokio::test]
async fn recipients_with_other_rules_come_alone() {
    let folder = TempDir::new().unwrap();
    let lines = "[banned]\nmixed = 'split'\n[[banned.rule]]\nname = 'dev'\naction = 'allow'\nrecipients = ['dev@example.net']\n\
        extensions = ['bat']\n";
    let (filter, hop) = pair(folder.path(), &[], lines).await;
    for (first, other, same) in [
        ("dev@example.net", "ann@example.net", "DEV+x@example.net"),
        ("ann@example.net", "dev@example.net", "bob@example.net"),
    ] {
        let mut client = SmtpClient::greeted(&filter.address).await;
        assert_eq!(client.command("MAIL FROM:<a@example.org>").await.code(), 250);
        assert_eq!(client.command(&format!("RCPT TO:<{first}>")).await.code(), 250);
        let refused = client.command(&format!("RCPT TO:<{other}>")).await;
        assert!(refused.text().starts_with("452 4.5.3 "), "{}", refused.text());
        assert_eq!(client.command(&format!("RCPT TO:<{same}>")).await.code(), 250);
        assert_eq!(client.command("DATA").await.code(), 354);
        client.send(MESSAGE.as_bytes()).await;
        client.send(b".\r\n").await;
        let expected = if first.starts_with("dev") { 250 } else { 554 };
        assert_eq!(client.answer().await.code(), expected, "{first}");
    }
    assert_eq!(hop.wait("one message", |seen| seen.completed() == 1).await.completed(), 1);
    filter.stop().await;
}

#[test]
fn tables_that_are_wrong_are_told_with_file_and_line() {
    let folder = TempDir::new().unwrap();
    let table = folder.path().join("table");
    std::fs::write(&table, "/ok/ DUNNO\n/x/ FILTER smtp:y\n/y/ NONSENSE\n/(/ OK\n").unwrap();
    let settings = |name: &str| {
        let text = format!("[checks]\nheader_checks = [\"regexp:{}\"]\n", folder.path().join(name).display());
        let source = common::config::Source::from_text("f", &text).unwrap();
        contentd::config::Settings::read(&source).unwrap()
    };
    let told = |name: &str| contentd::pipeline::Pipeline::new(&settings(name)).unwrap_err().to_string();
    assert_eq!(told("table").lines().count(), 1, "the pattern first: {}", told("table"));
    std::fs::write(&table, "/ok/ DUNNO\n/x/ FILTER smtp:y\n/y/ NONSENSE\n").unwrap();
    let told_of = told("table");
    let lines: Vec<&str> = told_of.lines().collect();
    let name = table.display();
    assert!(lines[0].starts_with(&format!("{name}:2: FILTER cannot")), "{told_of}");
    assert!(lines[1].starts_with(&format!("{name}:3: \"NONSENSE\" is no action")), "{told_of}");
    assert!(told("missing").contains("missing: cannot be read"));
}
