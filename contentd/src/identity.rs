// SPDX-License-Identifier: GPL-3.0-or-later
//! By what a message is known again when its client sends it once more: a hash of what the sender wrote, which the second try has
//! unchanged, without what the Postfix in front adds to each try.
//!
//! Pure but for reading the message; of one over 64 KiB the first and last 32 KiB and the length count. Postfix puts its own `Received:` on top of what it got (with time and session of the try), and above that
//! what policyd has it prepend. Fields of the sender's own that stand above the first `Received:` count all the same.

use std::io;

use sha2::{Digest, Sha256};

use crate::message::{Limits, header};
use crate::spool::Message;

/// How much is looked at of a message from its start, and, when it is longer than both together, from its end.
const SAMPLE: usize = 32 * 1024;
/// Fields that the sender's software writes and a relay never changes.
const ORIGIN: [&str; 7] = ["From", "To", "Cc", "Subject", "Date", "Message-ID", "Sender"];

/// 128 bits of a hash, for looking something up.
pub type Key = [u8; 16];

/// What a message is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    digest: [u8; 32],
    /// Whether two messages that have it in common are tries of one: it has a Message-ID or a date, or has been relayed before.
    pub is_unique: bool,
}

impl Identity {
    /// Reads the message. Large ones are read beside the event loop.
    pub async fn of(message: &Message) -> io::Result<Identity> {
        if !message.is_in_file() {
            return Identity::read(message);
        }
        let message = message.clone();
        tokio::task::spawn_blocking(move || Identity::read(&message)).await.map_err(io::Error::other)?
    }

    /// The same. Blocks when the message is in a file.
    pub fn read(message: &Message) -> io::Result<Identity> {
        let head = message.read(0, SAMPLE)?;
        let mut digest = Sha256::new();
        let (at, is_unique) = begin(&head, &mut digest);
        // What comes before differs in length from try to try.
        digest.update((message.len() - at as u64).to_be_bytes());
        digest.update(&head[at..]);
        let rest = message.len().saturating_sub(SAMPLE as u64).max(head.len() as u64);
        digest.update(message.read(rest, SAMPLE)?);
        Ok(Identity { digest: digest.finalize().into(), is_unique })
    }

    /// The key of the message alone.
    pub fn key(&self) -> Key {
        shortened(self.digest)
    }

    /// The key of the message from this sender for this recipient.
    pub fn key_for(&self, sender: &str, recipient: &str) -> Key {
        let mut digest = Sha256::new_with_prefix(self.digest);
        for address in [sender, recipient] {
            digest.update((address.len() as u64).to_be_bytes());
            digest.update(address);
        }
        shortened(digest.finalize().into())
    }
}

fn shortened(digest: [u8; 32]) -> Key {
    let mut key = Key::default();
    key.copy_from_slice(&digest[..16]);
    key
}

/// Hashes what counts of the fields down to the first `Received:`; where the rest begins, and whether the message is one of its kind.
fn begin(head: &[u8], digest: &mut Sha256) -> (usize, bool) {
    let everything = Limits { header_bytes: usize::MAX, header_fields: usize::MAX, ..Limits::default() };
    let fields = header::read(head, &everything).fields;
    let received = fields.iter().position(|field| field.is(head, "Received"));
    let names = ["Message-ID", "Date"];
    let named = fields.iter().any(|field| names.iter().any(|name| field.is(head, name)));
    let relayed = fields.iter().filter(|field| field.is(head, "Received")).count() > 1;
    let Some(received) = received else { return (0, named) };
    for field in &fields[..received] {
        if ORIGIN.iter().any(|name| field.is(head, name)) {
            digest.update(&head[field.whole.clone()]);
        }
    }
    (fields[received].whole.end, named || relayed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(text: &str) -> Identity {
        Identity::read(&Message::from_bytes(text.as_bytes().to_vec())).unwrap()
    }

    const REST: &str = "From: a@b\r\nMessage-ID: <1@b>\r\n\r\nbody\r\n";

    #[test]
    fn a_second_try_has_the_same() {
        let first = of(&format!("Received: from x (x [192.0.2.1])\r\n\tby mx; 10:00\r\n{REST}"));
        let second = of(&format!("X-Greylist: delayed\r\nReceived: from y\r\n by mx2; 10:05\r\n{REST}"));
        assert_eq!(first, second);
        assert!(first.is_unique);
        assert_ne!(first, of(&format!("Received: x\r\n{}", REST.replace("body", "Body"))));
        assert_ne!(first, of(&format!("Received: x\r\n{}", REST.replace("<1", "<2"))));
        assert_ne!(first, of(&format!("Received: x\r\nReceived: y\r\n{REST}")), "only the first is that of the try");
    }

    #[test]
    fn without_a_trace_everything_counts() {
        assert_ne!(of("X: 1\r\nDate: d\r\n\r\n"), of("X: 2\r\nDate: d\r\n\r\n"));
        let above = |id| of(&format!("Message-ID: <{id}>\r\nReceived: x\r\n\r\nbody"));
        assert_ne!(above(1), above(2), "the sender's own fields count above it, too");
        assert!(above(1).is_unique);
    }

    #[test]
    fn what_could_be_two_messages_is_not_unique() {
        assert!(!of("Received: mx\r\nSubject: disk full\r\n\r\nagain\r\n").is_unique);
        assert!(!of("\r\nonly a body").is_unique);
        assert!(of("Received: mx\r\nReceived: from app\r\n\r\nx").is_unique);
    }

    #[test]
    fn long_messages_differ_by_length_beginning_and_end() {
        let long = |fill: usize, end: &str| of(&format!("{REST}{}{end}", "line\r\n".repeat(fill)));
        assert_eq!(long(300_000, "x"), long(300_000, "x"));
        assert_ne!(long(300_000, "x"), long(300_000, "y"));
        assert_ne!(long(300_000, "x"), long(300_001, "x"));
        assert_ne!(long(100_000, "x"), long(100_000, "y"));
    }

    #[test]
    fn keys_tell_sender_and_recipient_apart() {
        let identity = of(REST);
        let keys = [("a", "b"), ("b", "a"), ("", "ab"), ("ab", ""), ("a", "bc"), ("ab", "c")]
            .map(|(sender, recipient)| identity.key_for(sender, recipient));
        let different: std::collections::HashSet<_> = keys.iter().collect();
        assert_eq!(different.len(), keys.len());
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(bytes: Vec<u8>) {
            let identity = Identity::read(&Message::from_bytes(bytes.clone())).unwrap();
            prop_assert_eq!(identity, Identity::read(&Message::from_bytes(bytes)).unwrap());
        }
    }
}
