// SPDX-License-Identifier: GPL-3.0-or-later
//! What daemon and helper say to each other: frames of a tag, a length and so many bytes, numbers little-endian. Pure.
//!
//! Neither side believes the other: lengths have limits, and a frame that makes no sense ends the helper. The daemon writes one job
//! and then only reads; the helper reads the whole job before it writes a word. So neither can wait for the other for ever.

use super::super::members::Flaw;
use crate::budget::Over;
use crate::findings::FindingKind;
use std::io::{self, Read};
use std::time::Duration;

/// Longest frame; data comes in pieces of at most this.
pub(super) const LARGEST: usize = 256 * 1024;
/// Names of one member, and the longest of them in bytes.
const NAMES: usize = 16;
const NAME: usize = 16 * 1024;
/// Longest detail of a flaw in bytes.
const DETAIL: usize = 1024;

/// What the helper says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Word {
    /// It is ready, and confined like this.
    Ready(super::Confinement),
    /// It cannot work; why.
    Refused(String),
    /// A member begins; whether it is listed.
    Member { listed: bool, names: Vec<String> },
    /// Bytes of the member.
    Data(Vec<u8>),
    /// Its end, with what ended it.
    End(Option<io::ErrorKind>),
    /// A member that cannot be read.
    Closed { names: Vec<String>, kind: FindingKind, detail: String },
    /// A flaw of the archive.
    Flaw { kind: FindingKind, detail: String },
    /// Something noteworthy about it.
    Note { kind: FindingKind, detail: String },
    /// The job is done.
    Done { ended: Ended, cpu: Duration },
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ended {
    /// Well.
    Good,
    /// With a flaw of the archive as a whole.
    Flaw { kind: FindingKind, detail: String },
    /// At a limit of the message.
    Over(Over),
    /// The decoder broke off; where in its source.
    Broke(String),
}

/// Makes frames.
#[derive(Default)]
struct Frame(Vec<u8>);

impl Frame {
    fn new(tag: u8) -> Frame {
        // The length is put in when it is known.
        Frame(vec![tag, 0, 0, 0, 0])
    }

    fn byte(mut self, byte: u8) -> Frame {
        self.0.push(byte);
        self
    }

    fn number(mut self, number: u64) -> Frame {
        self.0.extend_from_slice(&number.to_le_bytes());
        self
    }

    fn text(self, text: &str, most: usize) -> Frame {
        let mut end = text.len().min(most);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        self.bytes(&text.as_bytes()[..end])
    }

    fn bytes(mut self, bytes: &[u8]) -> Frame {
        self.0.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        self.0.extend_from_slice(bytes);
        self
    }

    fn names(mut self, names: &[String]) -> Frame {
        let names = &names[..names.len().min(NAMES)];
        self = self.byte(names.len() as u8);
        for name in names {
            self = self.text(name, NAME);
        }
        self
    }

    fn finding(self, kind: FindingKind, detail: &str) -> Frame {
        let place = FindingKind::ALL.iter().position(|other| *other == kind).unwrap_or(0);
        self.byte(place as u8).text(detail, DETAIL)
    }

    fn done(mut self) -> Vec<u8> {
        let length = (self.0.len() - 5) as u32;
        self.0[1..5].copy_from_slice(&length.to_le_bytes());
        self.0
    }
}

/// Takes frames apart. None: there is no such thing.
struct Reader<'d>(&'d [u8]);

impl<'d> Reader<'d> {
    fn take(&mut self, length: usize) -> Option<&'d [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn number(&mut self) -> Option<u64> {
        self.take(8)?.try_into().ok().map(u64::from_le_bytes)
    }

    fn bytes(&mut self) -> Option<&'d [u8]> {
        let length = self.take(4)?.try_into().ok().map(u32::from_le_bytes)?;
        self.take(length as usize)
    }

    fn text(&mut self, most: usize) -> Option<String> {
        let bytes = self.bytes().filter(|bytes| bytes.len() <= most)?;
        String::from_utf8(bytes.to_vec()).ok()
    }

    fn names(&mut self) -> Option<Vec<String>> {
        let count = usize::from(self.byte()?);
        (count <= NAMES).then_some(())?;
        (0..count).map(|_| self.text(NAME)).collect()
    }

    fn finding(&mut self) -> Option<(FindingKind, String)> {
        let kind = FindingKind::ALL.get(usize::from(self.byte()?))?;
        Some((*kind, self.text(DETAIL)?))
    }

    fn end<T>(self, value: T) -> Option<T> {
        self.0.is_empty().then_some(value)
    }
}

