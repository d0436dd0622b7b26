//! An operation with all the memory that the kernel may touch for it. A job
//! moves into a slot of the driver when it is submitted and stays there until
//! its completion, whoever gave up waiting.

use crate::base::limits::BLOCK;
use crate::base::{Buf, Slice};
use io_uring::{opcode, squeue, types};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;
use std::rc::Rc;

/// An open file, held open by everybody who uses it.
#[derive(Clone, Debug)]
pub struct Descriptor {
    fd: Rc<OwnedFd>,
    /// Its number among the ring's registered files.
    registered: Option<i32>,
}

impl Descriptor {
    #[must_use]
    pub fn new(fd: OwnedFd) -> Descriptor {
        Descriptor {
            fd: Rc::new(fd),
            registered: None,
        }
    }
    pub(super) fn set_registered(&mut self, index: i32) {
        self.registered = Some(index);
    }
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// What to do, and the memory for it. Everything that the kernel gets a
/// pointer to is on the heap, so a job may move while it is under way.
#[derive(Debug)]
pub(super) enum Kind {
    /// Into `buf[at..]`; `registered` is the buffer's number, if it has one.
    ReadAt {
        buf: Buf,
        at: usize,
        offset: u64,
        registered: Option<u16>,
    },
    /// From a stream: a pipe, an eventfd, `/dev/fuse`.
    ReadStream {
        buf: Buf,
    },
    WriteAt {
        parts: Box<Parts>,
        offset: u64,
        durable: bool,
        registered: Option<u16>,
    },
    WriteStream {
        parts: Box<Parts>,
    },
    /// As `WriteStream`, in a kernel thread of its own: it may wait for long.
    WriteApart {
        parts: Box<Parts>,
    },
    Sync,
    Recv {
        buf: Buf,
        at: usize,
    },
    Send {
        parts: Box<Parts>,
    },
    Connect {
        address: Box<Address>,
    },
    /// Poll events to wait for.
    Poll {
        events: u32,
    },
    /// The doorbell; armed anew whenever it completes.
    Bell {
        word: Box<[u8; 8]>,
    },
}

/// An operation: on what, and what.
#[derive(Debug)]
pub(super) struct Job {
    pub on: Descriptor,
    pub kind: Kind,
}

impl Job {
    /// The submission entry. Its pointers lead into the heap memory that the
    /// job owns, and are valid as long as the job exists.
    pub fn entry(&mut self) -> squeue::Entry {
        let number = self.on.registered.unwrap_or_else(|| self.on.fd.as_raw_fd());
        let fd = types::Fd(number);
        let entry = self.kind.entry(fd);
        if self.on.registered.is_some() {
            entry.flags(squeue::Flags::FIXED_FILE)
        } else {
            entry
        }
    }

    /// Should it be cancelled when nobody waits for it any more? What ends by
    /// itself, as flash I/O does, is let run.
    pub fn is_open_ended(&self) -> bool {
        match self.kind {
            Kind::ReadStream { .. }
            | Kind::WriteStream { .. }
            | Kind::Recv { .. }
            | Kind::Send { .. }
            | Kind::Connect { .. }
            | Kind::Poll { .. }
            | Kind::Bell { .. } => true,
            Kind::ReadAt { .. } | Kind::WriteAt { .. } | Kind::WriteApart { .. } | Kind::Sync => {
                false
            }
        }
    }
}

impl Kind {
    fn entry(&mut self, fd: types::Fd) -> squeue::Entry {
        match self {
            Kind::ReadAt {
                buf,
                at,
                offset,
                registered,
            } => {
                let into = &mut buf[*at..];
                let (to, len) = (into.as_mut_ptr(), bounded(into.len()));
                match registered {
                    Some(index) => opcode::ReadFixed::new(fd, to, len, *index)
                        .offset(*offset)
                        .build(),
                    None => opcode::Read::new(fd, to, len).offset(*offset).build(),
                }
            }
            Kind::ReadStream { buf } => opcode::Read::new(fd, buf.as_mut_ptr(), bounded(buf.len()))
                .offset(STREAM)
                .build(),
            Kind::WriteAt {
                parts,
                offset,
                durable,
                registered,
            } => {
                let flags = if *durable { libc::RWF_DSYNC } else { 0 };
                let iovecs = parts.next();
                match (registered, iovecs) {
                    (Some(index), [one]) => {
                        let from = one.iov_base.cast_const().cast();
                        opcode::WriteFixed::new(fd, from, bounded(one.iov_len), *index)
                            .offset(*offset)
                            .rw_flags(flags)
                            .build()
                    }
                    _ => opcode::Writev::new(fd, iovecs.as_ptr(), bounded(iovecs.len()))
                        .offset(*offset)
                        .rw_flags(flags)
                        .build(),
                }
            }
            Kind::WriteStream { parts } => {
                let iovecs = parts.next();
                opcode::Writev::new(fd, iovecs.as_ptr(), bounded(iovecs.len()))
                    .offset(STREAM)
                    .build()
            }
            Kind::WriteApart { parts } => {
                let iovecs = parts.next();
                opcode::Writev::new(fd, iovecs.as_ptr(), bounded(iovecs.len()))
                    .offset(STREAM)
                    .build()
                    .flags(squeue::Flags::ASYNC)
            }
            Kind::Sync => opcode::Fsync::new(fd)
                .flags(types::FsyncFlags::DATASYNC)
                .build(),
            Kind::Recv { buf, at } => {
                let into = &mut buf[*at..];
                opcode::Recv::new(fd, into.as_mut_ptr(), bounded(into.len())).build()
            }
            // WAITALL: the kernel itself goes on after a short send.
            Kind::Send { parts } => opcode::SendMsg::new(fd, parts.message())
                .flags((libc::MSG_NOSIGNAL | libc::MSG_WAITALL).cast_unsigned())
                .build(),
            Kind::Connect { address } => {
                opcode::Connect::new(fd, address.pointer(), address.len).build()
            }
            Kind::Poll { events } => opcode::PollAdd::new(fd, *events).build(),
            Kind::Bell { word } => opcode::Read::new(fd, word.as_mut_ptr(), 8).build(),
        }
    }
}

/// Slices that are written or sent one after another, and how far that got.
pub(super) struct Parts {
    /// Owns what the vectors point to.
    slices: Vec<Slice>,
    iovecs: Vec<libc::iovec>,
    /// Vectors before this one are done.
    first: usize,
    header: libc::msghdr,
}

impl Parts {
    #[must_use]
    pub fn new(slices: Vec<Slice>) -> Box<Parts> {
        let vector = |slice: &Slice| libc::iovec {
            iov_base: slice.as_ptr().cast_mut().cast(),
            iov_len: slice.len(),
        };
        let iovecs = slices
            .iter()
            .filter(|slice| !slice.is_empty())
            .map(vector)
            .collect();
        Box::new(Parts {
            slices,
            iovecs,
            first: 0,
            header: libc::msghdr {
                msg_name: ptr::null_mut(),
                msg_namelen: 0,
                msg_iov: ptr::null_mut(),
                msg_iovlen: 0,
                msg_control: ptr::null_mut(),
                msg_controllen: 0,
                msg_flags: 0,
            },
        })
    }

