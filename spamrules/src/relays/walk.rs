// SPDX-License-Identifier: GPL-3.0-or-later
//! The walk over all `Received` fields from the newest to the oldest: which handovers can be believed, which are our own.
//!
//! A field can be believed when the host that wrote it is trusted; the first handover from a host outside `trusted_networks` ends
//! trust, unless the client had logged in there or the server is an MSA. With no networks given, private addresses and logins
//! are taken as signs of trust.

use super::received::{self, Handover};
use super::{Relay, Relays, Settings};

/// Most fields that are read; what is older cannot be believed anyway.
const MOST: usize = 1000;

/// How far trust reaches while walking.
struct Walk<'s> {
    settings: &'s Settings,
    trusted: bool,
    internal: bool,
    msa: bool,
    relays: Relays,
}

/// Reads the fields and divides the relays.
pub(super) fn walk(lines: &[Vec<u8>], settings: &Settings) -> Relays {
    let relays = Relays { last_trusted: -1, last_internal: -1, ..Relays::default() };
    let mut walk = Walk { settings, trusted: true, internal: true, msa: false, relays };
    let mut sender = None;
    // Marks of a program that fetched the mail count only while everything before was trusted.
    let mut fetching = true;
    for line in lines.iter().take(MOST) {
        let told = sender.take();
        match received::read(line) {
            Handover::Relay(mut relay) => {
                if told.is_some() {
                    relay.sender = told;
                }
                walk.step(*relay);
                fetching = walk.trusted;
            }
            other => {
                match other {
                    Handover::Unparseable => walk.relays.unparseable += 1,
                    Handover::Ignored { sender: next } => sender = next,
                    Handover::Fetched if fetching => walk.restart(),
                    Handover::Fetched | Handover::Relay(_) => {}
                }
                walk.skip();
            }
        }
    }
    walk.relays.write()
}

impl Walk<'_> {
    /// A field that is no handover belongs to the side on which it stands.
    fn skip(&mut self) {
        self.relays.last_trusted += isize::from(self.trusted);
        self.relays.last_internal += isize::from(self.internal);
    }

    fn restart(&mut self) {
        self.relays.trusted.clear();
        self.relays.internal.clear();
        self.relays.external.clear();
    }

    fn step(&mut self, mut relay: Relay) {
        if self.trusted && !self.msa {
            if self.settings.given() {
                self.judge(&mut relay);
            } else if !relay.private && relay.auth.is_empty() {
                (self.trusted, self.internal) = (false, false);
            }
        }
        relay.internal = self.internal;
        self.relays.last_trusted += isize::from(self.trusted);
        self.relays.last_internal += isize::from(self.internal);
        let inside = if self.internal { &mut self.relays.internal } else { &mut self.relays.external };
        inside.push(relay.clone());
        let believed = if self.trusted { &mut self.relays.trusted } else { &mut self.relays.untrusted };
        believed.push(relay);
    }

    fn judge(&mut self, relay: &mut Relay) {
        let logged_in = !relay.auth.is_empty() && relay.auth != "0";
        if !logged_in && !self.settings.trusted().contains(&relay.ip) {
            (self.trusted, self.internal) = (false, false);
            return;
        }
        if self.internal && !logged_in && !self.settings.internal().contains(&relay.ip) {
            self.internal = false;
        }
        if self.settings.msa.contains(&relay.ip) {
            self.msa = true;
            relay.msa = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Which;
    use super::*;
    use proptest::prelude::*;

    fn relays(lines: &[&str], directives: &[(&str, &str)]) -> Relays {
        let mut settings = Settings::default();
        directives.iter().for_each(|(k, v)| settings.set(k, v).unwrap().unwrap());
        walk(&lines.iter().map(|l| l.as_bytes().to_vec()).collect::<Vec<_>>(), &settings)
    }

    const MX: &str =
        "from relay.example.net (relay.example.net [198.51.100.7]) by mx.example.org (Postfix) with ESMTP id ABC12";
    const INNER: &str =
        "from mx.example.org (mx.example.org [10.0.0.1]) by box.example.org (Postfix) with ESMTP id DEF34";
    const OUTER: &str =
        "from pc (host.example.com [203.0.113.9]) by relay.example.net (8.11.6/8.11.6) with ESMTP id g7ME1r313981";

    #[test]
    fn trust_is_inferred_from_private_addresses() {
        let relays = relays(&[INNER, MX, OUTER], &[]);
        assert_eq!((relays.trusted.len(), relays.untrusted.len()), (1, 2));
        assert_eq!((relays.internal.len(), relays.external.len()), (1, 2));
        assert_eq!((relays.last_trusted, relays.last_internal), (0, 0));
        assert_eq!(
            relays.text(Which::Trusted),
            "[ ip=10.0.0.1 rdns=mx.example.org helo=mx.example.org by=box.example.org ident= envfrom= intl=1 id=DEF34 auth= msa=0 ]"
        );
    }

    #[test]
    fn networks_decide_where_they_are_given() {
        let relays =
            relays(&[INNER, MX, OUTER], &[("trusted_networks", "10/8 198.51.100.7"), ("internal_networks", "10/8")]);
        assert_eq!((relays.trusted.len(), relays.untrusted.len()), (2, 1));
        assert_eq!((relays.internal.len(), relays.external.len()), (1, 2));
    }

    #[test]
    fn behind_an_msa_everything_is_trusted() {
        let relays = relays(&[INNER, MX, OUTER], &[("trusted_networks", "10/8"), ("msa_networks", "10.0.0.1")]);
        assert_eq!(relays.untrusted.len(), 0);
        assert!(relays.trusted[0].msa && !relays.trusted[1].msa);
    }

    #[test]
    fn a_login_carries_trust() {
        let login = "from pc ([203.0.113.9]) by mx.example.org (Postfix) with ESMTPSA id ABC12";
        assert_eq!(relays(&[login], &[]).trusted.len(), 1);
    }

    #[test]
    fn fetched_mail_begins_anew() {
        let fetched =
            "from pop.example.org [192.0.2.8] by localhost with IMAP (fetchmail-5.9.0) for me@localhost (single-drop)";
        let local = "from localhost (localhost [127.0.0.1]) by box.example.org (Postfix) with ESMTP id DEF34";
        let relays = relays(&[local, fetched, MX], &[]);
        assert_eq!(relays.trusted.len() + relays.untrusted.len(), 1 + usize::from(!relays.trusted.is_empty()));
        assert_eq!(relays.external.len(), 1);
    }

    #[test]
    fn ten_thousand_fields_are_no_burden() {
        let begun = std::time::Instant::now();
        let lines = vec![MX; 10_000];
        assert!(relays(&lines, &[]).untrusted.len() <= MOST);
        let hostile = format!("from {} [{}] {}", "a[".repeat(2000), "1.2.3.4".repeat(300), "(".repeat(3000));
        relays(&vec![hostile.as_str(); 20], &[]);
        assert!(begun.elapsed().as_secs() < 30);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(line in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = received::read(&line);
        }

        #[test]
        fn likely_text_is_read(line in "(from |\\(from |FROM )?([a-z]{1,8}|\\[1.2.3.4\\]|\\(| by |\\)| with |HELO | id <|;| |Exim|SMTPSVC|@|helo=){0,20}") {
            let _ = received::read(line.as_bytes());
        }
    }
}