const OVERS: [Over; 4] = [Over::Bytes, Over::Objects, Over::Cpu, Over::Time];
/// The errors that findings tell apart.
const ENDS: [io::ErrorKind; 4] =
    [io::ErrorKind::UnexpectedEof, io::ErrorKind::OutOfMemory, io::ErrorKind::Unsupported, io::ErrorKind::InvalidData];

impl Word {
    /// As a frame.
    pub(super) fn encode(&self) -> Vec<u8> {
        match self {
            Word::Ready(confinement) => Frame::new(b'R').bytes(&confinement.encode()).done(),
            Word::Refused(why) => Frame::new(b'X').text(why, DETAIL).done(),
            Word::Member { listed, names } => Frame::new(b'M').byte(u8::from(*listed)).names(names).done(),
            Word::Data(data) => data_frame(data),
            Word::End(how) => {
                let place = how.and_then(|how| ENDS.iter().position(|kind| *kind == how).or(Some(3)));
                Frame::new(b'E').byte(place.map_or(0, |place| place as u8 + 1)).done()
            }
            Word::Closed { names, kind, detail } => Frame::new(b'C').names(names).finding(*kind, detail).done(),
            Word::Flaw { kind, detail } => Frame::new(b'F').finding(*kind, detail).done(),
            Word::Note { kind, detail } => Frame::new(b'N').finding(*kind, detail).done(),
            Word::Done { ended, cpu } => {
                let frame = Frame::new(b'Z').number(u64::try_from(cpu.as_micros()).unwrap_or(u64::MAX));
                match ended {
                    Ended::Good => frame.byte(0),
                    Ended::Flaw { kind, detail } => frame.byte(1).finding(*kind, detail),
                    Ended::Over(over) => {
                        frame.byte(2).byte(OVERS.iter().position(|other| other == over).unwrap_or(0) as u8)
                    }
                    Ended::Broke(place) => frame.byte(3).text(place, DETAIL),
                }
                .done()
            }
        }
    }

    /// Out of a frame.
    fn decode(tag: u8, content: Vec<u8>) -> Option<Word> {
        if tag == b'D' {
            return Some(Word::Data(content));
        }
        let mut from = Reader(&content);
        let word = match tag {
            b'R' => Word::Ready(super::Confinement::decode(from.bytes()?)?),
            b'X' => Word::Refused(from.text(DETAIL)?),
            b'M' => Word::Member { listed: from.byte()? != 0, names: from.names()? },
            b'E' => match from.byte()? {
                0 => Word::End(None),
                place => Word::End(Some(*ENDS.get(usize::from(place) - 1)?)),
            },
            b'C' => {
                let names = from.names()?;
                let (kind, detail) = from.finding()?;
                Word::Closed { names, kind, detail }
            }
            b'F' => from.finding().map(|(kind, detail)| Word::Flaw { kind, detail })?,
            b'N' => from.finding().map(|(kind, detail)| Word::Note { kind, detail })?,
            b'Z' => {
                let cpu = Duration::from_micros(from.number()?);
                let ended = match from.byte()? {
                    0 => Ended::Good,
                    1 => from.finding().map(|(kind, detail)| Ended::Flaw { kind, detail })?,
                    2 => Ended::Over(*OVERS.get(usize::from(from.byte()?))?),
                    3 => Ended::Broke(from.text(DETAIL)?),
                    _ => return None,
                };
                Word::Done { ended, cpu }
            }
            _ => return None,
        };
        from.end(word)
    }

