//! Files that the client itself is having changed by the box: until that is
//! answered, it does not know what they are like.

use crate::base::Fid;
use crate::world::sync::Signal;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

#[derive(Default)]
pub struct Busy {
    files: RefCell<BTreeMap<Fid, u32>>,
    less: Signal,
}

/// One change under way, until this is dropped.
pub struct Change {
    busy: Rc<Busy>,
    fids: Vec<Fid>,
}

impl Busy {
    pub fn begin(self: &Rc<Busy>, fids: &[Fid]) -> Change {
        let mut files = self.files.borrow_mut();
        for fid in fids {
            *files.entry(*fid).or_default() += 1;
        }
        Change {
            busy: Rc::clone(self),
            fids: fids.to_vec(),
        }
    }

    #[must_use]
    pub fn has(&self, fid: Fid) -> bool {
        self.files.borrow().contains_key(&fid)
    }

    /// Ends when no change of the file is under way.
    pub async fn quiet(&self, fid: Fid) {
        while self.has(fid) {
            self.less.wait().await;
        }
    }
}

impl Drop for Change {
    fn drop(&mut self) {
        let mut files = self.busy.files.borrow_mut();
        for fid in &self.fids {
            if let Some(count) = files.get_mut(fid) {
                *count -= 1;
                if *count == 0 {
                    files.remove(fid);
                }
            }
        }
        self.busy.less.notify();
    }
}
