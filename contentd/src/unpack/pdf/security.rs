// SPDX-License-Identifier: GPL-3.0-or-later
//! The standard security handler of PDF (ISO 32000-1 section 7.6, ISO 32000-2 for revision 6; revision 5 is an extension of Adobe's): from a password
//! to the key of the document, and from that to the bytes of a string or stream. Other handlers, which need certificates, stay shut. Pure.

use super::objects::Dictionary;
use crate::unpack::ciphers::{self, BLOCK, Hash};

/// Fills passwords up (algorithm 2).
const PADDING: [u8; 32] = [
    0x28, 0xbf, 0x4e, 0x5e, 0x4e, 0x75, 0x8a, 0x41, 0x64, 0x00, 0x4e, 0x56, 0xff, 0xfa, 0x01, 0x08, 0x2e, 0x2e, 0x00,
    0xb6, 0xd0, 0x68, 0x3e, 0x80, 0x2f, 0x0c, 0xa9, 0xfe, 0x64, 0x53, 0x69, 0x7a,
];
/// Longest password of revisions 5 and 6.
const LONGEST: usize = 127;

/// How strings or streams are encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    /// Not at all.
    Identity,
    Rc4,
    /// AES with a key for each object.
    AesV2,
    /// AES with the key of the document.
    AesV3,
}

/// What the dictionary of the handler says.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Handler {
    revision: i64,
    owner: Vec<u8>,
    user: Vec<u8>,
    owner_key: Vec<u8>,
    user_key: Vec<u8>,
    permissions: [u8; 4],
    /// Lengths of the key in bytes that are possible, the likeliest first.
    lengths: Vec<usize>,
    /// What stands in `/EncryptMetadata`.
    pub(super) metadata: bool,
    strings: Method,
    streams: Method,
    files: Method,
    filters: Vec<(Vec<u8>, Method)>,
}

/// What is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind<'n> {
    Text,
    Stream,
    EmbeddedFile,
    /// A stream that names its crypt filter.
    Named(&'n [u8]),
}

impl Handler {
    /// None: no handler that is known here.
    pub(super) fn read(dictionary: &Dictionary) -> Option<Handler> {
        if dictionary.name("Filter")? != b"Standard" {
            return None;
        }
        let (version, revision) = (dictionary.number("V").unwrap_or(0), dictionary.number("R")?);
        if !(1..=5).contains(&version) || !(2..=6).contains(&revision) {
            return None;
        }
        let text = |key| dictionary.text(key).unwrap_or_default().to_vec();
        let declared = dictionary.number("Length").unwrap_or(40);
        // Some write bytes where bits are meant.
        let declared = if declared < 40 { declared } else { declared / 8 };
        let declared = usize::try_from(declared).ok().filter(|length| (5..=16).contains(length)).unwrap_or(5);
        let mut lengths = match version {
            1 => vec![5, declared],
            4 => vec![16, declared, 5],
            _ => vec![declared, 16, 5],
        };
        let mut seen = Vec::new();
        lengths.retain(|length| {
            !seen.contains(length) && {
                seen.push(*length);
                true
            }
        });
        let filters = if version >= 4 { filters(dictionary) } else { Vec::new() };
        let method = |key, default| match dictionary.name(key) {
            _ if version < 4 => Method::Rc4,
            Some(name) => method_of(&filters, name),
            None => default,
        };
        let streams = method("StmF", Method::Identity);
        Some(Handler {
            revision,
            owner: text("O"),
            user: text("U"),
            owner_key: text("OE"),
            user_key: text("UE"),
            // A number of 32 bits, written with or without its sign.
            permissions: (dictionary.number("P").unwrap_or(0) as u32).to_le_bytes(),
            lengths,
            metadata: !dictionary.is_false("EncryptMetadata"),
            strings: method("StrF", Method::Identity),
            streams,
            files: method("EFF", streams),
            filters,
        })
    }

    /// Whether deriving a key takes long.
    pub(super) fn is_slow(&self) -> bool {
        self.revision >= 6
    }

    /// How it is encrypted.
    pub(super) fn method(&self, kind: Kind<'_>) -> Method {
        match kind {
            Kind::Text => self.strings,
            Kind::Stream => self.streams,
            Kind::EmbeddedFile => self.files,
            Kind::Named(name) => method_of(&self.filters, name),
        }
    }

    /// The key of the document, when the password is its user's or its owner's. `id`: what the trailer says first in `/ID`.
    pub(super) fn key(&self, password: &[u8], id: &[u8]) -> Option<Vec<u8>> {
        if self.revision >= 5 {
            return self.long_key(&password[..password.len().min(LONGEST)]);
        }
        let mut keys = self.lengths.iter().filter_map(|length| {
            self.short_key(password, id, *length)
                .or_else(|| self.short_key(&self.users_password(password, *length), id, *length))
        });
        keys.next()
    }

    /// Revisions 2 to 4, algorithms 2, 4 and 5.
    fn short_key(&self, password: &[u8], id: &[u8], length: usize) -> Option<Vec<u8>> {
        let owner = self.owner.get(..32)?;
        let more: &[u8] = if self.revision >= 4 && !self.metadata { &[0xff; 4] } else { &[] };
        let mut key = Hash::Md5.of(&[&padded(password), owner, &self.permissions, id, more]);
        let length = if self.revision == 2 { length.min(5) } else { length };
        if self.revision >= 3 {
            for _ in 0..50 {
                key = Hash::Md5.of(&[&key[..length]]);
            }
        }
        key.truncate(length);
        let fits = if self.revision == 2 {
            self.user.get(..32)? == ciphers::rc4(&key, &PADDING)
        } else {
            let digest = Hash::Md5.of(&[&PADDING, id]);
            self.user.get(..16)? == (0..20).fold(digest, |digest, round| ciphers::rc4(&mixed(&key, round), &digest))
        };
        fits.then_some(key)
    }

