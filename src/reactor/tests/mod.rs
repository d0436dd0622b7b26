//! The reactor as its users see it, on this machine's kernel.

mod flash;
mod origins;
mod ports;
mod setup;
mod signals;
mod slots;
mod streams;
mod timers;
mod wakes;

use super::*;
use crate::base::Slice;
use std::future::Future;

fn options() -> Options {
    Options::new("test", Port::alone().expect("a port"))
}

/// Runs `main` on a reactor of its own.
fn reactor<T: 'static, F: Future<Output = T> + 'static>(main: impl FnOnce(Local) -> F) -> T {
    run(options(), main).expect("a ring")
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
