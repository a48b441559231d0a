// SPDX-License-Identifier: GPL-3.0-or-later
//! What policyd hands over in a header line: from strangers nothing counts; what carries a good signature is read whatever it says.

#![no_main]

use std::sync::LazyLock;

use common::handover::{Note, ORDER_HEADER, Peer, RESULTS_HEADER, Scope, Secret, write};
use contentd::envelope::{Client, Envelope, MessageId, Path};
use contentd::fuzzing;
use libfuzzer_sys::fuzz_target;

const NOW: u64 = 1_795_324_438;

static SECRET: LazyLock<Secret> =
    LazyLock::new(|| Secret::parse("only the fuzz targets know this secret").expect("long enough"));

fuzz_target!(|input: &[u8]| {
    let client =
        Client { addr: Some("192.0.2.77".to_owned()), port: Some("4711".to_owned()), ..Client::default() };
    let sender = Path::parse(b"<a@example.org>").expect("a path");
    let mut envelope = Envelope::new(MessageId::generate(), sender, client);
    envelope.recipients.push(Path::parse(b"<b@example.net>").expect("a path"));
    // As it came.
    for name in [ORDER_HEADER, RESULTS_HEADER] {
        let section = [name.as_bytes(), b": ", input, b"\r\n\r\n"].concat();
        let words = fuzzing::handover(&section, &envelope, &SECRET, NOW);
        assert!(words.is_empty(), "orders of a stranger: {words}");
    }
    // Signed: the id of the decision may hold what looks like more.
    let decision = String::from_utf8_lossy(input).replace(['\r', '\n'], " ");
    let peer = Peer { address: "192.0.2.77".parse().ok(), port: 4711 };
    let note = Note { decision, ..Note::default() };
    let line = write(&SECRET, &note, Scope { peer, recipient: "b@example.net", now: NOW });
    fuzzing::handover(format!("{line}\r\n\r\n").as_bytes(), &envelope, &SECRET, NOW);
});
