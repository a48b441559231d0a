// SPDX-License-Identifier: GPL-3.0-or-later
//! The ciphers and digests of encrypted documents, with keys whose length is known only when they are read. AES and the digests come from the
//! crates of RustCrypto; RC4 is a few lines (it has no standard, RFC 6229 has vectors). For reading what others have locked, never to protect
//! anything. Pure.

use aes::cipher::{Array, BlockCipherDecrypt, BlockModeDecrypt, BlockModeEncrypt, KeyInit, KeyIvInit};
use aes::{Aes128, Aes192, Aes256, Block};
use md5::Md5;
use sha1::Sha1;
use sha2::digest::{FixedOutputReset, Output};
use sha2::{Digest, Sha256, Sha384, Sha512};

/// Bytes of a block of AES.
pub(super) const BLOCK: usize = 16;

/// A digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hash {
    Md5,
    Sha1,
    Sha256,
    Sha384,
    Sha512,
}

impl Hash {
    /// The digest of pieces that follow each other.
    pub(super) fn of(self, pieces: &[&[u8]]) -> Vec<u8> {
        fn run<D: Digest>(pieces: &[&[u8]]) -> Vec<u8> {
            let mut digest = D::new();
            pieces.iter().for_each(|piece| digest.update(piece));
            digest.finalize().to_vec()
        }
        match self {
            Hash::Md5 => run::<Md5>(pieces),
            Hash::Sha1 => run::<Sha1>(pieces),
            Hash::Sha256 => run::<Sha256>(pieces),
            Hash::Sha384 => run::<Sha384>(pieces),
            Hash::Sha512 => run::<Sha512>(pieces),
        }
    }
}

impl Hash {
    /// The digest of a counter and the digest before it, so many times, as Office makes guessing dear. None: `go_on` says that it takes too long.
    pub(super) fn spun(self, start: &[u8], rounds: u32, go_on: impl Fn() -> bool) -> Option<Vec<u8>> {
        fn run<D: Digest + FixedOutputReset>(start: &[u8], rounds: u32, go_on: impl Fn() -> bool) -> Option<Vec<u8>> {
            let mut digest = D::new();
            let mut value = Output::<D>::try_from(start).ok()?;
            for round in 0..rounds {
                if round % 4096 == 0 && !go_on() {
                    return None;
                }
                Digest::update(&mut digest, round.to_le_bytes());
                Digest::update(&mut digest, &value);
                Digest::finalize_into_reset(&mut digest, &mut value);
            }
            Some(value.to_vec())
        }
        match self {
            Hash::Md5 => run::<Md5>(start, rounds, go_on),
            Hash::Sha1 => run::<Sha1>(start, rounds, go_on),
            Hash::Sha256 => run::<Sha256>(start, rounds, go_on),
            Hash::Sha384 => run::<Sha384>(start, rounds, go_on),
            Hash::Sha512 => run::<Sha512>(start, rounds, go_on),
        }
    }
}

/// RC4: encrypts and decrypts alike. Without a key nothing changes.
pub(super) fn rc4(key: &[u8], data: &[u8]) -> Vec<u8> {
    let mut stream = Rc4::new(key);
    data.iter().map(|byte| byte ^ stream.next()).collect()
}

/// The bytes that RC4 adds.
pub(super) struct Rc4 {
    state: [u8; 256],
    i: u8,
    j: u8,
    idle: bool,
}

impl Rc4 {
    pub(super) fn new(key: &[u8]) -> Rc4 {
        let mut state: [u8; 256] = std::array::from_fn(|place| place as u8);
        let mut j = 0u8;
        for (i, byte) in (0..=255u8).zip(key.iter().cycle()) {
            j = j.wrapping_add(state[usize::from(i)]).wrapping_add(*byte);
            state.swap(usize::from(i), usize::from(j));
        }
        Rc4 { state, i: 0, j: 0, idle: key.is_empty() }
    }

    pub(super) fn next(&mut self) -> u8 {
        if self.idle {
            return 0;
        }
        self.i = self.i.wrapping_add(1);
        self.j = self.j.wrapping_add(self.state[usize::from(self.i)]);
        self.state.swap(usize::from(self.i), usize::from(self.j));
        let place = self.state[usize::from(self.i)].wrapping_add(self.state[usize::from(self.j)]);
        self.state[usize::from(place)]
    }
}

/// AES in cipher block chaining, whole blocks; what follows the last whole block is dropped, padding stays. None: no key of AES.
pub(super) fn cbc_decrypt(key: &[u8], iv: &[u8; BLOCK], data: &[u8]) -> Option<Vec<u8>> {
    let mut blocks = blocks(data);
    let iv = &Array::from(*iv);
    match key.len() {
        16 => cbc::Decryptor::<Aes128>::new(&Array::try_from(key).ok()?, iv).decrypt_blocks(&mut blocks),
        24 => cbc::Decryptor::<Aes192>::new(&Array::try_from(key).ok()?, iv).decrypt_blocks(&mut blocks),
        32 => cbc::Decryptor::<Aes256>::new(&Array::try_from(key).ok()?, iv).decrypt_blocks(&mut blocks),
        _ => return None,
    }
    Some(blocks.into_iter().flatten().collect())
}

