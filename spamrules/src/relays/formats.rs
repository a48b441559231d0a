// SPDX-License-Identifier: GPL-3.0-or-later
//! The formats of `Received` fields, one line each: what mail servers write there, in the language of [`super::shape`].
//!
//! Order counts: the first format that fits decides. `Received` is free text in practice (RFC 5321 section 4.4 gives only a
//! frame), servers disagree on which name is the one that was looked up and which the one that was claimed, and rules on
//! `X-Spam-Relays-*` were written for the readings that these lines give.

use std::sync::LazyLock;

use super::shape::{Found, Shape};

/// What to do with a line that fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// A relay; whether its name was looked up is not known.
    Relay,
    /// A relay whose name the server looked up.
    LookedUp,
    /// The same, unless the server wrote `unknown`.
    LookedUpIfKnown,
    /// A relay; the name in the comment may hold an answer of identd (RFC 1413).
    LookedUpWithIdent,
    /// A relay; the name counts as looked up unless it says that the lookup failed.
    LookedUpUnlessFailed,
    /// A relay, without the id that the line seems to have.
    RelayWithoutId,
    /// A relay; further words of the line tell id and sender.
    Mailer,
    /// A relay that claimed no name.
    WithoutHelo,
    /// Takes what is found and goes on.
    Note,
    /// No handover between hosts.
    Ignore,
    /// A program that fetched the mail from a mailbox: what is above is not the way of the mail.
    Fetched,
    /// qmail-scanner's note, which tells the sender of the handover below.
    Scanner,
}

/// One format.
pub(super) struct Format {
    /// Text that the line must hold; tried first because it is cheap.
    sign: &'static str,
    shape: Shape,
    pub(super) outcome: Outcome,
}

impl Format {
    /// What the format finds in a line.
    pub(super) fn find(&self, line: &str) -> Option<Found> {
        if !self.sign.is_empty() && !line.contains(self.sign) {
            return None;
        }
        self.shape.find(line.as_bytes())
    }
}

/// Formats that are tried only when the line holds the mark of one server.
pub(super) struct Family {
    pub(super) mark: Shape,
    pub(super) formats: Vec<Format>,
}

/// All formats, ready to match.
pub(super) struct Formats {
    /// Webmail, before all others.
    pub(super) web: Vec<Format>,
    /// At most one of them is tried.
    pub(super) families: Vec<Family>,
    pub(super) general: Vec<Format>,
    /// Lines that begin with an upper-case FROM.
    pub(super) upper: Vec<Format>,
    /// Lines that begin with `(from`.
    pub(super) parenthesis: Vec<Format>,
}

/// The formats, compiled at the first use.
pub(super) static FORMATS: LazyLock<Formats> = LazyLock::new(|| Formats {
    web: compiled(WEB),
    families: FAMILIES
        .iter()
        .map(|(mark, rows)| Family { mark: Shape::new(mark).expect("a shape of this file"), formats: compiled(rows) })
        .collect(),
    general: compiled(GENERAL),
    upper: compiled(UPPER),
    parenthesis: compiled(PARENTHESIS),
});

type Row = (&'static str, &'static str, Outcome);

fn compiled(rows: &[Row]) -> Vec<Format> {
    rows.iter()
        .map(|(sign, shape, outcome)| Format {
            sign,
            shape: Shape::new(shape).expect("a shape of this file, all of which a test reads"),
            outcome: *outcome,
        })
        .collect()
}

use Outcome::*;

const WEB: &[Row] = &[
    (
        "Mail authenticated user ",
        "{&{..} ({=SquirrelMail|NaSMail} authenticated user }{..}{ip}{..10,80}by {by} with HTTP",
        Relay,
    ),
    ("with HTTP (WebMailUI)", "{&{..}aol.com}{..}{ip} by {by} ({ip_}) with HTTP (WebMailUI)", Relay),
];

