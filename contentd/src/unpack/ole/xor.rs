// SPDX-License-Identifier: GPL-3.0-or-later
//! XOR obfuscation, method 1 (MS-OFFCRYPTO 2.3.7): what old workbooks call encryption. Pure.

/// Longest password.
const LONGEST: usize = 15;

/// What the key is begun with, by the length of the password.
const INITIAL: [u16; LONGEST] = [
    0xe1f0, 0x1d0f, 0xcc9c, 0x84c0, 0x110c, 0x0e10, 0xf1ce, 0x313e, 0x1872, 0xe139, 0xd40f, 0x84f9, 0x280c, 0xa96a,
    0x4ec3,
];

/// The matrix has a row of seven for each character; each number follows from the one before, as in a CRC.
const ROWS: [u16; LONGEST] = [
    0xaefc, 0x7b61, 0x4563, 0x0375, 0xd849, 0x6f45, 0xeb23, 0x47d3, 0xb861, 0x45a0, 0xaa51, 0x76b4, 0x3730, 0x3331,
    0x1021,
];

const PAD: [u8; LONGEST] = [0xbb, 0xff, 0xff, 0xba, 0xff, 0xff, 0xb9, 0x80, 0x00, 0xbe, 0x0f, 0x00, 0xbf, 0x0f, 0x00];

/// The sixteen bytes that everything is mixed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mask([u8; 16]);

impl Mask {
    /// When key and verifier of the document are those of the password.
    pub(super) fn new(password: &str, key: u16, verifier: u16) -> Option<Mask> {
        let password: Vec<u8> = password.chars().map(|c| u8::try_from(c).ok()).collect::<Option<_>>()?;
        let fits = (1..=LONGEST).contains(&password.len());
        (fits && self::verifier(&password) == verifier && self::key(&password) == key).then(|| mask(&password, key))
    }

    /// Takes the mask off a byte; `place`: where it stands, and the length of its record, together.
    pub(super) fn plain(&self, byte: u8, place: usize) -> u8 {
        (byte ^ self.0[place % 16]).rotate_right(5)
    }
}

fn verifier(password: &[u8]) -> u16 {
    let length = u8::try_from(password.len()).unwrap_or(u8::MAX);
    let turned = [length].into_iter().chain(password.iter().copied()).rev();
    turned.fold(0u16, |value, byte| {
        let top = u16::from(value & 0x4000 != 0);
        (top | value << 1 & 0x7fff) ^ u16::from(byte)
    }) ^ 0xce4b
}

fn key(password: &[u8]) -> u16 {
    let mut key = INITIAL[password.len() - 1];
    // The last character has the last row, from its end on.
    for (byte, row) in password.iter().rev().zip(ROWS.iter().rev()) {
        let mut numbers = [*row; 7];
        for place in 1..7 {
            let before = numbers[place - 1];
            numbers[place] = before << 1 ^ if before & 0x8000 == 0 { 0 } else { 0x1021 };
        }
        for (bit, number) in numbers.iter().rev().enumerate() {
            if byte << bit & 0x40 != 0 {
                key ^= number;
            }
        }
    }
    key
}

fn mask(password: &[u8], key: u16) -> Mask {
    let [low, high] = key.to_le_bytes();
    let characters = password.iter().chain(&PAD).take(16);
    let mut mask = [0; 16];
    for ((place, to), from) in mask.iter_mut().enumerate().zip(characters) {
        *to = (from ^ if place % 2 == 0 { low } else { high }).rotate_right(1);
    }
    Mask(mask)
}

/// Key and verifier of a password.
#[cfg(test)]
pub(super) fn said(password: &str) -> (u16, u16) {
    (key(password.as_bytes()), verifier(password.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Verifiers of passwords that protect sheets, as other programs write them.
    #[test]
    fn verifiers_as_known() {
        for (password, expected) in [("secret", 0xdaa7), ("password", 0x83af), ("test", 0xcbeb)] {
            assert_eq!(verifier(password.as_bytes()), expected, "{password}");
        }
    }

    #[test]
    fn a_password_makes_its_mask_or_none() {
        for password in ["a", "ab", "VelvetSweatshop"] {
            let (key, verifier) = (key(password.as_bytes()), verifier(password.as_bytes()));
            assert!(Mask::new(password, key, verifier).is_some());
            assert_eq!(Mask::new(password, key ^ 1, verifier), None);
            assert_eq!(Mask::new("another", key, verifier), None);
        }
        for password in ["", "longer than fifteen", "Ω"] {
            assert_eq!(Mask::new(password, 0, 0), None);
        }
    }
}
