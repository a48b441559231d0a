// SPDX-License-Identifier: GPL-3.0-or-later
//! With a real clamd: what it finds, what its limits and its absence mean, over both kinds of socket.

use crate::{Inspector, LATER, US, letter_of};
use contentd::findings::Outcome;
use contentd::message::edit::HeaderSettings;
use contentd::message::own;
use std::io::{Cursor, Write};
use std::sync::Arc;
use std::time::Duration;
use tests::clamd::{Clamd, Setup};
use tests::letters::{eicar, zipped};
use tests::ports::free_port;
use tests::probes::base64;
use tests::process::await_that;
use tokio::time::Instant;
use zip::write::SimpleFileOptions;

const VIRUS: &str = "virus reject virus";
const CLEAN: &str = "clean pass clean";

fn infected_letter() -> Vec<u8> {
    US.attached("invoice", "invoice.zip", zipped("invoice.txt", &eicar())).bytes
}

fn clean_letter() -> Vec<u8> {
    US.attached("minutes", "minutes.zip", zipped("minutes.txt", b"We met and parted.")).bytes
}

#[tokio::test]
async fn viruses_are_found_over_both_sockets() {
    let clamd = Clamd::start_with(&Setup { tcp_port: Some(free_port()), ..Setup::default() });
    for address in [clamd.address(), clamd.tcp_address()] {
        let inspector = Inspector::with_clamd(&address, "");
        assert_eq!(inspector.verdict(&infected_letter()).await, VIRUS, "{address}");
        assert_eq!(inspector.verdict(&clean_letter()).await, CLEAN, "{address}");
        let (findings, verdict) = inspector.inspect(&infected_letter()).await;
        assert_eq!(findings.viruses(), ["Eicar-Test-Signature.UNOFFICIAL"]);
        assert!(findings.scans[0].version.as_deref().is_some_and(|version| version.starts_with("ClamAV 1.")));
        let reply = verdict.reply.expect("a refusal has a reply");
        let expected = format!("554 5.7.0 Reject, id={} - INFECTED: Eicar-Test-Signature.UNOFFICIAL", findings.id);
        assert_eq!(reply.first_line(), expected);
        assert!(inspector.pipeline.ready().await.unwrap().starts_with("clamd: ClamAV 1."));
    }
}

/// Whatever one reader of a message misses, another one sees.
#[tokio::test]
async fn hidden_viruses_are_found() {
    let clamd = Clamd::start();
    let inspector = Inspector::with_clamd(&clamd.address(), "");
    let decoded_only = crate::originals::inspector(&clamd.address(), "");
    let encoded = base64(&eicar());
    let (first, rest) = encoded.split_at(41);
    let head = "From: a@sender.test\r\nDate: Sun, 22 Nov 2026 12:00:00 +0000\r\n";
    let zip = base64(&zipped("x.txt", &eicar()));
    let (zip_first, zip_rest) = zip.split_at(81);
    let inner = format!("{head}Content-Transfer-Encoding: base64\r\n\r\n{encoded}\r\n");
    for (name, fields, body) in [
        ("plain base64", "Content-Transfer-Encoding: base64", encoded.clone()),
        ("junk", "Content-Transfer-Encoding: base64", format!("{first}#{rest}")),
        ("eight-bit junk", "Content-Transfer-Encoding: base64", format!("{first}\u{e9}\u{e9}{rest}")),
        (
            "junk in an archive",
            "Content-Type: application/zip\r\nContent-Transfer-Encoding: base64",
            format!("{zip_first}#!{zip_rest}"),
        ),
        (
            "two encodings, the first real",
            "Content-Transfer-Encoding: base64\r\nContent-Transfer-Encoding: 7bit",
            encoded.clone(),
        ),
        (
            "two encodings, the last real",
            "Content-Transfer-Encoding: 7bit\r\nContent-Transfer-Encoding: base64",
            encoded.clone(),
        ),
        ("strange name of the encoding", "Content-Transfer-Encoding: \"base64\" (yes)", encoded.clone()),
        (
            "comment in the name of the parameter",
            "Content-Type: multipart/mixed; boun(x)dary=A",
            format!("--A\r\n\r\nhi\r\n--A\r\nContent-Transfer-Encoding: base64\r\n\r\n{encoded}\r\n--A--\r\n"),
        ),
        ("behind padding", "Content-Transfer-Encoding: base64", format!("QUI=\r\n{encoded}")),
        (
            "message in base64",
            "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64",
            base64(inner.as_bytes()),
        ),
        (
            "two boundaries",
            "Content-Type: multipart/mixed; boundary=A; boundary=B",
            format!("--B\r\n\r\nhi\r\n--B\r\nContent-Transfer-Encoding: base64\r\n\r\n{encoded}\r\n--B--\r\n"),
        ),
        (
            "behind the end",
            "Content-Type: multipart/mixed; boundary=A",
            format!("--A\r\n\r\nhi\r\n--A--\r\n--A\r\nContent-Transfer-Encoding: base64\r\n\r\n{encoded}\r\n--A--\r\n"),
        ),
    ] {
        let message = format!("{head}MIME-Version: 1.0\r\n{fields}\r\n\r\n{body}\r\n");
        assert_eq!(inspector.verdict(message.as_bytes()).await, VIRUS, "{name}");
        assert_eq!(decoded_only.verdict(message.as_bytes()).await, VIRUS, "{name}");
    }
}

