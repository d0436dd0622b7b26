//! Connected byte streams, TCP and UNIX, on the ring.

use crate::base::{Buf, Errno, Slice};
use crate::reactor::job::{Address, Descriptor, Job, Kind, Parts};
use crate::reactor::local::Local;
use crate::reactor::resolve;
use crate::world::Conn;
use rustix::net::{self, AddressFamily, SendFlags, Shutdown, SocketFlags, SocketType, sockopt};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A connected stream socket of this thread. A pending operation keeps the
/// socket open; dropping the stream cancels it.
pub struct Stream {
    local: Local,
    socket: Descriptor,
    peer: String,
}

impl Stream {
    /// Adopts a connected socket, blocking or not.
    pub fn from_fd(local: &Local, socket: OwnedFd) -> Result<Stream, Errno> {
        let address = net::getpeername(&socket).map_err(errno)?;
        let peer = match address {
            None => "unix".to_string(),
            Some(address) => match SocketAddr::try_from(address.clone()) {
                Ok(inet) => inet.to_string(),
                Err(_) => "unix".to_string(),
            },
        };
        tune(&socket);
        Ok(Stream {
            local: local.clone(),
            socket: Descriptor::new(socket),
            peer,
        })
    }

    /// Connects to `address`: "host:port", or "unix:PATH".
    pub async fn connect(local: &Local, address: &str) -> Result<Stream, Errno> {
        if let Some(path) = address.strip_prefix("unix:") {
            let to = Address::unix(path.as_bytes()).ok_or(Errno::ENAMETOOLONG)?;
            return Stream::dial(local, AddressFamily::UNIX, to, address).await;
        }
        let mut fault = Errno::EHOSTUNREACH;
        for inet in resolve::resolve(address).await? {
            let family = match inet {
                SocketAddr::V4(_) => AddressFamily::INET,
                SocketAddr::V6(_) => AddressFamily::INET6,
            };
            match Stream::dial(local, family, Address::inet(inet), &inet.to_string()).await {
                Ok(stream) => return Ok(stream),
                Err(e) => fault = e,
            }
        }
        Err(fault)
    }

    async fn dial(
        local: &Local,
        family: AddressFamily,
        to: Box<Address>,
        peer: &str,
    ) -> Result<Stream, Errno> {
        let socket = net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .map_err(errno)?;
        tune(&socket);
        let socket = Descriptor::new(socket);
        let job = Job {
            on: socket.clone(),
            kind: Kind::Connect { address: to },
        };
        let (result, _) = local.start(job).await;
        done(result)?;
        Ok(Stream {
            local: local.clone(),
            socket,
            peer: peer.to_string(),
        })
    }
}

impl Conn for Stream {
    async fn recv(&self, buf: Buf, at: usize) -> (Result<usize, Errno>, Buf) {
        if at >= buf.len() {
            // Zero bytes asked for would read as the end of the stream.
            return (Err(Errno::EINVAL), buf);
        }
        let job = Job {
            on: self.socket.clone(),
            kind: Kind::Recv { buf, at },
        };
        let (result, job) = self.local.start(job).await;
        let Kind::Recv { buf, .. } = job.kind else {
            unreachable!("a job comes back as it went")
        };
        (done(result), buf)
    }

    async fn send(&self, parts: Vec<Slice>) -> Result<(), Errno> {
        let mut parts = Parts::new(parts);
        while !parts.is_done() {
            let job = Job {
                on: self.socket.clone(),
                kind: Kind::Send { parts },
            };
            let (result, job) = self.local.start(job).await;
            let Kind::Send { parts: back } = job.kind else {
                unreachable!("a job comes back as it went")
            };
            parts = back;
            match done(result) {
                Ok(sent) => parts.advance(sent),
                Err(Errno::EINTR | Errno::EAGAIN) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn try_send(&self, bytes: &[u8]) -> usize {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        net::send(&self.socket, bytes, flags).unwrap_or(0)
    }

    fn shutdown(&self) {
        // Only a socket that is not connected any more refuses.
        let _ = net::shutdown(&self.socket, Shutdown::Both);
    }

    fn peer(&self) -> String {
        self.peer.clone()
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Best effort: a socket that refuses works, only slower.
fn tune(socket: &OwnedFd) {
    // TCP sizes its own buffers, and stops doing so when told a size.
    let is_tcp = sockopt::set_tcp_nodelay(socket, true).is_ok();
    if is_tcp {
        let _ = sockopt::set_socket_keepalive(socket, true);
    } else if sockopt::set_socket_send_buffer_size_force(socket, UNIX_BUFFER).is_err() {
        let _ = sockopt::set_socket_send_buffer_size(socket, UNIX_BUFFER);
    }
}

fn errno(e: rustix::io::Errno) -> Errno {
    Errno(e.raw_os_error())
}

/// A ring's result: bytes, or a negative error number.
pub(super) fn done(result: i32) -> Result<usize, Errno> {
    usize::try_from(result).map_err(|_| Errno(result.saturating_neg()))
}

/// A request of 1 MiB and its headers, in one go.
const UNIX_BUFFER: usize = 2 << 20;