    /// Reads the next one. Errors: the helper has gone (`UnexpectedEof`), or it talks nonsense (`InvalidData`).
    pub(super) fn read(from: &mut dyn Read) -> io::Result<Word> {
        let mut head = [0; 5];
        from.read_exact(&mut head)?;
        let length = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if length > LARGEST {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut content = vec![0; length];
        from.read_exact(&mut content)?;
        Word::decode(head[0], content).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

/// A piece of a member; no longer than [`LARGEST`].
pub(super) fn data_frame(data: &[u8]) -> Vec<u8> {
    let mut frame = Frame::new(b'D');
    frame.0.extend_from_slice(&data[..data.len().min(LARGEST)]);
    frame.done()
}

/// What the daemon asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Job {
    /// Word of the format.
    pub(super) format: String,
    /// Name of the file.
    pub(super) name: String,
    /// Words that may be passwords.
    pub(super) passwords: Vec<String>,
    /// Bytes that may come out, in all and of one member.
    pub(super) left: u64,
    pub(super) member: u64,
    /// For windows and dictionaries.
    pub(super) memory: u64,
    /// Members.
    pub(super) objects: u64,
    /// Processor time, and time by the wall.
    pub(super) cpu: Duration,
    pub(super) wall: Duration,
    /// The file, and the further volumes of its set.
    pub(super) files: Vec<u64>,
}

/// More volumes are no mail, nor more words worth a try.
const FILES: u64 = 256;
const PASSWORDS: u64 = 256;

impl Job {
    /// The frame that is followed by the files.
    pub(super) fn encode(&self) -> Vec<u8> {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let mut frame = Frame::new(b'J').text(&self.format, NAME).text(&self.name, NAME);
        frame = frame.number(self.passwords.len() as u64);
        for password in &self.passwords {
            frame = frame.text(password, DETAIL);
        }
        for number in [self.left, self.member, self.memory, self.objects, micros(self.cpu), micros(self.wall)] {
            frame = frame.number(number);
        }
        frame = frame.number(self.files.len() as u64);
        for length in &self.files {
            frame = frame.number(*length);
        }
        frame.done()
    }

    fn decode(content: &[u8]) -> Option<Job> {
        let mut from = Reader(content);
        let (format, name) = (from.text(NAME)?, from.text(NAME)?);
        let passwords = from.number().filter(|count| *count <= PASSWORDS)?;
        let passwords = (0..passwords).map(|_| from.text(DETAIL)).collect::<Option<_>>()?;
        let mut job = Job {
            format,
            name,
            passwords,
            left: from.number()?,
            member: from.number()?,
            memory: from.number()?,
            objects: from.number()?,
            cpu: Duration::from_micros(from.number()?),
            wall: Duration::from_micros(from.number()?),
            files: Vec::new(),
        };
        let files = from.number().filter(|count| *count <= FILES)?;
        job.files = (0..files).map(|_| from.number()).collect::<Option<_>>()?;
        from.end(job)
    }

    /// Reads the next one; none when the daemon has gone.
    pub(super) fn read(from: &mut dyn Read) -> io::Result<Option<Job>> {
        let mut head = [0; 5];
        match from.read_exact(&mut head) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
        let length = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if length > 2 * LARGEST || head[0] != b'J' {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut content = vec![0; length];
        from.read_exact(&mut content)?;
        Job::decode(&content).map(Some).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

/// A flaw as the helper tells it.
pub(super) fn flaw_words(flaw: &Flaw, format: &str) -> (FindingKind, String) {
    let finding = flaw.finding("", format);
    (finding.kind, finding.detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_said_is_understood() {
        let names = vec!["a/b.exe".to_owned(), "ä".to_owned()];
        let words = [
            Word::Ready(super::super::Confinement { seccomp: true, ..Default::default() }),
            Word::Member { listed: true, names: names.clone() },
            Word::Data(vec![7; 1000]),
            Word::End(None),
            Word::End(Some(io::ErrorKind::OutOfMemory)),
            Word::Closed { names, kind: FindingKind::Encrypted, detail: "rar".into() },
            Word::Flaw { kind: FindingKind::DamagedArchive, detail: "x".into() },
            Word::Note { kind: FindingKind::HiddenMembers, detail: String::new() },
            Word::Done { ended: Ended::Over(Over::Cpu), cpu: Duration::from_micros(17) },
            Word::Done { ended: Ended::Broke("a.rs:1".into()), cpu: Duration::ZERO },
        ];
        for word in words {
            assert_eq!(Word::read(&mut &word.encode()[..]).unwrap(), word);
        }
        let job = Job {
            format: "rar".into(),
            name: "a.rar".into(),
            passwords: vec!["x".into()],
            left: 1,
            member: 2,
            memory: 3,
            objects: 4,
            cpu: Duration::from_secs(1),
            wall: Duration::from_millis(5),
            files: vec![9, 10],
        };
        assert_eq!(Job::read(&mut &job.encode()[..]).unwrap(), Some(job));
        assert_eq!(Job::read(&mut &b""[..]).unwrap(), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_words_or_an_error(tag: u8, data: Vec<u8>) {
            let frame = [&[tag][..], &(data.len() as u32).to_le_bytes(), &data].concat();
            let _ = Word::read(&mut &frame[..]);
            let _ = Word::read(&mut &data[..]);
            let _ = Job::decode(&data);
        }
    }
}
