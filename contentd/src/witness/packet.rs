// SPDX-License-Identifier: GPL-3.0-or-later
//! What the daemon sends its witness: descriptors, and what they are. Pure. What happens to messages stands on the slate.
//!
//! Both ends are the same program of the same version, so there is no version in it. A packet that cannot be read is a bug and is ignored.

/// Number of a connection; given by the daemon, and used once.
pub(crate) type ConnectionId = u32;

/// The largest packet.
pub(crate) const LARGEST: usize = 5;

/// One packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packet {
    /// The slate comes with it.
    Slate,
    /// A connection to the next hop comes with it.
    Opened(ConnectionId),
    /// The daemon has closed it.
    Closed(ConnectionId),
}

impl Packet {
    /// The bytes.
    pub(crate) fn encode(self) -> [u8; LARGEST] {
        let (kind, number) = match self {
            Packet::Slate => (b's', 0),
            Packet::Opened(number) => (b'+', number),
            Packet::Closed(number) => (b'-', number),
        };
        let [a, b, c, d] = number.to_be_bytes();
        [kind, a, b, c, d]
    }

    /// Reads one packet.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Packet> {
        let [kind, number @ ..]: [u8; LARGEST] = bytes.try_into().ok()?;
        let number = ConnectionId::from_be_bytes(number);
        Some(match kind {
            b's' => Packet::Slate,
            b'+' => Packet::Opened(number),
            b'-' => Packet::Closed(number),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn packets_come_back() {
        for packet in [Packet::Slate, Packet::Opened(u32::MAX), Packet::Closed(7)] {
            assert_eq!(Packet::decode(&packet.encode()), Some(packet));
        }
        assert_eq!(Packet::decode(b"+1"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(bytes: Vec<u8>) {
            Packet::decode(&bytes);
        }
    }
}
