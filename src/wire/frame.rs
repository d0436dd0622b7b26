//! Frames: from records to bytes and back. Pure and incremental: a receiver
//! asks [`Layout::of`] with whatever it has, reads on until the layout's bytes
//! are there, and decodes. No length is believed before it was checked.
//!
//! ```text
//! 0        32           32+head_len            P = next multiple of 8
//! | Head   | kind's head | body               0…0 | payload |
//! ```
//! The payload is apart so that a receiver can take the heads from a small
//! buffer and let the payload land in aligned memory of its own.

use super::connect::{CONNECT, ConnectReply, ConnectRequest, Features};
use super::head::{
    CALLBACK_HEAD_LEN, HEAD_LEN, Head, Kind, MAGIC, REPLY_HEAD_LEN, REQUEST_HEAD_LEN,
};
use super::head::{flags, reply_flags};
use super::{
    Asked, Callback, CallbackHead, Granted, Notice, Reply, ReplyHead, Request, RequestHead,
};
use crate::base::limits::{BODY_MAX, PAYLOAD_MAX};
use crate::base::{Codec, DecodeError, Errno, Reader, Slice, Writer, Xid};

/// The payload starts at a multiple of this from the frame's start.
const ALIGN: usize = 8;

/// Where the checksum lies in the common head.
const CRC_AT: usize = 24;

/// A frame to be sent: the bytes up to the payload, and the payload.
#[derive(Debug)]
pub struct Frame {
    pub bytes: Vec<u8>,
    pub payload: Vec<Slice>,
}

impl Frame {
    /// A client's request.
    #[must_use]
    pub fn request(
        xid: Xid,
        head: &RequestHead,
        request: &Request,
        payload: Vec<Slice>,
        checksum: bool,
    ) -> Frame {
        Frame::asking(xid, head, request, &Asked::default(), payload, checksum)
    }

    /// The same with what it asks of the client's locks (needs LOCKS).
    #[must_use]
    pub fn asking(
        xid: Xid,
        head: &RequestHead,
        request: &Request,
        asked: &Asked,
        payload: Vec<Slice>,
        checksum: bool,
    ) -> Frame {
        let mut head = head.clone();
        if !asked.is_empty() {
            head.flags |= flags::LOCKS;
        }
        Draft::new(Kind::Request, request.tag(), xid, &head)
            .body(|w| {
                request.encode_value(w);
                if !asked.is_empty() {
                    asked.encode(w);
                }
            })
            .finish(payload, checksum)
    }

    /// The first request of a connection. CONNECT is always checksummed:
    /// nothing has been agreed yet.
    #[must_use]
    pub fn connect(xid: Xid, head: &RequestHead, request: &ConnectRequest) -> Frame {
        Draft::new(Kind::Request, CONNECT, xid, head)
            .body(|w| request.encode(w))
            .finish(Vec::new(), true)
    }

    /// The answer to CONNECT; `None` with a failing status in the head.
    #[must_use]
    pub fn connect_reply(xid: Xid, head: &ReplyHead, reply: Option<&ConnectReply>) -> Frame {
        Draft::new(Kind::Reply, CONNECT, xid, head)
            .body(|w| {
                if let Some(reply) = reply {
                    reply.encode(w);
                }
            })
            .finish(Vec::new(), true)
    }

    /// The answer to operation `op`; `reply` is `None` exactly if the head has
    /// a failing status. A reply too long for a frame becomes EOVERFLOW.
    #[must_use]
    pub fn reply(
        xid: Xid,
        op: u16,
        head: &ReplyHead,
        reply: Option<&Reply>,
        payload: Vec<Slice>,
        checksum: bool,
    ) -> Frame {
        Frame::granting(xid, op, head, reply, &Granted::default(), payload, checksum)
    }

    /// The same with the locks that it grants (needs LOCKS).
    #[must_use]
    pub fn granting(
        xid: Xid,
        op: u16,
        head: &ReplyHead,
        reply: Option<&Reply>,
        granted: &Granted,
        payload: Vec<Slice>,
        checksum: bool,
    ) -> Frame {
        let mut head = head.clone();
        if !granted.is_empty() {
            head.flags |= reply_flags::GRANTS;
        }
        let locks = |w: &mut Writer| {
            if !granted.is_empty() {
                granted.encode(w);
            }
        };
        let draft = Draft::new(Kind::Reply, op, xid, &head).body(|w| {
            if let Some(reply) = reply {
                reply.encode(w);
            }
            locks(w);
        });
        let payload_len: usize = payload.iter().map(|part| part.len()).sum();
        if draft.body_len() <= BODY_MAX && payload_len <= PAYLOAD_MAX {
            return draft.finish(payload, checksum);
        }
        head.status = Errno::EOVERFLOW.0;
        Draft::new(Kind::Reply, op, xid, &head)
            .body(locks)
            .finish(Vec::new(), checksum)
    }

    /// "Still working on it."
    #[must_use]
    pub fn early_reply(xid: Xid, op: u16, head: &ReplyHead, checksum: bool) -> Frame {
        Draft::new(Kind::EarlyReply, op, xid, head).finish(Vec::new(), checksum)
    }

