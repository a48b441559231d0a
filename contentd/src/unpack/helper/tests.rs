// SPDX-License-Identifier: GPL-3.0-or-later
//! Real helpers: this test program starts itself as one, and files that begin with a certain word make it misbehave.

use super::*;
use crate::budget::{self, Budget};
use crate::findings::Part;
use crate::message::Limits;
use crate::message::parts::{Kept, View};
use crate::unpack::{Means, unpack_with};
use common::units::Period;

/// What a bzip2 begins with, and what orders stand behind.
const ORDER: &[u8] = b"BZh91AY&SY order: ";

/// What only this program does on order.
pub(super) fn misbehave(data: &[u8]) {
    match data.strip_prefix(ORDER) {
        Some(b"abort") => std::process::abort(),
        Some(b"overflow") => assert_eq!(down(0), 0),
        Some(b"memory") => {
            let mut hoard = Vec::new();
            loop {
                hoard.push(vec![1u8; 1 << 20]);
            }
        }
        Some(b"panic") => panic!("on order"),
        Some(b"loop") => loop {
            std::hint::black_box(());
        },
        Some(b"leave") => std::process::exit(3),
        Some(b"wait") => {
            let (_stays, nothing) = std::sync::mpsc::channel::<()>();
            let _ = nothing.recv();
        }
        _ => {}
    }
}

#[allow(unconditional_recursion)]
fn down(depth: u64) -> u64 {
    let room = std::hint::black_box([depth; 64]);
    down(room[3] + 1) + room[7]
}

/// Not a test: what the others start.
#[test]
#[ignore = "the helper of the other tests"]
fn helper() {
    let ended = process::run(600_000_000);
    std::process::exit(i32::from(ended.is_err()));
}

fn program() -> Program {
    let arguments = ["--exact", "unpack::helper::tests::helper", "--ignored", "--test-threads=1", "--nocapture"];
    Program { file: "/proc/self/exe".into(), arguments: arguments.map(OsString::from).into() }
}

fn pool(count: usize, jobs: u64) -> Arc<Helpers> {
    Helpers::new(program(), &UnpackSettings { helpers: count, helper_jobs: jobs, ..UnpackSettings::default() })
}

/// Opens a file as part 1; what was found, and the paths of its members.
fn opened(
    helpers: Option<&Helpers>,
    bytes: &[u8],
    limits: budget::Limits,
    wall: Duration,
) -> (Vec<String>, Vec<String>) {
    let part = Part {
        path: "1".into(),
        names: vec!["a.bz2".to_owned()],
        types: Vec::new(),
        detected_type: String::new(),
        size: bytes.len() as u64,
        digest: Default::default(),
        container: None,
        leaf: true,
    };
    let mut budget = Budget::new(&limits, bytes.len() as u64, 1 << 20, Instant::now() + wall);
    let kept = Kept { path: "1".into(), bytes: bytes.to_vec().into(), alike: false };
    let view = View { parts: vec![part], kept: vec![kept], ..View::default() };
    let view = unpack_with(Means { helpers, ..Means::default() }, view, &Limits::default(), &mut budget, &mut |_| {});
    let found = view.findings.iter().map(|finding| format!("{} {}", finding.kind.word(), finding.detail)).collect();
    let members =
        view.parts[1..].iter().map(|part| format!("{} {} {:02x?}", part.path, part.size, part.digest)).collect();
    (found, members)
}

fn open(helpers: &Helpers, bytes: &[u8]) -> (Vec<String>, Vec<String>) {
    opened(Some(helpers), bytes, budget::Limits::default(), Duration::from_secs(120))
}

fn packed(content: &[u8]) -> Vec<u8> {
    let mut packer = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    std::io::Write::write_all(&mut packer, content).unwrap();
    packer.finish().unwrap()
}