#[tokio::test]
async fn many_messages_share_few_connections() {
    let clamd = Clamd::start();
    let inspector = Arc::new(Inspector::with_clamd(&clamd.address(), "max_connections = 3"));
    let mut scans = tokio::task::JoinSet::new();
    for number in 0..60 {
        let inspector = inspector.clone();
        scans.spawn(async move {
            let (message, expected) =
                if number % 3 == 0 { (infected_letter(), VIRUS) } else { (clean_letter(), CLEAN) };
            assert_eq!(inspector.verdict(&message).await, expected, "message {number}");
        });
    }
    while let Some(done) = scans.join_next().await {
        done.unwrap();
    }
}

/// clamd answers and closes while we still write: the answer counts, not the broken pipe.
#[tokio::test]
async fn over_the_stream_limit_is_unchecked() {
    let port = Some(free_port());
    let clamd = Clamd::start_with(&Setup { configuration: "StreamMaxLength 1M", tcp_port: port, ..Setup::default() });
    for address in [clamd.address(), clamd.tcp_address()] {
        let inspector = Inspector::with_clamd(&address, "");
        for _ in 0..2 {
            let outcome = inspector.outcome(&letter_of(8_000_000)).await;
            assert_eq!(outcome, Outcome::Incomplete("clamd's StreamMaxLength".into()), "{address}");
        }
        assert_eq!(inspector.verdict(&letter_of(8_000_000)).await, "unchecked pass over-limits");
        assert_eq!(inspector.verdict(&clean_letter()).await, CLEAN);
    }
}

#[tokio::test]
async fn over_clamds_own_limits_is_unchecked_and_not_a_virus() {
    let clamd = Clamd::start_with(&Setup { configuration: "MaxFileSize 100K\nMaxScanSize 200K", ..Setup::default() });
    let inspector = Inspector::with_clamd(&clamd.address(), "");
    let (findings, verdict) = inspector.inspect(&letter_of(1_000_000)).await;
    assert!(
        matches!(&findings.scans[0].outcome, Outcome::Incomplete(why) if why.starts_with("clamd's limit ")),
        "{findings:?}"
    );
    assert_eq!((verdict.category.word(), findings.viruses().len()), ("unchecked", 0));
    let fields = own::fields(&findings, "mx.test", &HeaderSettings::default(), None);
    assert_eq!(fields[0].name(), "X-Octroi-Status");
}

