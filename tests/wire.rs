//! The wire format against golden vectors: the bytes under `wire/v1` are what
//! the first release sends, and stand for a peer that never upgrades. A vector
//! that is there is never changed; a new operation adds one
//! (`FOREBAY_BLESS=1 cargo test --test wire` writes those that are missing).

#[path = "wire/samples.rs"]
mod samples;

use forebay::base::{Reader, Xid};
use forebay::wire::head::{CALLBACK_HEAD_LEN, HEAD_LEN, REPLY_HEAD_LEN, REQUEST_HEAD_LEN};
use forebay::wire::{Bounds, Content, Features, Frame, Layout, Message, Reply, Request};
use proptest::prelude::*;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

const AGREED: Bounds = Bounds {
    body_max: 1 << 20,
    payload_max: 1 << 20,
};

fn vector(name: &str) -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.join("tests/wire/v1").join(format!("{name}.hex"))
}

/// 32 bytes a line: the common head is the first line.
fn to_hex(bytes: &[u8]) -> String {
    let mut out = String::new();
    for line in bytes.chunks(32) {
        for byte in line {
            write!(out, "{byte:02x}").expect("strings take all");
        }
        out.push('\n');
    }
    out
}

fn decode(bytes: &[u8], features: Features) -> Result<Message, String> {
    let layout = Layout::of(bytes, &AGREED).map_err(|e| e.to_string())?;
    let layout = layout.ok_or("no whole head")?;
    if layout.len() != bytes.len() {
        return Err(format!("{} bytes instead of {}", bytes.len(), layout.len()));
    }
    let (heads, payload) = bytes.split_at(layout.payload_at);
    layout
        .decode(heads, payload, features)
        .map_err(|e| e.to_string())
}

