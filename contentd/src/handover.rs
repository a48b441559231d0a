// SPDX-License-Identifier: GPL-3.0-or-later
//! What policyd hands over with a message, read from the header lines that it had Postfix prepend, and what follows from it
//! (`common::handover`, docs/handover.md). The lines themselves are taken out by `message::edit`, whoever wrote them.
//!
//! Pure. Orders are about the whole message, as Postfix's own actions are; those of all its recipients add up.

use common::handover::{ORDER_HEADER, Peer, RESULTS_HEADER, Received, Refusal, Secret, read};
use common::orders::Order;
use metrics::counter;

use crate::envelope::{Envelope, Path};
use crate::findings::{FindingKind, Findings, Part};
use crate::message::{Limits, header};

/// A signature of S/MIME or PGP is larger than this only when it is something else.
const MAX_SIGNATURE: u64 = 32 * 1024;
/// Media types of detached signatures (RFC 8551 section 3.5.3, RFC 3156 section 5).
const SIGNATURES: [&str; 3] =
    ["application/pgp-signature", "application/pkcs7-signature", "application/x-pkcs7-signature"];

/// What policyd wants done with one message, and what it knows about the client.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Handover {
    /// Each once, the gravest first.
    pub(crate) orders: Vec<Order>,
    /// Ids of policyd's decisions.
    pub(crate) decisions: Vec<String>,
    /// Result word of SPF.
    pub(crate) spf: Option<String>,
    /// Score of the DNS lists that the client is in.
    pub(crate) dnsbl: Option<i32>,
    /// These lists.
    pub(crate) lists: Vec<String>,
    /// Lines of policyd's that cannot be followed; the message must not go on without it.
    pub(crate) unusable: Option<Refusal>,
}

impl Handover {
    /// Reads the header section. `now`: seconds since 1970.
    pub(crate) fn read(section: &[u8], envelope: &Envelope, secret: &Secret, now: u64) -> Handover {
        let everything = Limits { header_bytes: usize::MAX, header_fields: usize::MAX, ..Limits::default() };
        let peer = Peer {
            address: envelope.client.ip(),
            port: envelope.client.port.as_deref().and_then(|port| port.parse().ok()).unwrap_or_default(),
        };
        let mut handover = Handover::default();
        for field in header::read(section, &everything).fields {
            if ![ORDER_HEADER, RESULTS_HEADER].iter().any(|name| field.is(section, name)) {
                continue;
            }
            let value = String::from_utf8_lossy(&section[field.value]);
            match read(secret, &value, peer, now) {
                Ok(received) => handover.take(received, envelope),
                Err(Refusal::Forged) => refused("forged"),
                Err(refusal) => {
                    tracing::error!(id = %envelope.id, %refusal, "an order of policyd cannot be followed");
                    refused("unusable");
                    handover.unusable = Some(refusal);
                }
            }
        }
        handover.orders.sort();
        handover.orders.dedup();
        handover
    }

    fn take(&mut self, received: Received, envelope: &Envelope) {
        if !received.is_about(envelope.recipients.iter().map(|path| path.address.as_str())) {
            return refused("recipient");
        }
        let note = received.note;
        self.orders.extend(note.orders);
        self.spf = note.spf.or(self.spf.take());
        if note.dnsbl.is_some() {
            (self.dnsbl, self.lists) = (note.dnsbl, note.lists);
        }
        if !self.decisions.contains(&note.decision) {
            self.decisions.push(note.decision);
        }
    }

    /// Whether this is ordered.
    pub(crate) fn has(&self, order: &Order) -> bool {
        self.orders.contains(order)
    }

    /// The envelope with which the message goes on, when it is not the one it came with.
    pub(crate) fn envelope(&self, envelope: &Envelope) -> Option<Envelope> {
        let to = |order: &Order| match order {
            Order::Redirect(address) => Some(Path::from_address(address.as_str())),
            _ => None,
        };
        let copies = |order: &Order| match order {
            // A copy that cannot be delivered is no business of the sender's (RFC 3461 section 4.1).
            Order::Bcc(address) => Path::parse(format!("<{address}> NOTIFY=NEVER").as_bytes()).ok(),
            _ => None,
        };
        let redirected: Vec<Path> = self.orders.iter().filter_map(to).collect();
        let copies: Vec<Path> = self.orders.iter().filter_map(copies).collect();
        if redirected.is_empty() && copies.is_empty() {
            return None;
        }
        let mut changed = envelope.clone();
        if !redirected.is_empty() {
            changed.recipients = redirected;
        }
        changed.recipients.extend(copies);
        Some(changed)
    }

    /// For the log.
    pub(crate) fn words(&self) -> String {
        self.orders.iter().map(Order::to_string).collect::<Vec<_>>().join(",")
    }

    /// Counts what has been carried out.
    pub(crate) fn obeyed(&self) {
        for order in &self.orders {
            counter!("octroi_contentd_orders_total", "order" => order.word()).increment(1);
        }
    }
}

fn refused(reason: &'static str) {
    counter!("octroi_contentd_notes_refused_total", "reason" => reason).increment(1);
}

/// The first attachment: a part with a file name, or one that is no text, except for a signature. A message that could not be taken
/// apart counts as having one.
pub(crate) fn attachment(findings: &Findings) -> Option<String> {
    let unseen =
        |kind| matches!(kind, FindingKind::OverLimits | FindingKind::StageFailed | FindingKind::UnknownEncoding);
    let part = findings.parts.iter().find(|part| part.leaf && is_attachment(part));
    let name = |part: &Part| part.names.first().or(part.types.first()).unwrap_or(&part.detected_type).clone();
    part.map(name).or_else(|| {
        let unseen = findings.found.iter().find(|finding| unseen(finding.kind))?;
        Some(unseen.kind.word().to_owned())
    })
}

