// SPDX-License-Identifier: GPL-3.0-or-later
//! Tests of the splitting into parts.

use proptest::prelude::*;

use crate::message::Message;

fn outline(message: &Message) -> Vec<String> {
    let line = |part: &crate::message::Part| {
        let text = String::from_utf8_lossy(part.raw()).into_owned();
        format!("{}{} {text:?}", "-".repeat(part.depth as usize), part.kind)
    };
    message.parts().iter().map(line).collect()
}

fn parse(text: &str) -> Message {
    Message::parse(text.as_bytes())
}

const MULTIPART: &str = "Content-Type: multipart/mixed; boundary=x\n\n";

#[test]
fn parts_end_before_the_line_end_of_the_boundary() {
    let message = parse(&format!("{MULTIPART}preamble\n--x\nContent-Type: text/html\n\na\n\n--x\n\nb\n--x--\n"));
    assert_eq!(outline(&message), ["multipart/mixed \"\"", "-text/html \"a\\n\"", "-text/plain \"b\""]);
    assert!(message.flags().missing_mime_headers);
    assert!(!message.flags().unbalanced_boundary && !message.flags().mime_epilogue_exists);
}

#[test]
fn a_lost_last_boundary_is_forgiven_and_noted() {
    let message = parse(&format!("{MULTIPART}--x\nContent-Type: text/html\n\na\nb\n"));
    assert_eq!(outline(&message), ["multipart/mixed \"\"", "-text/html \"a\\nb\\n\""]);
    assert!(message.flags().unbalanced_boundary);
}

#[test]
fn an_epilogue_is_noted() {
    let message = parse(&format!("{MULTIPART}--x\nA: b\n\na\n--x--\n. \nmore\n"));
    assert!(message.flags().mime_epilogue_exists);
}

#[test]
fn a_header_without_an_empty_line() {
    let message = parse(&format!("{MULTIPART}--x\nContent-Type: text/html\n<p>\n--x\nA: b\n--x--\n"));
    assert!(message.flags().missing_mime_head_body_separator);
    assert_eq!(outline(&message)[1], "-text/html \"<p>\\n\"".replace("\\n", ""));
    // the field just before a boundary is lost
    assert!(message.parts()[2].headers.iter().next().is_none());
}

#[test]
fn messages_in_messages_are_opened() {
    let message = parse("Content-Type: message/rfc822\n\nSubject: in\nContent-Type: text/html\n\n<p>\n");
    assert_eq!(outline(&message), ["message/rfc822 \"\"", "-text/html \"<p>\\n\""]);
    assert_eq!(message.parts()[1].headers.first("subject").unwrap().decoded(), b"in");
    let inside: Vec<_> =
        message.parts()[message.places_within(&message.parts()[0])].iter().map(|part| part.kind.clone()).collect();
    assert_eq!(inside, ["message/rfc822", "text/html"]);
}

#[test]
fn a_multipart_without_a_boundary_is_text() {
    assert_eq!(outline(&parse("Content-Type: multipart/mixed\n\n\na\n")), ["text/plain \"\\na\\n\""]);
    let digest = parse("Content-Type: multipart/digest; boundary=x\n\n--x\n\nSubject: a\n\nb\n--x--\n");
    assert_eq!(outline(&digest)[1], "-message/rfc822 \"\"");
}

#[test]
fn a_part_that_declares_our_boundary() {
    let inner = "--x\nContent-Type: multipart/alternative; boundary=x\n\n--x\n\na\n--x--\n--x--\n";
    let message = parse(&format!("{MULTIPART}{inner}"));
    assert_eq!(outline(&message)[1..], ["-multipart/alternative \"\"", "--text/plain \"a\""]);
}

#[test]
fn names_come_from_the_disposition_first() {
    let message =
        parse("Content-Type: image/gif; name=a.gif\nContent-Disposition: attachment; filename=\"b c.gif\"\n\nx");
    assert_eq!(message.parts()[0].name.as_deref(), Some(&b"b c.gif"[..]));
    let message = parse("Content-Type: application/x; name=a.HTML\n\nx");
    assert_eq!(message.parts()[0].effective_kind(), "text/html");
}

#[test]
fn deep_nesting_is_bounded() {
    let mut text = String::new();
    for level in 0..200 {
        text.push_str(&format!("Content-Type: multipart/mixed; boundary=b{level}\n\n--b{level}\n"));
    }
    text.push_str("\nend\n");
    let message = parse(&text);
    assert_eq!(message.parts().len(), 21);
    let many = format!("{MULTIPART}{}", "--x\n\na\n".repeat(2000));
    let message = parse(&many);
    assert_eq!(message.parts().len(), 1001);
    assert!(message.flags().mimepart_limit_exceeded);
}

#[test]
fn long_lines_of_parts_are_broken() {
    let message = parse(&format!("{MULTIPART}--x\n\n{}\n--x--\n", "a".repeat(5000)));
    let lengths: Vec<_> = message.parts()[1].raw_lines().map(<[u8]>::len).collect();
    assert_eq!(lengths, [2049, 2049, 904]);
}

proptest! {
    #[test]
    fn any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let message = Message::parse(&bytes);
        prop_assert!(!message.parts().is_empty());
    }

    #[test]
    fn any_lines_never_panic(lines in proptest::collection::vec(
        prop_oneof![
            Just("--x\n"), Just("--x--\n"), Just("\n"), Just("a\n"), Just("Content-Type: multipart/mixed; boundary=x\n"),
            Just("Content-Type: message/rfc822\n"), Just("Content-Type: text/html\r\n"), Just(" b\n"),
            Just("Content-Transfer-Encoding: base64\n"), Just("From x\n"), Just("--y\n"), Just("Content-Type: multipart/digest; boundary=y\n")
        ], 0..60))
    {
        let message = Message::parse(lines.concat().as_bytes());
        for part in message.parts() {
            let _ = (part.decoded(), message.parts()[message.places_within(part)].len(), message.children(part).count());
        }
    }
}