const FAMILIES: &[(&str, &[Row])] = &[
    (
        "{..} SMTPSVC",
        &[
            ("", "{helo*} ([{ip}]{^)40}) by {by} with Microsoft SMTPSVC", Relay),
            ("", "mail pickup service by {_} with Microsoft SMTPSVC{$}", Ignore),
        ],
    ),
    (
        "{..} with {=Microsoft SMTP Server|mapi id} {?({^)+}) }{#}.{#}.{#}.{#}{!{^ +}}",
        &[("", "{helo} ({?[}{ip}{?%{^])*}}{?]}) by {by} ", RelayWithoutId)],
    ),
    ("{..}[XMail ", &[("", "{helo} ({?[}{ip}{?]}:{#}) by {by}{? ({_})} with [XMail", Mailer)]),
    (
        "{..}(ecelerity{b}",
        &[("", "([{ip}:{#}] helo={helo:{^ )+}}) by {by} ", Relay), ("", "{_} ([{ip}:{#}]) by {by} ", Relay)],
    ),
    (
        "{..}Exim",
        &[
            ("", "{..}{b}with local{?-{_}} ", Ignore),
            ("", "[{ip}] ({notes:{..}}) by {by} ", Relay),
            ("", "{rdns+helo} ([{ip}]{notes:{..}}) by {by} ", Relay),
            ("", "{rdns+helo} [{ip}]{?:{#}} by {by} ", Relay),
            ("", "{rdns} ", Note),
            ("", "{..} ({helo}) ", Note),
            ("", "{..} [{ip}{?.{#}}] ", Note),
            ("", "{&{..} [{ip_}{?.{#}}] }{..}by {by} ", Relay),
            ("", "{..}by {by} ", Note),
        ],
    ),
    (
        "{..} (Postfix) with",
        &[("", "{helo} ({rdns} [{ip}]) by {by} ", LookedUp), ("", "{helo} ({rdns}[{ip}]) by {by} ", LookedUp)],
    ),
    ("{..}(Scalix SMTP Relay", &[("", "{helo} ({? }{ip}) by {by}", Relay)]),
    ("{..} (Lotus Domino ", &[("", "{helo} ([{ip}]) by {by} (Lotus", Relay)]),
];

/// What all forms of qmail have in common; its own programs say SMTP, never ESMTP, and give no id.
macro_rules! qmail {
    ($form:literal) => {
        concat!(
            "{&{_}{? ({=HELO|EHLO} {_*})} ({?{_}@}{?[}{ip_}{?]}){? (envelope-sender <{_}>)} by {_}{? ({..>})} with {?{..>} }{=SMTP|QMQP}{! id }}",
            $form
        )
    };
}

