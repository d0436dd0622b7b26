//! What an eviction cost of what a client had answered ahead of the box, as
//! [`Client::take_lost`] names it, and what is certain all the same (L10).

use crate::run::{Object, Run};
use crate::work::{Place, Worker};
use forebay::base::{Fid, Name};
use forebay::client::{Client, LostChange};
use forebay::sim::SimWorld;
use forebay::sim::history::{Deed, Record};
use forebay::wire::Request;
use std::collections::BTreeMap;

/// Where the names and files that all share are, by the client's numbers.
#[derive(Clone, Default)]
pub struct Shared {
    pub dir: Fid,
    /// The directory of each machine.
    pub own: Vec<Fid>,
    pub files: Vec<Fid>,
}

/// A change that may have been seen by its own machine alone.
#[derive(Clone, Copy, Debug)]
struct Lost {
    machine: usize,
    change: Change,
    /// The tick at which its loss was known.
    learned: u64,
}

/// What it left the object like.
#[derive(Clone, Copy, Debug)]
enum Change {
    Made(u64),
    To(u64),
    Removed,
}

/// The losses of a run.
#[derive(Default)]
pub struct Losses(BTreeMap<Object, Vec<Lost>>);

impl Losses {
    pub fn len(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    /// What the machine's client has lost since it was last asked.
    pub fn note(&mut self, run: &Run, machine: usize, client: &Client<SimWorld>) {
        for lost in client.take_lost() {
            let Some((object, change)) = found(&run.shared.borrow(), &lost) else {
                continue;
            };
            let learned = run.tick();
            self.0.entry(object).or_default().push(Lost {
                machine,
                change,
                learned,
            });
        }
    }

    /// The object's records as far as they are certain: a lost change may have
    /// been done all the same, since only its answer may be lost; and what its
    /// machine saw from then until it knew of the loss, it may have seen alone.
    pub fn certain(&self, object: Object, records: &[Record]) -> Vec<Record> {
        let mut certain = records.to_vec();
        // The last loss is the last such change, and each before it an earlier one.
        let mut found: BTreeMap<usize, u64> = BTreeMap::new();
        for lost in self.0.get(&object).into_iter().flatten().rev() {
            let later = found.get(&lost.machine).copied().unwrap_or(u64::MAX);
            let is_it = |r: &&Record| {
                let is_before = r.client == lost.machine && r.called < lost.learned.min(later);
                is_before && lost.change.is_by(r.deed)
            };
            let all = records.iter().filter(is_it).map(|r| r.called);
            // A file is made once, and may have been found by who made it since.
            let one = match lost.change {
                Change::Made(_) => all.min(),
                Change::To(_) | Change::Removed => all.max(),
            };
            let Some(from) = one else {
                continue;
            };
            found.insert(lost.machine, from);
            let is_in_doubt = |r: &Record| {
                let is_own = r.client == lost.machine;
                is_own && r.returned >= from && r.called <= lost.learned
            };
            let as_sure = |r: Record| match is_in_doubt(&r) {
                true => lost.change.in_doubt(r),
                false => Some(r),
            };
            certain = certain.into_iter().filter_map(as_sure).collect();
            // Others may have seen a size, by a glimpse, that was lost then (L9).
            let is_glimpsed = |r: &Record| {
                let is_seen = lost.change.is_seen_by(r.deed) && matches!(object, Object::Size(_));
                is_seen && r.returned >= from && r.called <= lost.learned
            };
            certain.retain(|r| !is_glimpsed(r));
        }
        certain
    }
}

impl Change {
    /// Can this have been the change?
    fn is_by(self, deed: Deed) -> bool {
        match (self, deed) {
            (Change::To(value), Deed::Write(wrote)) => value == wrote,
            (Change::Made(made), Deed::Added(_, file) | Deed::Ensured(file)) => made == file,
            (Change::Removed, Deed::Removed) => true,
            _ => false,
        }
    }

    fn is_seen_by(self, deed: Deed) -> bool {
        matches!((self, deed), (Change::To(value), Deed::Read(seen)) if value == seen)
    }

    /// A record of its machine of which it is not sure that it was so; nothing
    /// of one that only looked.
    fn in_doubt(self, record: Record) -> Option<Record> {
        let deed = match record.deed {
            // It may have made the file, or found it.
            Deed::Ensured(value) => Deed::MaybeAdded(0, value),
            Deed::Read(_) | Deed::Missing => return None,
            Deed::Write(value) => Deed::MaybeWrite(value),
            Deed::Added(at, value) => Deed::MaybeAdded(at, value),
            Deed::Removed => Deed::MaybeRemove,
            Deed::MaybeWrite(_) | Deed::MaybeRemove | Deed::MaybeAdded(..) => record.deed,
        };
        let returned = u64::MAX;
        Some(Record {
            deed,
            returned,
            ..record
        })
    }
}

fn found(shared: &Shared, lost: &LostChange) -> Option<(Object, Change)> {
    let number = |fid: Fid| {
        let at = shared.files.iter().position(|f| *f == fid)?;
        u8::try_from(at).ok()
    };
    let name = |dir: Fid, name: &Name| {
        let is_it = |n: &u8| name.as_bytes() == Worker::shared_name(*n).as_bytes();
        let n = (0..Place::NAMES).find(is_it)?;
        let whose = shared.own.iter().position(|own| *own == dir);
        match whose {
            Some(machine) => Some(Object::Own(u8::try_from(machine).ok()?, n)),
            None => (dir == shared.dir).then_some(Object::Name(n)),
        }
    };
    match &lost.request {
        Request::Setattr(op) => {
            let n = number(op.fid)?;
            let mode = |mode: u32| (Object::Mode(n), Change::To(mode.into()));
            let size = |size: u64| (Object::Size(n), Change::To(size));
            op.set.mode.map(mode).or(op.set.size.map(size))
        }
        Request::Write(op) => {
            let bytes = lost.bytes.as_ref()?.as_slice();
            let value = u64::from_le_bytes(bytes.try_into().ok()?);
            let object = Object::Bytes(number(op.fid)?, op.offset);
            Some((object, Change::To(value)))
        }
        Request::Create(op) => {
            let object = name(op.parent, op.name.as_ref()?)?;
            Some((object, Change::Made(op.fid.born_ino())))
        }
        Request::Unlink(op) => Some((name(op.parent, &op.name)?, Change::Removed)),
        _ => None,
    }
}
