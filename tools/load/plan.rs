//! Which operation comes next, apart from how it is done.

use crate::cli::{Data, Meta, Op};
use std::time::{Duration, Instant};

/// The operations of one client's file, drawn by all its workers in turn.
pub struct Plan {
    blocks: u64,
    block: u64,
    op: Op,
    random: bool,
    rng: fastrand::Rng,
    next: u64,
    left: u64,
}

/// One operation on file data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    pub offset: u64,
    pub write: bool,
}

impl Plan {
    pub fn new(data: &Data, client: usize) -> Plan {
        Plan {
            blocks: (data.file_size / data.block).max(1),
            block: data.block,
            op: data.op,
            random: data.random,
            rng: fastrand::Rng::with_seed(data.seed.wrapping_add(client as u64)),
            next: 0,
            left: data.ops,
        }
    }

    pub fn next(&mut self) -> Option<Step> {
        self.left = self.left.checked_sub(1)?;
        let at = match self.random {
            true => self.rng.u64(0..self.blocks),
            false => self.next % self.blocks,
        };
        self.next += 1;
        Some(Step {
            offset: at * self.block,
            write: match self.op {
                Op::Read => false,
                Op::Write => true,
                Op::Mixed => self.rng.u8(0..10) < 3,
            },
        })
    }
}

/// When a phase ends.
#[derive(Clone, Copy)]
pub struct Clock {
    pub began: Instant,
    pub bound: Duration,
}

impl Clock {
    pub fn start(bound: Duration) -> Clock {
        Clock {
            began: Instant::now(),
            bound,
        }
    }
    pub fn is_over(&self) -> bool {
        self.began.elapsed() >= self.bound
    }
}

/// Bytes that compress badly and differ by seed.
pub fn content(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    bytes
}

/// The name of a directory of worker `w`, the same for all if shared.
pub fn dir_name(meta: &Meta, w: usize, dir: u64) -> String {
    match meta.shared {
        true => format!("load.{dir}"),
        false => format!("load.{w}.{dir}"),
    }
}

/// The name of a file before and after the rename step.
pub fn file_name(w: usize, file: u64, renamed: bool) -> String {
    match renamed {
        true => format!("r.{w}.{file}"),
        false => format!("f.{w}.{file}"),
    }
}