const GENERAL: &[Row] = &[
    ("with HTTP", "{&{..}{b}with HTTP{b}}{ip} ([{ip_}]) by {by}", Relay),
    // sendmail, and those that write like it; not qmail-ldap
    ("", "{!{..} by {_} (qmail-{_}) with }{helo} ({rdns} [{ip}]{..>}) by {by} (", LookedUpWithIdent),
    ("", "{helo} ({rdns} [{ip}]) by {by} with {_} (", LookedUp),
    ("", "{rdns} ([{ip}] helo={helo}) by {by} with ", Relay),
    ("<unknown", "{helo} (<unknown{_*}>[{ip}]) by {by} ", Relay),
    ("", "{helo} ({rdns:{_}.{_}}[{ip}]) by {by} ", LookedUp),
    ("@[", "{helo} ({ident*}@[{ip}]{..>}) by {by} (", LookedUp),
    (".hotmail.msn.com ", "{&{..}by {_}.hotmail.msn.com }{ip} {..}by {by:{_}.hotmail.msn.com} ", Relay),
    (".hotmail.msn.com ", "{..}by {by:{_}.hotmail.msn.com} ", Relay),
    ("(qpsmtpd/", "{rdns} ({=HELO|EHLO} {helo*}) ({ip}) by {by} (qpsmtpd/{_}) with {=ESMTP|SMTP}", Relay),
    ("(LHLO ", "{rdns} (LHLO {helo*}) ({ip}) by {by} with LMTP", Relay),
    ("LO ", "{rdns} ({=HELO|EHLO} {helo*}) [{ip}] by {by} ({^)+}) with {=ESMTP|SMTP}", Relay),
    (" via smtpd (for ", "{helo} ([{ip}]) by {by} via smtpd (for {_}) with SMTP(", Relay),
    (
        "LO ",
        qmail!("{rdns} ({=HELO|EHLO} {helo:{^ ()*}}) ({ident*}@{?[}{ip}{?]}){? (envelope-sender <{_}>)} by {by}"),
        LookedUpIfKnown,
    ),
    (
        "LO ",
        qmail!("{rdns} ({=HELO|EHLO} {helo:{^ ()*}}) ({?[}{ip}{?]}){? (envelope-sender <{_}>)} by {by}"),
        LookedUpIfKnown,
    ),
    ("", qmail!("{helo+rdns} ({ident*}@{?[}{ip}{?]}){? (envelope-sender <{_}>)} by {by}"), LookedUpIfKnown),
    ("", qmail!("{helo+rdns} ({?[}{ip}{?]}){? (envelope-sender <{_}>)} by {by}"), LookedUpIfKnown),
    (" via HTTP", "[{ip}] by {by} via HTTP{$}", Relay),
    ("( [", "{_} ( [{ip}]){..} by {by} ", Relay),
    ("", "({helo} [{ip}]) by {by} ", Relay),
    ("", "[{ip}] by {by} ", Relay),
    ("", "({?[}{ip}{?]}) by {by} ", Relay),
    // MDaemon
    ("", "{helo} [{ip}] by {by} [{ip_}] with ", LookedUp),
    ("[(", "{helo} [({ip})] by {by} ({ip_}) ", Relay),
    // sendmail again, without a name from DNS
    ("", "{helo} ([{ip}]) by {by} (", LookedUp),
    ("", "{helo} ({rdns} [{ip}]){..} by {by}{b}", LookedUpUnlessFailed),
    ("", "{helo} ([{ip}{?{=.|:}{#}}]){..} by {by} ", LookedUp),
    ("with POP3", "{..}with POP3", Fetched),
    ("with IMAP", "{..}with IMAP", Fetched),
    // qmail's relatives
    ("LO ", "{rdns} ({=HELO|EHLO} {helo:{^)*}}) ({?{ident*}@}{?[}{ip}{?]}){..>} by {by} ", LookedUp),
    ("", "{rdns+helo} ({?{ident*}@}{?[}{ip}{?]}){..>} by {by} ", LookedUp),
    (" via smap ", "{rdns}({ip}) by {by} via smap ", LookedUp),
    (" via smap ", "{rdns}({ip}, {=HELO|EHLO} {helo*}) by {by} via smap ", LookedUp),
    ("", "{ip} by {by} ({=SMTPL|InterScan}{b}", Relay),
    (" with BSMTP", "{_} by {_} with BSMTP", Ignore),
    ("", "{helo} ({rdns} [{ip}]) by {by} with ", LookedUp),
    ("LO ", "{rdns} ({=HELO|EHLO} {helo*}) ({?{ident}@}{ip}{..}) by {by} with ", LookedUp),
    // CommuniGate
    ("LO ", "[{ip}] ({?account {_} }{=HELO|EHLO} {helo*}) by {by} (", Relay),
    (" (CommuniGate Pro", "{rdns+helo} ([{ip}] verified) by {by} (", LookedUp),
    (" (Content Technologies ", "{_} ({_}) by {_} (Content Technologies ", Ignore),
    ("] [", "{helo} ([{ip}] [{_}]) by {by} with ", Relay),
    ("", "{ip} by {by} with ", Relay),
    ("", "{helo} ({rdns}[{ip}]) by {by} ", LookedUp),
    ("LO ", "[{ip}]{_} ({=HELO|EHLO} {helo*}) by {by} ", Relay),
    ("LO ", "{ip} ({=HELO|EHLO} {helo*}) by {by} ", Relay),
    ("", "{helo} [{ip}] by {by} ", Relay),
    ("", "{rdns}({ip}) by {by} ", Relay),
    ("", "{ip} ({a}{^)+}) by {by} with ", Relay),
    ("", "[{ip}] ({notes:{^)+}}) by {by} ", Relay),
    // Obtuse smtpd
    (", claiming to be ", "{rdns}({ip}), claiming to be \"{helo}\" via {_} by {by},", LookedUpIfKnown),
    (" via ", "{rdns}({ip}) via {_} by {by},", WithoutHelo),
    (" with login) by ", "{helo} ({_}@{ip} with login) by {by:{_}.yahoo.com} with SMTP", Relay),
    // made from X-Originating-IP and the like
    ("X-Originating-IP: ", "X-Originating-IP: {ip}{$}", Relay),
    // Handovers within one host.
    ("@", "{_} ({^@ +}@{local}) by {_} (", Ignore),
    (" with local-", "{_} {_} by {_} with local-{?e}smtp ", Ignore),
    (" (AVG SMTP ", "127.0.0.1 (AVG SMTP {_} [{_}])", Ignore),
    ("@", "{_}@{_} by {_} ", Ignore),
    ("Unknown/Local (", "Unknown/Local (", Ignore),
    ("", "{local} ({?{_}@}{local}{=)|[}", Ignore),
    ("", "{_} ({?{_}@}{local}) ", Ignore),
    ("@", "{_} ({_}@{_} [{local}]) ", Ignore),
    ("(AUTH: ", "(AUTH: {_}) by {_} with ", Ignore),
    ("[[UNIX: ", "localhost (localhost [[UNIX: localhost]]) by ", Ignore),
    (".amazon.com", "{_}.amazon.com by {_}.amazon.com with ESMTP (peer crosscheck: ", Ignore),
    ("Novell_GroupWise", "{^.+} by {_} with Novell_GroupWise", Ignore),
    ("no.name.available", "no.name.available by {_} via smtpd (for ", Ignore),
    ("with qmail-scanner", "{_} by {_} ({..0,100}) with qmail-scanner", Scanner),
    (" with local", "{_} by {_} with local", Ignore),
    ("[unix socket]", "{_} ([unix socket]) by {_} (Cyrus v{#*}.{#*}.{#*}) with LMTPA", Ignore),
    // Handovers between hosts, without the address.
    ("", "{_} by {_} {=with|via|for|(}", Ignore),
    ("", "{_} {=with|via|for} {_} by{b}", Ignore),
    ("(unverified)", "{_} (unverified) by{b}", Ignore),
    ("(SG)", "{_} (unknown) by {_} (SG) with {b}", Ignore),
    ("(OpenSMTPD)", "{_} ({_} [local]) by {_} (OpenSMTPD) with {b}", Ignore),
    ("(LSMTP for", "{..}(LSMTP for", Ignore),
    (" with MailEnable ", "([{local}]) with MailEnable ", Ignore),
    ("with Thrift id", "facebook.com ({^)+}) by facebook.com with Thrift id {_}{$}", Ignore),
    ("gmailapi", "{_} named {_} by gmailapi.google.com with HTTPREST{$}", Ignore),
    (" id ", "{_} id {_}{$}", Ignore),
    (" (Jetsend", "[<{..} (Jetsend", Ignore),
];

const UPPER: &[Row] = &[
    (
        "unverified",
        "{helo} (unverified [{ip}]) BY {by} {?({^)+}) WITH SMTP }ID {?<}{id:{^ >+}}{?>}{? FOR <{^>+}>}{$}",
        LookedUp,
    ),
    (" BY ", "{helo} ({rdns} [{ip}]) BY {by} {?({^)+}) WITH SMTP }ID {?<}{id:{^ >+}}{?>}{? FOR <{^>+}>}{$}", LookedUp),
];

const PARENTHESIS: &[Row] = &[
    ("NAVGW", "{helo*} [{ip}]) by {by} (NAVGW {..}) with ", Relay),
    ("@localhost)", "{_}@localhost) by {_} ", Ignore),
    ("(jqueuemail)", "{^ @+}@{^)+}) by {_}(jqueuemail) id {^ ;+}", Ignore),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_shapes_can_be_read() {
        assert!(FORMATS.general.len() > 60 && FORMATS.families.len() == FAMILIES.len());
        assert!(FORMATS.web.len() + FORMATS.upper.len() + FORMATS.parenthesis.len() == 7);
    }
}