    /// Vectors for the next call: what is left, up to what one call takes.
    fn next(&self) -> &[libc::iovec] {
        let rest = &self.iovecs[self.first..];
        &rest[..rest.len().min(IOV_MAX)]
    }

    fn message(&mut self) -> *const libc::msghdr {
        let next = self.next();
        let (iov, len) = (next.as_ptr().cast_mut(), next.len());
        self.header.msg_iov = iov;
        self.header.msg_iovlen = len;
        &raw const self.header
    }

    /// Does one call do?
    #[must_use]
    pub fn fits_one_call(&self) -> bool {
        self.iovecs.len() - self.first <= IOV_MAX
    }

    #[must_use]
    pub fn is_done(&self) -> bool {
        self.first == self.iovecs.len()
    }

    #[must_use]
    pub fn sole(&self) -> Option<&Slice> {
        match &self.slices[..] {
            [one] => Some(one),
            _ => None,
        }
    }

    /// Strikes `bytes` off the front.
    pub fn advance(&mut self, mut bytes: usize) {
        while bytes > 0 && self.first < self.iovecs.len() {
            let vector = &mut self.iovecs[self.first];
            let step = bytes.min(vector.iov_len);
            vector.iov_base = vector.iov_base.wrapping_byte_add(step);
            vector.iov_len -= step;
            bytes -= step;
            if vector.iov_len == 0 {
                self.first += 1;
            }
        }
    }
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Parts({}/{})", self.first, self.iovecs.len())
    }
}

/// A socket address in the kernel's form.
#[derive(Debug)]
pub(super) struct Address {
    form: Form,
    len: libc::socklen_t,
}

#[derive(Debug)]
enum Form {
    V4(libc::sockaddr_in),
    V6(libc::sockaddr_in6),
    Unix(libc::sockaddr_un),
}

impl Address {
    #[must_use]
    pub fn inet(address: SocketAddr) -> Box<Address> {
        let form = match address {
            SocketAddr::V4(v4) => Form::V4(libc::sockaddr_in {
                sin_family: family(libc::AF_INET),
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr {
                    s_addr: u32::from_ne_bytes(v4.ip().octets()),
                },
                sin_zero: [0; 8],
            }),
            SocketAddr::V6(v6) => Form::V6(libc::sockaddr_in6 {
                sin6_family: family(libc::AF_INET6),
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: v6.flowinfo(),
                sin6_addr: libc::in6_addr {
                    s6_addr: v6.ip().octets(),
                },
                sin6_scope_id: v6.scope_id(),
            }),
        };
        let len = match form {
            Form::V4(_) => size_of::<libc::sockaddr_in>(),
            _ => size_of::<libc::sockaddr_in6>(),
        };
        Box::new(Address {
            form,
            len: bounded(len),
        })
    }

    /// The address of a UNIX socket; `None` if the path is too long for one.
    #[must_use]
    pub fn unix(path: &[u8]) -> Option<Box<Address>> {
        let mut sun_path: [libc::c_char; 108] = [0; 108];
        if path.len() >= sun_path.len() || path.contains(&0) {
            return None;
        }
        for (to, from) in sun_path.iter_mut().zip(path) {
            *to = from.cast_signed();
        }
        Some(Box::new(Address {
            form: Form::Unix(libc::sockaddr_un {
                sun_family: family(libc::AF_UNIX),
                sun_path,
            }),
            len: bounded(size_of::<libc::sockaddr_un>()),
        }))
    }

    fn pointer(&self) -> *const libc::sockaddr {
        match &self.form {
            Form::V4(form) => (&raw const *form).cast(),
            Form::V6(form) => (&raw const *form).cast(),
            Form::Unix(form) => (&raw const *form).cast(),
        }
    }
}

fn family(number: i32) -> libc::sa_family_t {
    libc::sa_family_t::try_from(number).expect("address families are small")
}

/// A length for the kernel. Longer memory is used up to here, and the rest by
/// the loop that handles short results anyway.
fn bounded(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(LEN_MAX)
}

/// Most vectors in one call (UIO_MAXIOV).
pub(super) const IOV_MAX: usize = 1024;
/// "At the current position": the only offset that streams have.
const STREAM: u64 = u64::MAX;
const LEN_MAX: u32 = u32::MAX - (u32::MAX % BLOCK as u32);
