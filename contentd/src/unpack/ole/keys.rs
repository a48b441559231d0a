// SPDX-License-Identifier: GPL-3.0-or-later
//! Keys of encrypted Office documents (MS-OFFCRYPTO 2.3.4 to 2.3.6): from what a document says of its encryption and a password to the key, when the
//! verifier in the document agrees. Which parts of which document are encrypted with it is not known here. Pure.

use crate::message::codec::{self, Padding};
use crate::unpack::ciphers::{self, BLOCK, Hash, Rc4};
use crate::unpack::field::{index, le16, le32, slice};
use crate::unpack::office;
use memchr::memmem;

/// Most rounds that are tried: ten times what Office does. More is there to waste our time.
pub(super) const ROUNDS: u32 = 1_000_000;
/// Rounds of the older way.
const STANDARD_ROUNDS: u32 = 50_000;
/// Keys for different people in one document.
const PEOPLE: usize = 4;

/// What is said of the encryption.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Said {
    /// RC4 with MD5, keys of 40 bits (2.3.6).
    Rc4 { salt: Vec<u8>, verifier: Vec<u8>, hash: Vec<u8> },
    /// What Windows encrypts with: RC4, or AES for packages (2.3.4.5, 2.3.5), with SHA-1.
    CryptoApi { aes: bool, bytes: usize, salt: Vec<u8>, verifier: Vec<u8>, hash: Vec<u8> },
    /// XML says how (2.3.4.10).
    Agile { data: Cipher, people: Vec<Person> },
}

/// Parameters of a cipher.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Cipher {
    hash: Hash,
    key: usize,
    salt: Vec<u8>,
}

/// A password that opens the document.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Person {
    cipher: Cipher,
    rounds: u32,
    input: Vec<u8>,
    value: Vec<u8>,
    key: Vec<u8>,
}

/// Opens a document.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Key {
    /// RC4, a key for each block made of this.
    Rc4 { hash: Hash, base: Vec<u8>, bytes: usize },
    /// AES, each block by itself.
    Standard(Vec<u8>),
    /// AES in chains of 4096 bytes.
    Agile { key: Vec<u8>, data: Cipher },
}

impl Said {
    /// What begins with the version. None: a way that is not known here.
    pub(super) fn read(info: &[u8]) -> Option<Said> {
        match (le16(info, 0)?, le16(info, 2)?) {
            (1, 1) => {
                let field = |at, length| Some(slice(info, at, length)?.to_vec());
                Some(Said::Rc4 { salt: field(4, 16)?, verifier: field(20, 16)?, hash: field(36, 16)? })
            }
            (2..=4, 2) => crypto_api(info),
            (4, 4) => agile(info.get(8..)?),
            _ => None,
        }
    }

    /// Whether trying a password takes long.
    pub(super) fn is_slow(&self) -> bool {
        match self {
            Said::Rc4 { .. } => false,
            Said::CryptoApi { aes, .. } => *aes,
            Said::Agile { .. } => true,
        }
    }

    /// Most rounds that it asks for.
    pub(super) fn rounds(&self) -> u32 {
        match self {
            Said::Rc4 { .. } => 0,
            Said::CryptoApi { .. } => STANDARD_ROUNDS,
            Said::Agile { people, .. } => people.iter().map(|person| person.rounds).min().unwrap_or(0),
        }
    }

