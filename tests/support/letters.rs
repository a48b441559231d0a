// SPDX-License-Identifier: GPL-3.0-or-later
//! The messages that go through the sandbox, composed by lettre: plain ones, and ones with something in them.

use std::io::{Cursor, Write};

use lettre::Message;
use lettre::message::header::ContentType;
use lettre::message::{Attachment, MessageBuilder, MultiPart, SinglePart};

/// The test file every virus scanner knows (EICAR, 68 bytes). In two halves: no scanner shall take this source, or a
/// program built from it, for the file itself.
pub fn eicar() -> Vec<u8> {
    let halves = [r"X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR-STANDARD-", "ANTIVIRUS-TEST-FILE!$H+H*"];
    halves.concat().into_bytes()
}

/// A message as bytes, and the id to find it by wherever it went.
#[derive(Debug, Clone)]
pub struct Letter {
    /// The Message-ID without its brackets.
    pub id: String,
    /// The message, CRLF line ends.
    pub bytes: Vec<u8>,
}

/// Sender and recipient of a letter, as header and envelope name them.
#[derive(Debug, Clone, Copy)]
pub struct Correspondents<'a> {
    /// The sender's address.
    pub from: &'a str,
    /// The recipient's address.
    pub to: &'a str,
}

impl Correspondents<'_> {
    /// A plain text.
    pub fn plain(&self, subject: &str, text: &str) -> Letter {
        let (id, builder) = self.head(subject);
        letter(id, builder.body(text.to_owned()))
    }

    /// A text with one attachment.
    pub fn attached(&self, subject: &str, name: &str, content: Vec<u8>) -> Letter {
        let (id, builder) = self.head(subject);
        let kind = ContentType::parse("application/octet-stream").expect("a well-formed media type");
        let parts = MultiPart::mixed()
            .singlepart(SinglePart::plain("See the attachment.\r\n".to_owned()))
            .singlepart(Attachment::new(name.to_owned()).body(content, kind));
        letter(id, builder.multipart(parts))
    }

    fn head(&self, subject: &str) -> (String, MessageBuilder) {
        let id = fresh_id();
        let builder = Message::builder()
            .from(self.from.parse().expect("an address"))
            .to(self.to.parse().expect("an address"))
            .subject(subject)
            .message_id(Some(format!("<{id}>")));
        (id, builder)
    }
}

fn letter(id: String, message: Result<Message, lettre::error::Error>) -> Letter {
    Letter { id, bytes: message.expect("sender and recipient are there").formatted() }
}

/// An id no other letter has.
pub fn fresh_id() -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    format!("{:x}.{}.{}@sender.test", now.as_nanos(), std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A zip archive with one file in it.
pub fn zipped(name: &str, content: &[u8]) -> Vec<u8> {
    let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
    archive.start_file(name, zip::write::SimpleFileOptions::default()).expect("memory takes it");
    archive.write_all(content).expect("memory takes it");
    archive.finish().expect("memory takes it").into_inner()
}
