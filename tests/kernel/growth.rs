//! A file that one machine makes longer, and the others look at through
//! mappings: no access to what was written before it faults, but while the file
//! grows again and again, and then about a second late at most (C17).

use crate::files::{File, SIGBUS};
use crate::inode::PAGE;
use crate::run::is_trouble;
use crate::work::{Done, Place, Worker};
use forebay::base::{Errno, Mono};
use std::rc::Rc;
use std::time::Duration;

/// What was written past the end of the file.
#[derive(Clone, Copy, Debug)]
pub struct Growth {
    at: u64,
    value: u64,
    called: Mono,
    returned: Mono,
}

/// All that the growing machine has written, and been answered.
#[derive(Default)]
pub struct Grown {
    end: u64,
    written: Vec<Growth>,
    /// Accesses that had to succeed, and that were allowed to fail and did.
    pub strict: u64,
    pub late: u64,
}

impl Grown {
    /// Did nobody make the file longer for a while before this?
    fn is_occasional(&self, n: usize) -> bool {
        let before = n.checked_sub(1).and_then(|n| self.written.get(n));
        before.is_none_or(|before| self.written[n].called - before.returned > QUIET)
    }
}

impl Worker {
    pub fn is_growing(&self) -> bool {
        self.machine == 0
    }

    /// Now and then a long pause: who is not fought over gets its lock again.
    pub fn growth_pause(&self) -> Duration {
        let longest = [1, 10, 100, 3_000, 7_000][self.below(5) as usize];
        Duration::from_micros(self.below(longest * 1000))
    }

    /// The file that grows, for writing or mapped; none while the box is away.
    async fn growing_file(&self) -> Result<Option<(Rc<File>, Mono)>, String> {
        if self.below(16) == 0 {
            let before = self.growing.borrow_mut().take();
            if let Some((file, _)) = before {
                let _ = self.linux.close(file).await;
            }
        }
        if let Some(found) = self.growing.borrow().clone() {
            return Ok(Some(found));
        }
        let flags = match self.is_growing() {
            true => libc::O_RDWR,
            false => libc::O_RDONLY,
        };
        let opened = async {
            let inode = self.inode(Place::GROWING).await?;
            let file = self.linux.open(&inode, flags).await?;
            // As who maps a file asks for its length: what came with its name
            // may be older than the open, and its lock.
            self.linux.getattr(&inode).await?;
            Ok(file)
        };
        match opened.await {
            Ok(file) => {
                if !self.is_growing() {
                    self.linux.mmap(&file).await;
                }
                let found = (file, self.linux.now());
                *self.growing.borrow_mut() = Some(found.clone());
                Ok(Some(found))
            }
            Err(e) if is_trouble(self.run.plan, e) => Ok(None),
            Err(e) => Err(format!("an open of what grows: {e}")),
        }
    }

    pub async fn grow(&self) -> Done {
        let Some((file, _)) = self.growing_file().await? else {
            return Ok(());
        };
        let value = self.run.fresh();
        let at = {
            let mut grown = self.run.grown.borrow_mut();
            let at = grown.end + self.below(4) * (PAGE / 2);
            grown.end = at + PAGE / 2;
            at
        };
        let called = self.linux.now();
        match self.linux.write(&file, at, value).await {
            Ok(()) => {
                let returned = self.linux.now();
                let growth = Growth {
                    at,
                    value,
                    called,
                    returned,
                };
                self.run.grown.borrow_mut().written.push(growth);
                Ok(())
            }
            Err(e) if is_trouble(self.run.plan, e) => Ok(()),
            Err(e) => Err(format!("growth to {at}: {e}")),
        }
    }

    pub async fn watch_growth(&self) -> Done {
        let Some((file, opened)) = self.growing_file().await? else {
            return Ok(());
        };
        let (n, growth) = {
            let written = &self.run.grown.borrow().written;
            let back = [0, 0, 0, 1, 2, 5][self.below(6) as usize];
            let Some(n) = written.len().checked_sub(1 + back) else {
                return Ok(());
            };
            (n, written[n])
        };
        let begun = self.linux.now();
        let loaded = self.linux.load(&file, growth.at).await;
        // With trouble the write may be lost, and the mount be behind.
        if !self.run.plan.is_calm() {
            return Ok(());
        }
        let grown = &mut self.run.grown.borrow_mut();
        let is_old = growth.called - opened > LATE && opened < growth.called;
        let is_strict = is_old && grown.is_occasional(n);
        let since = growth.returned.max(opened);
        let may_be_late = !is_strict && begun - since < LATE;
        match loaded {
            Ok(value) if value == growth.value => grown.strict += u64::from(is_strict),
            Err(SIGBUS) if may_be_late => grown.late += 1,
            other => {
                let age = begun - growth.returned;
                return Err(format!("{growth:?}, {age:?} ago, is {other:?}"));
            }
        }
        Ok(())
    }

    pub async fn put_growing_away(&self) {
        let file = self.growing.borrow_mut().take();
        if let Some((file, _)) = file {
            let _: Result<(), Errno> = self.linux.close(file).await;
        }
    }
}

/// After this nothing is fought over, and all who look are told of the next growth.
const QUIET: Duration = Duration::from_secs(4);
/// The pause of who is fought over, and what it takes to ask then.
const LATE: Duration = Duration::from_millis(1500);
