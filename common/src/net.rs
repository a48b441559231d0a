// SPDX-License-Identifier: GPL-3.0-or-later
//! Stream sockets, TCP or UNIX, behind one type each, and how they are bound, inherited and connected.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::address::Address;

/// Why a listening socket could not be had. The text names the address.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The system refused: port taken, no permission, no such host.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address as configured.
        address: Address,
        /// What the system said.
        source: io::Error,
    },
    /// The group of a UNIX socket does not exist.
    #[error("cannot give {path} to group {group:?}: {reason}")]
    Group {
        /// Path of the socket.
        path: PathBuf,
        /// Group name as configured.
        group: String,
        /// What went wrong.
        reason: String,
    },
    /// A socket handed over by systemd cannot be used.
    #[error("socket {index} passed by systemd cannot be used: {source}")]
    Inherited {
        /// Position among the passed sockets, from 0.
        index: usize,
        /// What the system said.
        source: io::Error,
    },
}

/// A connected stream socket.
#[derive(Debug)]
pub enum Stream {
    /// TCP, with TCP_NODELAY set.
    Tcp(TcpStream),
    /// UNIX domain.
    Unix(UnixStream),
}

impl Stream {
    /// Connects to `address`; the caller sets the time limit.
    pub async fn connect(address: &Address) -> io::Result<Self> {
        match address {
            Address::Tcp { host, port } => Self::from_tcp(TcpStream::connect((host.as_str(), *port)).await?),
            Address::Unix(path) => Ok(Self::Unix(UnixStream::connect(path).await?)),
        }
    }

    fn from_tcp(stream: TcpStream) -> io::Result<Self> {
        // Every protocol here is request and reply: waiting to fill a segment only adds delay.
        stream.set_nodelay(true)?;
        Ok(Self::Tcp(stream))
    }

    /// IP address of the peer; none for a UNIX socket or a peer that is already gone.
    pub fn peer_ip(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(stream) => stream.peer_addr().ok().map(|peer| peer.ip().to_canonical()),
            Self::Unix(_) => None,
        }
    }

    /// Waits for something to arrive and looks at it; it can still be read. 0: the peer has closed.
    pub async fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.peek(buffer).await,
            Self::Unix(stream) => {
                let look = || Ok(rustix::net::recv(stream, &mut *buffer, rustix::net::RecvFlags::PEEK)?.1);
                stream.async_io(tokio::io::Interest::READABLE, look).await
            }
        }
    }

    /// Whether something has arrived, or the peer has closed, as the system knows it at this moment.
    pub fn has_news(&self) -> bool {
        let flags = rustix::net::RecvFlags::PEEK | rustix::net::RecvFlags::DONTWAIT;
        !matches!(rustix::net::recv(self, &mut [0; 1], flags), Err(rustix::io::Errno::AGAIN))
    }

    /// Waits until [`Stream::try_read`] is worth while. Safe to cancel.
    pub async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.readable().await,
            Self::Unix(stream) => stream.readable().await,
        }
    }

    /// Waits until [`Stream::try_write`] is worth while. Safe to cancel.
    pub async fn writable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.writable().await,
            Self::Unix(stream) => stream.writable().await,
        }
    }

    /// Writes what the system takes now; `WouldBlock` when that is nothing.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_write(bytes),
            Self::Unix(stream) => stream.try_write(bytes),
        }
    }

    /// Appends what has already arrived to `buffer`, as [`Stream::try_read`] does.
    pub fn try_read_buf(&self, buffer: &mut bytes::BytesMut) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_read_buf(buffer),
            Self::Unix(stream) => stream.try_read_buf(buffer),
        }
    }

    /// Says to the peer that nothing more will come, whoever else has the connection.
    pub fn end_writing(&self) {
        // It may have been broken already.
        let _ = rustix::net::shutdown(self, rustix::net::Shutdown::Write);
    }

    /// Reads what has already arrived, without waiting; `WouldBlock` when there is nothing, `Ok(0)` when the peer has closed.
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_read(buffer),
            Self::Unix(stream) => stream.try_read(buffer),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, data),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, data),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

/// A listening socket. A UNIX socket that we bound is removed again when this is dropped.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// UNIX domain, with the file to remove at the end (none when systemd owns it).
    Unix(UnixListener, Option<SocketFile>),
}

impl Listener {
    /// Waits for the next connection.
    pub async fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(listener) => Stream::from_tcp(listener.accept().await?.0),
            Self::Unix(listener, _) => Ok(Stream::Unix(listener.accept().await?.0)),
        }
    }

    /// Where it listens, with the real port where 0 was asked for.
    pub fn local_address(&self) -> Address {
        match self {
            Self::Tcp(listener) => match listener.local_addr() {
                Ok(local) => Address::tcp(local.ip().to_string(), local.port()),
                Err(_) => Address::tcp("unknown", 0),
            },
            Self::Unix(listener, _) => {
                let path = listener.local_addr().ok().and_then(|local| local.as_pathname().map(Path::to_path_buf));
                Address::Unix(path.unwrap_or_default())
            }
        }
    }
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Self::Tcp(listener)
    }
}

/// Removes the socket file that we made.
#[derive(Debug)]
pub struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // It may be gone already; nothing is lost when it stays, the next start removes a stale one.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Who may connect to the UNIX sockets we make.
#[derive(Debug, Clone, Default)]
pub struct SocketOptions {
    /// Permission bits; none leaves what the umask gives.
    pub mode: Option<u32>,
    /// Group by name (from /etc/group) or number; none leaves the group of the process.
    pub group: Option<String>,
}

