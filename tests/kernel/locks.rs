//! The kernel's locks that matter to a mount: a directory's semaphore, a
//! folio's bit; and who waits for what, for the report of a deadlock.

use forebay::world::sync::Signal;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

/// `i_rwsem`: who came first goes first; a reader behind a waiting writer waits.
#[derive(Default)]
pub struct Rwsem {
    readers: Cell<u32>,
    is_written: Cell<bool>,
    queue: RefCell<VecDeque<(u64, bool)>>,
    last: Cell<u64>,
    changed: Signal,
}

/// A held semaphore.
pub struct Down {
    sem: Rc<Rwsem>,
    is_writer: bool,
}

impl Rwsem {
    pub async fn down_read(self: &Rc<Self>) -> Down {
        self.down(false).await
    }

    pub async fn down_write(self: &Rc<Self>) -> Down {
        self.down(true).await
    }

    async fn down(self: &Rc<Self>, is_writer: bool) -> Down {
        self.last.set(self.last.get() + 1);
        let ticket = self.last.get();
        self.queue.borrow_mut().push_back((ticket, is_writer));
        while !self.is_turn(ticket, is_writer) {
            self.changed.wait().await;
        }
        self.queue.borrow_mut().retain(|(t, _)| *t != ticket);
        match is_writer {
            true => self.is_written.set(true),
            false => self.readers.set(self.readers.get() + 1),
        }
        // Readers behind this one may come in, too.
        self.changed.notify();
        Down {
            sem: Rc::clone(self),
            is_writer,
        }
    }

    fn is_turn(&self, ticket: u64, is_writer: bool) -> bool {
        let queue = self.queue.borrow();
        let mut before = queue.iter().take_while(|(t, _)| *t != ticket);
        match is_writer {
            true => before.next().is_none() && !self.is_written.get() && self.readers.get() == 0,
            false => before.all(|(_, w)| !w) && !self.is_written.get(),
        }
    }
}

impl Drop for Down {
    fn drop(&mut self) {
        match self.is_writer {
            true => self.sem.is_written.set(false),
            false => self.sem.readers.set(self.sem.readers.get() - 1),
        }
        self.sem.changed.notify();
    }
}

/// Who waits for what.
#[derive(Default)]
pub struct Waits {
    last: Cell<u64>,
    now: RefCell<BTreeMap<u64, String>>,
}

/// One wait, while it lasts.
pub struct Wait {
    waits: Rc<Waits>,
    number: u64,
}

impl Waits {
    pub fn enter(self: &Rc<Self>, what: impl FnOnce() -> String) -> Wait {
        let number = self.last.get() + 1;
        self.last.set(number);
        self.now.borrow_mut().insert(number, what());
        Wait {
            waits: Rc::clone(self),
            number,
        }
    }

    pub fn all(&self) -> Vec<String> {
        self.now.borrow().values().cloned().collect()
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.waits.now.borrow_mut().remove(&self.number);
    }
}