#[test]
fn every_sample_has_its_golden_bytes() {
    let bless = std::env::var_os("FOREBAY_BLESS").is_some();
    let mut wrong = Vec::new();
    for sample in samples::all() {
        let path = vector(&sample.name);
        let ours = to_hex(&sample.bytes);
        match std::fs::read_to_string(&path) {
            Ok(golden) if golden == ours => {}
            Ok(_) => wrong.push(format!("{}: other bytes than ever before", sample.name)),
            Err(_) if bless => std::fs::write(&path, ours).expect("vector written"),
            Err(_) => wrong.push(format!("{}: no vector", sample.name)),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_sample_decodes_to_what_it_was() {
    for sample in samples::all().iter().filter(|s| s.is_frame) {
        let checked = sample.name != "request-without-checksum";
        let features = if checked {
            Features::OURS
        } else {
            Features::default()
        };
        let message = decode(&sample.bytes, features);
        let message = message.unwrap_or_else(|e| panic!("{}: {e}", sample.name));
        assert_eq!(
            again(&message, sample, checked),
            sample.bytes,
            "{}",
            sample.name
        );
    }
}

/// The frame that says the same, with the payload taken over.
fn again(message: &Message, sample: &samples::Sample, checksum: bool) -> Vec<u8> {
    let layout = Layout::of(&sample.bytes, &AGREED)
        .expect("decoded before")
        .expect("whole");
    let payload: Vec<_> = match layout.payload_len {
        0 => Vec::new(),
        _ => vec![sample.bytes[layout.payload_at..].to_vec().into()],
    };
    let Message {
        xid,
        op,
        content,
        locks,
    } = message;
    let frame = match content {
        Content::Connect(head, request) => Frame::connect(*xid, head, request),
        Content::Connected(head, reply) => Frame::connect_reply(*xid, head, reply.as_deref()),
        Content::Request(head, request) => {
            Frame::asking(*xid, head, request, &locks.asked, payload, checksum)
        }
        Content::Reply(head, reply) => Frame::granting(
            *xid,
            *op,
            head,
            reply.as_ref(),
            &locks.granted,
            payload,
            checksum,
        ),
        Content::EarlyReply(head) => Frame::early_reply(*xid, *op, head, checksum),
        Content::Notice(head, notice) => Frame::notice(head, notice, checksum),
        Content::Callback(head, callback) => Frame::callback(*xid, head, callback, checksum),
        Content::CallbackReply(_) => panic!("no sample of it"),
    };
    let mut bytes = frame.bytes;
    frame
        .payload
        .iter()
        .for_each(|part| bytes.extend_from_slice(part));
    bytes
}

/// A variant that is added needs a sample: all tags that decode have one.
#[test]
fn every_operation_has_a_sample() {
    let known = |decode: &dyn Fn(u16) -> Option<&'static str>| -> Vec<u16> {
        (0..=u16::MAX)
            .filter(|tag| decode(*tag).is_none_or(|why| !why.starts_with("unknown")))
            .collect()
    };
    let mut r = samples::requests()
        .iter()
        .map(Request::tag)
        .collect::<Vec<_>>();
    r.sort_unstable();
    let empty = || Reader::new(&[]);
    assert_eq!(
        r,
        known(&|t| Request::decode_value(t, &mut empty()).err().map(|e| e.why))
    );
    let mut r = samples::replies()
        .iter()
        .map(Reply::tag)
        .collect::<Vec<_>>();
    r.sort_unstable();
    assert_eq!(
        r,
        known(&|t| Reply::decode_value(t, &mut empty()).err().map(|e| e.why))
    );
}

/// The sizes that the byte tables give.
#[test]
fn heads_have_their_sizes() {
    for sample in samples::all().iter().filter(|s| s.is_frame) {
        let layout = Layout::of(&sample.bytes, &AGREED)
            .expect("valid")
            .expect("whole");
        let sizes = [REQUEST_HEAD_LEN, REPLY_HEAD_LEN, CALLBACK_HEAD_LEN];
        assert!(sizes.contains(&usize::from(layout.head.head_len)));
        assert!(layout.payload_at >= HEAD_LEN + usize::from(layout.head.head_len));
        assert!(layout.payload_at.is_multiple_of(8));
    }
}

#[test]
fn a_flipped_bit_is_found() {
    let sample = &samples::all()[0];
    for bit in 0..sample.bytes.len() * 8 {
        let mut bytes = sample.bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(decode(&bytes, Features::OURS).is_err(), "bit {bit}");
    }
}

#[test]
fn lengths_are_refused_before_anything_is_read() {
    let ping = Request::Ping(forebay::wire::op::Empty {});
    let frame = Frame::request(Xid(1), &samples::request_head(), &ping, Vec::new(), false);
    for (at, why) in [(8, "body too long"), (12, "payload longer than agreed")] {
        let mut bytes = frame.bytes.clone();
        bytes[at..at + 4].copy_from_slice(&((1u32 << 20) + 1).to_le_bytes());
        let error = Layout::of(&bytes, &AGREED).expect_err("too long");
        assert_eq!(error.why, why);
    }
    assert_eq!(Layout::of(b"GET /", &AGREED).expect_err("not ours").at, 0);
    assert!(
        Layout::of(&frame.bytes[..3], &AGREED)
            .expect("may become one")
            .is_none()
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Nothing that a peer sends makes the decoder panic.
    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = decode(&bytes, Features::default());
    }

    /// Nor a real frame with bytes changed, cut off or inserted.
    #[test]
    fn mutated_frames_never_panic(
        pick in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
        cuts in any::<bool>(),
    ) {
        let samples = samples::all();
        let mut bytes = pick.get(&samples).bytes.clone();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if cuts {
            bytes.truncate(cut.index(bytes.len()));
        }
        let _ = decode(&bytes, Features::default());
        for tag in 0..70 {
            let _ = Request::decode_value(tag, &mut Reader::new(&bytes));
            let _ = Reply::decode_value(tag, &mut Reader::new(&bytes));
        }
    }
}
