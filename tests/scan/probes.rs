// SPDX-License-Identifier: GPL-3.0-or-later
//! Every message that hides a file from some program is seen through: the file reaches the scanners, decoded, and so do all spellings
//! of its name.

use crate::Inspector;
use bytes::Bytes;
use contentd::budget::{self, Budget};
use contentd::message::Limits;
use contentd::message::parts::{self, Kept, View};
use contentd::unpack::unpack;
use std::collections::HashSet;
use std::time::{Duration, Instant};
use tests::clamd::Clamd;
use tests::letters::eicar;
use tests::probes::{self, NAMES, Probe};

/// What the scanners get of a message besides the message itself, and what was found.
fn samples(message: &[u8]) -> (Vec<Bytes>, View) {
    let message = Bytes::copy_from_slice(message);
    let (size, limits) = (message.len() as u64, Limits::default());
    let until = Instant::now() + Duration::from_secs(120);
    let mut budget = Budget::new(&budget::Limits::default(), size, limits.readings(size), until);
    let view = parts::walk(&message, &limits, &mut budget);
    let mut given = Vec::new();
    let view = unpack(view, &limits, &mut budget, &mut |kept: Kept| given.push(kept.bytes));
    (given, view)
}

/// A file that no scanner takes for text: it is given to them by itself.
fn marker() -> Vec<u8> {
    [b"MZ\x90\0\x03\0\0\0", "the hidden file, long enough for several lines of any encoding ".repeat(2).as_bytes()]
        .concat()
}

#[test]
fn every_probe_shows_its_file() {
    let marker = marker();
    let probes = probes::all(&marker);
    let names: HashSet<_> = probes.iter().map(|probe| probe.name).collect();
    assert_eq!(names.len(), probes.len(), "two probes of one name");
    assert!(probes.len() >= 57, "{}", probes.len());
    let seen =
        |probe: &&Probe| samples(&probe.message).0.iter().any(|bytes| bytes.windows(marker.len()).any(|w| w == marker));
    let missed: Vec<_> = probes.iter().filter(|probe| !seen(probe)).map(|probe| probe.name).collect();
    assert_eq!(missed, [] as [&str; 0]);
}

#[test]
fn every_spelling_of_a_name_is_seen() {
    let seen = |fields: &str| {
        let (_, view) = samples(&probes::named(fields));
        view.parts.iter().flat_map(|part| &part.names).any(|name| name.ends_with(".exe"))
    };
    let missed: Vec<_> = NAMES.iter().filter(|(_, fields)| !seen(fields)).map(|(name, _)| name).collect();
    assert_eq!(missed, [] as [&&str; 0]);
}

#[tokio::test]
async fn a_banned_name_is_refused_in_every_spelling() {
    let inspector = Inspector::new("");
    for (name, fields) in NAMES {
        assert_eq!(inspector.verdict(&probes::named(fields)).await, "banned reject banned", "{name}");
    }
}

/// The same with a real scanner, which gets the message as well as all that we make of it, or what we make of it alone.
#[tokio::test]
async fn clamd_finds_the_virus_in_every_probe() {
    let clamd = Clamd::start();
    for originals in ["\"mail\", \"archives\"", ""] {
        let lines =
            format!("[antivirus]\noriginals = [{originals}]\n[antivirus.clamd]\naddress = \"{}\"", clamd.address());
        let inspector = Inspector::new(&lines);
        let mut missed = Vec::new();
        for Probe { name, message } in probes::all(&eicar()) {
            let (_, verdict) = inspector.inspect(&message).await;
            if verdict.category != contentd::verdict::Category::Virus {
                missed.push(name);
            }
        }
        assert_eq!(missed, [] as [&str; 0], "{originals}");
    }
}
