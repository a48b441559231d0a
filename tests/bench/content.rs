// SPDX-License-Identifier: GPL-3.0-or-later
//! The load on a content filter: messages handed over as Postfix's smtpd(8) does to its `smtpd_proxy_filter`, one
//! connection per message, every reply judged, and the next hop asked whether all of them have arrived.
//!
//! No two messages are alike, nor their attachments: virus scanners remember what they have seen.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ::tests::process::Trouble;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::measure::{Bounds, Budget, Failure, Sample, Subject, Tally};
use crate::peers;
use crate::smtp::Wire;

/// Postfix's `smtpd_proxy_timeout`.
const PATIENCE: Duration = Duration::from_secs(100);
const BOUNDARY: &str = "=_bench.bound";
/// Bytes that make one line of base64 (RFC 2045 section 6.8: at most 76 characters).
const PER_LINE: usize = 57;

static NEXT: AtomicU64 = AtomicU64::new(1);

/// A kind of message.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    /// What the table calls it.
    pub(crate) name: &'static str,
    attached: bool,
    /// All that is the same in every message of the kind, with the final dot.
    tail: Arc<Vec<u8>>,
}

impl Load {
    /// The three kinds, in the order of the table; sizes are those on the wire.
    pub(crate) fn all() -> [Load; 3] {
        [
            Load::text("4 KiB text", 4 << 10),
            Load::attachment("100 KiB, attachment", 100 << 10),
            Load::attachment("5 MB, attachment", 5_000_000),
        ]
    }

    fn text(name: &'static str, size: usize) -> Load {
        let mut load = Load { name, attached: false, tail: Arc::default() };
        let mut tail = Vec::with_capacity(size);
        let mut words = Words(1);
        while load.head(0).len() + tail.len() < size {
            words.line(68, &mut tail);
        }
        tail.extend_from_slice(b".\r\n");
        load.tail = Arc::new(tail);
        load
    }

    fn attachment(name: &'static str, size: usize) -> Load {
        let mut load = Load { name, attached: true, tail: Arc::default() };
        let mut tail = Vec::with_capacity(size);
        let (mut words, mut bytes) = (Words(2), Vec::new());
        while load.head(0).len() + tail.len() < size {
            bytes.clear();
            words.line(PER_LINE - 2, &mut bytes);
            base64(&bytes, &mut tail);
            tail.extend_from_slice(b"\r\n");
        }
        tail.extend_from_slice(format!("\r\n--{BOUNDARY}--\r\n.\r\n").as_bytes());
        load.tail = Arc::new(tail);
        load
    }

    /// The beginning of message number `number`: header and the lines that no other message has.
    fn head(&self, number: u64) -> Vec<u8> {
        let mut head = format!(
            "Received: from client.test (client.test [203.0.113.7])\r\n\tby mx.test (Postfix) with ESMTP\r\n\
             \tfor <reader@bench.test>; Thu, 01 Jan 2026 00:00:00 +0000 (UTC)\r\nDate: Thu, 01 Jan 2026 00:00:00 +0000\r\n\
             From: Writer <writer@client.test>\r\nTo: reader@bench.test\r\nSubject: message {number}\r\n\
             Message-ID: <{number}@client.test>\r\nMIME-Version: 1.0\r\n"
        );
        let part = "Content-Type: text/plain; charset=us-ascii\r\nContent-Transfer-Encoding: 7bit\r\n\r\n";
        if !self.attached {
            head.push_str(&format!("{part}This is message {number}.\r\n"));
            return head.into_bytes();
        }
        head.push_str(&format!(
            "Content-Type: multipart/mixed; boundary=\"{BOUNDARY}\"\r\n\r\n--{BOUNDARY}\r\n{part}This is message {number}.\r\n\
             --{BOUNDARY}\r\nContent-Type: text/csv; name=\"words.csv\"\r\nContent-Transfer-Encoding: base64\r\n\
             Content-Disposition: attachment; filename=\"words.csv\"\r\n\r\n"
        ));
        let mut head = head.into_bytes();
        base64(format!("{number:0width$}\r\n", width = PER_LINE - 2).as_bytes(), &mut head);
        head.extend_from_slice(b"\r\n");
        head
    }

    /// Bytes on the wire, at least.
    fn size(&self) -> u64 {
        (self.head(0).len() + self.tail.len()) as u64
    }

