// SPDX-License-Identifier: GPL-3.0-or-later
//! Tests of the walk: structure, the readings of odd messages, limits.

use super::*;
use crate::budget;
use proptest::prelude::*;
use sha2::{Digest as _, Sha256};
use std::time::{Duration, Instant};

fn walk(message: &[u8], limits: &Limits) -> View {
    walk_until(message, limits, Instant::now() + Duration::from_secs(60))
}

fn walk_until(message: &[u8], limits: &Limits, until: Instant) -> View {
    let size = message.len() as u64;
    let message = Bytes::copy_from_slice(message);
    super::walk(&message, limits, &mut Budget::new(&budget::Limits::default(), size, limits.readings(size), until))
}

fn walked(message: &str) -> View {
    walk(message.as_bytes(), &Limits::default())
}

/// Path and size of the leaves.
fn leaves(message: &str) -> Vec<(String, u64)> {
    walked(message).parts.into_iter().filter(|p| p.leaf).map(|p| (p.path, p.size)).collect()
}

fn kinds(view: &View) -> Vec<FindingKind> {
    let kinds = view.findings.iter().map(|finding| finding.kind);
    kinds.filter(|kind| *kind != FindingKind::HeaderMissing).collect()
}

fn own(list: &[(&str, u64)]) -> Vec<(String, u64)> {
    list.iter().map(|(path, size)| ((*path).to_owned(), *size)).collect()
}

/// Base64 of the marker that the probes below hide.
const MARKER: &str = "THE HIDDEN ATTACHMENT";
const MARKER_BASE64: &str = "VEhFIEhJRERFTiBBVFRBQ0hNRU5U";

fn finds_marker(message: &str) -> bool {
    let digest: [u8; 32] = Sha256::digest(MARKER).into();
    let digest_with_newline: [u8; 32] = Sha256::digest([MARKER, "\r\n"].concat()).into();
    let starts = |kept: &Kept| kept.bytes.starts_with(MARKER.as_bytes());
    let view = walked(message);
    view.parts
        .iter()
        .any(|part| [digest, digest_with_newline].iter().any(|digest| part.digest.sha256() == Some(digest)))
        || view.kept.iter().any(starts)
}

#[test]
fn a_single_part_is_number_one() {
    let view = walked("Content-Type: text/plain\r\n\r\nHello\r\n");
    assert_eq!(view.parts.len(), 1);
    let part = &view.parts[0];
    assert_eq!((part.path.as_str(), part.size, part.detected_type.as_str()), ("1", 7, "text/plain"));
    assert_eq!(part.digest, crate::digest::Digest::of(b"Hello\r\n", true));
    assert!(view.kept.is_empty());
}

#[test]
fn paths_of_nested_parts() {
    let message = "Content-Type: multipart/mixed; boundary=A\r\n\r\npreamble\r\n--A\r\n\r\none\r\n--A\r\n\
        Content-Type: multipart/alternative; boundary=AB\r\n\r\n--AB\r\n\r\nx\r\n--AB\r\n\r\nyy\r\n--AB--\r\n--A\r\n\
        Content-Type: message/rfc822\r\n\r\nContent-Type: multipart/mixed; boundary=C\r\n\r\n--C\r\n\r\nzzz\r\n--C--\r\n\
        --A\r\nContent-Type: message/rfc822\r\n\r\nSubject: s\r\n\r\nwwww\r\n--A--\r\nepilogue";
    let first = |list: Vec<(String, u64)>| list.into_iter().filter(|(path, _)| !path.contains(':')).collect::<Vec<_>>();
    assert_eq!(first(leaves(message)), own(&[("1", 3), ("2.1", 1), ("2.2", 2), ("3.1", 3), ("4.1", 4)]));
    let view = walked(message);
    // By the letter of RFC 2046 the inner delimiters are outer ones, too, and show the same parts.
    assert_eq!((kinds(&view), view.plain), (vec![], true));
    let hidden = message.replace("--AB--", "--AB--\r\n--AC\r\n\r\nfile");
    assert_eq!(kinds(&walked(&hidden)), [FindingKind::LongerDelimiter]);
    let leaves = view.parts.iter().filter(|part| part.leaf && !part.path.contains(':'));
    let containers: Vec<_> = leaves.map(|p| p.container).collect();
    assert_eq!(containers, [None, None, None, Some("message/rfc822"), Some("message/rfc822")]);
}