fn is_attachment(part: &Part) -> bool {
    let signature = |kind: &String| SIGNATURES.contains(&kind.as_str());
    if part.size <= MAX_SIGNATURE && !part.types.is_empty() && part.types.iter().all(signature) {
        return false;
    }
    let text = |kind: &String| kind == "text/plain" || kind == "text/html";
    part.container.is_some() || !part.names.is_empty() || !part.types.iter().all(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::handover::{Note, Scope, write};

    use crate::budget::Budget;
    use crate::envelope::{Client, MessageId};
    use crate::findings::Finding;
    use crate::message::parts;
    use crate::smtp::xforward::Attribute;

    const NOW: u64 = 1_795_324_438;

    fn secret() -> Secret {
        Secret::parse("0123456789abcdef0123456789abcdef").unwrap()
    }

    fn envelope(recipients: &[&str]) -> Envelope {
        let mut client = Client::default();
        client.set(Attribute::Addr, b"192.0.2.77");
        client.set(Attribute::Port, b"4711");
        let mut envelope = Envelope::new(MessageId::generate(), Path::from_address("s@s.test"), client);
        envelope.recipients = recipients.iter().map(|address| Path::from_address(address)).collect();
        envelope
    }

    fn line(orders: &[&str], recipient: &str) -> String {
        let orders = orders.iter().map(|order| order.parse().unwrap()).collect();
        let note = Note { orders, spf: Some("pass".into()), decision: "7".into(), ..Note::default() };
        let peer = Peer { address: "192.0.2.77".parse().ok(), port: 4711 };
        write(&secret(), &note, Scope { peer, recipient, now: NOW })
    }

    fn read(lines: &[String], envelope: &Envelope) -> Handover {
        let section = format!("{}\r\nReceived: x\r\nSubject: y\r\n\r\n", lines.join("\r\n"));
        Handover::read(section.as_bytes(), envelope, &secret(), NOW)
    }

    #[test]
    fn orders_of_all_recipients_add_up() {
        let envelope = envelope(&["ann@x.test", "bob@x.test"]);
        let lines = [
            line(&["hold"], "ann@x.test"),
            line(&["redirect=box@x.test", "hold"], "bob@x.test"),
            line(&["discard"], "refused@x.test"),
            line(&["bcc=copy@x.test"], ""),
            "X-Octroi-Order: discard".to_owned(),
        ];
        let handover = read(&lines, &envelope);
        assert_eq!(handover.words(), "hold,redirect=box@x.test,bcc=copy@x.test");
        assert_eq!((handover.spf.as_deref(), handover.decisions.len()), (Some("pass"), 1));
        let changed = handover.envelope(&envelope).unwrap();
        let recipients: Vec<_> = changed.recipients.iter().map(|path| path.verbatim.clone()).collect();
        assert_eq!(recipients, [b"<box@x.test>".to_vec(), b"<copy@x.test> NOTIFY=NEVER".to_vec()]);
        assert_eq!((changed.sender.clone(), changed.id.clone()), (envelope.sender.clone(), envelope.id.clone()));
        let copy_only = read(&lines[3..], &envelope).envelope(&envelope).unwrap();
        assert_eq!(copy_only.recipients.len(), 3);
        assert_eq!(read(&lines[..1], &envelope).envelope(&envelope), None);
    }

    #[test]
    fn a_line_of_ours_that_cannot_be_followed_is_told_apart_from_a_forged_one() {
        let envelope = envelope(&["ann@x.test"]);
        let section = format!("{}\r\n\r\n", line(&["hold"], ""));
        let read = |secret: &Secret, now| Handover::read(section.as_bytes(), &envelope, secret, now);
        assert_eq!(read(&secret(), NOW + 100_000).unusable, Some(Refusal::Age));
        let other = Secret::parse(&"x".repeat(40)).unwrap();
        assert_eq!(read(&other, NOW), Handover::default());
    }

    fn found(message: &str) -> Option<String> {
        let message = message.replace('\n', "\r\n").into();
        let view = parts::walk(&message, &Limits::default(), &mut Budget::ample());
        let mut findings = Findings { parts: view.parts, ..Findings::default() };
        view.findings.into_iter().for_each(|finding| findings.add(finding));
        attachment(&findings)
    }

    #[test]
    fn attachments_are_what_people_call_so() {
        let multipart = |kind: &str, header: &str| {
            format!("Content-Type: multipart/{kind}; boundary=b\n\n--b\n\ntext\n--b\n{header}\n\nx\n--b--\n")
        };
        assert_eq!(found("Subject: x\n\nplain\n"), None);
        assert_eq!(found(&multipart("alternative", "Content-Type: text/html; charset=utf-8")), None);
        assert_eq!(found(&multipart("signed", "Content-Type: application/pkcs7-signature; name=smime.p7s")), None);
        for (header, name) in [
            ("Content-Type: text/plain; name=notes.txt", "notes.txt"),
            ("Content-Disposition: attachment; filename=a.txt", "a.txt"),
            ("Content-Type: application/pdf", "application/pdf"),
            ("Content-Type: message/rfc822\n\nSubject: inner", "text/plain"),
        ] {
            assert_eq!(found(&multipart("mixed", header)).as_deref(), Some(name), "{header}");
        }
        let mut deep = Findings::default();
        deep.found.push(Finding::new(FindingKind::OverLimits, "1", "depth"));
        assert_eq!(attachment(&deep).as_deref(), Some("over-limits"));
    }
}
