// SPDX-License-Identifier: GPL-3.0-or-later
//! What is remembered about a message between its requests: that it has its X-Greylist header already. Postfix
//! writes one header for each PREPEND, and asks once per recipient.
//!
//! In memory of this process and bounded; an `instance` is unique on its Postfix host only, so the host's part of
//! the key is what the requests of one message share: instance and client.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Mutex;

/// Messages remembered per generation. Only messages that got a header are remembered.
const GENERATION: usize = 8192;

/// The messages that have their header: two generations, the older one is forgotten when the younger one is full.
#[derive(Debug, Default)]
pub struct Sessions {
    hasher: RandomState,
    generations: Mutex<[HashSet<u64>; 2]>,
}

impl Sessions {
    /// True the first time this message asks. A request without `instance` is always the first.
    pub fn first_header(&self, instance: &str, client: Option<IpAddr>) -> bool {
        if instance.is_empty() {
            return true;
        }
        let key = self.hasher.hash_one((instance, client));
        // A panic of another thread leaves nothing half done here.
        let mut generations = self.generations.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let [young, old] = &mut *generations;
        if young.contains(&key) || old.contains(&key) {
            return false;
        }
        if young.len() >= GENERATION {
            std::mem::swap(young, old);
            young.clear();
        }
        young.insert(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));

    #[test]
    fn a_message_is_first_once() {
        let sessions = Sessions::default();
        assert!(sessions.first_header("1.a", CLIENT));
        assert!(!sessions.first_header("1.a", CLIENT));
        assert!(sessions.first_header("1.a", None), "another host's message may have the same instance");
        assert!(sessions.first_header("1.b", CLIENT));
        assert!(sessions.first_header("", CLIENT) && sessions.first_header("", CLIENT));
    }

    #[test]
    fn memory_is_bounded() {
        let sessions = Sessions::default();
        for number in 0..3 * GENERATION {
            assert!(sessions.first_header(&number.to_string(), CLIENT));
        }
        assert!(!sessions.first_header(&(3 * GENERATION - 1).to_string(), CLIENT));
        let generations = sessions.generations.lock().unwrap();
        assert!(generations.iter().all(|generation| generation.len() <= GENERATION));
    }
}
