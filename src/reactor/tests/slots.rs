//! Memory of operations that nobody waits for any more.

use super::{options, reactor};
use crate::base::{Buf, Pool};
use crate::reactor::{Descriptor, Local, Options, run};
use crate::world::{Conn, World};
use std::future::{Future, poll_fn};
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::task::Poll;

/// Polls once, which submits, and drops.
async fn start_and_drop(future: impl Future) {
    let mut future = pin!(future);
    poll_fn(|cx| {
        assert!(future.as_mut().poll(cx).is_pending());
        Poll::Ready(())
    })
    .await;
}

/// Lets turns go by until the kernel holds only the doorbell.
async fn settle(world: &Local) {
    while world.0.driver.pending() > 1 {
        world.yield_now().await;
    }
}

#[test]
fn a_dropped_receive_keeps_its_buffer_until_it_is_cancelled() {
    let (a, _b) = UnixStream::pair().expect("a pair");
    let options = Options {
        pool: Pool::new([2; 3]),
        ..options()
    };
    let main = |world: Local| async move {
        let conn = world.adopt(a.into()).expect("a stream");
        let buf = world.pool().take(100);
        let address = buf.as_ptr();
        start_and_drop(conn.recv(buf, 0)).await;
        assert_ne!(
            world.pool().take(100).as_ptr(),
            address,
            "memory that the kernel may write was handed out"
        );
        settle(&world).await;
        let all: Vec<Buf> = (0..2).map(|_| world.pool().take(100)).collect();
        assert!(all.iter().any(|buf| buf.as_ptr() == address));
    };
    run(options, main).expect("a ring");
}

#[test]
fn a_dropped_receive_closes_its_socket_when_cancelled() {
    let (a, b) = UnixStream::pair().expect("a pair");
    reactor(|world| async move {
        let near = world.adopt(a.into()).expect("a stream");
        let far = world.adopt(b.into()).expect("a stream");
        start_and_drop(near.recv(Buf::alone(100), 0)).await;
        drop(near);
        assert_eq!(far.recv(Buf::alone(1), 0).await.0, Ok(0));
    });
}

#[test]
fn slots_are_used_again_and_never_confused() {
    let (a, b) = UnixStream::pair().expect("a pair");
    reactor(|world| async move {
        let near = world.adopt(a.into()).expect("a stream");
        let far = world.adopt(b.into()).expect("a stream");
        for round in 0..1000_u32 {
            // The cancel of the first must not hit the second, which may get
            // the same slot.
            start_and_drop(near.recv(Buf::alone(4), 0)).await;
            settle(&world).await;
            let bytes = round.to_le_bytes().to_vec();
            far.send(vec![bytes.clone().into()]).await.expect("sent");
            let (got, buf) = near.recv(Buf::alone(4), 0).await;
            assert_eq!((got, &buf[..]), (Ok(4), &bytes[..]));
        }
    });
}

#[test]
fn a_reactor_ends_with_operations_under_way() {
    let pairs: Vec<_> = (0..100)
        .map(|_| UnixStream::pair().expect("a pair"))
        .collect();
    reactor(|world| async move {
        for (a, b) in pairs {
            let conn = world.adopt(a.into()).expect("a stream");
            world.spawn(async move {
                let _open = b;
                conn.recv(Buf::alone(4096), 0).await.0.expect("never comes");
            });
        }
        world.yield_now().await;
        assert_eq!(world.0.driver.pending(), 101);
    });
}

#[test]
fn more_operations_than_the_rings_hold() {
    let options = Options {
        entries: 4,
        ..options()
    };
    let pairs: Vec<_> = (0..300)
        .map(|_| UnixStream::pair().expect("a pair"))
        .collect();
    let main = |world: Local| async move {
        let ended = std::rc::Rc::new(std::cell::Cell::new(0));
        let mut others = Vec::new();
        for (a, b) in pairs {
            let conn = world.adopt(a.into()).expect("a stream");
            others.push(world.adopt(b.into()).expect("a stream"));
            let ended = std::rc::Rc::clone(&ended);
            world.spawn(async move {
                let (got, _) = conn.recv(Buf::alone(1), 0).await;
                ended.set(ended.get() + got.expect("a byte"));
            });
        }
        world.yield_now().await;
        for other in &others {
            other.send(vec![vec![1].into()]).await.expect("sent");
        }
        while ended.get() < 300 {
            world.yield_now().await;
        }
    };
    run(options, main).expect("a ring");
}

#[test]
fn streams_of_all_kinds_are_polled_and_read() {
    let (reader, writer) = rustix::pipe::pipe().expect("a pipe");
    reactor(|world| async move {
        let reader = Descriptor::new(reader);
        let writer = Descriptor::new(writer);
        world.spawn({
            let world = world.clone();
            async move {
                let parts = vec![b"ab".to_vec().into(), b"cd".to_vec().into()];
                assert_eq!(world.writev(&writer, parts).await, Ok(4));
            }
        });
        world.poll_readable(&reader).await.expect("readable");
        let (got, buf) = world.read(&reader, Buf::alone(10)).await;
        assert_eq!(got, Ok(4));
        assert_eq!(&buf[..4], b"abcd");
        // The writer is gone: that too is something to tell.
        world.poll_readable(&reader).await.expect("hung up");
        assert_eq!(world.read(&reader, Buf::alone(10)).await.0, Ok(0));
    });
}
