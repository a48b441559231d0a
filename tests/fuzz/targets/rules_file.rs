// SPDX-License-Identifier: GPL-3.0-or-later
//! Rule files: any bytes load, with remarks or without, and what has loaded runs over a message.

#![no_main]

use libfuzzer_sys::fuzz_target;
use spamrules::{Budget, Environment, Message, NoAnswers, Options, Ruleset};

const MESSAGE: &[u8] = b"Received: from a.example (b.example [192.0.2.1]) by mx.example; Sun, 22 Nov 2026 10:00:00 +0000\n\
From: \"A B\" <a@example.com>\nTo: b@example.org\nSubject: =?utf-8?q?hello?= world\nContent-Type: text/html\n\n\
<html><body><p>Click <a href=\"http://example.com/x?y=z\">here</a> for 100% free money!</p></body></html>\n";

fuzz_target!(|input: &[u8]| {
    let set = Ruleset::load([("fuzz.cf", input)], Options::default(), &|_| None);
    let message = Message::parse(MESSAGE);
    let report = set.check(&message, &Environment { now: 1_795_305_600 }, &NoAnswers, Budget::default());
    assert!(report.hits.len() + report.subrules.len() <= set.len());
    let (bent, _) = set.with_preferences("preferences", input);
    assert_eq!(bent.len(), set.len());
});
