//! Listings: "." and ".." made here, the rest in the box's order.

use crate::base::{Codec, Errno};
use crate::client::Terms;
use crate::fuse::abi::input::{ReadIn, ReleaseIn};
use crate::fuse::abi::output::{Dirent, Listing, OpenOut};
use crate::fuse::dirs::{Batch, DOTS, offset};
use crate::fuse::kept::names::Turn;
use crate::fuse::kernel::Kernel;
use crate::fuse::nodes::Node;
use crate::fuse::ops::entry_in;
use crate::fuse::ops::names::of_file;
use crate::fuse::session::{Origin, Outcome, Session};
use crate::fuse::terms::At;
use crate::fuse::upstream::Upstream;
use crate::wire::op::{DirEntry, Readdir};
use crate::wire::{Reply, Request};
use crate::world::World;

impl<W: World, U: Upstream, K: Kernel> Session<W, U, K> {
    /// Known to this mount alone: a listing needs no open at the box.
    pub(super) fn on_opendir(&self, from: &Origin) -> Result<Outcome, Errno> {
        self.node(from.head.nodeid)?;
        let fh = self.dirs.borrow_mut().open(from.head.nodeid);
        let out = OpenOut {
            fh,
            open_flags: 0,
            backing: 0,
        };
        Ok(Outcome::Bytes(out.to_vec()))
    }

    pub(super) fn on_releasedir(&self, args: ReleaseIn) -> Result<Outcome, Errno> {
        self.dirs.borrow_mut().close(args.fh);
        self.kept.borrow_mut().names.taken_in(args.fh);
        Ok(Outcome::Done)
    }

    /// The kernel changes names in a directory, and has it locked for that.
    pub(super) fn has_locked(&self, nodeid: u64) {
        let handles = self.dirs.borrow_mut().locked(nodeid);
        for fh in handles {
            self.kept.borrow_mut().names.taken_in(fh);
        }
    }

    pub(super) async fn on_readdir(
        &self,
        from: &Origin,
        args: ReadIn,
        plus: bool,
    ) -> Result<Outcome, Errno> {
        let turn = self.dirs.borrow_mut().turn(args.fh);
        self.kept.borrow_mut().names.taken_in(args.fh);
        let node = self.node(from.head.nodeid)?;
        let mut out = Listing::new(args.size as usize, plus);
        let kept = self.dirs.borrow_mut().take(args.fh, args.offset, plus);
        let mut batch = match kept {
            Some(batch) => batch,
            None => self.begin(from, node, args.offset, plus, &mut out).await?,
        };
        let mut is_full = false;
        loop {
            while let Some((entry, terms)) = batch.entries.front() {
                if !out.has_room(entry.name.as_bytes()) {
                    is_full = true;
                    break;
                }
                let now = self.terms(batch.begun, entry.fid);
                let listed = Listed {
                    dir: from.head.nodeid,
                    turn,
                    terms: both(*terms, now),
                };
                self.list(entry, plus.then_some(listed), &mut out);
                batch.at = offset::of_cookie(entry.cookie);
                batch.entries.pop_front();
            }
            // What is there goes out now; more is fetched when it is asked for.
            if is_full || batch.end || !out.is_empty() {
                break;
            }
            batch = self.fetch(from, node, batch.at, plus).await?.0;
        }
        self.dirs.borrow_mut().keep(args.fh, batch);
        Ok(Outcome::Bytes(out.into_bytes()))
    }

    /// The first batch from `at` on, after the entries made here that lie
    /// before it. They need numbers: the parent's is in the box's listing.
    async fn begin(
        &self,
        from: &Origin,
        node: Node,
        at: u64,
        plus: bool,
        out: &mut Listing,
    ) -> Result<Batch, Errno> {
        let (mut batch, parent_ino) = self.fetch(from, node, at, plus).await?;
        for (name, kind, next) in DOTS {
            if at < next && out.has_room(name) {
                let ino = match name.len() {
                    1 => self.ino_of(from, node).await?,
                    _ => parent_ino,
                };
                out.push(
                    Dirent {
                        ino,
                        offset: next,
                        kind,
                        name,
                    },
                    None,
                );
                batch.at = next;
            }
        }
        Ok(batch)
    }

    /// What the box has from `at` on, and the number of the parent directory.
    async fn fetch(
        &self,
        from: &Origin,
        node: Node,
        at: u64,
        plus: bool,
    ) -> Result<(Batch, u64), Errno> {
        let begun = self.kept.borrow().races.now();
        let request = Readdir {
            fid: node.fid,
            cookie: offset::to_cookie(at),
            bytes: FETCHED,
            attrs: plus,
        };
        let Reply::Listing(listing) = self.ask(from, Request::Readdir(request)).await? else {
            return Err(Errno::EIO);
        };
        if listing.entries.is_empty() && !listing.end {
            return Err(Errno::EIO);
        }
        let batch = Batch {
            at,
            entries: listing
                .entries
                .into_iter()
                .map(|entry| {
                    let terms = self.terms(begun, entry.fid);
                    (entry, terms)
                })
                .collect(),
            begun,
            end: listing.end,
            attrs: plus,
        };
        Ok((batch, listing.parent_ino))
    }

    /// The directory's own number; only the root's is ever unknown.
    async fn ino_of(&self, from: &Origin, node: Node) -> Result<u64, Errno> {
        if node.ino != 0 {
            return Ok(node.ino);
        }
        let entry = entry_in(self.ask(from, of_file(node.fid)).await?)?;
        Ok(entry.attr.ino)
    }

    /// An entry with attributes counts as a look-up of what it names. One that
    /// is not to be believed goes without them: it would only be looked up
    /// again.
    fn list(&self, entry: &DirEntry, listed: Option<Listed>, out: &mut Listing) {
        let dirent = Dirent {
            ino: entry.ino,
            offset: offset::of_cookie(entry.cookie),
            kind: entry.kind,
            name: entry.name.as_bytes(),
        };
        let worth = |l: &Listed| !(l.terms.name.is_zero() && l.terms.attr.is_zero());
        let object = listed.filter(worth).and_then(|listed| {
            let at = At {
                parent: listed.dir,
                name: &entry.name,
                listing: Some(listed.turn),
            };
            let attr = entry.attr.as_ref()?;
            Some(self.named(Some(at), entry.fid, attr, listed.terms))
        });
        out.push(dirent, object);
    }
}

/// Under what an entry is listed.
struct Listed {
    dir: u64,
    turn: Turn,
    terms: Terms,
}

/// What could be believed when the entry came, and can be still.
fn both(then: Terms, now: Terms) -> Terms {
    Terms {
        name: if then.name.is_zero() {
            then.name
        } else {
            now.name
        },
        attr: if then.attr.is_zero() {
            then.attr
        } else {
            now.attr
        },
        ..Terms::default()
    }
}

/// Bytes of entries to fetch at a time: several of the kernel's requests, which
/// are small, are answered from one round trip.
const FETCHED: u32 = 64 << 10;
