// SPDX-License-Identifier: GPL-3.0-or-later
//! The witness: a small process beside the daemon that knows, when the daemon dies, what only the daemon knew.
//!
//! Between the final dot and the reply to it nobody can tell from outside whether the next hop has a message. So the witness holds a copy of each
//! connection on which a dot was sent, and shares a slate with the daemon on which stands what happens to each message. When the daemon is gone it says
//! no more on a connection where a reply is due (a dot that was not sent is never sent) and listens: a 2xx means delivered, the end without a reply
//! means not delivered. What it finds goes into a file of its own (`record`), which the next daemon reads (`recover`). While the daemon lives it
//! writes nothing, and it is woken once per connection, not per message. docs/decisions/0012.

pub(crate) mod packet;
pub mod process;
pub mod record;
pub mod recover;
pub(crate) mod slate;

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use metrics::{counter, gauge};
use rustix::net::{AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType};
use tokio_util::sync::CancellationToken;

use crate::identity::Key;
use packet::{ConnectionId, Packet};
use slate::{Entry, Place, Slate};

/// Before a witness that has ended is replaced.
const PAUSE: Duration = Duration::from_secs(1);

/// A witness process, as the daemon reaches it.
#[derive(Debug)]
struct Line {
    socket: OwnedFd,
    slate: Arc<Slate>,
    /// Which one it is: another one does not have the connections of the one before.
    generation: u32,
}

/// The daemon's end.
#[derive(Debug, Default)]
pub struct Witness {
    line: ArcSwapOption<Line>,
    connections: AtomicU32,
    generations: AtomicU32,
}

impl Witness {
    /// Whether there is one.
    pub fn is_there(&self) -> bool {
        self.line.load().is_some()
    }

    /// The final dot is about to go out on `connection`, which `watched` says the witness has; if not, it gets it now. None: nobody will know
    /// what becomes of the message if we end.
    pub(crate) fn dot(
        self: &Arc<Self>,
        watched: &mut Option<Watched>,
        connection: BorrowedFd<'_>,
        id: &str,
        keys: &[Key],
    ) -> Option<Held> {
        let line = self.line.load_full()?;
        if watched.as_ref().is_none_or(|watched| watched.line.generation != line.generation) {
            *watched = Watched::show(&line, self.connections.fetch_add(1, Ordering::Relaxed), connection);
        }
        let connection = watched.as_ref()?.number;
        let entry = Entry::Dot { connection, id: id.to_owned(), keys: keys.to_vec(), reply: None };
        let place = told(line.slate.add(&entry))?;
        Some(Held { slate: line.slate.clone(), place })
    }

    /// A message is about to be inspected; it is until the result is dropped.
    pub(crate) fn inspecting(&self, id: &str, key: Key) -> Option<Inspecting> {
        let line = self.line.load();
        let slate = &line.as_ref()?.slate;
        let place = told(slate.add(&Entry::Inspecting { id: id.to_owned(), key }))?;
        Some(Inspecting { slate: slate.clone(), place })
    }

