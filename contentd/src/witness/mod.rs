// SPDX-License-Identifier: GPL-3.0-or-later
//! The witness: a small process beside the daemon that knows, when the daemon dies, what only the daemon knew.
//!
//! Between the final dot and the reply to it nobody can tell from outside whether the next hop has a message. So the witness holds a copy of each
//! such connection. When the daemon is gone it says no more on it (a dot that was not sent is never sent) and listens: a 2xx means
//! delivered, the end without a reply means not delivered. It also knows which messages were being inspected. What it finds goes into a file of
//! its own (`record`), which the next daemon reads (`recover`). While the daemon lives it writes nothing. docs/decisions/0012.

pub(crate) mod packet;
pub mod process;
pub mod record;
pub mod recover;

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
use packet::Packet;

/// Before a witness that has ended is replaced.
const PAUSE: Duration = Duration::from_secs(1);

/// The daemon's end.
#[derive(Debug, Default)]
pub struct Witness {
    socket: ArcSwapOption<OwnedFd>,
    next: AtomicU32,
}

impl Witness {
    /// Whether there is one.
    pub fn is_there(&self) -> bool {
        self.socket.load().is_some()
    }

    /// The final dot is about to go out on `connection`.
    pub(crate) fn dot(self: &Arc<Self>, connection: BorrowedFd<'_>, id: &str, keys: Vec<Key>) -> Held {
        let number = self.number();
        self.tell(&Packet::Dot { number, id: id.to_owned(), keys }, Some(connection));
        Held { witness: self.clone(), number }
    }

    /// A message is about to be inspected; it is until the result is dropped.
    pub(crate) fn inspecting(self: &Arc<Self>, id: &str, key: Key) -> Inspecting {
        let number = self.number();
        self.tell(&Packet::Inspecting { number, id: id.to_owned(), key }, None);
        Inspecting { witness: self.clone(), number }
    }

    fn number(&self) -> u32 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Never waits: a witness that does not listen is worth less than a message in time.
    fn tell(&self, packet: &Packet, connection: Option<BorrowedFd<'_>>) {
        let Some(socket) = self.socket.load_full() else { return };
        let sent = match packet.encode() {
            Some(bytes) => send(socket.as_fd(), &bytes, connection),
            None => Err(io::Error::from(io::ErrorKind::InvalidInput)),
        };
        if let Err(error) = sent {
            counter!("octroi_contentd_witness_lost_total").increment(1);
            tracing::debug!(%error, "the witness was not told");
        }
    }

    /// Keeps a witness running until `stop`; when it ends, another one takes its place. `folder`: for its files.
    pub async fn keep(&self, folder: PathBuf, stop: CancellationToken) {
        let mut told = false;
        loop {
            match start(&folder) {
                Ok((socket, mut child)) => {
                    self.socket.store(Some(Arc::new(socket)));
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
        self.socket.store(None);
        gauge!("octroi_contentd_witness_up").set(0.0);
    }
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

fn send(socket: BorrowedFd<'_>, bytes: &[u8], connection: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    let Some(connection) = connection else {
        rustix::net::send(socket, bytes, flags)?;
        return Ok(());
    };
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [connection];
    control.push(SendAncillaryMessage::ScmRights(&descriptors));
    rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut control, flags)?;
    Ok(())
}

/// A connection that the witness holds. Dropping it settles nothing: if the daemon ends, the witness finds out.
#[derive(Debug)]
pub(crate) struct Held {
    witness: Arc<Witness>,
    number: u32,
}

impl Held {
    /// The next hop has taken the message.
    pub(crate) fn taken(&self, reply: &str) {
        self.witness.tell(&Packet::Taken { number: self.number, reply: reply.to_owned() }, None);
    }

    /// There is nothing more to find out.
    pub(crate) fn settled(self) {
        self.witness.tell(&Packet::Settled { number: self.number }, None);
    }
}

/// An inspection that goes on.
#[derive(Debug)]
pub(crate) struct Inspecting {
    witness: Arc<Witness>,
    number: u32,
}

impl Drop for Inspecting {
    fn drop(&mut self) {
        self.witness.tell(&Packet::Inspected { number: self.number }, None);
    }
}

/// Tells the metrics page what the witness' numbers mean.
pub fn describe_metrics() {
    metrics::describe_gauge!("octroi_contentd_witness_up", "1 while the witness runs");
    metrics::describe_counter!("octroi_contentd_witness_lost_total", "Things that the witness could not be told");
}