    /// The key, when the password is right. `go_on`: whether there is time left.
    pub(super) fn key(&self, password: &str, go_on: &dyn Fn() -> bool) -> Option<Key> {
        let password: Vec<u8> = password.encode_utf16().flat_map(u16::to_le_bytes).collect();
        match self {
            Said::Rc4 { salt, verifier, hash } => {
                let short = Hash::Md5.of(&[&password]);
                let repeated = [&short[..5], salt].concat().repeat(16);
                let mut base = Hash::Md5.of(&[&repeated]);
                base.truncate(5);
                Key::Rc4 { hash: Hash::Md5, base, bytes: 16 }.verified(verifier, hash)
            }
            Said::CryptoApi { aes: false, bytes, salt, verifier, hash } => {
                let base = Hash::Sha1.of(&[salt, &password]);
                Key::Rc4 { hash: Hash::Sha1, base, bytes: *bytes }.verified(verifier, hash)
            }
            Said::CryptoApi { bytes, salt, verifier, hash, .. } => {
                let spun = Hash::Sha1.spun(&Hash::Sha1.of(&[salt, &password]), STANDARD_ROUNDS, go_on)?;
                let last = Hash::Sha1.of(&[&spun, &[0; 4]]);
                let mixed = |fill: u8| {
                    let mut block = [fill; 64];
                    block.iter_mut().zip(&last).for_each(|(to, from)| *to ^= from);
                    Hash::Sha1.of(&[&block])
                };
                let mut key = [mixed(0x36), mixed(0x5c)].concat();
                key.truncate(*bytes);
                let verifier = ciphers::ecb_decrypt(&key, verifier)?;
                let hash = ciphers::ecb_decrypt(&key, hash)?;
                (Hash::Sha1.of(&[&verifier]) == *hash.get(..20)?).then_some(Key::Standard(key))
            }
            Said::Agile { data, people } => people
                .iter()
                .filter(|person| person.rounds <= ROUNDS)
                .find_map(|person| Some(Key::Agile { key: person.key(&password, go_on)?, data: data.clone() })),
        }
    }
}

/// EncryptionHeader and EncryptionVerifier.
fn crypto_api(info: &[u8]) -> Option<Said> {
    let length = index(le32(info, 8)?);
    let header = slice(info, 12, length)?;
    let aes = match le32(header, 8)? {
        0x6801 => false,
        0x660e..=0x6610 => true,
        // Told by the flags: AES, or RC4.
        0 => le32(header, 0)? & 0x20 != 0,
        _ => return None,
    };
    let bytes = match (index(le32(header, 16)?) / 8, aes) {
        (0, false) => 5,
        (0, true) => 16,
        (bytes, _) => bytes,
    };
    let at = 12 + length;
    let salt = slice(info, at + 4, index(le32(info, at)?).min(64))?;
    let at = at + 4 + salt.len();
    let hash = slice(info, at + 20, if aes { 32 } else { 20 })?;
    let fits = if aes { [16, 24, 32].contains(&bytes) } else { (5..=16).contains(&bytes) };
    let (salt, verifier) = (salt.to_vec(), slice(info, at, 16)?.to_vec());
    fits.then(|| Said::CryptoApi { aes, bytes, salt, verifier, hash: hash.to_vec() })
}

fn agile(xml: &[u8]) -> Option<Said> {
    let xml = &*office::characters(xml);
    let elements = |name: &'static [u8]| {
        let starts = memmem::find_iter(xml, name).map(move |at| &xml[at + name.len()..]);
        starts.map(|rest| &rest[..memchr::memchr(b'>', rest).unwrap_or(rest.len())])
    };
    let data = elements(b"keyData").find_map(Cipher::read)?;
    let people: Vec<Person> = elements(b"encryptedKey").filter_map(Person::read).take(PEOPLE).collect();
    (!people.is_empty()).then_some(Said::Agile { data, people })
}

fn decoded(element: &[u8], name: &[u8]) -> Option<Vec<u8>> {
    Some(codec::base64(office::value(element, name)?, Padding::Ends).bytes)
}

fn number(element: &[u8], name: &[u8]) -> Option<u32> {
    std::str::from_utf8(office::value(element, name)?).ok()?.trim().parse().ok()
}

impl Cipher {
    fn read(element: &[u8]) -> Option<Cipher> {
        let hash = match office::value(element, b"hashAlgorithm")? {
            b"MD5" => Hash::Md5,
            b"SHA1" | b"SHA-1" => Hash::Sha1,
            b"SHA256" | b"SHA-256" => Hash::Sha256,
            b"SHA384" | b"SHA-384" => Hash::Sha384,
            b"SHA512" | b"SHA-512" => Hash::Sha512,
            _ => return None,
        };
        let known = office::value(element, b"cipherAlgorithm")? == b"AES"
            && office::value(element, b"cipherChaining")? == b"ChainingModeCBC";
        let key = index(number(element, b"keyBits")?) / 8;
        (known && [16, 24, 32].contains(&key)).then_some(Cipher { hash, key, salt: decoded(element, b"saltValue")? })
    }