#[test]
fn lf_and_mailbox_line() {
    assert_eq!(
        leaves("From a@b Thu\nContent-Type: multipart/mixed; boundary=A\n\n--A\n\none\n--A--\n"),
        own(&[("1", 3)])
    );
}

#[test]
fn digests_hold_messages() {
    let message = "Content-Type: multipart/digest; boundary=A\n\n--A\n\nSubject: x\n\nbody\n--A--\n";
    assert_eq!(leaves(message), own(&[("1.1", 4)]));
}

#[test]
fn parts_without_content_and_without_end() {
    let head = "Content-Type: multipart/mixed; boundary=A\n\n";
    assert_eq!(leaves(&format!("{head}--A\n--A\n\n--A--\n")), own(&[("1", 0), ("2", 0)]));
    let view = walked(&format!("{head}--A\n\nnever closed\n"));
    assert_eq!((view.parts[1].size, kinds(&view)), (13, vec![FindingKind::Unclosed]));
    let view = walked(&format!("{head}no delimiter\n"));
    assert_eq!((view.parts[0].size, kinds(&view)), (13, vec![FindingKind::BoundaryUnused]));
    let view = walked("Content-Type: multipart/mixed\n\nno boundary\n");
    assert_eq!(kinds(&view), [FindingKind::BoundaryMissing]);
}

/// The probes of the reference table: whatever one reading hides, another shows.
#[test]
fn hidden_attachments_are_found() {
    let part = format!("Content-Transfer-Encoding: base64\r\n\r\n{MARKER_BASE64}\r\n");
    let multipart = |field: &str, delimiter: &str| {
        format!("{field}\r\n\r\n--{delimiter}\r\n\r\ntext\r\n--{delimiter}\r\n{part}--{delimiter}--\r\n")
    };
    let single = |fields: &str, body: &str| format!("{fields}\r\n\r\n{body}");
    let probes = [
        ("real boundary first", multipart("Content-Type: multipart/mixed; boundary=A; boundary=B", "A")),
        ("real boundary last", multipart("Content-Type: multipart/mixed; boundary=B; boundary=A", "A")),
        ("real type first", multipart("Content-Type: multipart/mixed; boundary=A\r\nContent-Type: text/plain", "A")),
        ("real type last", multipart("Content-Type: text/plain\r\nContent-Type: multipart/mixed; boundary=A", "A")),
        ("8-bit parameter", multipart("Content-Type: multipart/mixed; b\u{f6}x=y; boundary=A", "A")),
        ("comment in the name", multipart("Content-Type: multipart/mixed; boun(x)dary=A", "A")),
        ("comment before the value", multipart("Content-Type: multipart/mixed; boundary=(x)A", "A")),
        ("trailing blank", multipart("Content-Type: multipart/mixed; boundary=\"A \"", "A")),
        ("trailing blank in both", multipart("Content-Type: multipart/mixed; boundary=\"A \"", "A ")),
        ("encoded word", multipart("Content-Type: multipart/mixed; boundary=\"=?utf-8?Q?A?=\"", "A")),
        ("NUL in the boundary", multipart("Content-Type: multipart/mixed; boundary=\"A\0B\"", "A")),
        ("empty boundary", multipart("Content-Type: multipart/mixed; boundary=\"\"", "")),
        ("continuation", multipart("Content-Type: multipart/mixed; boundary*0=A; boundary*1=B", "AB")),
        ("blank before colon", multipart("Content-Type : multipart/mixed; boundary=A", "A")),
        (
            "CTE 7bit, base64",
            single("Content-Transfer-Encoding: 7bit\r\nContent-Transfer-Encoding: base64", MARKER_BASE64),
        ),
        (
            "CTE base64, 7bit",
            single("Content-Transfer-Encoding: base64\r\nContent-Transfer-Encoding: 7bit", MARKER_BASE64),
        ),
        ("CTE with comment", single("Content-Transfer-Encoding: base64 (x)", MARKER_BASE64)),
        ("CTE x-base64", single("Content-Transfer-Encoding: x-base64", MARKER_BASE64)),
        ("CTE base64;", single("Content-Transfer-Encoding: base64;", MARKER_BASE64)),
        ("CTE \"base64\"", single("Content-Transfer-Encoding: \"base64\"", MARKER_BASE64)),
        ("junk in base64", single("Content-Transfer-Encoding: base64", "VEhFIEhJ#RERFTiBBVFRBQ0hNRU5U")),
        ("8-bit in base64", single("Content-Transfer-Encoding: base64", "VEhFIEhJ\u{e9}RERFTiBBVFRBQ0hNRU5U")),
        (
            "footer behind padding",
            single("Content-Transfer-Encoding: base64", &format!("{MARKER_BASE64}DQo=\r\nfooter\r\n")),
        ),
        ("padding in the middle", single("Content-Transfer-Encoding: base64", "VEhFIEhJRERFTg==IEFUVEFDSE1FTlQ=")),
        ("no closing delimiter", format!("Content-Type: multipart/mixed; boundary=A\r\n\r\n--A\r\n{part}")),
        (
            "behind the closing delimiter",
            format!("Content-Type: multipart/mixed; boundary=A\r\n\r\n--A\r\n\r\nx\r\n--A--\r\n--A\r\n{part}--A--\r\n"),
        ),
        (
            "whole multipart encoded",
            // --A CRLF CRLF marker CRLF --A--
            "Content-Type: multipart/mixed; boundary=A\r\nContent-Transfer-Encoding: base64\r\n\r\n\
             LS1BDQoNClRIRSBISURERU4gQVRUQUNITUVOVA0KLS1BLS0NCg==\r\n"
                .to_owned(),
        ),
    ];
    let missed: Vec<_> = probes.iter().filter(|(_, message)| !finds_marker(message)).map(|(name, _)| name).collect();
    assert!(missed.is_empty(), "{missed:?}");
}

