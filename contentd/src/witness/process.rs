// SPDX-License-Identifier: GPL-3.0-or-later
//! The witness itself: `contentd witness FOLDER`, started by the daemon and by nobody else. It reads no configuration, logs nothing and has no
//! other descriptors than its socket, its file and the connections that it holds.
//!
//! It ends when the daemon has ended and everything that it holds is known. Signals that end processes are ignored: systemd sends SIGTERM to
//! it, too, when the daemon has crashed, and its work has only begun then.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, IoSliceMut, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, Shutdown};
use tokio::signal::unix::{SignalKind, signal};

use super::packet::{ConnectionId, LARGEST, Packet};
use super::record::Fact;
use super::slate::{self, Entry};
use crate::smtp::reply::ReplyParser;

/// For a reply to the final dot (RFC 5321 section 4.5.3.2.6).
const PATIENCE: Duration = Duration::from_secs(600);

/// What the daemon has given.
#[derive(Default)]
struct Given {
    slate: Option<OwnedFd>,
    connections: HashMap<ConnectionId, OwnedFd>,
}

impl Given {
    fn take(&mut self, packet: Packet, descriptor: Option<OwnedFd>) {
        match packet {
            Packet::Slate => self.slate = descriptor.or(self.slate.take()),
            Packet::Opened(number) => {
                if let Some(connection) = descriptor {
                    self.connections.insert(number, connection);
                }
            }
            Packet::Closed(number) => drop(self.connections.remove(&number)),
        }
    }
}

/// What is known at once when the daemon has ended.
fn facts(entries: &[Entry]) -> Vec<Fact> {
    let mut facts = Vec::new();
    for entry in entries {
        match entry.clone() {
            Entry::Inspecting { id, key } => facts.push(Fact::Inspected { id, key }),
            Entry::Dot { id, keys, reply, .. } => {
                facts.push(Fact::Sent { id: id.clone(), keys });
                facts.extend(reply.map(|reply| Fact::Delivered { id, reply }));
            }
        }
    }
    facts
}

/// Does its work; comes back when nothing is left to find out. Errors: no descriptor to listen on, no file to write to.
pub fn run(folder: &Path) -> io::Result<()> {
    let socket = io::stdin().as_fd().try_clone_to_owned()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Handlers that do nothing, for as long as the process lives.
    let _ignored = runtime
        .block_on(async { [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()].map(signal) });
    let mut file = RecordFile::make(folder)?;
    let Given { slate, mut connections } = listen(&socket);
    let entries = slate.map_or(Ok(Vec::new()), |slate| slate::read(&slate))?;
    file.add(&facts(&entries))?;
    let asked = entries.into_iter().filter_map(|entry| ask(entry, &mut connections)).collect();
    // The others end now, with their daemon.
    drop(connections);
    resolve(asked, &mut file)?;
    file.leave()
}

/// Takes what comes until the daemon has gone.
fn listen(socket: &OwnedFd) -> Given {
    let (mut given, mut buffer) = (Given::default(), [0; LARGEST]);
    loop {
        match receive(socket, &mut buffer) {
            Ok((0, _)) => return given,
            Ok((length, descriptor)) => {
                if let Some(packet) = Packet::decode(&buffer[..length]) {
                    given.take(packet, descriptor);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // The daemon has died in a way that resets the connection.
            Err(_) => return given,
        }
    }
}

/// One packet, and the descriptor that came with it.
fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::net::recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut connection = None;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            connection = descriptors.last().or(connection);
        }
    }
    Ok((received.bytes, connection))
}

/// A next hop that is asked what it has.
struct Asked {
    id: String,
    connection: OwnedFd,
    parser: ReplyParser,
}

/// Finds out, for all connections at once, what the next hop has.
fn resolve(mut asked: Vec<Asked>, file: &mut RecordFile) -> io::Result<()> {
    let until = Instant::now() + PATIENCE;
    while !asked.is_empty() {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        let mut waiting: Vec<PollFd<'_>> =
            asked.iter().map(|asked| PollFd::new(&asked.connection, PollFlags::IN)).collect();
        let timeout = Timespec { tv_sec: i64::try_from(left.as_secs()).unwrap_or(1) + 1, tv_nsec: 0 };
        match rustix::event::poll(&mut waiting, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready: Vec<bool> = waiting.iter().map(|one| !one.revents().is_empty()).collect();
        let mut ready = ready.into_iter();
        let mut facts = Vec::new();
        asked.retain_mut(|asked| !ready.next().unwrap_or(false) || asked.goes_on(&mut facts));
        file.add(&facts)?;
    }
    Ok(())
}

/// Says that nothing more will come. When the dot was not sent, the next hop now sees that it never will be, and throws the message away.
fn ask(entry: Entry, connections: &mut HashMap<ConnectionId, OwnedFd>) -> Option<Asked> {
    let Entry::Dot { connection, id, reply: None, .. } = entry else { return None };
    let connection = connections.remove(&connection)?;
    rustix::net::shutdown(&connection, Shutdown::Write).ok()?;
    Some(Asked { id, connection, parser: ReplyParser::default() })
}

impl Asked {
    /// Reads what there is; false when there is nothing more to wait for.
    fn goes_on(&mut self, facts: &mut Vec<Fact>) -> bool {
        let mut buffer = [0; 4096];
        let length = match rustix::io::read(&self.connection, &mut buffer) {
            Ok(length) => length,
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => return true,
            Err(_) => 0,
        };
        match self.parser.feed(&buffer[..length]) {
            Ok((_, Some(reply))) => {
                let id = self.id.clone();
                facts.push(match reply.is_success() {
                    true => Fact::Delivered { id, reply: reply.first_line().into_owned() },
                    false => Fact::Refused { id },
                });
                false
            }
            // The next hop has closed without a word, or talks nonsense: nothing is known, and the message comes again.
            Ok((_, None)) => length > 0,
            Err(_) => false,
        }
    }
}

/// The file of this witness, locked as long as it lives.
struct RecordFile {
    path: PathBuf,
    file: File,
    written: bool,
}

impl RecordFile {
    fn make(folder: &Path) -> io::Result<RecordFile> {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let path = folder.join(format!("witness-{}-{}", since.as_nanos(), std::process::id()));
        let file = File::options().append(true).create_new(true).open(&path)?;
        file.lock()?;
        Ok(RecordFile { path, file, written: false })
    }

    fn add(&mut self, facts: &[Fact]) -> io::Result<()> {
        if facts.is_empty() {
            return Ok(());
        }
        self.written = true;
        let lines: String = facts.iter().map(Fact::line).collect();
        self.file.write_all(lines.as_bytes())?;
        self.file.sync_data()
    }

    /// A file in which nothing stands is of no use to anybody.
    fn leave(self) -> io::Result<()> {
        if self.written { Ok(()) } else { std::fs::remove_file(&self.path) }
    }
}