/// clamd passes over what is larger than its MaxFileSize, and says OK.
#[tokio::test]
async fn what_clamd_would_pass_over_is_unchecked() {
    let clamd = Clamd::start_with(&Setup {
        configuration: "MaxFileSize 25M\nMaxScanSize 100M",
        quiet: true,
        ..Setup::default()
    });
    let known = format!("clamd_conf = \"{}\"", clamd.configuration().display());
    let mut large: Vec<u8> = (0..40_000_000u32).map(|number| (number % 251) as u8).collect();
    large[20_000_000..20_000_068].copy_from_slice(&eicar());
    let message = US.attached("large", "large.bin", large).bytes;
    let packed =
        US.attached("packed", "packed.zip", zipped("large.bin", &[eicar(), vec![0; 30_000_000]].concat())).bytes;
    for lines in [known.as_str(), ""] {
        let inspector = Inspector::with_clamd(&clamd.address(), lines);
        let (findings, verdict) = inspector.inspect(&message).await;
        let word = verdict.category.word();
        assert!(word == "unchecked" || word == "virus", "{lines}: {word}, {:?}", findings.scans);
        assert_ne!(inspector.verdict(&packed).await, CLEAN, "{lines}");
        assert_eq!(inspector.verdict(&clean_letter()).await, CLEAN);
    }
    let inspector = Inspector::with_clamd(&clamd.address(), &known);
    let (findings, _) = inspector.inspect(&message).await;
    assert_eq!(findings.scans[0].outcome, Outcome::Incomplete("larger than clamd's MaxFileSize 25MiB".into()));
    let told = own::fields(&findings, "mx.test", &HeaderSettings::default(), None);
    assert!(
        told[1].value().starts_with("partly; clamd=partly (larger than clamd's MaxFileSize 25MiB, ClamAV 1."),
        "{told:?}"
    );
    let gaps = contentd::scan::clamd_conf::check(
        &inspector.settings.antivirus,
        &inspector.settings.unpack.limits(),
        inspector.settings.contentd.max_size,
    );
    assert!(
        gaps.iter().any(|gap| gap.contains("MaxFileSize")) && gaps.iter().any(|gap| gap.contains("AlertExceedsMax")),
        "{gaps:?}"
    );
}

/// Deep below others, and beside more files than anybody counts.
#[tokio::test]
async fn deep_and_wide_archives_are_never_clean() {
    let clamd = Clamd::start_with(&Setup { quiet: true, ..Setup::default() });
    let inspector = Inspector::with_clamd(&clamd.address(), "");
    let mut deep = zipped("eicar.txt", &eicar());
    for _ in 0..30 {
        deep = zipped("x.zip", &deep);
    }
    let mut wide = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for number in 0..20_000 {
        wide.start_file(format!("{number}.txt"), SimpleFileOptions::default()).unwrap();
        wide.write_all(b"x").unwrap();
    }
    wide.start_file("eicar.txt", SimpleFileOptions::default()).unwrap();
    wide.write_all(&eicar()).unwrap();
    for archive in [deep, wide.finish().unwrap().into_inner()] {
        let verdict = inspector.verdict(&US.attached("x", "x.zip", archive).bytes).await;
        assert!(verdict == VIRUS || verdict.starts_with("unchecked "), "{verdict}");
    }
}