    #[must_use]
    pub fn notice(head: &ReplyHead, notice: &Notice, checksum: bool) -> Frame {
        Draft::new(Kind::Notice, notice.tag(), Xid(0), head)
            .body(|w| notice.encode_value(w))
            .finish(Vec::new(), checksum)
    }

    #[must_use]
    pub fn callback(xid: Xid, head: &CallbackHead, callback: &Callback, checksum: bool) -> Frame {
        Draft::new(Kind::Callback, callback.tag(), xid, head)
            .body(|w| callback.encode_value(w))
            .finish(Vec::new(), checksum)
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len() + self.payload.iter().map(|part| part.len()).sum::<usize>()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

/// A frame whose lengths and checksum are not filled in yet.
struct Draft {
    kind: Kind,
    op: u16,
    xid: Xid,
    w: Writer,
    head_len: usize,
}

impl Draft {
    fn new(kind: Kind, op: u16, xid: Xid, own: &impl Codec) -> Draft {
        let mut w = Writer::over(Vec::with_capacity(256));
        w.zeros(HEAD_LEN);
        own.encode(&mut w);
        let head_len = w.len() - HEAD_LEN;
        Draft {
            kind,
            op,
            xid,
            w,
            head_len,
        }
    }

    fn body(mut self, write: impl FnOnce(&mut Writer)) -> Draft {
        write(&mut self.w);
        self
    }

    fn body_len(&self) -> usize {
        self.w.len() - HEAD_LEN - self.head_len
    }

    fn finish(mut self, payload: Vec<Slice>, checksum: bool) -> Frame {
        let body_len = self.body_len();
        self.w
            .zeros(self.w.len().next_multiple_of(ALIGN) - self.w.len());
        let payload_len: usize = payload.iter().map(|part| part.len()).sum();
        let mut head = Head {
            magic: MAGIC,
            kind: self.kind,
            head_len: u8::try_from(self.head_len).expect("heads have fixed, small sizes"),
            op: self.op,
            body_len: u32::try_from(body_len).expect("bodies are bounded by their makers"),
            payload_len: u32::try_from(payload_len).expect("payloads are bounded by their makers"),
            xid: self.xid.0,
            crc: 0,
            reserved: 0,
        };
        let mut bytes = self.w.into_vec();
        bytes[..HEAD_LEN].copy_from_slice(&head.to_vec());
        if checksum {
            head.crc = payload.iter().fold(crc32c::crc32c(&bytes), |crc, part| {
                crc32c::crc32c_append(crc, part)
            });
            bytes[CRC_AT..CRC_AT + 4].copy_from_slice(&head.crc.to_le_bytes());
        }
        Frame { bytes, payload }
    }
}

/// How long a frame of the peer may be.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub body_max: usize,
    /// What CONNECT agreed on; at most `limits::PAYLOAD_MAX`.
    pub payload_max: usize,
}

impl Bounds {
    /// Before anything is agreed: CONNECT has no payload.
    pub const CONNECT: Bounds = Bounds {
        body_max: 64 << 10,
        payload_max: 0,
    };

    #[must_use]
    pub fn agreed(payload_max: u32) -> Bounds {
        Bounds {
            body_max: BODY_MAX,
            payload_max: PAYLOAD_MAX.min(payload_max as usize),
        }
    }
}

/// Where the parts of a frame lie, all lengths checked.
#[derive(Clone, Debug)]
pub struct Layout {
    pub head: Head,
    /// End of body and padding, hence start of the payload.
    pub payload_at: usize,
    pub payload_len: usize,
}

impl Layout {
    /// Reads the common head from the first bytes of a frame; `None` while
    /// there are fewer than it has.
    ///
    /// # Errors
    /// The peer does not speak the protocol, or exceeds `bounds`.
    pub fn of(bytes: &[u8], bounds: &Bounds) -> Result<Option<Layout>, DecodeError> {
        let fault = |at, why| Err(DecodeError { at, why });
        let known = bytes.len().min(4);
        if bytes[..known] != MAGIC.to_le_bytes()[..known] {
            return fault(0, "not a Forebay frame");
        }
        if bytes.len() < HEAD_LEN {
            return Ok(None);
        }
        let head = Head::decode(&mut Reader::new(bytes))?;
        let own_len = match head.kind {
            Kind::Request | Kind::CallbackReply => REQUEST_HEAD_LEN,
            Kind::Reply | Kind::EarlyReply | Kind::Notice => REPLY_HEAD_LEN,
            Kind::Callback => CALLBACK_HEAD_LEN,
        };
        if usize::from(head.head_len) != own_len {
            return fault(5, "head of another length than its kind has");
        }
        if head.body_len as usize > bounds.body_max {
            return fault(8, "body too long");
        }
        if head.payload_len as usize > bounds.payload_max {
            return fault(12, "payload longer than agreed");
        }
        if head.reserved != 0 {
            return fault(28, "reserved field is not zero");
        }
        let body_end = HEAD_LEN + own_len + head.body_len as usize;
        Ok(Some(Layout {
            payload_at: body_end.next_multiple_of(ALIGN),
            payload_len: head.payload_len as usize,
            head,
        }))
    }