/// Binds every address. A stale UNIX socket, one that nobody answers on, is replaced.
pub async fn bind(addresses: &[Address], options: &SocketOptions) -> Result<Vec<Listener>, BindError> {
    let mut listeners = Vec::with_capacity(addresses.len());
    for address in addresses {
        let failed = |source| BindError::Listen { address: address.clone(), source };
        listeners.push(match address {
            Address::Tcp { host, port } => {
                Listener::Tcp(TcpListener::bind((host.as_str(), *port)).await.map_err(failed)?)
            }
            Address::Unix(path) => {
                let listener = bind_unix(path).await.map_err(failed)?;
                let listener = Listener::Unix(listener, Some(SocketFile(path.clone())));
                if let Some(mode) = options.mode {
                    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(failed)?;
                }
                if let Some(group) = &options.group {
                    give_to_group(path, group)?;
                }
                listener
            }
        });
    }
    Ok(listeners)
}

async fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let is_socket = std::fs::symlink_metadata(path)?.file_type().is_socket();
            if !is_socket || UnixStream::connect(path).await.is_ok() {
                return Err(error);
            }
            std::fs::remove_file(path)?;
            UnixListener::bind(path)
        }
        bound => bound,
    }
}

fn give_to_group(path: &Path, group: &str) -> Result<(), BindError> {
    let failed = |reason: String| BindError::Group { path: path.to_path_buf(), group: group.to_owned(), reason };
    let id = match group.parse::<u32>() {
        Ok(id) => id,
        Err(_) => std::fs::read_to_string("/etc/group")
            .map_err(|error| failed(format!("cannot read /etc/group: {error}")))?
            .lines()
            .find_map(|line| {
                let mut fields = line.split(':');
                (fields.next() == Some(group)).then(|| fields.nth(1).and_then(|id| id.parse().ok())).flatten()
            })
            .ok_or_else(|| failed("no such group".to_owned()))?,
    };
    std::os::unix::fs::chown(path, None, Some(id)).map_err(|error| failed(error.to_string()))
}

/// The listening sockets that systemd passed (LISTEN_FDS, sd_listen_fds(3)); empty when there are none.
pub fn inherited() -> Result<Vec<Listener>, BindError> {
    let mut passed = listenfd::ListenFd::from_env();
    (0..passed.len())
        .filter_map(|index| {
            take_inherited(&mut passed, index).map_err(|source| BindError::Inherited { index, source }).transpose()
        })
        .collect()
}

fn take_inherited(passed: &mut listenfd::ListenFd, index: usize) -> io::Result<Option<Listener>> {
    // A socket of the other family is an error of the first call and stays in place for the second.
    if let Ok(Some(listener)) = passed.take_tcp_listener(index) {
        listener.set_nonblocking(true)?;
        return Ok(Some(Listener::Tcp(TcpListener::from_std(listener)?)));
    }
    let Some(listener) = passed.take_unix_listener(index)? else {
        return Ok(None);
    };
    listener.set_nonblocking(true)?;
    Ok(Some(Listener::Unix(UnixListener::from_std(listener)?, None)))
}

/// Binds the TCP port of the health and metrics page; `None` for an empty text.
pub async fn bind_http(address: &str) -> Result<Option<TcpListener>, BindError> {
    if address.is_empty() {
        return Ok(None);
    }
    let parsed: SocketAddr = address.parse().map_err(|_| BindError::Listen {
        address: Address::tcp(address, 0),
        source: io::Error::new(io::ErrorKind::InvalidInput, "not an IP address with port"),
    })?;
    let listener = TcpListener::bind(parsed).await;
    listener
        .map(Some)
        .map_err(|source| BindError::Listen { address: Address::tcp(parsed.ip().to_string(), parsed.port()), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let address = [Address::Unix(path.clone())];
        let options = SocketOptions { mode: Some(0o600), group: None };

        let first = bind(&address, &options).await.unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let error = bind(&address, &options).await.unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot listen on unix:{}", path.display())), "{error}");
        drop(first);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_is_never_removed() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(bind(&[Address::Unix(file.path().to_path_buf())], &SocketOptions::default()).await.is_err());
        assert!(file.path().exists());
    }

    #[tokio::test]
    async fn bytes_pass_over_both_families() {
        let folder = tempfile::tempdir().unwrap();
        let addresses = [Address::tcp("127.0.0.1", 0), Address::Unix(folder.path().join("s"))];
        for listener in bind(&addresses, &SocketOptions::default()).await.unwrap() {
            let mut client = Stream::connect(&listener.local_address()).await.unwrap();
            let mut server = listener.accept().await.unwrap();
            client.write_all(b"ping").await.unwrap();
            let mut got = [0; 4];
            server.read_exact(&mut got).await.unwrap();
            assert_eq!(&got, b"ping");
            assert_eq!(server.try_read(&mut got).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        }
    }

    #[tokio::test]
    async fn a_taken_port_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = bind(&[Address::tcp("127.0.0.1", port)], &SocketOptions::default()).await.unwrap_err();
        assert!(error.to_string().contains(&format!("127.0.0.1:{port}")), "{error}");
    }
}