    /// The password of the user, by that of the owner (algorithm 7).
    fn users_password(&self, password: &[u8], length: usize) -> Vec<u8> {
        let mut key = Hash::Md5.of(&[&padded(password)]);
        let owner = self.owner.get(..32).unwrap_or_default().to_vec();
        if self.revision == 2 {
            return ciphers::rc4(&key[..length.min(5)], &owner);
        }
        for _ in 0..50 {
            key = Hash::Md5.of(&[&key[..length]]);
        }
        (0..20).rev().fold(owner, |owner, round| ciphers::rc4(&mixed(&key[..length], round), &owner))
    }

    /// Revisions 5 and 6, algorithm 2.A.
    fn long_key(&self, password: &[u8]) -> Option<Vec<u8>> {
        let user = self.user.get(..48)?;
        for (check, wrapped, with) in [(user, &self.user_key, &b""[..]), (self.owner.get(..48)?, &self.owner_key, user)]
        {
            if self.digest(password, &check[32..40], with) == check[..32] {
                let key = self.digest(password, &check[40..48], with);
                return ciphers::cbc_decrypt(&key, &[0; BLOCK], wrapped.get(..32)?);
            }
        }
        None
    }

    /// Algorithm 2.B; revision 5 stops where it begins. Ends after 288 rounds at most: a byte is not larger than 255.
    fn digest(&self, password: &[u8], salt: &[u8], with: &[u8]) -> Vec<u8> {
        let mut key = Hash::Sha256.of(&[password, salt, with]);
        if self.revision == 5 {
            return key;
        }
        for round in 1usize.. {
            let once = [password, &key, with].concat();
            let (Ok(cipher), Ok(iv)) = (key[..16].try_into(), key[16..32].try_into()) else { break };
            let encrypted = ciphers::cbc_encrypt(cipher, iv, &once.repeat(64));
            // 256 is one more than a multiple of three, so the number modulo three is the sum of its bytes modulo three.
            let sum: u32 = encrypted.iter().take(16).map(|byte| u32::from(*byte)).sum();
            let hash = [Hash::Sha256, Hash::Sha384, Hash::Sha512][sum as usize % 3];
            key = hash.of(&[&encrypted]);
            let last = encrypted.last().copied().unwrap_or_default();
            if round >= 64 && usize::from(last) <= round - 32 {
                break;
            }
        }
        key.truncate(32);
        key
    }
}

/// The crypt filters by name.
fn filters(dictionary: &Dictionary) -> Vec<(Vec<u8>, Method)> {
    let Some(list) = dictionary.dictionary("CF") else { return Vec::new() };
    let method = |name: &[u8]| match name {
        b"V2" => Method::Rc4,
        b"AESV2" => Method::AesV2,
        b"AESV3" => Method::AesV3,
        _ => Method::Identity,
    };
    let filters = list.dictionaries();
    filters.map(|(name, filter)| (name.to_vec(), method(filter.name("CFM").unwrap_or(b"None")))).take(32).collect()
}

/// Names that stand for nothing mean that nothing is done, as `Identity` does.
fn method_of(filters: &[(Vec<u8>, Method)], name: &[u8]) -> Method {
    filters.iter().rev().find(|(other, _)| other == name).map_or(Method::Identity, |(_, method)| *method)
}

/// Decrypts one string or stream of an object. None: it cannot be encrypted in this way.
pub(super) fn decrypt(method: Method, key: &[u8], object: (u32, u16), data: &[u8]) -> Option<Vec<u8>> {
    let own = |salt: &[u8]| {
        let (number, generation) = (object.0.to_le_bytes(), object.1.to_le_bytes());
        let mut own = Hash::Md5.of(&[key, &number[..3], &generation, salt]);
        own.truncate((key.len() + 5).min(16));
        own
    };
    match method {
        Method::Identity => Some(data.to_vec()),
        Method::Rc4 => Some(ciphers::rc4(&own(b""), data)),
        Method::AesV2 => aes(&own(b"sAlT"), data),
        Method::AesV3 => aes(key, data),
    }
}

/// The first block is the initialization vector; the last one is filled up with bytes that tell their number.
fn aes(key: &[u8], data: &[u8]) -> Option<Vec<u8>> {
    let (iv, data) = data.split_first_chunk::<BLOCK>()?;
    let mut plain = ciphers::cbc_decrypt(key, iv, data)?;
    let fill = plain.last().map_or(0, |last| usize::from(*last));
    if (1..=BLOCK).contains(&fill) {
        plain.truncate(plain.len().saturating_sub(fill));
    }
    Some(plain)
}

fn padded(password: &[u8]) -> [u8; 32] {
    let mut padded = [0; 32];
    padded.iter_mut().zip(password.iter().chain(&PADDING)).for_each(|(to, from)| *to = *from);
    padded
}

fn mixed(key: &[u8], round: u8) -> Vec<u8> {
    key.iter().map(|byte| byte ^ round).collect()
}