    /// Decrypts with what is made of the salt and a number; without one, of the salt alone.
    fn decrypt(&self, key: &[u8], number: Option<u32>, data: &[u8]) -> Option<Vec<u8>> {
        let start =
            number.map_or_else(|| self.salt.clone(), |number| self.hash.of(&[&self.salt, &number.to_le_bytes()]));
        ciphers::cbc_decrypt(key, &filled(&start, BLOCK).try_into().ok()?, data)
    }
}

/// As long as is needed.
fn filled(bytes: &[u8], length: usize) -> Vec<u8> {
    bytes.iter().copied().chain(std::iter::repeat(0x36)).take(length).collect()
}

impl Person {
    fn read(element: &[u8]) -> Option<Person> {
        Some(Person {
            cipher: Cipher::read(element)?,
            rounds: number(element, b"spinCount")?,
            input: decoded(element, b"encryptedVerifierHashInput")?,
            value: decoded(element, b"encryptedVerifierHashValue")?,
            key: decoded(element, b"encryptedKeyValue")?,
        })
    }

    /// The key of the document (2.3.4.11 to 2.3.4.13).
    fn key(&self, password: &[u8], go_on: &dyn Fn() -> bool) -> Option<Vec<u8>> {
        let Cipher { hash, key, salt } = &self.cipher;
        let spun = hash.spun(&hash.of(&[salt, password]), self.rounds, go_on)?;
        let open = |purpose: [u8; 8], data: &[u8]| {
            self.cipher.decrypt(&filled(&hash.of(&[&spun, &purpose]), *key), None, data)
        };
        let input = open([0xfe, 0xa7, 0xd2, 0x76, 0x3b, 0x4b, 0x9e, 0x79], &self.input)?;
        let value = open([0xd7, 0xaa, 0x0f, 0x6d, 0x30, 0x61, 0x34, 0x4e], &self.value)?;
        let input = hash.of(&[&input[..salt.len().min(input.len())]]);
        if *value.get(..input.len())? != input {
            return None;
        }
        open([0x14, 0x6e, 0x0b, 0xe7, 0xab, 0xac, 0xd0, 0xd6], &self.key)
    }
}

impl Key {
    /// With what RC4 encrypts a block.
    pub(super) fn stream(&self, block: u32) -> Rc4 {
        let Key::Rc4 { hash, base, bytes } = self else { return Rc4::new(b"") };
        let mut key = hash.of(&[base, &block.to_le_bytes()]);
        key.truncate(*bytes);
        if *bytes == 5 {
            key.resize(16, 0);
        }
        Rc4::new(&key)
    }

    /// Whether it is right (2.3.6.4).
    fn verified(self, verifier: &[u8], hash: &[u8]) -> Option<Key> {
        let Key::Rc4 { hash: kind, .. } = &self else { return None };
        let mut stream = self.stream(0);
        let mut decrypted = |data: &[u8]| -> Vec<u8> { data.iter().map(|byte| byte ^ stream.next()).collect() };
        let (verifier, hash) = (decrypted(verifier), decrypted(hash));
        (kind.of(&[&verifier]) == hash).then_some(self)
    }

    /// A package, after its length (2.3.4.4).
    pub(super) fn package(&self, package: &[u8]) -> Option<Vec<u8>> {
        let (length, data) = package.split_first_chunk()?;
        let mut plain = match self {
            Key::Rc4 { .. } => return None,
            Key::Standard(key) => ciphers::ecb_decrypt(key, data)?,
            Key::Agile { key, data: cipher } => {
                let key = key.get(..cipher.key)?;
                let mut plain = Vec::with_capacity(data.len());
                for (number, segment) in (0..).zip(data.chunks(4096)) {
                    plain.extend(cipher.decrypt(key, Some(number), segment)?);
                }
                plain
            }
        };
        plain.truncate(index(u64::from_le_bytes(*length)));
        Some(plain)
    }
}
