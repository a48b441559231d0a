// SPDX-License-Identifier: GPL-3.0-or-later
//! The SMTP dialogue as a state machine: one command line in, one `Step` out.
//!
//! Pure: it neither reads nor writes, and it asks nobody. The server does what a `Step` says and tells the
//! machine what the next hop answered. It takes what Postfix's smtpd really sends to a before-queue filter
//! (SMTPD_PROXY_README) and enough of RFC 5321 for monitors and other MTAs.

use super::reply::Reply;
use super::xforward::{self, Attribute};
use crate::envelope::{Client, Envelope, Path, PathError};

/// The longest command line without its line end. Postfix cuts lines at 2048; internationalised paths with
/// ORCPT and ENVID need more than the 512 of RFC 5321.
pub const LINE_LIMIT: usize = 4096;
/// After so many unusable commands the session is closed.
const BAD_COMMANDS: u32 = 50;
/// What a browser or proxy sends when somebody points it at our port; the next lines could hold SMTP commands.
const NOT_SMTP: &[&[u8]] =
    &[b"GET", b"POST", b"PUT", b"HEAD", b"CONNECT", b"OPTIONS", b"DELETE", b"PATCH", b"HTTP/1.1"];

/// What the dialogue needs from the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Our name in banner and EHLO reply.
    pub hostname: String,
    /// Largest message in bytes, announced as SIZE.
    pub max_size: u64,
    /// Most recipients of one message.
    pub max_recipients: usize,
}

/// What the server does for one command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Send the reply.
    Reply(Reply),
    /// Forget the next hop's session, if there is one, and send the reply.
    Reset(Reply),
    /// Send the reply and close.
    Close(Reply),
    /// Ask the next hop whether it takes this sender; then [`Dialogue::begin`] or nothing.
    Mail(Path),
    /// Ask the next hop whether it takes this recipient; then [`Dialogue::add_recipient`] or nothing.
    Recipient(Path),
    /// Receive the message. The transaction is over when that has been answered.
    Data(Box<Envelope>),
}

/// Where the dialogue stands.
#[derive(Debug)]
enum Phase {
    Connected,
    Greeted,
    /// MAIL was accepted; `asked` RCPT commands have followed it.
    Transaction {
        envelope: Box<Envelope>,
        asked: usize,
    },
}

/// The dialogue with one client.
#[derive(Debug)]
pub struct Dialogue {
    limits: Limits,
    phase: Phase,
    client: Client,
    bad: u32,
}

impl Dialogue {
    /// A dialogue before its first line.
    pub fn new(limits: Limits) -> Dialogue {
        Dialogue { limits, phase: Phase::Connected, client: Client::default(), bad: 0 }
    }

    /// The first line that the client gets.
    pub fn banner(&self) -> Reply {
        Reply::new(220, "", &format!("{} ESMTP Octroi", self.limits.hostname))
    }

    /// What XFORWARD told about the client of the coming or current transaction.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The transaction in progress.
    pub fn envelope(&self) -> Option<&Envelope> {
        match &self.phase {
            Phase::Transaction { envelope, .. } => Some(envelope),
            _ => None,
        }
    }

    /// The next hop took the sender.
    pub fn begin(&mut self, envelope: Envelope) {
        self.phase = Phase::Transaction { envelope: Box::new(envelope), asked: 0 };
    }

    /// The next hop took the recipient.
    pub fn add_recipient(&mut self, path: Path) {
        if let Phase::Transaction { envelope, .. } = &mut self.phase {
            envelope.recipients.push(path);
        }
    }

    /// A line was longer than [`LINE_LIMIT`].
    pub fn line_too_long(&mut self) -> Step {
        self.refuse(500, "5.5.2", "Line too long")
    }