    /// Hands one message over.
    async fn deliver(&self, port: u16) -> Result<(), Failure> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        match timeout(PATIENCE, self.dialogue(port, number)).await {
            Ok(done) => done,
            Err(_) => Err(Failure::Wrong(format!("not done within {} s", PATIENCE.as_secs()))),
        }
    }

    async fn dialogue(&self, port: u16, number: u64) -> Result<(), Failure> {
        let mut wire = Wire::connect(port).await?;
        expect(&mut wire, "banner", 220).await?;
        wire.send(b"EHLO mx.test\r\n").await?;
        if expect(&mut wire, "EHLO", 250).await?.offers("XFORWARD") {
            let forwarded = "XFORWARD NAME=client.test ADDR=203.0.113.7 PORT=41234 HELO=client.test IDENT=[UNAVAILABLE] PROTO=ESMTP SOURCE=REMOTE\r\n";
            wire.send(forwarded.as_bytes()).await?;
            expect(&mut wire, "XFORWARD", 250).await?;
        }
        let mail = format!("MAIL FROM:<writer@client.test> SIZE={} BODY=8BITMIME\r\n", self.size());
        let steps =
            [("MAIL", mail.as_str(), 250), ("RCPT", "RCPT TO:<reader@bench.test>\r\n", 250), ("DATA", "DATA\r\n", 354)];
        for (stage, line, code) in steps {
            wire.send(line.as_bytes()).await?;
            expect(&mut wire, stage, code).await?;
        }
        self.send(&mut wire, number).await?;
        let reply = expect(&mut wire, "final dot", 250).await?;
        // The sink's own words: a 250 that did not come from there would be a lie.
        if !reply.shown().contains("sunk") {
            return Err(Failure::Wrong(format!("reply not of the next hop: {}", reply.shown())));
        }
        // Postfix does not wait for the reply either.
        Ok(wire.send(b"QUIT\r\n").await?)
    }

    async fn send(&self, wire: &mut Wire, number: u64) -> Result<(), Failure> {
        let mut head = self.head(number);
        if self.tail.len() > 64 * 1024 {
            wire.send(&head).await?;
            return Ok(wire.send(&self.tail).await?);
        }
        head.extend_from_slice(&self.tail);
        Ok(wire.send(&head).await?)
    }
}

async fn expect(wire: &mut Wire, stage: &str, code: u16) -> Result<crate::smtp::Reply, Failure> {
    let reply = wire.reply().await.map_err(|error| Failure::Wrong(format!("{stage}: {error}")))?;
    if reply.code == code {
        return Ok(reply);
    }
    Err(Failure::Wrong(format!("{stage}: {}", reply.shown())))
}

/// The closed loop: `sessions` clients, each hands the next message over as soon as the last is taken. At the end the
/// sink must have all of them, once.
pub(crate) async fn run(
    load: &Load,
    subject: &Subject,
    sink: u16,
    sessions: usize,
    bounds: Bounds,
) -> Result<Sample, Trouble> {
    let sunk = async || peers::sunk(sink).await.map_err(|error| Trouble::new("the sink", error));
    let before = sunk().await?;
    let budget = Arc::new(Budget::start(bounds));
    let mut running = JoinSet::new();
    for _ in 0..sessions {
        let (mut tally, load, port) = (Tally::new(&budget), load.clone(), subject.port);
        running.spawn(async move {
            while tally.begin() {
                tally.end(load.deliver(port).await);
            }
            tally.sample
        });
    }
    let mut sample = Sample::default();
    while let Some(done) = running.join_next().await {
        sample.add(done.map_err(|error| Trouble::new("a client of the load", error))?);
    }
    sample.elapsed = budget.elapsed();
    let after = sunk().await?;
    check_arrival(&mut sample, load, (after.0 - before.0, after.1 - before.1));
    Ok(sample)
}

fn check_arrival(sample: &mut Sample, load: &Load, (messages, bytes): (u64, u64)) {
    let told = sample.latencies.len() as u64;
    if messages != told {
        sample.fail(Failure::Wrong(format!("{told} messages accepted, but {messages} at the next hop")));
    }
    if bytes < messages * load.size() {
        sample.fail(Failure::Wrong(format!("{messages} messages arrived with only {bytes} bytes")));
    }
}

/// Text that looks written: the same for the same seed.
#[derive(Debug)]
struct Words(u64);

