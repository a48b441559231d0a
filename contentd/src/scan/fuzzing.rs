// SPDX-License-Identifier: GPL-3.0-or-later
//! Doors to what reads the answers of engines, for the fuzz targets in `tests/fuzz`. Only cargo-fuzz compiles this.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use common::net::Stream;
use tokio::time::Instant;

use super::engine::shown;
use super::wire::Wire;
use super::{clamd_answer, icap_answer, line, sssp};

/// clamd's answers, one after the other, and its version.
pub fn clamd(bytes: &[u8]) {
    for answer in bytes.split(|byte| *byte == 0) {
        // Whether it is an answer does not matter, only that it is read.
        let _ = clamd_answer::read(shown(answer));
        clamd_answer::status(&shown(answer));
    }
}

/// The head of an ICAP answer, and lengths of chunks.
pub fn icap(bytes: &[u8]) {
    let lines: Vec<Vec<u8>> = bytes.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    for line in &lines {
        icap_answer::chunk_size(line);
    }
    if let Ok(head) = icap_answer::Head::read(&lines) {
        assert!((100..600).contains(&head.status));
        let viruses = head.viruses();
        assert!(viruses.len() <= 20 && viruses.iter().all(|name| !name.is_empty() && name.len() <= 800), "{viruses:?}");
        (head.encapsulated(), head.keeps(), head.number("preview"));
    }
}

/// An answer of savdid.
pub fn sssp(bytes: &[u8]) {
    sssp::read(bytes);
}

/// An answer of Sophie and one of fpscand.
pub fn line(bytes: &[u8]) {
    line::read(bytes);
}

/// What an engine says while it is spoken to, in pieces, with the end of the connection behind it: whole lines come out as they went in.
pub async fn wire(pieces: &[&[u8]]) {
    let (ours, theirs) = UnixStream::pair().expect("two descriptors");
    ours.set_nonblocking(true).expect("a socket");
    let mut wire = Wire::over(Stream::Unix(tokio::net::UnixStream::from_std(ours).expect("a socket")));
    let until = Instant::now() + Duration::from_secs(5);
    let (mut said, mut heard) = (Vec::new(), 0);
    for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
        if std::io::Write::write_all(&mut &theirs, piece).is_err() {
            break;
        }
        said.extend_from_slice(piece);
        // Nothing is lost by an answer that is too long; it is only not read on.
        if wire.hear(until, "fuzzing").await.is_err() {
            return;
        }
        while let Some(line) = wire.take_line() {
            assert!(!line.contains(&b'\n') && !line.contains(&0), "{line:?}");
            heard += line.len();
        }
    }
    drop(theirs);
    while wire.hear(until, "fuzzing").await.is_ok() {
        while let Some(line) = wire.take_line() {
            heard += line.len();
        }
    }
    let ends = said.iter().filter(|byte| matches!(byte, 0 | b'\n' | b'\r')).count();
    assert!(heard <= said.len() && heard + ends + wire.heard().len() >= said.len(), "{heard} of {}", said.len());
}
