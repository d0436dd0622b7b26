//! What the server tells the kernel unasked: that something it was told before
//! is no longer to be believed. Written to the device as replies are, with the
//! code in the place of the error and no `unique`.

use super::OUT_HEADER_LEN;
use super::output::OutHeader;
use crate::base::Name;
use crate::base::codec::{Codec, Writer};
use std::rc::Rc;

/// One thing to tell. Answered with ENOENT where the kernel has nothing of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The attributes and ACLs of a node. Never waits.
    Attributes { nodeid: u64 },
    /// Its pages that hold bytes `offset ..`, `len` of them (0: to the end),
    /// and its attributes. Waits for folios that are being read, and for dirty
    /// ones to be written.
    Pages { nodeid: u64, offset: i64, len: i64 },
    /// A name, or that it is not there. With `expires`, it stays what processes
    /// that are in it call it, and is asked for at its next use (Linux 6.2; one
    /// before drops it). Waits for the directory's lock.
    Entry {
        parent: u64,
        name: Rc<Name>,
        expires: bool,
    },
    /// The file is at least `offset + 1` bytes long, and this is the byte at
    /// `offset`. Waits for the folio.
    Store { nodeid: u64, offset: u64, byte: u8 },
    /// All names, of every directory ([`MINOR_EPOCHS`](super::MINOR_EPOCHS)).
    /// Never waits.
    Epoch,
}

impl Notice {
    /// The message as it is written.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut body = Writer::default();
        let code: i32 = match self {
            Notice::Attributes { nodeid } => {
                inval_inode(*nodeid, -1, 0, &mut body);
                INVAL_INODE
            }
            Notice::Pages {
                nodeid,
                offset,
                len,
            } => {
                inval_inode(*nodeid, *offset, *len, &mut body);
                INVAL_INODE
            }
            Notice::Entry {
                parent,
                name,
                expires,
            } => {
                parent.encode(&mut body);
                // Names have 255 bytes at most.
                (name.as_bytes().len() as u32).encode(&mut body);
                let flags = if *expires { EXPIRE_ONLY } else { 0 };
                flags.encode(&mut body);
                body.bytes(name.as_bytes());
                body.zeros(1);
                INVAL_ENTRY
            }
            Notice::Store {
                nodeid,
                offset,
                byte,
            } => {
                nodeid.encode(&mut body);
                offset.encode(&mut body);
                1u32.encode(&mut body);
                0u32.encode(&mut body);
                body.bytes(&[*byte]);
                STORE
            }
            Notice::Epoch => INC_EPOCH,
        };
        let head = OutHeader {
            // A name and some numbers.
            len: (OUT_HEADER_LEN + body.len()) as u32,
            error: code,
            unique: 0,
        };
        let mut message = head.to_vec();
        message.extend(body.into_vec());
        message
    }

    /// May the kernel make the writer wait for requests that are not answered?
    #[must_use]
    pub fn may_wait(&self) -> bool {
        !matches!(self, Notice::Attributes { .. } | Notice::Epoch)
    }
}

fn inval_inode(nodeid: u64, offset: i64, len: i64, body: &mut Writer) {
    nodeid.encode(body);
    offset.encode(body);
    len.encode(body);
}

/// `enum fuse_notify_code`.
const INVAL_INODE: i32 = 2;
const INVAL_ENTRY: i32 = 3;
const STORE: i32 = 4;
const INC_EPOCH: i32 = 8;

/// `FUSE_EXPIRE_ONLY`, of a name.
const EXPIRE_ONLY: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    fn words(notice: &Notice) -> (usize, Vec<u8>) {
        let bytes = notice.to_bytes();
        let len = u32::from_le_bytes(bytes[..4].try_into().expect("four"));
        assert_eq!(len as usize, bytes.len());
        assert_eq!(bytes[8..16], [0; 8]);
        (bytes[4] as usize, bytes[16..].to_vec())
    }

    #[test]
    fn notices_have_the_kernels_layout() {
        let (code, body) = words(&Notice::Attributes { nodeid: 5 });
        let want = [&5u64.to_le_bytes()[..], &[0xff; 8], &[0; 8]].concat();
        assert_eq!((code, body), (2, want));
        let name = Rc::new(Name::new(b"ab").expect("a name"));
        for expires in [false, true] {
            let (code, body) = words(&Notice::Entry {
                parent: 1,
                name: Rc::clone(&name),
                expires,
            });
            let flag = u8::from(expires);
            let want = [
                &1u64.to_le_bytes()[..],
                &[2, 0, 0, 0, flag, 0, 0, 0],
                b"ab\0",
            ];
            assert_eq!((code, body), (3, want.concat()));
        }
        let (code, body) = words(&Notice::Store {
            nodeid: 2,
            offset: 9,
            byte: 7,
        });
        let want = [
            &2u64.to_le_bytes()[..],
            &9u64.to_le_bytes(),
            &[1, 0, 0, 0, 0, 0, 0, 0, 7],
        ];
        assert_eq!((code, body), (4, want.concat()));
        assert_eq!(words(&Notice::Epoch), (8, Vec::new()));
    }
}
