//! The flash file.

use super::{flat, options, pattern, reactor};
use crate::base::{Buf, Errno, Pool, Slice};
use crate::reactor::{Local, Options, flash, run};
use crate::world::World;
use std::future::Future;
use std::os::fd::OwnedFd;
use std::path::Path;

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

#[test]
fn opening_says_what_is_wrong() {
    let fault = flash::open(Path::new("/nowhere/cache.fb")).expect_err("a refusal");
    let text = fault.to_string();
    assert!(text.contains("/nowhere/cache.fb"), "{text}");
    // procfs cannot do direct I/O.
    let fault = flash::open(Path::new("/proc/self/comm")).expect_err("a refusal");
    let text = fault.to_string();
    assert!(text.contains("O_DIRECT") && text.contains("ext4"), "{text}");
}
