// SPDX-License-Identifier: GPL-3.0-or-later
//! Tests of the texts of whole messages.

use proptest::prelude::*;

use super::*;

fn texts(message: &str) -> Texts {
    Texts::of(&Message::parse(message.as_bytes()), &Settings::default())
}

fn lines(list: &[Vec<u8>]) -> Vec<String> {
    list.iter().map(|line| String::from_utf8_lossy(line).into_owned()).collect()
}

#[test]
fn the_subject_is_the_first_paragraph() {
    let texts = texts("Subject: =?utf-8?q?=C3=A9?= x\n\na\nb\n\nc\n");
    assert_eq!(lines(&texts.body), ["é x\n", "a b\n", "c "]);
    assert_eq!(lines(&texts.rawbody), ["a\nb\n\nc\n"]);
}

#[test]
fn html_is_rendered_and_decoded() {
    let texts = texts(
        "Content-Type: text/html; charset=iso-8859-1\nContent-Transfer-Encoding: quoted-printable\n\n<p>caf=E9&nbsp;<b>x</b>\n",
    );
    assert_eq!(lines(&texts.body), ["\n", "\n", "café x "]);
    assert_eq!(texts.rawbody, [b"<p>caf\xe9&nbsp;<b>x</b>\n".to_vec()]);
    assert_eq!(texts.html.len(), 1);
}

#[test]
fn numbers_below_256_stay_octets_in_ascii_html() {
    let texts = texts("Content-Type: text/html\n\ncaf&eacute;&#160;x");
    assert_eq!(texts.body[1], b"caf\xe9\xa0x");
}

#[test]
fn parts_that_show_nothing_divide() {
    let parts = "--x\nContent-Type: image/gif\n\nGIF\n--x\nA: b\n\nend\n--x--\n";
    let texts = texts(&format!("Content-Type: multipart/mixed; boundary=x\n\n--x\nA: b\n\nstart\n{parts}"));
    assert_eq!(lines(&texts.body), ["\n", "start\n", "end"]);
    assert_eq!(lines(&texts.rawbody), ["start", "end"]);
    assert!(texts.shown(1).is_some() && texts.shown(2).is_none());
}

#[test]
fn settings_are_checked() {
    let mut settings = Settings::default();
    assert_eq!(settings.set("body_part_scan_size", "10"), Some(Ok(())));
    assert!(settings.set("body_part_scan_size", "x").unwrap().is_err());
    assert_eq!(settings.set("other", "x"), None);
    assert_eq!(settings.body_part_scan_size, 10);
}

proptest! {
    #[test]
    fn any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let mut message = b"Content-Type: text/html; charset=utf-8\n\n".to_vec();
        message.extend_from_slice(&bytes);
        for message in [&bytes, &message] {
            let texts = Texts::of(&Message::parse(message), &Settings::default());
            prop_assert_eq!(texts.shown.len(), Message::parse(message).parts().len());
        }
    }
}