#[test]
fn what_is_odd_is_kept_for_the_scanner() {
    let view = walked(&format!("Content-Transfer-Encoding: base64\r\n\r\n#{MARKER_BASE64}"));
    assert_eq!(kinds(&view), [FindingKind::EncodingJunk]);
    assert_eq!(view.kept.len(), 1);
    let view = walked("Content-Type: application/zip\r\n\r\nPK\u{3}\u{4}");
    assert_eq!((view.kept.len(), view.parts[0].detected_type.as_str()), (1, "application/zip"));
}

/// What remains of a message when the bodies that are given by themselves are taken out, and whether it can be read in one way only.
fn frame(message: &str) -> (String, bool) {
    let view = walk(message.as_bytes(), &Limits { texts: true, ..Limits::default() });
    let (mut rest, mut at) = (String::new(), 0);
    for body in &view.bodies {
        rest += &message[at..body.start];
        at = body.end;
    }
    (rest + &message[at..], view.plain)
}

#[test]
fn bodies_that_are_given_are_told() {
    let letter = "Subject: x\r\n\r\nhello\r\n";
    assert_eq!(frame(letter), ("Subject: x\r\n\r\n".to_owned(), true));
    let message = "Content-Type: multipart/mixed; boundary=A\r\n\r\nin front\r\n--A\r\n\r\nplain\r\n--A\r\n\
        Content-Transfer-Encoding: quoted-printable\r\n\r\n=41=42\r\n--A\r\n\
        Content-Transfer-Encoding: base64\r\nContent-Type: application/zip\r\n\r\nUEsDBA==\r\n--A\r\n\
        Content-Type: message/rfc822\r\n\r\nSubject: inner\r\n\r\ninside\r\n--A--\r\nbehind\r\n";
    let without =
        message.replacen("\r\nplain", "\r\n", 1).replace("=41=42", "").replace("UEsDBA==", "").replace("inside", "");
    assert_eq!(frame(message), (without, true));
}