/// The other way, for keys of 128 bits: one of the digests of PDF is made with it.
pub(super) fn cbc_encrypt(key: &[u8; BLOCK], iv: &[u8; BLOCK], data: &[u8]) -> Vec<u8> {
    let mut blocks = blocks(data);
    cbc::Encryptor::<Aes128>::new(&Array::from(*key), &Array::from(*iv)).encrypt_blocks(&mut blocks);
    blocks.into_iter().flatten().collect()
}

/// AES, each block by itself.
pub(super) fn ecb_decrypt(key: &[u8], data: &[u8]) -> Option<Vec<u8>> {
    let mut blocks = blocks(data);
    match key.len() {
        16 => Aes128::new(&Array::try_from(key).ok()?).decrypt_blocks(&mut blocks),
        24 => Aes192::new(&Array::try_from(key).ok()?).decrypt_blocks(&mut blocks),
        32 => Aes256::new(&Array::try_from(key).ok()?).decrypt_blocks(&mut blocks),
        _ => return None,
    }
    Some(blocks.into_iter().flatten().collect())
}

fn blocks(data: &[u8]) -> Vec<Block> {
    data.chunks_exact(BLOCK).filter_map(|block| Array::try_from(block).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::codec;

    fn bytes(digits: &str) -> Vec<u8> {
        digits.as_bytes().chunks(2).filter_map(codec::hex_pair).collect()
    }

    /// RFC 6229, keys of 40 and 128 bits.
    #[test]
    fn rc4_as_published() {
        assert_eq!(rc4(&bytes("0102030405"), &[0; 16]), bytes("b2396305f03dc027ccc3524a0a1118a8"));
        let key = bytes("0102030405060708090a0b0c0d0e0f10");
        assert_eq!(rc4(&key, &[0; 16]), bytes("9ac7cc9a609d1ef7b2932899cde41b97"));
        assert_eq!(rc4(b"", b"as it is"), b"as it is");
    }

    /// NIST SP 800-38A, F.1.1, F.1.6 and F.2.1, F.2.6.
    #[test]
    fn aes_as_published() {
        let key = bytes("2b7e151628aed2a6abf7158809cf4f3c");
        let long = bytes("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4");
        let plain = bytes("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51");
        let iv: [u8; 16] = std::array::from_fn(|place| place as u8);
        let cbc = bytes("7649abac8119b246cee98e9b12e9197d5086cb9b507219ee95db113a917678b2");
        let short: [u8; 16] = key.clone().try_into().unwrap();
        assert_eq!(cbc_encrypt(&short, &iv, &plain), cbc);
        assert_eq!(cbc_decrypt(&key, &iv, &[&cbc[..], b"rest"].concat()).unwrap(), plain);
        let cbc = bytes("f58c4c04d6e5f1ba779eabfb5f7bfbd69cfc4e967edb808d679f777bc6702c7d");
        assert_eq!(cbc_decrypt(&long, &iv, &cbc).unwrap(), plain);
        let ecb = bytes("3ad77bb40d7a3660a89ecaf32466ef97f5d3d58503b9699de785895a96fdbaaf");
        assert_eq!(ecb_decrypt(&key, &ecb).unwrap(), plain);
        assert_eq!(ecb_decrypt(b"short", &ecb), None);
        assert_eq!(cbc_decrypt(b"", &iv, &cbc), None);
    }

    #[test]
    fn digests_of_pieces() {
        assert_eq!(Hash::Md5.of(&[b"a", b"bc"]), bytes("900150983cd24fb0d6963f7d28e17f72"));
        assert_eq!(Hash::Sha1.of(&[b"abc"]), bytes("a9993e364706816aba3e25717850c26c9cd0d89d"));
        let once = Hash::Sha1.of(&[&[0; 4], b"any twenty bytes here"[..20].into()]);
        assert_eq!(Hash::Sha1.spun(&b"any twenty bytes here"[..20], 1, || true), Some(once));
        assert_eq!(Hash::Sha1.spun(&[0; 20], 1, || false), None);
        assert_eq!(Hash::Sha512.spun(&[0; 20], 1, || true), None, "no digest of this kind");
        for (hash, length) in [(Hash::Sha256, 32), (Hash::Sha384, 48), (Hash::Sha512, 64)] {
            assert_eq!(hash.of(&[b"ab", b"c"]).len(), length);
        }
    }
}
