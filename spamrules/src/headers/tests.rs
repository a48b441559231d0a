// SPDX-License-Identifier: GPL-3.0-or-later
//! Selectors against whole messages.

use super::*;
use crate::answers::NoAnswers;
use crate::context::Environment;
use crate::message::Message;
use crate::settings::Settings;

const MESSAGE: &str = "Return-Path: <bounce@lists.example.org>\n\
Received: from localhost (localhost [127.0.0.1]) by box.example.com (Postfix) with ESMTP id AAA11\n\
\tfor <you@box.example.com>; Tue, 1 Jan 2002 00:00:02 +0000\n\
X-Here: trusted\n\
Received: from mail.example.org (mail.example.org [198.51.100.7]) by mx.example.com (Postfix)\n\
\twith ESMTP id BBB22; Tue, 1 Jan 2002 00:00:01 +0000\n\
X-There: untrusted\n\
From: =?UTF-8?Q?J=C3=BCrgen?= \"'X'\" <j@www.example.co.uk>, second@example.org\n\
To: A <a@example.org>\n\
Cc: b@example.org\n\
Subject: =?UTF-8?Q?caf=C3=A9?=\n\
Message-Id: <1@host.example.org>\n\
X-Message-Id: <2@example.org>\n\
\n\
body\n";

fn read(message: &str, selector: &str) -> Option<String> {
    let mut settings = Settings::default();
    for (key, value) in [("util_rb_tld", "com org uk"), ("util_rb_2tld", "co.uk")] {
        settings.set(key, value).unwrap().unwrap();
    }
    let message = Message::parse(message.as_bytes());
    let environment = Environment::default();
    let context = Context::new(&message, &settings, &environment, &NoAnswers);
    get(&context, &Selector::parse(selector).unwrap()).map(|v| String::from_utf8_lossy(&v).into_owned())
}

#[test]
fn fields_and_parts() {
    let cases = [
        ("Subject", "café\n"),
        ("Subject:raw", " =?UTF-8?Q?caf=C3=A9?=\n"),
        ("From:addr", "j@www.example.co.uk\nsecond@example.org"),
        ("From:addr:host", "www.example.co.uk\nexample.org"),
        ("From:addr:domain", "example.co.uk\nexample.org"),
        ("From:name", "Jürgen 'X'"),
        ("ToCc", "A <a@example.org>\nb@example.org\n"),
        ("ToCc:addr", "a@example.org\nb@example.org"),
        ("MESSAGEID", "<2@example.org>\n<1@host.example.org>\n"),
        ("Message-Id:host", "host.example.org"),
        ("Received:ip", "127.0.0.1\n198.51.100.7"),
        ("Received:last:revip", "7.100.51.198"),
        ("EnvelopeFrom", "bounce@lists.example.org"),
        ("X-AuthorDomain", "www.example.co.uk example.org"),
        ("X-SenderDomain", "lists.example.org"),
    ];
    for (selector, expected) in cases {
        assert_eq!(read(MESSAGE, selector).as_deref(), Some(expected), "{selector}");
    }
    assert_eq!(read(MESSAGE, "Reply-To"), None);
    assert_eq!(read(MESSAGE, "Reply-To:addr"), None);
}

#[test]
fn both_sides_of_trust() {
    let trusted = read(MESSAGE, "ALL-TRUSTED").unwrap();
    assert!(trusted.contains("X-Here") && trusted.contains("BBB22") && !trusted.contains("X-There"));
    let untrusted = read(MESSAGE, "ALL-UNTRUSTED").unwrap();
    assert!(!untrusted.contains("X-Here") && untrusted.contains("BBB22") && untrusted.contains("X-There"));
    assert!(read(MESSAGE, "ALL-EXTERNAL:raw").unwrap().contains("(Postfix)\n\twith"));
    assert!(read(MESSAGE, "ALL").unwrap().contains("(Postfix) with"));
}

#[test]
fn a_return_path_below_received_is_not_believed() {
    let below =
        "Received: from a ([198.51.100.7]) by b (Postfix) with SMTP id 1111\nReturn-Path: <a@example.org>\n\nx\n";
    assert_eq!(read(below, "EnvelopeFrom"), None);
    let told = "Received: from a ([198.51.100.7]) by b (Postfix) with SMTP id 1111 (envelope-from <>)\n\nx\n";
    assert_eq!(read(told, "EnvelopeFrom"), None, "an empty sender has no boundary of a word");
}
