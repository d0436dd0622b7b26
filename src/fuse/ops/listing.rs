//! Listings: "." and ".." made here, the rest in the box's order.

use crate::base::{Codec, Errno};
use crate::client::Terms;
use crate::fuse::abi::flag::fopen;
use crate::fuse::abi::input::{ReadIn, ReleaseIn};
use crate::fuse::abi::output::{Dirent, Listing, OpenOut};
use crate::fuse::dirs::{Batch, DOTS, Fetched, offset};
use crate::fuse::kept::names::Turn;
use crate::fuse::kernel::Kernel;
use crate::fuse::nodes::Node;
use crate::fuse::ops::entry_in;
use crate::fuse::ops::names::of_file;
use crate::fuse::session::{Ask, Origin, Outcome, Session};
use crate::fuse::terms::At;
use crate::fuse::upstream::{Interrupt, Upstream};
use crate::wire::op::{DirEntry, Readdir};
use crate::wire::{Reply, Request};
use crate::world::World;

impl<W: World, U: Upstream, K: Kernel> Session<W, U, K> {
    /// Known to this mount alone: a listing needs no open at the box.
    pub(super) fn on_opendir(&self, from: &Origin) -> Result<Outcome, Errno> {
        let nodeid = from.head.nodeid;
        let node = self.node(nodeid)?;
        let mut dirs = self.dirs.borrow_mut();
        let is_alone = !dirs.is_open(nodeid);
        let fh = dirs.open(nodeid);
        let remembered = self.upstream.listing(node.fid);
        let lists = &mut self.kept.borrow_mut().lists;
        let open_flags = match is_alone {
            true if lists.open(fh, nodeid, remembered, self.world.now()) => {
                fopen::CACHE_DIR | fopen::KEEP_CACHE
            }
            true => fopen::CACHE_DIR,
            false => {
                lists.spoil(nodeid);
                0
            }
        };
        let out = OpenOut {
            fh,
            open_flags,
            backing: 0,
        };
        Ok(Outcome::Bytes(out.to_vec()))
    }

    pub(super) fn on_releasedir(&self, args: ReleaseIn) -> Result<Outcome, Errno> {
        self.dirs.borrow_mut().close(args.fh);
        let mut kept = self.kept.borrow_mut();
        kept.names.taken_in(args.fh);
        kept.lists.close(args.fh);
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
            batch = self.go_on(from, node, (args.fh, batch.at), plus).await?;
        }
        if !batch.end && args.offset != 0 {
            self.fetch_ahead(from, node, args.fh, &batch);
        }
        let range = (args.offset, batch.at);
        let is_end = batch.end && out.is_empty();
        self.dirs.borrow_mut().keep(args.fh, batch);
        let remembered = self.upstream.listing(node.fid);
        let lists = &mut self.kept.borrow_mut().lists;
        lists.on_answer(args.fh, range, is_end, remembered, self.world.now());
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
    async fn fetch(&self, from: &Origin, node: Node, at: u64, plus: bool) -> Fetched {
        let ask = self.plain(from, part_of(node, at, plus));
        self.fetched(ask, at, plus).await
    }

    /// The batch that follows, on its way already or not.
    async fn go_on(
        &self,
        from: &Origin,
        node: Node,
        (fh, at): (u64, u64),
        plus: bool,
    ) -> Result<Batch, Errno> {
        let ahead = self.dirs.borrow_mut().take_ahead(fh, at);
        if let Some(ahead) = ahead
            && let Some(Ok((batch, _))) = ahead.get().await
            && batch.attrs >= plus
        {
            return Ok(batch);
        }
        Ok(self.fetch(from, node, at, plus).await?.0)
    }

    /// Who has come back for more is likely to want all of it: the box lists
    /// what follows `batch` while the kernel takes this in.
    fn fetch_ahead(&self, from: &Origin, node: Node, fh: u64, batch: &Batch) {
        let last = batch.entries.back();
        let at = last.map_or(batch.at, |(entry, _)| offset::of_cookie(entry.cookie));
        let Some(ahead) = self.dirs.borrow_mut().fetch_ahead(fh, at) else {
            return;
        };
        let plus = batch.attrs;
        let mut ask = self.plain(from, part_of(node, at, plus));
        ask.interrupt = Interrupt::default();
        let session = self.this();
        self.this().spawn(async move {
            ahead.set(session.fetched(ask, at, plus).await);
        });
    }

    async fn fetched(&self, ask: Ask, at: u64, plus: bool) -> Fetched {
        let begun = self.kept.borrow().races.now();
        let Reply::Listing(listing) = self.call(ask).await?.0 else {
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
                // The directory is locked meanwhile.
                walker: None,
            };
            let attr = entry.attr.as_ref()?;
            Some(self.named(Some(at), entry.fid, attr, listed.terms))
        });
        out.push(dirent, object);
    }
}

fn part_of(node: Node, at: u64, attrs: bool) -> Request {
    Request::Readdir(Readdir {
        fid: node.fid,
        cookie: offset::to_cookie(at),
        bytes: FETCHED,
        attrs,
    })
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