/// Over a UNIX socket by descriptor, over TCP and where told so as a stream; what is given decoded is not given encoded as well.
#[tokio::test]
async fn data_goes_the_cheap_way() {
    let streamed = "transfer = \"stream\"";
    for (tcp, lines, expected) in
        [(false, "", "/memfd:octroi-part"), (false, streamed, "instream(local"), (true, "", "instream(127.0.0.1")]
    {
        let tcp_port = tcp.then(free_port);
        let clamd = Clamd::start_with(&Setup { configuration: "LogClean yes", tcp_port, ..Setup::default() });
        let address = if tcp { clamd.tcp_address() } else { clamd.address() };
        let inspector = Inspector::with_clamd(&address, lines);
        assert_eq!(inspector.verdict(&clean_letter()).await, CLEAN);
        await_scans(&clamd, 2);
        let log = clamd.log();
        let mut scans = log.lines().filter(|line| line.ends_with(": OK"));
        assert!(scans.all(|line| line.contains(expected)), "{expected}: {log}");
        assert_eq!(inspector.verdict(&infected_letter()).await, VIRUS, "{expected}");
    }
}

/// Samples that clamd has found clean, by its log.
fn clean_scans(clamd: &Clamd) -> usize {
    clamd.log().lines().filter(|line| line.ends_with(": OK")).count()
}

/// Waits until there are so many; clamd writes its log after it has answered.
fn await_scans(clamd: &Clamd, count: usize) {
    await_that("lines in clamd's log", Duration::from_secs(60), || Ok((clean_scans(clamd) >= count).then_some(())))
        .unwrap_or_else(|trouble| panic!("{trouble}: {}", clamd.log()));
}

/// Members of archives that clamd opens as we do are not given to it once more, and what is in them is found all the same.
#[tokio::test]
async fn what_clamd_opens_by_itself_is_given_once() {
    let clamd = Clamd::start_with(&Setup { configuration: "LogClean yes\nDisableCache yes", ..Setup::default() });
    let known = format!("clamd_conf = \"{}\"", clamd.configuration().display());
    let archive = |last: &[u8]| {
        let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
        for number in 0..30 {
            zip.start_file(format!("{number}.txt"), SimpleFileOptions::default()).unwrap();
            zip.write_all(if number == 29 { last } else { b"nothing to see here" }).unwrap();
        }
        zip.finish().unwrap().into_inner()
    };
    let clean = US.attached("x", "a.zip", archive(b"nothing"));
    let (knowing, blind) =
        (Inspector::with_clamd(&clamd.address(), &known), Inspector::with_clamd(&clamd.address(), ""));
    assert_eq!(knowing.verdict(&clean.bytes).await, CLEAN);
    await_scans(&clamd, 2);
    assert_eq!(clean_scans(&clamd), 2, "the message and the archive");
    assert_eq!(blind.verdict(&clean.bytes).await, CLEAN);
    // Of a clamd of which nothing is known, nothing is expected.
    await_scans(&clamd, 30);
    for content in
        [archive(&eicar()), zipped("b.zip", &archive(&eicar())), zipped("c.txt", &[vec![b' '; 3000], eicar()].concat())]
    {
        let letter = US.attached("x", "a.zip", content);
        assert_eq!(knowing.verdict(&letter.bytes).await, blind.verdict(&letter.bytes).await);
        assert_eq!(knowing.verdict(&letter.bytes).await, VIRUS);
    }
}

/// A signature that fits the encoded text of an attachment: it fits the message as it came, not the decoded parts.
#[tokio::test]
async fn the_message_is_given_whole_where_it_can_be_read_in_several_ways() {
    let encoded = base64(&[b'Q'; 6000]);
    let hexadecimal: String = encoded.as_bytes()[..60].iter().map(|byte| format!("{byte:02x}")).collect();
    let signature = format!("Encoded-Text:0:*:{hexadecimal}\n");
    let clamd = Clamd::start_with(&Setup { more_signatures: &[("encoded.ndb", &signature)], ..Setup::default() });
    let inspector = Inspector::with_clamd(&clamd.address(), "[banned]\ntypes = []");
    let message = |more: &str| {
        format!(
            "From: a@sender.test\r\nDate: Sun, 22 Nov 2026 12:00:00 +0000\r\nMIME-Version: 1.0\r\n\
             Content-Type: multipart/mixed; boundary=A{more}\r\n\r\n--A\r\nContent-Type: application/octet-stream\r\n\
             Content-Transfer-Encoding: base64\r\n\r\n{}{encoded}\r\n--A--\r\n",
            base64(&[0, 1, 2, 255, 254, 253].repeat(19)) + "\r\n",
        )
    };
    assert_eq!(inspector.verdict(message("").as_bytes()).await, CLEAN);
    assert!(inspector.verdict(message("; boundary=B").as_bytes()).await.starts_with("virus "));
}