    /// Takes one command line without its line end.
    pub fn step(&mut self, line: &[u8]) -> Step {
        let line = line.trim_ascii();
        let end = line.iter().position(|byte| byte.is_ascii_whitespace()).unwrap_or(line.len());
        let (verb, rest) = (&line[..end], line[end..].trim_ascii_start());
        match verb.to_ascii_uppercase().as_slice() {
            b"EHLO" => self.hello(rest, true),
            b"HELO" => self.hello(rest, false),
            b"XFORWARD" => self.xforward(rest),
            b"MAIL" => self.mail(rest),
            b"RCPT" => self.recipient(rest),
            b"DATA" => self.data(rest),
            b"RSET" => {
                self.end_transaction();
                Step::Reset(ok())
            }
            b"NOOP" => Step::Reply(ok()),
            b"VRFY" => Step::Reply(Reply::new(252, "2.5.2", "Cannot verify; send mail to find out")),
            b"QUIT" => Step::Close(Reply::new(221, "2.0.0", "Bye")),
            other if NOT_SMTP.contains(&other) => Step::Close(Reply::new(221, "2.7.0", "This is not SMTP")),
            _ => self.refuse(502, "5.5.2", "Command not recognized"),
        }
    }

    /// Ends a transaction and forgets the client: XFORWARD holds for one transaction only.
    fn end_transaction(&mut self) {
        self.client = Client::default();
        if let Phase::Transaction { .. } = self.phase {
            self.phase = Phase::Greeted;
        }
    }

    fn refuse(&mut self, code: u16, enhanced: &str, text: &str) -> Step {
        self.bad += 1;
        if self.bad >= BAD_COMMANDS {
            return Step::Close(Reply::new(421, "4.7.0", "Too many errors"));
        }
        Step::Reply(Reply::new(code, enhanced, text))
    }

    fn hello(&mut self, name: &[u8], extended: bool) -> Step {
        if name.is_empty() {
            return self.refuse(501, "5.5.4", "Syntax: EHLO hostname");
        }
        self.end_transaction();
        self.phase = Phase::Greeted;
        if !extended {
            return Step::Reset(Reply::new(250, "", &self.limits.hostname));
        }
        let names: Vec<&str> = Attribute::ALL.into_iter().map(Attribute::name).collect();
        Step::Reset(Reply::listing(
            250,
            &[
                self.limits.hostname.clone(),
                "PIPELINING".into(),
                format!("SIZE {}", self.limits.max_size),
                "ENHANCEDSTATUSCODES".into(),
                "8BITMIME".into(),
                "SMTPUTF8".into(),
                "DSN".into(),
                format!("XFORWARD {}", names.join(" ")),
            ],
        ))
    }

    fn xforward(&mut self, arguments: &[u8]) -> Step {
        if let Phase::Transaction { .. } = self.phase {
            return self.refuse(503, "5.5.1", "MAIL transaction in progress");
        }
        match xforward::parse(arguments) {
            Ok(pairs) => {
                for (attribute, value) in pairs {
                    self.client.set(attribute, &value);
                }
                Step::Reply(ok())
            }
            Err(error) => self.refuse(501, "5.5.4", &error.to_string()),
        }
    }

    fn mail(&mut self, rest: &[u8]) -> Step {
        match self.phase {
            Phase::Connected => return self.refuse(503, "5.5.1", "Send HELO or EHLO first"),
            Phase::Transaction { .. } => return self.refuse(503, "5.5.1", "Nested MAIL command"),
            Phase::Greeted => {}
        }
        let Some(verbatim) = strip_keyword(rest, b"FROM:") else {
            return self.refuse(501, "5.5.4", "Syntax: MAIL FROM:<address>");
        };
        match Path::parse(verbatim) {
            Ok(path) if path.size().is_some_and(|size| size > self.limits.max_size) => Step::Reply(too_big()),
            Ok(path) => Step::Mail(path),
            Err(error) => self.bad_path(error, "5.1.7"),
        }
    }

