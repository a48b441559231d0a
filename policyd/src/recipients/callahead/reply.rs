// SPDX-License-Identifier: GPL-3.0-or-later
//! What the reply to RCPT says of the recipient, and what it only says of us.
//!
//! Pure. RFC 5321 section 4.2 (replies), RFC 3463 (enhanced codes). Many servers refuse a client they do not like not before RCPT (Postfix:
//! `smtpd_delay_reject`), with the same 5xx as an unknown recipient.

/// A reply of one or more lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reply {
    /// The three digits.
    pub(super) code: u16,
    /// The text of its last line.
    pub(super) text: String,
}

/// What the reply to RCPT says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Says {
    /// There is such a mailbox.
    Known,
    /// There is none.
    Unknown,
    /// A refusal that may be about the recipient or about us: another recipient in the same session tells.
    Doubtful,
    /// Nothing about the recipient.
    Nothing,
}

/// One line of a reply: its code, whether it is the last, its text. None for what is none.
pub(super) fn line(line: &[u8]) -> Option<(u16, bool, &[u8])> {
    let (digits, rest) = line.split_at_checked(3)?;
    let code = std::str::from_utf8(digits).ok()?.parse().ok().filter(|code| (200..600).contains(code))?;
    match rest.split_first() {
        None => Some((code, true, rest)),
        Some((b' ', text)) => Some((code, true, text)),
        Some((b'-', text)) => Some((code, false, text)),
        Some(_) => None,
    }
}

impl Reply {
    /// True for 2xx.
    pub(super) fn is_good(&self) -> bool {
        (200..300).contains(&self.code)
    }

    /// What it says as the reply to RCPT.
    pub(super) fn says(&self) -> Says {
        match (self.code, self.enhanced()) {
            (200..300, _) => Says::Known,
            // Its mailbox is full, or its message too large: so it has one.
            (500..600, Some((2, 2 | 3))) => Says::Known,
            // Addressing: no such mailbox, no such domain, bad syntax, moved away. 1.7 and 1.8 are about the sender.
            (500..600, Some((1, detail))) if ![7, 8].contains(&detail) => Says::Unknown,
            (500..600, Some((2, 1))) => Says::Unknown,
            // No mailbox here, not local, name not allowed: RFC 5321 section 4.2.3.
            (550 | 551 | 553, None) => Says::Doubtful,
            (500..600, _) => Says::Doubtful,
            _ => Says::Nothing,
        }
    }

    /// Subject and detail of the enhanced status code, `5.1.1` as 1 and 1.
    fn enhanced(&self) -> Option<(u16, u16)> {
        let mut parts = self.text.split(' ').next()?.split('.');
        let class: u16 = parts.next()?.parse().ok()?;
        let (subject, detail) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        (class == self.code / 100 && parts.next().is_none()).then_some((subject, detail))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(code: u16, text: &str) -> Reply {
        Reply { code, text: text.to_owned() }
    }

    #[test]
    fn replies_to_rcpt_are_told_apart() {
        for (code, text, expected) in [
            (250, "2.1.5 Ok", Says::Known),
            (251, "User not local; will forward", Says::Known),
            (550, "5.1.1 <a@b>: Recipient address rejected: User unknown in virtual mailbox table", Says::Unknown),
            (550, "5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup", Says::Unknown),
            (550, "5.2.1 mailbox disabled", Says::Unknown),
            (552, "5.2.2 mailbox full", Says::Known),
            (550, "5.1.8 <x>: Sender address rejected: Domain not found", Says::Doubtful),
            (550, "No such user here", Says::Doubtful),
            (550, "5.4.1 Recipient address rejected: Access denied", Says::Doubtful),
            (550, "5.7.1 Client host rejected", Says::Doubtful),
            (554, "5.7.1 <a@b>: Relay access denied", Says::Doubtful),
            (554, "go away", Says::Doubtful),
            (503, "5.5.1 Error: need MAIL command", Says::Doubtful),
            (450, "4.2.0 Greylisted", Says::Nothing),
            (450, "5.1.1 a class that is not its own", Says::Nothing),
            (421, "4.3.2 shutting down", Says::Nothing),
            (354, "what?", Says::Nothing),
        ] {
            assert_eq!(reply(code, text).says(), expected, "{code} {text}");
        }
    }

    #[test]
    fn lines_are_read() {
        assert_eq!(line(b"250-a"), Some((250, false, &b"a"[..])));
        assert_eq!(line(b"250 a b"), Some((250, true, &b"a b"[..])));
        assert_eq!(line(b"250"), Some((250, true, &b""[..])));
        for wrong in [&b""[..], b"25", b"abc d", b"250x", b"999 x", b"\xff\xff\xff x"] {
            assert_eq!(line(wrong), None, "{wrong:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_safe(bytes: Vec<u8>, code: u16, text in "\\PC*") {
            let _ = line(&bytes);
            let _ = Reply { code, text }.says();
        }
    }
}
