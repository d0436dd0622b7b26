//! What a file is like that the client has to itself, told to the box for others
//! who look at it; the lock stays. Nobody here waits for it, and nothing is asked:
//! the answer is formed at once, after the question came, from what this client's
//! own callers have been answered by then.

use super::Ahead;
use crate::base::{Attr, Fid};
use crate::client::Import;
use crate::wire::callback::Glimpse;
use crate::wire::op::Glimpsed;
use crate::wire::{CallbackHead, Request};
use crate::world::World;

/// What this client can say of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// Its lock is not here, has begun to end, or may be another's by now.
    Nothing,
    /// The box has all that was answered, and is told of what goes on.
    AtBox,
    Here(Attr),
}

/// The box asks.
pub fn on_glimpse<W: World>(import: &Import<W>, head: &CallbackHead, asked: &Glimpse) {
    let sender = import.link.borrow().as_ref().map(|l| l.sender.clone());
    let Some(sender) = sender else {
        return;
    };
    // Without its lease this client does not know whether it is alone (L2).
    let known = match import.cached.is_within_lease(import.world.now()) {
        true => import.ahead.known(asked.fid),
        false => Known::Nothing,
    };
    let glimpsed = Request::Glimpsed(Glimpsed {
        lock: head.lock,
        fid: asked.fid,
        is_alone: known != Known::Nothing,
        attr: match known {
            Known::Here(attr) => Some(attr),
            Known::Nothing | Known::AtBox => None,
        },
        xattrs_at_box: !import.ahead.tree.borrow().has_own_xattrs(asked.fid),
    });
    sender.push(import.ledger.borrow_mut().control(glimpsed).1);
}

impl Ahead {
    /// The connection is new: requests whose answers were lost are sent again.
    pub fn on_connected(&self) {
        self.resent.set(self.sent.get());
    }

    /// The tree has all that was answered by this client itself. What the box
    /// changes for it meanwhile (`busy`) it may have shown to callers already, by
    /// an answer to something else, a READ say; but not as long as it has not
    /// answered what came before that in order. So then either the tree is right,
    /// or the box. An answer that was lost with its connection tells nothing of
    /// the order; until those have come again, neither is known to be.
    pub(super) fn known(&self, fid: Fid) -> Known {
        let tree = self.tree.borrow();
        let Some(attr) = tree.attr(fid) else {
            return Known::Nothing;
        };
        match (self.busy.has(fid), tree.is_behind(fid)) {
            (false, _) => Known::Here(attr.clone()),
            (true, false) => Known::AtBox,
            (true, true) if self.answered.get() < self.resent.get() => Known::Nothing,
            (true, true) => Known::Here(attr.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::ahead::tree::Found;
    use crate::namespace::draft::Change;

    const FILE: Fid = Fid::new(1, 2);

    fn attr() -> Attr {
        Attr {
            size: 3,
            ..Attr::plain(5)
        }
    }

    /// A change of the file that the box has not answered.
    fn change(ahead: &Ahead) {
        let mut tree = ahead.tree.borrow_mut();
        let inode = tree.inode(FILE).cloned().expect("it is there");
        let change = Change {
            inodes: vec![(FILE, inode)],
            ..Change::default()
        };
        tree.apply(change, FILE);
        ahead.sent.set(ahead.sent.get() + 1);
    }

    #[test]
    fn who_knows_of_the_file_is_named() {
        let ahead = Ahead::default();
        assert_eq!(ahead.known(FILE), Known::Nothing);
        let mut tree = ahead.tree.borrow_mut();
        tree.add_root(FILE, &attr(), Found::default());
        drop(tree);
        assert_eq!(ahead.known(FILE), Known::Here(attr()));
        let busy = ahead.busy.begin(&[FILE]);
        assert_eq!(ahead.known(FILE), Known::AtBox, "only it can say");
        drop(busy);
        change(&ahead);
        assert_eq!(ahead.known(FILE), Known::Here(attr()));
        let busy = ahead.busy.begin(&[FILE]);
        assert_eq!(ahead.known(FILE), Known::Here(attr()), "in order");
        ahead.on_connected();
        assert_eq!(ahead.known(FILE), Known::Nothing, "or perhaps not");
        drop(busy);
        assert_eq!(ahead.known(FILE), Known::Here(attr()));
        // The lock begins to end.
        ahead.tree.borrow_mut().remove_root(FILE);
        assert_eq!(ahead.known(FILE), Known::Nothing);
    }

    /// For as long as the file is here, also when the box has answered.
    #[test]
    fn own_extended_attributes_are_told() {
        let ahead = Ahead::default();
        ahead
            .tree
            .borrow_mut()
            .add_root(FILE, &attr(), Found::default());
        change(&ahead);
        assert!(!ahead.tree.borrow().has_own_xattrs(FILE));
        let xattrs = vec![(FILE, b"user.a".to_vec(), None)];
        let change = Change {
            xattrs,
            ..Change::default()
        };
        ahead.tree.borrow_mut().apply(change, FILE);
        assert!(ahead.tree.borrow().has_own_xattrs(FILE));
    }
}
