// SPDX-License-Identifier: GPL-3.0-or-later
//! Requests of clients of spamd, and messages that get our header fields: whatever comes, refusals and answers are well-formed, and a
//! marked message is as long as we say and keeps its body.

#![no_main]

use contentd::spamd::assessment::{Assessment, Line};
use contentd::spamd::markup::Markup;
use contentd::spamd::protocol::Code;
use contentd::spamd::reply;
use contentd::spamd::report::report;
use contentd::spamd::request::Parser;
use libfuzzer_sys::fuzz_target;

fn requests(input: &[u8], assessment: &Assessment) {
    let mut parser = Parser::default();
    for line in input.split(|byte| *byte == b'\n') {
        match parser.line(line.strip_suffix(b"\r").unwrap_or(line)) {
            Ok(Some(request)) => {
                assert!(request.user.is_none_or(|user| !user.bytes().any(|byte| byte.is_ascii_control())));
                let text = report(assessment, "mx.test");
                let answer = reply::text(request.command, request.version, assessment, &text);
                assert!(answer.starts_with(b"SPAMD/1.1 0 EX_OK\r\n"));
            }
            Ok(None) => {}
            Err(wrong) => {
                let line = reply::refusal(Code::Protocol, &wrong.to_string());
                let text = line.strip_suffix(b"\r\n").expect("a whole line");
                assert!(!text.iter().any(u8::is_ascii_control));
                parser = Parser::default();
            }
        }
    }
}

fuzz_target!(|input: &[u8]| {
    // Names and descriptions come from rule files and from engines.
    let text = String::from_utf8_lossy(input);
    let (name, description) = (text.chars().take(300).collect(), text.chars().skip(300).take(300).collect());
    let score = f64::from(input.len() as u32 % 20_000) / 10.0 - 1000.0;
    let assessment =
        Assessment::new(vec![Line { name, score, description }], score, 5.0, score >= 5.0, None);
    requests(input, &assessment);
    let markup = Markup::new(input, &assessment, "mx.test");
    let mut out = markup.edit.prepend.clone();
    assert!(out.split(|byte| *byte == b'\n').all(|line| line.len() <= 998), "a line is too long");
    markup.edit.pass(0, input, |piece| out.extend_from_slice(piece));
    assert_eq!(out.len() as u64, markup.length(input.len() as u64));
    assert!(out.ends_with(&input[markup.body as usize..]), "the body has changed");
    let head = markup.head(input);
    assert!(head.ends_with(b"\n"), "no empty line");
});
