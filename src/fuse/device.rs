//! `/dev/fuse`: requests out, replies in, none of it ever waiting (C18).

use super::abi::input::InHeader;
use super::abi::notify::Notice;
use super::abi::output::OutHeader;
use super::abi::parse::{Op, parse};
use super::abi::{IN_HEADER_LEN, OUT_HEADER_LEN, Opcode, WRITE_HEAD_LEN};
use super::beside::Beside;
use super::kernel::Kernel;
use super::sys::schedule;
use crate::base::codec::{Codec, Reader};
use crate::base::limits::PAYLOAD_MAX;
use crate::base::{Buf, Errno, Pool, Slice};
use crate::reactor::Descriptor;
use std::io::{IoSlice, IoSliceMut};

/// The device of one mount. Not blocking.
pub struct Device {
    fd: Descriptor,
    pub beside: Beside,
}

/// One request of the kernel.
#[derive(Debug)]
pub struct Message {
    pub head: InHeader,
    /// The operation, or the error that its bytes deserve.
    pub op: Result<Op, Errno>,
    /// The data of a WRITE.
    pub payload: Option<Slice>,
}

/// What a read of the device found.
#[derive(Debug)]
pub enum Received {
    Message(Message),
    /// Nothing for now: poll.
    Nothing,
    /// The file system was unmounted, or its connection aborted.
    Unmounted,
}

impl Device {
    /// `fd` is `/dev/fuse`, opened without blocking; the thread that calls is the
    /// one that serves it.
    #[must_use]
    pub fn new(fd: Descriptor) -> Device {
        let beside = Beside::new();
        Device { fd, beside }
    }

    /// Takes the next request, if there is one.
    pub fn receive(&self, inbox: &mut Inbox) -> Result<Received, Errno> {
        loop {
            let mut parts = [
                IoSliceMut::new(&mut inbox.head),
                IoSliceMut::new(&mut inbox.data),
            ];
            match rustix::io::readv(&self.fd, &mut parts) {
                Ok(len) => return inbox.message(len).map(Received::Message),
                Err(rustix::io::Errno::AGAIN) => return Ok(Received::Nothing),
                // The second where the end came while a request was handed over.
                Err(rustix::io::Errno::NODEV | rustix::io::Errno::CONNABORTED) => {
                    return Ok(Received::Unmounted);
                }
                // A request that was taken back while it was handed over.
                Err(rustix::io::Errno::NOENT | rustix::io::Errno::INTR) => {}
                Err(e) => return Err(Errno(e.raw_os_error())),
            }
        }
    }

