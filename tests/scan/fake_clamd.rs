// SPDX-License-Identifier: GPL-3.0-or-later
//! With a clamd that misbehaves: every way it can fail is a failure with its reason, in time, and never "clean".

use crate::{Inspector, letter_of};
use contentd::findings::Outcome;
use std::io::Write;
use std::time::Duration;
use tests::fake_clamd::{FakeClamd, Manner};
use tokio::time::Instant;

/// Short limits, so that the tests that run into them are short.
const LIMITS: &str = "send_timeout = \"300ms\"\nscan_timeout = \"300ms\"";

/// More than all socket buffers on the way hold.
const LARGE: usize = 12_000_000;

async fn outcome(manner: Manner, size: usize) -> Outcome {
    let fake = FakeClamd::start(manner).await;
    Inspector::with_clamd(fake.address(), LIMITS).outcome(&letter_of(size)).await
}

#[tokio::test]
async fn every_failure_is_a_failure() {
    for (manner, size, reason) in [
        (Manner::CloseAfter(0), 1000, "connection lost while"),
        (Manner::CloseAfter(100_000), LARGE, "connection lost while"),
        (Manner::Silent, 1000, "no answer in time while waiting for the answer"),
        (Manner::Deaf, LARGE, "no answer in time while sending"),
        (Manner::Deaf, 1000, "no answer in time while waiting for the answer"),
        (Manner::Garbage, 1000, "it sent something that is no answer: ??gibberish"),
        (Manner::WrongNumber, 1000, "it sent something that is no answer: an answer to command 7"),
        (Manner::HalfAnswer, 1000, "no answer in time while waiting for the answer"),
        (Manner::CutAnswer, 1000, "it sent something that is no answer: 1: str"),
        (Manner::Error, 1000, "it says: stream: Can't allocate memory"),
        (Manner::Endless, 1000, "it sent something that is no answer: xxx"),
        (Manner::Slow(Duration::from_secs(30)), 1000, "no answer in time while waiting for the answer"),
    ] {
        match outcome(manner, size).await {
            Outcome::Failed(why) => assert!(why.starts_with(reason), "{manner:?} {size}: {why}"),
            other => panic!("{manner:?} {size}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn an_early_answer_is_read_although_the_pipe_is_broken() {
    for limit in [0, 1000, 100_000, 5_000_000] {
        let expected = Outcome::Incomplete("clamd's StreamMaxLength".into());
        assert_eq!(outcome(Manner::SizeLimit(limit), LARGE).await, expected, "{limit}");
    }
}

#[tokio::test]
async fn an_answer_may_come_letter_by_letter() {
    assert_eq!(outcome(Manner::Dribble, 1000).await, Outcome::Clean);
}

/// Eight samples are under way at once, each answered 20 ms late; and what is found last is found.
#[tokio::test]
async fn the_parts_of_a_message_do_not_wait_for_each_other() {
    let fake = FakeClamd::start(Manner::Slow(Duration::from_millis(20))).await;
    let inspector = Inspector::with_clamd(fake.address(), "");
    let members = |last: &[u8]| {
        let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        for number in 0..40 {
            archive.start_file(format!("{number}.txt"), zip::write::SimpleFileOptions::default()).unwrap();
            archive.write_all(if number == 39 { last } else { b"nothing" }).unwrap();
        }
        crate::US.attached("x", "a.zip", archive.finish().unwrap().into_inner()).bytes
    };
    assert_eq!(inspector.outcome(&members(b"nothing")).await, Outcome::Clean);
    assert_eq!(fake.connections(), 1);
    let before = fake.streams();
    assert_eq!(before, 42, "the message, the archive, its members");
    assert_eq!(inspector.outcome(&members(b"EICAR")).await, Outcome::Infected(vec!["Fake.Eicar".into()]));
}

/// The fake's signatures are of 1970.
#[tokio::test]
async fn old_signatures_are_noted() {
    let fake = FakeClamd::start(Manner::Proper).await;
    for (age, noted) in [("7d", true), ("0s", false), ("36500d", false)] {
        let lines =
            format!("[antivirus]\nmax_signature_age = \"{age}\"\n[antivirus.clamd]\naddress = \"{}\"", fake.address());
        let inspector = Inspector::new(&lines);
        let (findings, verdict) = inspector.inspect(&letter_of(1000)).await;
        assert_eq!(verdict.category.word(), "clean");
        assert_eq!(findings.scans[0].version.as_deref(), Some("ClamAV 0.0.0/0"));
        assert!(findings.scans[0].signatures_age.is_some_and(|age| age > Duration::from_secs(50 * 365 * 86_400)));
        let old: Vec<_> = findings.found.iter().filter(|finding| finding.kind.word() == "old-signatures").collect();
        assert_eq!(old.len(), usize::from(noted), "{age}: {old:?}");
        assert!(inspector.pipeline.ready().await.unwrap().contains("ClamAV 0.0.0/0, signatures "));
    }
}

#[tokio::test]
async fn nothing_listening_is_a_failure() {
    let inspector = Inspector::with_clamd("127.0.0.1:1", LIMITS);
    match inspector.outcome(b"Subject: x\r\n\r\n").await {
        Outcome::Failed(why) => assert!(why.starts_with("cannot connect to 127.0.0.1:1"), "{why}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn sessions_are_used_again() {
    let fake = FakeClamd::start(Manner::Proper).await;
    let inspector = Inspector::with_clamd(fake.address(), LIMITS);
    for _ in 0..5 {
        assert_eq!(inspector.outcome(&letter_of(1000)).await, Outcome::Clean);
    }
    assert_eq!((fake.connections(), fake.streams()), (1, 5));
}

#[tokio::test]
async fn old_sessions_are_not() {
    let fake = FakeClamd::start(Manner::Proper).await;
    let inspector = Inspector::with_clamd(fake.address(), "idle_timeout = \"0s\"");
    for _ in 0..3 {
        assert_eq!(inspector.outcome(&letter_of(1000)).await, Outcome::Clean);
    }
    assert_eq!(fake.connections(), 3);
}

#[tokio::test]
async fn a_stale_session_is_tried_again_on_a_fresh_one() {
    let fake = FakeClamd::start(Manner::OneEach).await;
    let inspector = Inspector::with_clamd(fake.address(), LIMITS);
    for round in 0..5 {
        let expected = Outcome::Infected(vec!["Fake.Eicar".into()]);
        assert_eq!(inspector.outcome(b"Subject: x\r\n\r\nEICAR\r\n").await, expected, "{round}");
    }
    assert_eq!(fake.streams(), 5);
}

#[tokio::test]
async fn connections_are_limited_and_scans_wait() {
    let fake = FakeClamd::start(Manner::Slow(Duration::from_millis(20))).await;
    let inspector = Inspector::with_clamd(fake.address(), "max_connections = 2");
    let scans = (0..10).map(|_| async { assert_eq!(inspector.outcome(&letter_of(1000)).await, Outcome::Clean) });
    let mut scans: Vec<_> = scans.map(Box::pin).collect();
    // All at once, on this task.
    std::future::poll_fn(|context| {
        scans.retain_mut(|scan| scan.as_mut().poll(context).is_pending());
        if scans.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    assert_eq!((fake.connections(), fake.streams()), (2, 10));
}

#[tokio::test]
async fn a_deadline_ends_a_scan() {
    let fake = FakeClamd::start(Manner::Silent).await;
    let inspector = Inspector::with_clamd(fake.address(), "");
    let started = Instant::now();
    let (_, verdict) = inspector.inspect_until(&letter_of(1000), started + Duration::from_millis(200)).await;
    assert_eq!((verdict.category.word(), verdict.destiny.word()), ("unchecked", "tempfail"));
    assert!(started.elapsed() < Duration::from_secs(10));
}