#[test]
fn what_a_helper_must_not_do_is_refused() {
    let confinement = pool(1, 10).probe().unwrap();
    assert!(confinement.seccomp, "{confinement}");
    assert_eq!(confinement.possible, [""; 0]);
}

#[test]
fn members_are_the_same_here_and_there() {
    let helpers = pool(1, 100);
    let limits = budget::Limits::default();
    let small = budget::Limits { member_bytes: common::units::Size(1000), ..limits };
    let scarce = budget::Limits { expansion: 1, min_bytes: common::units::Size(5000), ..limits };
    let whole = packed(&b"0123456789".repeat(100_000));
    let cut = &whole[..whole.len() - 20];
    for (bytes, limits) in
        [(&whole[..], limits), (cut, limits), (&whole, small), (&whole, scarce), (&ORDER[..10], limits)]
    {
        let wall = Duration::from_secs(120);
        let here = opened(None, bytes, limits, wall);
        assert_eq!(opened(Some(&helpers), bytes, limits, wall), here);
        assert!(!here.1.is_empty() || !here.0.is_empty());
    }
}

#[test]
fn a_helper_that_ends_costs_one_finding_and_the_next_job_is_done() {
    let helpers = pool(1, 1000);
    let good = packed(b"hello");
    let order = |word: &str| [ORDER, word.as_bytes()].concat();
    for (word, told) in [
        ("abort", "decoder-failed the decoder of bzip2 crashed"),
        ("overflow", "decoder-failed the decoder of bzip2 crashed"),
        ("memory", "decoder-failed the decoder of bzip2 crashed"),
        ("leave", "decoder-failed the decoder of bzip2 crashed"),
        ("panic", "decoder-failed the decoder of bzip2 broke off"),
    ] {
        let (found, members) = open(&helpers, &order(word));
        assert_eq!((found, members.len()), (vec![told.to_owned()], 0), "{word}");
        let (found, members) = open(&helpers, &good);
        assert_eq!((found.len(), members.len()), (0, 1), "after {word}: {found:?}");
    }
}

#[test]
fn time_has_an_end() {
    let helpers = pool(1, 1000);
    let order = |word: &str| [ORDER, word.as_bytes()].concat();
    let cpu = budget::Limits { cpu: Period::seconds(1), ..budget::Limits::default() };
    let (found, _) = opened(Some(&helpers), &order("loop"), cpu, Duration::from_secs(600));
    assert_eq!(found, ["over-limits cpu"]);
    let (found, _) = opened(Some(&helpers), &order("wait"), budget::Limits::default(), Duration::from_millis(300));
    assert_eq!(found, ["over-limits time"]);
    assert_eq!(open(&helpers, &packed(b"hello")).1.len(), 1);
}

#[test]
fn one_that_was_killed_while_idle_costs_nothing() {
    let helpers = pool(2, 1000);
    helpers.fill();
    for helper in &mut helpers.lock().idle {
        helper.kill();
        while helper.is_alive() {
            std::thread::yield_now();
        }
    }
    assert_eq!(open(&helpers, &packed(b"hello")).0, [""; 0]);
}

#[test]
fn a_program_that_is_no_helper_leaves_files_unchecked() {
    let helpers = Helpers::new(Program::at("/nonexistent"), &UnpackSettings::default());
    assert!(helpers.probe().is_err());
    let (found, _) = open(&helpers, &packed(b"hello"));
    assert_eq!(found, ["decoder-failed the decoder of bzip2 could not be started"]);
}

#[test]
fn ten_thousand_jobs_leave_no_descriptor_behind() {
    let helpers = pool(2, 50);
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let good = packed(b"hello");
    let first = open(&helpers, &good);
    let before = descriptors();
    for _ in 0..10_000 {
        assert_eq!(open(&helpers, &good), first);
    }
    // Other tests have some of their own. 200 helpers were started, with two each.
    assert!(descriptors() < before + 100, "{before} before, {} after", descriptors());
    assert_eq!(helpers.lock().out, 0);
}