    fn recipient(&mut self, rest: &[u8]) -> Step {
        let Phase::Transaction { envelope, asked } = &mut self.phase else {
            return self.refuse(503, "5.5.1", "Need MAIL before RCPT");
        };
        *asked += 1;
        if envelope.recipients.len() >= self.limits.max_recipients {
            return Step::Reply(Reply::new(452, "4.5.3", "Too many recipients"));
        }
        let Some(verbatim) = strip_keyword(rest, b"TO:") else {
            return self.refuse(501, "5.5.4", "Syntax: RCPT TO:<address>");
        };
        match Path::parse(verbatim) {
            Ok(path) => Step::Recipient(path),
            Err(error) => self.bad_path(error, "5.1.3"),
        }
    }

    fn data(&mut self, rest: &[u8]) -> Step {
        if !rest.is_empty() {
            return self.refuse(501, "5.5.4", "Syntax: DATA");
        }
        match std::mem::replace(&mut self.phase, Phase::Greeted) {
            Phase::Transaction { envelope, .. } if !envelope.recipients.is_empty() => {
                self.client = Client::default();
                Step::Data(envelope)
            }
            // RFC 2920 3.1: a client that sent RCPT and DATA in one go must learn that there is nobody to deliver to.
            phase @ Phase::Transaction { asked: 1.., .. } => {
                self.phase = phase;
                self.refuse(554, "5.5.1", "No valid recipients")
            }
            phase => {
                self.phase = phase;
                self.refuse(503, "5.5.1", "Need RCPT before DATA")
            }
        }
    }

    fn bad_path(&mut self, error: PathError, enhanced: &str) -> Step {
        let enhanced = if error == PathError::Control { "5.5.2" } else { enhanced };
        self.refuse(501, enhanced, &error.to_string())
    }
}

/// The reply to a message, or the claim of one, over the size limit.
pub(crate) fn too_big() -> Reply {
    Reply::new(552, "5.3.4", "Message size exceeds fixed limit")
}

fn ok() -> Reply {
    Reply::new(250, "2.0.0", "Ok")
}