    fn answer(&self, unique: u64, parts: &[IoSlice<'_>]) -> Result<(), Errno> {
        self.beside.answering(unique, || self.write(parts))
    }

    fn write(&self, parts: &[IoSlice<'_>]) -> Result<(), Errno> {
        loop {
            match rustix::io::writev(&self.fd, parts) {
                Ok(_) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(Errno(e.raw_os_error())),
            }
        }
    }
}

impl Kernel for Device {
    async fn reply(&self, unique: u64, parts: &[&[u8]]) -> Result<(), Errno> {
        let len: usize = OUT_HEADER_LEN + parts.iter().map(|p| p.len()).sum::<usize>();
        let head = OutHeader {
            len: u32::try_from(len).map_err(|_| Errno::EIO)?,
            error: 0,
            unique,
        }
        .to_vec();
        if parts.len() >= PARTS_MAX {
            let whole = parts.concat();
            return self.answer(unique, &[IoSlice::new(&head), IoSlice::new(&whole)]);
        }
        let mut slices = Vec::with_capacity(1 + parts.len());
        slices.push(IoSlice::new(&head));
        slices.extend(parts.iter().map(|p| IoSlice::new(p)));
        self.answer(unique, &slices)
    }

    async fn refuse(&self, unique: u64, error: Errno) -> Result<(), Errno> {
        let number = match error.0 {
            n @ 1..ERROR_END => n,
            _ => libc::EIO,
        };
        let head = OutHeader {
            len: OUT_HEADER_LEN as u32,
            error: -number,
            unique,
        };
        self.answer(unique, &[IoSlice::new(&head.to_vec())])
    }

    fn tell(&self, notice: &Notice) -> Result<(), Errno> {
        assert!(!notice.may_wait(), "{notice:?} would stop the mount");
        self.write(&[IoSlice::new(&notice.to_bytes())])
    }

    /// An answer wakes the thread that waits for it, and until it has taken that
    /// in it waits for nothing.
    fn has_gone_on(&self, thread: u32) -> bool {
        schedule::is_waiting_or_gone(thread)
    }
}

/// Memory that requests are read to. The first 80 bytes are the header and the
/// fixed part of a WRITE, so that its data lands at the start of aligned
/// memory, which then travels on without a copy.
pub struct Inbox {
    head: [u8; WRITE_HEAD_LEN],
    data: Buf,
    /// The body of a request that is longer than `head`, in one piece.
    body: Vec<u8>,
    pool: Pool,
}

impl Inbox {
    #[must_use]
    pub fn new(pool: Pool) -> Inbox {
        Inbox {
            head: [0; WRITE_HEAD_LEN],
            data: pool.take(PAYLOAD_MAX),
            body: Vec::new(),
            pool,
        }
    }

    /// The request of `len` bytes that lies in the inbox. EPROTO for bytes
    /// that are not one: then nothing that follows can be trusted either.
    fn message(&mut self, len: usize) -> Result<Message, Errno> {
        let mut r = Reader::new(&self.head);
        let head = InHeader::decode(&mut r).map_err(|_| Errno::EPROTO)?;
        if head.len as usize != len || len < IN_HEADER_LEN {
            return Err(Errno::EPROTO);
        }
        if Opcode::of(head.opcode) == Opcode::Write {
            return Ok(self.write_message(head, len));
        }
        let extensions = usize::from(head.extensions) * 8;
        let end = len.checked_sub(extensions).filter(|&e| e >= IN_HEADER_LEN);
        let Some(end) = end else {
            return Ok(Message {
                head,
                op: Err(Errno::EIO),
                payload: None,
            });
        };
        let op = match end.checked_sub(WRITE_HEAD_LEN) {
            None => parse(&head, &self.head[IN_HEADER_LEN..end]),
            Some(more) => {
                self.body.clear();
                self.body.extend_from_slice(&self.head[IN_HEADER_LEN..]);
                self.body.extend_from_slice(&self.data[..more]);
                parse(&head, &self.body)
            }
        };
        self.body.shrink_to(BODY_KEPT);
        Ok(Message {
            head,
            op,
            payload: None,
        })
    }

    fn write_message(&mut self, head: InHeader, len: usize) -> Message {
        let op = parse(&head, &self.head[IN_HEADER_LEN..]);
        let have = len.saturating_sub(WRITE_HEAD_LEN);
        match &op {
            Ok(Op::Write(args)) if args.size as usize == have => {}
            _ => {
                return Message {
                    head,
                    op: Err(Errno::EIO),
                    payload: None,
                };
            }
        }
        Message {
            head,
            op,
            payload: Some(self.take_data(have)),
        }
    }

    /// The first `len` bytes of data. Small data is copied: a client keeps what
    /// it wrote until the box has it on flash, and would keep 1 MiB for each 4 KiB.
    fn take_data(&mut self, len: usize) -> Slice {
        if len <= COPIED_MAX {
            let mut copy = self.pool.take(len);
            copy.copy_from_slice(&self.data[..len]);
            return copy.freeze();
        }
        let next = self.pool.take(PAYLOAD_MAX);
        let mut full = std::mem::replace(&mut self.data, next);
        full.resize(len);
        full.freeze()
    }
}

/// Data up to this size is copied into a buffer of its own size.
const COPIED_MAX: usize = 64 << 10;
/// Memory kept for the bodies of long requests, which are rare.
const BODY_KEPT: usize = 16 << 10;
/// The kernel refuses more parts than `UIO_MAXIOV` in one write.
const PARTS_MAX: usize = 1000;
/// Errors below this reach the application; the kernel refuses others.
const ERROR_END: i32 = 512;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuse::abi::input::WriteIn;
    use proptest::prelude::*;

    fn head(opcode: u32, len: usize, extensions: u16) -> InHeader {
        InHeader {
            len: u32::try_from(len).expect("small"),
            opcode,
            unique: 2,
            nodeid: 1,
            uid: 0,
            gid: 0,
            pid: 0,
            extensions,
            padding: 0,
        }
    }

    /// Puts `bytes` where `readv` would, and parses them.
    fn deliver(inbox: &mut Inbox, bytes: &[u8]) -> Result<Message, Errno> {
        let cut = bytes.len().min(WRITE_HEAD_LEN);
        inbox.head[..cut].copy_from_slice(&bytes[..cut]);
        inbox.data[..bytes.len() - cut].copy_from_slice(&bytes[cut..]);
        inbox.message(bytes.len())
    }

    #[test]
    fn written_data_is_aligned_and_whole() {
        let mut inbox = Inbox::new(Pool::new([1, 1, 2]));
        for size in [1usize, 4096, COPIED_MAX, COPIED_MAX + 1, PAYLOAD_MAX] {
            let args = WriteIn {
                fh: 3,
                offset: 9,
                size: u32::try_from(size).expect("small"),
                write_flags: 0,
                lock_owner: 0,
                flags: 0,
                padding: 0,
            };
            let data: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
            let mut bytes = head(16, WRITE_HEAD_LEN + size, 0).to_vec();
            bytes.extend(args.to_vec());
            bytes.extend(&data);
            let got = deliver(&mut inbox, &bytes).expect("a request");
            assert_eq!(got.op, Ok(Op::Write(args)));
            let payload = got.payload.expect("data");
            assert_eq!(&payload[..], &data[..]);
            assert!(payload.as_ptr().addr().is_multiple_of(4096));
        }
    }

    #[test]
    fn a_write_shorter_than_it_says_is_refused() {
        let mut inbox = Inbox::new(Pool::new([1, 1, 1]));
        let mut bytes = head(16, WRITE_HEAD_LEN + 3, 0).to_vec();
        bytes.extend([0xff; 43]);
        let got = deliver(&mut inbox, &bytes).expect("a request");
        assert_eq!(got.op, Err(Errno::EIO));
        assert!(got.payload.is_none());
    }

    #[test]
    fn extensions_are_not_part_of_the_body() {
        let mut inbox = Inbox::new(Pool::new([1, 1, 1]));
        let mut bytes = head(10, IN_HEADER_LEN + 2 + 8, 1).to_vec();
        bytes.extend(b"a\0extended");
        let bytes = &bytes[..IN_HEADER_LEN + 10];
        let got = deliver(&mut inbox, bytes).expect("a request");
        assert!(matches!(got.op, Ok(Op::Unlink(name)) if name.as_bytes() == b"a"));
        let lying = head(10, IN_HEADER_LEN + 2, 9).to_vec();
        let lying = [&lying[..], b"a\0"].concat();
        let got = deliver(&mut inbox, &lying).expect("a request");
        assert_eq!(got.op, Err(Errno::EIO));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(opcode in 0u32..64, body in proptest::collection::vec(any::<u8>(), 0..400)) {
            let mut inbox = Inbox::new(Pool::new([1, 1, 1]));
            let mut bytes = head(opcode, IN_HEADER_LEN + body.len(), 0).to_vec();
            bytes.extend(&body);
            let _ = deliver(&mut inbox, &bytes);
            let _ = deliver(&mut inbox, &body);
        }
    }
}