impl Words {
    /// One line of `length` characters and CR LF.
    fn line(&mut self, length: usize, out: &mut Vec<u8>) {
        const WORDS: [&str; 16] = [
            "gate", "toll", "road", "queue", "letter", "sender", "market", "number", "seven", "evening", "answer",
            "weather", "table", "garden", "because", "already",
        ];
        let end = out.len() + length;
        while out.len() < end {
            // Knuth's MMIX constants; the high bits are the random ones.
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            out.extend_from_slice(WORDS[(self.0 >> 60) as usize].as_bytes());
            out.extend_from_slice(if self.0 & (1 << 40) == 0 { b" " } else { b", " });
        }
        out.truncate(end);
        out.extend_from_slice(b"\r\n");
    }
}

/// RFC 4648 section 4; whole groups of three bytes only, which a line of 57 is.
fn base64(bytes: &[u8], out: &mut Vec<u8>) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    debug_assert!(bytes.len().is_multiple_of(3));
    for group in bytes.chunks_exact(3) {
        let bits = u32::from(group[0]) << 16 | u32::from(group[1]) << 8 | u32::from(group[2]);
        out.extend([18, 12, 6, 0].map(|shift| ALPHABET[(bits >> shift) as usize & 63]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Kind;

    fn whole(load: &Load, number: u64) -> String {
        let mut message = load.head(number);
        message.extend_from_slice(&load.tail);
        String::from_utf8(message).unwrap()
    }

    #[test]
    fn base64_of_known_bytes() {
        let mut out = Vec::new();
        base64(b"foobar", &mut out);
        assert_eq!(out, b"Zm9vYmFy");
    }

    #[test]
    fn messages_have_their_size_and_nothing_to_stuff_or_repair() {
        for (load, size) in Load::all().iter().zip([4 << 10, 100 << 10, 5_000_000]) {
            let message = whole(load, 7);
            assert!((size..size + 300).contains(&message.len()), "{}: {}", load.name, message.len());
            let body = message.strip_suffix("\r\n.\r\n").unwrap();
            assert!(body.split("\r\n").all(|line| line.len() <= 998 && !line.starts_with('.')));
            assert!(!body.replace("\r\n", "").contains(['\r', '\n']));
            assert!(body.is_ascii());
        }
    }

    #[test]
    fn no_two_messages_nor_attachments_are_alike() {
        let [_, load, _] = Load::all();
        let attachment = |number| whole(&load, number).split("\r\n\r\n").nth(3).unwrap()[..76].to_owned();
        assert_ne!(attachment(1), attachment(2));
        assert!(!attachment(1).contains("\r\n"));
        assert_ne!(load.head(1), load.head(2));
    }

    #[test]
    fn what_did_not_arrive_is_an_error() {
        let [load, _, _] = Load::all();
        let accepted = Sample { latencies: vec![Duration::ZERO; 3], ..Sample::default() };
        let errors = |messages, bytes| {
            let mut sample = accepted.clone();
            check_arrival(&mut sample, &load, (messages, bytes));
            sample.errors
        };
        assert_eq!(errors(3, 3 * load.size()), 0);
        assert_eq!(errors(2, 2 * load.size()), 1);
        assert_eq!(errors(4, 4 * load.size()), 1);
        assert_eq!(errors(3, 3 * load.size() - 1), 1);
    }

    #[tokio::test]
    async fn messages_reach_the_sink_and_a_silent_filter_is_an_error() {
        let (port, nobody) = (::tests::ports::free_port(), ::tests::ports::free_port());
        tokio::spawn(peers::sink(port));
        while peers::sunk(port).await.is_err() {
            tokio::task::yield_now().await;
        }
        let mut subject = Subject { name: "sink", port, process: 0, beside: None, kind: Kind::Nothing };
        let bounds = Bounds { time: Duration::from_secs(60), count: 6, pace: None };
        for load in Load::all() {
            let sample = run(&load, &subject, port, 2, bounds).await.unwrap();
            assert_eq!((sample.latencies.len(), sample.errors), (6, 0), "{:?}", sample.first_error);
        }
        subject.port = nobody;
        let sample = run(&Load::all()[0], &subject, port, 2, bounds).await.unwrap();
        assert_eq!((sample.latencies.len(), sample.errors), (0, 2));
    }
}