fn strip_keyword<'a>(text: &'a [u8], keyword: &[u8]) -> Option<&'a [u8]> {
    let (head, tail) = text.split_at_checked(keyword.len())?;
    head.eq_ignore_ascii_case(keyword).then_some(tail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::MessageId;
    use proptest::prelude::*;

    fn dialogue() -> Dialogue {
        Dialogue::new(Limits { hostname: "mx.test".into(), max_size: 1000, max_recipients: 2 })
    }

    /// Sends lines, with a next hop that takes everything; gives the code of each reply (354 for DATA).
    fn play(dialogue: &mut Dialogue, lines: &[&str]) -> Vec<u16> {
        lines.iter().map(|line| code(dialogue, line)).collect()
    }

    fn code(dialogue: &mut Dialogue, line: &str) -> u16 {
        match dialogue.step(line.as_bytes()) {
            Step::Reply(reply) | Step::Reset(reply) | Step::Close(reply) => reply.code(),
            Step::Mail(path) => {
                let client = dialogue.client().clone();
                dialogue.begin(Envelope::new(MessageId::generate(), path, client));
                250
            }
            Step::Recipient(path) => {
                dialogue.add_recipient(path);
                250
            }
            Step::Data(_) => 354,
        }
    }

    #[test]
    fn what_postfix_sends() {
        let mut dialogue = dialogue();
        let codes = play(
            &mut dialogue,
            &[
                "EHLO front.test",
                "XFORWARD NAME=c.test ADDR=192.0.2.1 PORT=25 HELO=c IDENT=X PROTO=ESMTP SOURCE=REMOTE",
                "MAIL FROM:<a@b> SIZE=99 BODY=8BITMIME",
                "RCPT TO:<c@d> ORCPT=rfc822;c@d",
            ],
        );
        assert_eq!(codes, [250, 250, 250, 250]);
        let Step::Data(envelope) = dialogue.step(b"DATA") else { panic!("no DATA") };
        assert_eq!(envelope.sender.verbatim, b"<a@b> SIZE=99 BODY=8BITMIME");
        assert_eq!(envelope.recipients[0].address, "c@d");
        assert_eq!(envelope.client.name.as_deref(), Some("c.test"));
        assert_eq!(envelope.size_declared, Some(99));
        assert_eq!(dialogue.client(), &Client::default(), "XFORWARD holds for one transaction");
        assert_eq!(play(&mut dialogue, &["MAIL FROM:<>", "QUIT"]), [250, 221]);
    }

    #[test]
    fn commands_out_of_order() {
        let codes = play(
            &mut dialogue(),
            &[
                "MAIL FROM:<a@b>",
                "RCPT TO:<a@b>",
                "DATA",
                "HELO x",
                "RCPT TO:<a@b>",
                "mail from:<a@b>",
                "MAIL FROM:<a@b>",
                "DATA",
                "XFORWARD NAME=x",
                "rcpt to: <a@b>",
                "RCPT TO:<b@b>",
                "RCPT TO:<c@b>",
                "RSET",
                "DATA",
                "NOOP x",
                "VRFY a",
                "BDAT 3",
                "",
            ],
        );
        assert_eq!(codes, [503, 503, 503, 250, 503, 250, 503, 503, 503, 250, 250, 452, 250, 503, 250, 252, 502, 502]);
    }

    #[test]
    fn syntax_and_size() {
        let codes = play(
            &mut dialogue(),
            &[
                "EHLO",
                "EHLO x",
                "MAIL <a@b>",
                "MAIL FROM:",
                "MAIL FROM:<a@b",
                "MAIL FROM:<a@b> SIZE=1001",
                "MAIL FROM:<a@b> SIZE=1000",
                "RCPT FROM:<a>",
                "RCPT TO:<a",
                "DATA",
                "DATA x",
                "XFORWARD",
            ],
        );
        assert_eq!(codes, [501, 250, 501, 501, 501, 552, 250, 501, 501, 554, 501, 503]);
    }

    #[test]
    fn ehlo_ends_a_transaction_and_lists_source_last() {
        let mut dialogue = dialogue();
        play(&mut dialogue, &["EHLO x", "XFORWARD NAME=a", "MAIL FROM:<a@b>"]);
        let Step::Reset(reply) = dialogue.step(b"EHLO x") else { panic!("not a reset") };
        let lines: Vec<_> = reply.lines().map(|line| String::from_utf8_lossy(&line[4..]).into_owned()).collect();
        assert_eq!(
            lines[1..],
            [
                "PIPELINING",
                "SIZE 1000",
                "ENHANCEDSTATUSCODES",
                "8BITMIME",
                "SMTPUTF8",
                "DSN",
                "XFORWARD NAME ADDR PORT HELO IDENT PROTO SOURCE",
            ]
        );
        assert!(dialogue.envelope().is_none() && dialogue.client().name.is_none());
    }

    #[test]
    fn browsers_and_noise_are_shown_the_door() {
        assert!(matches!(dialogue().step(b"POST / HTTP/1.1"), Step::Close(_)));
        let mut dialogue = dialogue();
        let closed = (0..60).position(|_| matches!(dialogue.step(b"x"), Step::Close(_)));
        assert_eq!(closed, Some(49));
    }

    proptest! {
        #[test]
        fn any_line_never_panics(lines in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..10), verb in "(MAIL FROM:|RCPT TO:|XFORWARD |DATA|EHLO )?") {
            let mut dialogue = dialogue();
            play(&mut dialogue, &["EHLO x"]);
            for line in lines {
                let text = String::from_utf8_lossy(&line).into_owned();
                code(&mut dialogue, &format!("{verb}{text}"));
                dialogue.step(&line);
            }
        }
    }
}