#[test]
fn a_message_with_two_readings_is_not_plain() {
    for odd in [
        "Content-Transfer-Encoding: base64\r\n\r\n#QUJD",
        "Content-Transfer-Encoding: 7bit\r\nContent-Transfer-Encoding: base64\r\n\r\nQUJD",
        "Content-Transfer-Encoding: x-unknown\r\n\r\nabc",
        "Content-Type: multipart/mixed; boundary=A; boundary=B\r\n\r\n--A\r\n\r\nx\r\n--A--\r\n",
        "Content-Type: multipart/mixed; boundary*0=A\r\n\r\n--A\r\n\r\nx\r\n--A--\r\n",
        "Content-Type: multipart/mixed; boundary=A\r\n\r\n--A\r\n\r\nx\r\n",
        "Content-Type: message/partial; id=a\r\n\r\nSubject: x\r\n\r\nx\r\n",
        "Subject: a\rContent-Transfer-Encoding: base64\r\n\r\nQUJD",
        "Subject: a\r\n",
    ] {
        assert!(!frame(odd).1, "{odd}");
    }
    assert!(!walk_until(b"A: b\n\nbody", &Limits::default(), Instant::now()).plain);
}

#[test]
fn depth_ends_at_its_limit() {
    let levels = 100_000;
    let view = walked(&format!("{}\r\nend", "Content-Type: message/rfc822\r\n\r\n".repeat(levels)));
    assert_eq!(kinds(&view), [FindingKind::OverLimits]);
    assert_eq!(view.parts.len(), Limits::default().depth + 2);

    let mut nested = String::new();
    for level in 0..2000 {
        nested += &format!("Content-Type: multipart/mixed; boundary=B{level}\r\n\r\n--B{level}\r\n");
    }
    assert!(kinds(&walked(&nested)).contains(&FindingKind::OverLimits));
}

#[test]
fn parts_are_counted() {
    let many = format!("Content-Type: multipart/mixed; boundary=A\n\n{}--A--\n", "--A\n\nx\n".repeat(5000));
    let view = walked(&many);
    assert_eq!(view.parts.len(), Limits::default().parts);
    assert!(kinds(&view).contains(&FindingKind::OverLimits));
}

#[test]
fn decoded_bytes_are_counted() {
    let fields = "Content-Transfer-Encoding: base64\nContent-Transfer-Encoding: quoted-printable\n\n";
    let limits = Limits { expansion: 1, ..Limits::default() };
    let message = format!("{fields}{}", "QUJD".repeat(400_000));
    let view = walk(message.as_bytes(), &limits);
    assert!(kinds(&view).contains(&FindingKind::OverLimits));
}

#[test]
fn a_walk_that_is_stopped_says_so() {
    let view = walk_until(b"A: b\n\nbody", &Limits::default(), Instant::now());
    assert_eq!((view.parts.len(), view.findings[0].kind), (0, FindingKind::OverLimits));
}

proptest! {
    #[test]
    fn any_bytes_are_walked(bytes: Vec<u8>) {
        walk(&bytes, &Limits::default());
    }

    #[test]
    fn mime_like_text_is_walked(
        lines in proptest::collection::vec("(--A|--A--|--|Content-Type: (multipart/(mixed|digest)|message/rfc822)(; boundary=A)?|Content-Transfer-Encoding: (base64|x)|QUJD=||\\r| )\r?\n", 0..40)
    ) {
        let message = lines.concat();
        let view = walk(message.as_bytes(), &Limits { texts: true, ..Limits::default() });
        // Each body that is told was given, and none lies in another.
        prop_assert!(view.bodies.len() <= view.kept.len() + view.texts.len());
        prop_assert!(view.bodies.is_sorted_by(|one, next| one.end <= next.start));
        prop_assert!(view.bodies.iter().all(|body| body.end <= message.len()));
    }
}
