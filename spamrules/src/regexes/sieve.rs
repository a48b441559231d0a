// SPDX-License-Identifier: GPL-3.0-or-later
//! Looks for many skeletons in a text at once: each step of each is one bit of a word, and one pass over the text moves all of them on
//! (the shift-and method of Baeza-Yates and Gonnet, with bytes that may be passed over).

use super::skeleton::Skeleton;

/// Words that are moved on together: as many as registers hold.
const LANES: usize = 4;
/// Steps that one word holds.
const BITS: usize = 64;

/// Words with the tables that move them on.
#[derive(Debug)]
struct Block {
    /// Per byte the steps that it may be the first of.
    first: Vec<[u64; LANES]>,
    /// Per byte the steps that it may follow.
    then: Vec<[u64; LANES]>,
    begins: [u64; LANES],
    ends: [u64; LANES],
    /// Per bit that ends a skeleton its number.
    numbers: Vec<(usize, u64, u32)>,
}

/// Finds out which of some skeletons are in a text.
#[derive(Debug, Default)]
pub(super) struct Sieve {
    blocks: Vec<Block>,
}

impl Sieve {
    /// A sieve for skeletons, each with a number of the caller's.
    pub(super) fn new<'a>(skeletons: impl IntoIterator<Item = (u32, &'a Skeleton)>) -> Sieve {
        let mut sieve = Sieve::default();
        // Where the next skeleton goes: the word within the last block, and the bit.
        let (mut lane, mut bit) = (LANES, 0);
        for (number, skeleton) in skeletons {
            if lane < LANES && bit + skeleton.steps.len() > BITS {
                (lane, bit) = (lane + 1, 0);
            }
            if lane >= LANES {
                sieve.blocks.push(Block::default());
                (lane, bit) = (0, 0);
            }
            if let Some(block) = sieve.blocks.last_mut() {
                block.put(number, skeleton, lane, bit);
            }
            bit += skeleton.steps.len();
        }
        sieve
    }

    /// Calls with the number of each skeleton that is in a text, and the place of the text.
    pub(super) fn find(&self, texts: &[&[u8]], mut found: impl FnMut(u32, u32)) {
        for block in &self.blocks {
            for (text, bytes) in (0u32..).zip(texts) {
                let seen = block.run(bytes);
                if seen == [0; LANES] {
                    continue;
                }
                for &(lane, bit, number) in &block.numbers {
                    if seen.get(lane).is_some_and(|word| word & bit != 0) {
                        found(number, text);
                    }
                }
            }
        }
    }
}

impl Default for Block {
    fn default() -> Block {
        Block {
            first: vec![[0; LANES]; 256],
            then: vec![[0; LANES]; 256],
            begins: [0; LANES],
            ends: [0; LANES],
            numbers: Vec::new(),
        }
    }
}

impl Block {
    fn put(&mut self, number: u32, skeleton: &Skeleton, lane: usize, bit: usize) {
        let last = skeleton.steps.len().saturating_sub(1);
        for (place, step) in skeleton.steps.iter().enumerate() {
            let mark = 1u64 << ((bit + place) % BITS);
            for byte in 0..=u8::MAX {
                let put = |table: &mut Vec<[u64; LANES]>, is_in: bool| {
                    if let Some(word) = table.get_mut(usize::from(byte)).and_then(|words| words.get_mut(lane)) {
                        *word |= if is_in { mark } else { 0 };
                    }
                };
                put(&mut self.first, step.first.contains(byte));
                put(&mut self.then, step.then.contains(byte));
            }
            let put = |words: &mut [u64; LANES], is_it: bool| {
                if let Some(word) = words.get_mut(lane) {
                    *word |= if is_it { mark } else { 0 };
                }
            };
            put(&mut self.begins, place == 0);
            put(&mut self.ends, place == last);
            if place == last {
                self.numbers.push((lane, mark, number));
            }
        }
    }

    /// The last steps that were reached.
    fn run(&self, text: &[u8]) -> [u64; LANES] {
        let (Ok(first), Ok(then)) = (
            <&[[u64; LANES]; 256]>::try_from(self.first.as_slice()),
            <&[[u64; LANES]; 256]>::try_from(self.then.as_slice()),
        ) else {
            return [u64::MAX; LANES];
        };
        let (begins, ends) = (self.begins, self.ends);
        let mut state = [0u64; LANES];
        let mut seen = [0u64; LANES];
        for &byte in text {
            let (first, then) = (&first[usize::from(byte)], &then[usize::from(byte)]);
            for lane in 0..LANES {
                let moved = ((state[lane] << 1) | begins[lane]) & first[lane];
                state[lane] = moved | (state[lane] & then[lane]);
                seen[lane] |= state[lane];
            }
        }
        for lane in 0..LANES {
            seen[lane] &= ends[lane];
        }
        seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(patterns: &[&str], text: &str) -> Vec<u32> {
        let skeletons: Vec<Skeleton> = patterns.iter().map(|pattern| Skeleton::first(pattern).unwrap()).collect();
        let sieve = Sieve::new((0..).zip(&skeletons));
        let mut all = Vec::new();
        sieve.find(&[text.as_bytes()], |number, _| all.push(number));
        all.sort_unstable();
        all
    }

    #[test]
    fn several_at_once() {
        let patterns: Vec<String> =
            ('a'..='z').map(|letter| format!("[{letter}1][{letter}2][{letter}3][_-]{{0,3}}[{letter}4]")).collect();
        let patterns: Vec<&str> = patterns.iter().map(String::as_str).collect();
        assert_eq!(found(&patterns, "b2b_-4  zz3-_-_-z"), [1, 25]);
        assert_eq!(found(&patterns, "bbb b ccx4c a-"), [] as [u32; 0]);
    }

    proptest::proptest! {
        #[test]
        fn nothing_that_matches_is_lost(pattern in r"[a-d\[\](){}|*+?.,0-3\\w_]{1,30}", text in "[a-d_ ]{0,24}") {
            if let (Some(skeleton), Ok(regex)) = (
                Skeleton::first(&pattern),
                regex::bytes::RegexBuilder::new(&pattern).unicode(false).build(),
            ) && regex.is_match(text.as_bytes()) {
                let mut met = false;
                Sieve::new([(0, &skeleton)]).find(&[text.as_bytes()], |_, _| met = true);
                proptest::prop_assert!(met);
            }
        }
    }
}