    /// Bytes of the whole frame.
    #[must_use]
    pub fn len(&self) -> usize {
        self.payload_at + self.payload_len
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }

    fn is_connect(&self) -> bool {
        self.head.op == CONNECT && matches!(self.head.kind, Kind::Request | Kind::Reply)
    }

    /// Decodes a frame that is here whole: `bytes` up to the payload, and the
    /// payload. `features` are those agreed on (none before CONNECT).
    ///
    /// # Errors
    /// The checksum is wrong, or the bytes are no such record.
    pub fn decode(
        &self,
        bytes: &[u8],
        payload: &[u8],
        features: Features,
    ) -> Result<Message, DecodeError> {
        let fault = |at, why| DecodeError { at, why };
        if bytes.len() != self.payload_at || payload.len() != self.payload_len {
            return Err(fault(0, "frame is not whole"));
        }
        let checked = self.is_connect() || features.has(Features::CHECKSUM);
        if checked && crc(bytes, payload) != self.head.crc {
            return Err(fault(CRC_AT, "wrong checksum"));
        }
        let body_end = HEAD_LEN + usize::from(self.head.head_len) + self.head.body_len as usize;
        let mut r = Reader::new(&bytes[..body_end]);
        r.take(HEAD_LEN)?;
        let content = Content::decode(&self.head, &mut r)?;
        let locks = Locks::decode(&content, &mut r, features)?;
        r.end()?;
        if bytes[body_end..].iter().any(|b| *b != 0) {
            return Err(fault(body_end, "padding is not zero"));
        }
        Ok(Message {
            xid: Xid(self.head.xid),
            op: self.head.op,
            content,
            locks,
        })
    }
}

/// The frame's checksum: its own field counts as zero.
fn crc(bytes: &[u8], payload: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&bytes[..CRC_AT]);
    let crc = crc32c::crc32c_append(crc, &[0; 4]);
    let crc = crc32c::crc32c_append(crc, &bytes[CRC_AT + 4..]);
    crc32c::crc32c_append(crc, payload)
}

/// A decoded frame without its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub xid: Xid,
    pub op: u16,
    pub content: Content,
    pub locks: Locks,
}

/// What followed the body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Locks {
    /// Of a request.
    pub asked: Asked,
    /// Of a reply.
    pub granted: Granted,
}

impl Locks {
    fn decode(
        content: &Content,
        r: &mut Reader<'_>,
        features: Features,
    ) -> Result<Locks, DecodeError> {
        let mut locks = Locks::default();
        let (asks, grants) = match content {
            Content::Request(head, _) => (head.flags & flags::LOCKS != 0, false),
            Content::Reply(head, _) => (false, head.flags & reply_flags::GRANTS != 0),
            _ => (false, false),
        };
        if (asks || grants) && !features.has(Features::LOCKS) {
            return Err(r.fault("locks, which were not agreed on"));
        }
        if asks {
            locks.asked = Asked::decode(r)?;
        }
        if grants {
            locks.granted = Granted::decode(r)?;
        }
        Ok(locks)
    }
}

/// What a frame says, by kind and operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    Connect(RequestHead, Box<ConnectRequest>),
    Request(RequestHead, Request),
    Connected(ReplyHead, Option<Box<ConnectReply>>),
    /// `None` exactly if the head's status is a failure.
    Reply(ReplyHead, Option<Reply>),
    EarlyReply(ReplyHead),
    Notice(ReplyHead, Notice),
    Callback(CallbackHead, Callback),
    CallbackReply(RequestHead),
}

impl Content {
    fn decode(head: &Head, r: &mut Reader<'_>) -> Result<Content, DecodeError> {
        Ok(match head.kind {
            Kind::Request if head.op == CONNECT => {
                Content::Connect(Codec::decode(r)?, Codec::decode(r).map(Box::new)?)
            }
            Kind::Request => {
                Content::Request(Codec::decode(r)?, Request::decode_value(head.op, r)?)
            }
            Kind::Reply => {
                let own = ReplyHead::decode(r)?;
                let failed = own.status != 0;
                match (head.op == CONNECT, failed) {
                    (true, true) => Content::Connected(own, None),
                    (true, false) => Content::Connected(own, Some(Codec::decode(r).map(Box::new)?)),
                    (false, true) => Content::Reply(own, None),
                    (false, false) => Content::Reply(own, Some(Reply::decode(r)?)),
                }
            }
            Kind::EarlyReply => Content::EarlyReply(Codec::decode(r)?),
            Kind::Notice => Content::Notice(Codec::decode(r)?, Notice::decode_value(head.op, r)?),
            Kind::Callback => {
                Content::Callback(Codec::decode(r)?, Callback::decode_value(head.op, r)?)
            }
            Kind::CallbackReply => Content::CallbackReply(Codec::decode(r)?),
        })
    }
}