#[tokio::test]
async fn larger_than_max_size_is_not_even_sent() {
    let inspector = Inspector::with_clamd("127.0.0.1:1", "max_size = \"100kB\"");
    assert_eq!(inspector.outcome(&letter_of(200_000)).await, Outcome::Incomplete("larger than max_size 100kB".into()));
}

#[tokio::test]
async fn clamd_away_means_try_again_and_back_means_scanned() {
    let mut clamd = Clamd::start();
    let inspector = Inspector::with_clamd(&clamd.address(), "");
    assert_eq!(inspector.verdict(&infected_letter()).await, VIRUS);
    clamd.stop();
    assert_eq!(inspector.verdict(&clean_letter()).await, "unchecked tempfail scanner-failed");
    let (_, verdict) = inspector.inspect(&clean_letter()).await;
    assert!(verdict.reply.unwrap().first_line().starts_with("450 4.7.0 "));
    assert!(inspector.pipeline.ready().await.is_err());
    // Its kept session is stale now: the scan must not fail because of that.
    clamd.start_again();
    assert_eq!(inspector.verdict(&clean_letter()).await, CLEAN);
    clamd.stop();
    clamd.start_again();
    assert_eq!(inspector.verdict(&infected_letter()).await, VIRUS);
}

#[tokio::test]
async fn clamd_away_can_mean_unchecked() {
    let lines = "[antivirus]\non_failure = \"unchecked\"\n[antivirus.clamd]\naddress = \"unix:/nonexistent/clamd\"\n";
    let inspector = Inspector::new(lines);
    assert_eq!(inspector.verdict(&clean_letter()).await, "unchecked pass scanner-failed");
}

#[tokio::test]
async fn a_frozen_clamd_is_left_in_time() {
    let clamd = Clamd::start();
    let inspector = Inspector::with_clamd(&clamd.address(), "scan_timeout = \"300ms\"\nsend_timeout = \"300ms\"");
    assert_eq!(inspector.verdict(&clean_letter()).await, CLEAN);
    clamd.freeze();
    assert_eq!(inspector.verdict(&clean_letter()).await, "unchecked tempfail scanner-failed");
    assert_eq!(inspector.verdict(&letter_of(5_000_000)).await, "unchecked tempfail scanner-failed");
    clamd.thaw();
    assert_eq!(inspector.verdict(&infected_letter()).await, VIRUS);
    clamd.freeze();
    let patient = Inspector::with_clamd(&clamd.address(), "");
    let started = Instant::now();
    let (findings, verdict) = patient.inspect_until(&clean_letter(), started + Duration::from_millis(300)).await;
    assert!(started.elapsed() < LATER / 10);
    assert!(findings.out_of_time || matches!(findings.scans[0].outcome, Outcome::Failed(_)));
    assert_eq!(verdict.destiny.word(), "tempfail");
    clamd.thaw();
}

#[tokio::test]
async fn only_what_was_scanned_is_called_scanned() {
    let clamd = Clamd::start();
    for (inspector, field) in
        [(Inspector::with_clamd(&clamd.address(), ""), "X-Virus-Scanned"), (Inspector::new(""), "X-Octroi-Status")]
    {
        let (findings, _) = inspector.inspect(&clean_letter()).await;
        let fields = own::fields(&findings, "mx.test", &HeaderSettings::default(), None);
        assert_eq!(fields[0].name(), field);
    }
}
