//! Sockets: bytes, ends, refusals.

use super::{flat, pattern, reactor};
use crate::base::{Buf, Errno, Slice};
use crate::reactor::{Local, Stream};
use crate::world::{Conn, World};
use std::cell::Cell;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::thread;
use std::time::Duration;

/// Receives until `len` bytes are there.
async fn recv_all(conn: &Stream, len: usize) -> Buf {
    let mut buf = Buf::alone(len);
    let mut at = 0;
    while at < len {
        let (got, back) = conn.recv(buf, at).await;
        buf = back;
        at += match got.expect("bytes") {
            0 => panic!("end of stream after {at} of {len} bytes"),
            n => n,
        };
    }
    buf
}

/// Sends `parts` out and takes the same bytes back.
async fn echo_once(world: &Local, near: Stream, far: Stream, parts: Vec<Slice>) {
    let expected = flat(&parts);
    let len = expected.len();
    world.spawn(async move {
        let got = recv_all(&far, len).await;
        far.send(vec![got.freeze()]).await.expect("sent back");
    });
    near.send(parts).await.expect("sent");
    let back = recv_all(&near, len).await;
    assert!(back[..] == expected[..], "bytes came back changed");
}

#[test]
fn tcp_carries_many_slices_both_ways() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = listener.local_addr().expect("an address").to_string();
    let acceptor = thread::spawn(move || OwnedFd::from(listener.accept().expect("accepted").0));
    reactor(move |world| async move {
        let near = world.connect(&address).await.expect("connected");
        let far = world
            .adopt(acceptor.join().expect("accepted"))
            .expect("a stream");
        assert_eq!(near.peer(), address);
        // More slices than one call takes, and more bytes than buffers hold.
        echo_once(&world, near, far, pattern(3000, 1500)).await;
    });
}

#[test]
fn unix_sockets_carry_and_end() {
    let (a, b) = UnixStream::pair().expect("a pair");
    reactor(|world| async move {
        let near = world.adopt(a.into()).expect("a stream");
        let far = world.adopt(b.into()).expect("a stream");
        near.send(vec![Slice::from(b"ping".to_vec())])
            .await
            .expect("sent");
        assert_eq!(&recv_all(&far, 4).await[..], b"ping");
        near.shutdown();
        assert_eq!(far.recv(Buf::alone(1), 0).await.0, Ok(0));
        assert_eq!(
            near.send(pattern(1, 1)).await,
            Err(Errno::EPIPE),
            "no SIGPIPE"
        );
    });
}

#[test]
fn a_pending_receive_ends_with_the_connection() {
    let (a, b) = UnixStream::pair().expect("a pair");
    reactor(|world| async move {
        let near = Rc::new(world.adopt(a.into()).expect("a stream"));
        let waiting = Rc::clone(&near);
        let ended = Rc::new(Cell::new(None));
        let end = Rc::clone(&ended);
        world.spawn(async move {
            end.set(Some(waiting.recv(Buf::alone(10), 0).await.0));
        });
        world.yield_now().await;
        near.shutdown();
        while ended.get().is_none() {
            world.sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(ended.get(), Some(Ok(0)));
        drop(b);
    });
}

#[test]
fn connecting_fails_with_its_reason() {
    // Bound and dropped: nobody listens there.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = listener.local_addr().expect("an address").to_string();
    drop(listener);
    reactor(move |world| async move {
        let fault = |result: Result<Stream, Errno>| result.err().expect("a refusal");
        assert_eq!(fault(world.connect(&address).await), Errno::ECONNREFUSED);
        assert_eq!(fault(world.connect("localhost").await), Errno::EINVAL);
        assert_eq!(fault(world.connect("host:port").await), Errno::EINVAL);
        let path = format!("unix:/{}", "x".repeat(200));
        assert_eq!(fault(world.connect(&path).await), Errno::ENAMETOOLONG);
        assert_eq!(fault(world.connect("unix:/nowhere").await), Errno::ENOENT);
    });
}

#[test]
fn names_are_resolved_off_the_thread() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let port = listener.local_addr().expect("an address").port();
    reactor(move |world| async move {
        let connected = world.connect(&format!("localhost:{port}")).await;
        assert!(connected.is_ok(), "{:?}", connected.err());
    });
}

#[test]
fn sockets_that_do_not_block_are_waited_for_all_the_same() {
    let (a, b) = UnixStream::pair().expect("a pair");
    a.set_nonblocking(true).expect("set");
    b.set_nonblocking(true).expect("set");
    reactor(|world| async move {
        let near = world.adopt(a.into()).expect("a stream");
        let far = world.adopt(b.into()).expect("a stream");
        // Waits for data, and then, with more than buffers hold, for room.
        echo_once(&world, near, far, pattern(8, 1 << 20)).await;
    });
}