    /// Keeps a witness running until `stop`; when it ends, another one takes its place. `folder`: for its files.
    pub async fn keep(&self, folder: PathBuf, stop: CancellationToken) {
        let mut told = false;
        // One for all witnesses: what stands on it is true for the next one as well.
        let mut slate = None;
        loop {
            match self.begin(&folder, &mut slate) {
                Ok((line, mut child)) => {
                    self.line.store(Some(Arc::new(line)));
                    told = false;
                    gauge!("octroi_contentd_witness_up").set(1.0);
                    tokio::select! {
                        ended = child.wait() => {
                            let status = ended.map(|status| status.to_string()).unwrap_or_else(|error| error.to_string());
                            tracing::warn!(status, "the witness has ended; another one is started");
                        }
                        () = stop.cancelled() => return self.leave(),
                    }
                    self.leave();
                }
                Err(error) => {
                    // Once is enough; the gauge says how it stands.
                    if !std::mem::replace(&mut told, true) {
                        let folder = folder.display();
                        tracing::error!(%folder, %error, "no witness: after a crash a message may come twice");
                    }
                }
            }
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    fn leave(&self) {
        self.line.store(None);
        gauge!("octroi_contentd_witness_up").set(0.0);
    }

    fn begin(
        &self,
        folder: &std::path::Path,
        slate: &mut Option<Arc<Slate>>,
    ) -> io::Result<(Line, tokio::process::Child)> {
        let slate = match slate {
            Some(slate) => slate.clone(),
            None => slate.insert(Arc::new(Slate::new()?)).clone(),
        };
        let (socket, child) = start(folder)?;
        send(socket.as_fd(), Packet::Slate, Some(slate.as_fd()))?;
        let generation = self.generations.fetch_add(1, Ordering::Relaxed);
        Ok((Line { socket, slate, generation }, child))
    }
}

/// Counts what the witness could not be told. It never waits: a witness that does not listen is worth less than a message in time.
fn told<T>(result: io::Result<T>) -> Option<T> {
    result
        .inspect_err(|error| {
            counter!("octroi_contentd_witness_lost_total").increment(1);
            tracing::debug!(%error, "the witness was not told");
        })
        .ok()
}

/// Starts the process, with its end of the connection as standard input.
fn start(folder: &std::path::Path) -> io::Result<(OwnedFd, tokio::process::Child)> {
    std::fs::create_dir_all(folder)?;
    let (ours, theirs) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    // Our own program, also when the file has been replaced since.
    let mut command = tokio::process::Command::new("/proc/self/exe");
    command.arg("witness").arg(folder).stdin(Stdio::from(theirs)).stdout(Stdio::null());
    // What is meant for us (Ctrl-C) is not meant for it: it ends when we have.
    command.process_group(0);
    Ok((ours, command.spawn()?))
}

fn send(socket: BorrowedFd<'_>, packet: Packet, descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    let bytes = packet.encode();
    let Some(descriptor) = descriptor else {
        rustix::net::send(socket, &bytes, flags)?;
        return Ok(());
    };
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [descriptor];
    control.push(SendAncillaryMessage::ScmRights(&descriptors));
    rustix::net::sendmsg(socket, &[IoSlice::new(&bytes)], &mut control, flags)?;
    Ok(())
}

/// A connection of which the witness has a copy, until this is dropped.
#[derive(Debug)]
pub(crate) struct Watched {
    line: Arc<Line>,
    number: ConnectionId,
}

impl Watched {
    fn show(line: &Arc<Line>, number: ConnectionId, connection: BorrowedFd<'_>) -> Option<Watched> {
        told(send(line.socket.as_fd(), Packet::Opened(number), Some(connection)))?;
        Some(Watched { line: line.clone(), number })
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // To a witness that has ended meanwhile there is nothing to say.
        if let Err(error) = send(self.line.socket.as_fd(), Packet::Closed(self.number), None)
            && error.kind() != io::ErrorKind::BrokenPipe
        {
            told::<()>(Err(error));
        }
    }
}

/// A message whose dot is out. Dropping it settles nothing: if the daemon ends, the witness finds out.
#[derive(Debug)]
pub(crate) struct Held {
    slate: Arc<Slate>,
    place: Place,
}

impl Held {
    /// The next hop has taken the message.
    pub(crate) fn taken(&self, reply: &str) {
        told(self.slate.taken(self.place, reply));
    }

    /// There is nothing more to find out.
    pub(crate) fn settled(self) {
        told(self.slate.clear(self.place));
    }
}

/// An inspection that goes on.
#[derive(Debug)]
pub(crate) struct Inspecting {
    slate: Arc<Slate>,
    place: Place,
}

impl Drop for Inspecting {
    fn drop(&mut self) {
        told(self.slate.clear(self.place));
    }
}

/// Tells the metrics page what the witness' numbers mean.
pub fn describe_metrics() {
    metrics::describe_gauge!("octroi_contentd_witness_up", "1 while the witness runs");
    metrics::describe_counter!("octroi_contentd_witness_lost_total", "Things that the witness could not be told");
}
