//! The reactor as its users see it, on this machine's kernel.

use super::*;
use crate::base::{Buf, Errno, Pool, Slice};
use crate::world::{Conn, World};
use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::thread;
use std::time::Duration;

fn options() -> Options {
    Options::new("test", Port::alone().expect("a port"))
}

/// Runs `main` on a reactor of its own.
fn reactor<T: 'static, F: Future<Output = T> + 'static>(main: impl FnOnce(Local) -> F) -> T {
    run(options(), main).expect("a ring")
}

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

/// `count` slices of `len` bytes, all different.
fn pattern(count: usize, len: usize) -> Vec<Slice> {
    let byte = |i: usize, j: usize| (i * 7 + j * 13 + j / 256) as u8;
    let bytes = |i| (0..len).map(|j| byte(i, j)).collect::<Vec<u8>>();
    (0..count).map(|i| Slice::from(bytes(i))).collect()
}

fn flat(parts: &[Slice]) -> Vec<u8> {
    parts.iter().flat_map(|part| part.to_vec()).collect()
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
fn ten_thousand_timers_fire_and_none_early() {
    reactor(|world| async move {
        let fired = Rc::new(RefCell::new(Vec::new()));
        for i in 0..10_000_u64 {
            let (world, fired) = (world.clone(), Rc::clone(&fired));
            let at = i * 7919 % 10_000;
            let for_ = Duration::from_micros(at * 5);
            world.clone().spawn(async move {
                let until = world.now() + for_;
                world.sleep(for_).await;
                assert!(world.now() >= until, "a timer was early");
                fired.borrow_mut().push(at);
            });
        }
        while fired.borrow().len() < 10_000 {
            world.sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(world.0.timers.len(), 0);
        let mut all = fired.take();
        all.sort_unstable();
        assert!(all.iter().copied().eq(0..10_000));
    });
}

#[test]
fn a_dropped_sleep_leaves_nothing() {
    reactor(|world| async move {
        {
            let mut sleep = pin!(world.sleep(Duration::from_secs(3600)));
            poll_fn(|cx| {
                assert!(sleep.as_mut().poll(cx).is_pending());
                Poll::Ready(())
            })
            .await;
            assert_eq!(world.0.timers.len(), 1);
        }
        assert_eq!(world.0.timers.len(), 0);
    });
}

/// A flash file of `len` bytes in a directory that can do direct I/O.
fn flash_file(len: u64) -> (tempfile::NamedTempFile, OwnedFd) {
    // The build directory, since /tmp may be a tmpfs.
    let home = std::env::current_exe().expect("this test");
    let home = home.parent().expect("a directory");
    let file = tempfile::NamedTempFile::new_in(home).expect("a temporary file");
    file.as_file().set_len(len).expect("sized");
    let fd = flash::open(file.path()).expect("direct I/O");
    (file, fd)
}

fn on_flash<T: 'static, F: Future<Output = T> + 'static>(
    numbered: u16,
    main: impl FnOnce(Local) -> F,
) -> T {
    let (_file, fd) = flash_file(16 << 20);
    let options = Options {
        flash: Some(fd),
        pool: Pool::with_numbered([4; 3], numbered),
        ..options()
    };
    run(options, main).expect("a ring")
}

async fn write_and_read(world: &Local, offset: u64, parts: Vec<Slice>, durable: bool) {
    let expected = flat(&parts);
    let written = world.flash_write(offset, parts, durable).await;
    assert_eq!(written, Ok(()));
    let buf = world.pool().take(expected.len());
    let (result, buf) = world.flash_read(offset, buf).await;
    assert_eq!(result, Ok(()));
    assert!(buf[..] == expected[..], "flash gave other bytes back");
}

#[test]
fn flash_keeps_what_is_written() {
    on_flash(0, |world| async move {
        assert!(world.features().registered_files);
        for durable in [false, true] {
            write_and_read(&world, 0, pattern(1, 4096), durable).await;
            write_and_read(&world, 8192, pattern(7, 12288), durable).await;
            // More parts than one call takes.
            write_and_read(&world, 1 << 20, pattern(1500, 4096), durable).await;
        }
        assert_eq!(world.flash_sync().await, Ok(()));
    });
}

#[test]
fn registered_buffers_carry_flash_io() {
    on_flash(4, |world| async move {
        assert_eq!(world.features().registered_buffers, 4);
        for round in 0..8 {
            let mut buf = world.pool().take(1 << 20);
            buf.fill(round);
            write_and_read(&world, 0, vec![buf.freeze()], round % 2 == 0).await;
        }
    });
}

#[test]
fn the_end_of_flash_is_an_error() {
    on_flash(0, |world| async move {
        let past = world.flash_read(16 << 20, Buf::alone(4096)).await.0;
        assert_eq!(past, Err(Errno::EIO));
        let across = world
            .flash_read((16 << 20) - 4096, Buf::alone(8192))
            .await
            .0;
        assert_eq!(across, Err(Errno::EIO));
        let wrapped = world.flash_read(u64::MAX - 4095, Buf::alone(8192)).await.0;
        assert!(wrapped.is_err());
    });
}

#[test]
fn without_flash_there_is_no_such_device() {
    reactor(|world| async move {
        let read = world.flash_read(0, Buf::alone(4096)).await.0;
        assert_eq!(read, Err(Errno::ENXIO));
        assert_eq!(
            world.flash_write(0, pattern(1, 4096), true).await,
            Err(Errno::ENXIO)
        );
    });
}
