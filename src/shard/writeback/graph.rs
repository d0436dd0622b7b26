//! Which owed records may go now: a graph of dependencies in log order (O8, O9).
//! Pure.
//!
//! A record *holds* what it touches: alone a name it makes or removes and the
//! inode it moves, with others the directory it works in. It waits for every
//! earlier record that holds the same thing, unless both share it. So records
//! of one name or one inode keep their order; a child waits for its directory's
//! creation, and a directory's removal for its children; records on different
//! names of one directory run in parallel.

use crate::base::{Fid, Name};
use crate::namespace::{Owed, OwedOp};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// What records can be in each other's way about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Thing {
    Name(Fid, Name),
    Inode(Fid),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    Alone,
    Shared,
}

#[derive(Default)]
pub struct Graph {
    nodes: BTreeMap<u64, Node>,
    lines: BTreeMap<Thing, Line>,
    ready: BTreeSet<u64>,
}

struct Node {
    record: Rc<Owed>,
    /// Unfinished records that this one waits for, and those that wait for it.
    before: BTreeSet<u64>,
    behind: Vec<u64>,
}

/// The unfinished records that hold one thing and that a newcomer may have to
/// wait for. Earlier ones are waited for through these.
#[derive(Default)]
struct Line {
    holders: BTreeSet<u64>,
    last_alone: Option<u64>,
    shared_since: BTreeSet<u64>,
}

impl Graph {
    /// Adds the record `seq`. Records come in the order of the log.
    pub fn insert(&mut self, seq: u64, record: Rc<Owed>) {
        let mut before = BTreeSet::new();
        for (thing, hold) in holds(&record.op) {
            let line = self.lines.entry(thing).or_default();
            line.holders.insert(seq);
            match hold {
                Hold::Alone if line.shared_since.is_empty() => before.extend(line.last_alone),
                Hold::Alone => before.append(&mut line.shared_since),
                Hold::Shared => before.extend(line.last_alone),
            }
            match hold {
                Hold::Alone => {
                    line.last_alone = Some(seq);
                    line.shared_since.clear();
                }
                Hold::Shared => {
                    line.shared_since.insert(seq);
                }
            }
        }
        before.remove(&seq);
        for earlier in &before {
            if let Some(node) = self.nodes.get_mut(earlier) {
                node.behind.push(seq);
            }
        }
        if before.is_empty() {
            self.ready.insert(seq);
        }
        let node = Node {
            record,
            before,
            behind: Vec::new(),
        };
        self.nodes.insert(seq, node);
    }

    /// Takes a finished record out; those that waited for it alone are ready.
    pub fn finish(&mut self, seq: u64) {
        let Some(node) = self.nodes.remove(&seq) else {
            return;
        };
        self.ready.remove(&seq);
        for later in node.behind {
            if let Some(follower) = self.nodes.get_mut(&later)
                && follower.before.remove(&seq)
                && follower.before.is_empty()
            {
                self.ready.insert(later);
            }
        }
        for (thing, _) in holds(&node.record.op) {
            if let Some(line) = self.lines.get_mut(&thing) {
                line.holders.remove(&seq);
                line.shared_since.remove(&seq);
                line.last_alone = line.last_alone.filter(|last| *last != seq);
                if line.holders.is_empty() {
                    self.lines.remove(&thing);
                }
            }
        }
    }

    /// Records that wait for nobody, in log order.
    pub fn ready(&self) -> impl Iterator<Item = (u64, &Rc<Owed>)> {
        let nodes = &self.nodes;
        self.ready
            .iter()
            .filter_map(move |seq| nodes.get(seq).map(|node| (*seq, &node.record)))
    }

    /// The unfinished records that `seq` waits for.
    #[must_use]
    pub fn before(&self, seq: u64) -> Vec<u64> {
        let node = self.nodes.get(&seq);
        node.map_or_else(Vec::new, |node| node.before.iter().copied().collect())
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }
    /// The oldest unfinished record.
    #[must_use]
    pub fn first(&self) -> Option<(u64, &Rc<Owed>)> {
        self.nodes.first_key_value().map(|(s, n)| (*s, &n.record))
    }
    /// Unfinished records from `seq` on, in log order.
    pub fn from(&self, seq: u64) -> impl Iterator<Item = (u64, &Rc<Owed>)> {
        self.nodes.range(seq..).map(|(s, n)| (*s, &n.record))
    }
    /// What the record `seq` says, while it is unfinished.
    #[must_use]
    pub fn record(&self, seq: u64) -> Option<Rc<Owed>> {
        self.nodes.get(&seq).map(|node| Rc::clone(&node.record))
    }
    /// Is anything unfinished that moves the inode or works in the directory?
    #[must_use]
    pub fn touches(&self, fid: Fid) -> bool {
        self.lines.contains_key(&Thing::Inode(fid))
    }

    /// Unfinished records that make, move or remove the inode.
    pub fn movers(&self, fid: Fid) -> impl Iterator<Item = u64> + '_ {
        let thing = Thing::Inode(fid);
        let line = self.lines.get(&thing);
        let holders = line
            .into_iter()
            .flat_map(|line| line.holders.iter().copied());
        holders.filter(move |seq| {
            let record = self.nodes.get(seq).map(|node| &node.record);
            record.is_some_and(|r| holds(&r.op).contains(&(thing.clone(), Hold::Alone)))
        })
    }

    /// The unfinished records of `fid` up to `last`, and all that they wait for.
    #[must_use]
    pub fn needed_for(&self, fid: Fid, last: u64) -> BTreeSet<u64> {
        let line = self.lines.get(&Thing::Inode(fid));
        self.with_those_before(line.map_or_else(Vec::new, |line| {
            line.holders.range(..=last).copied().collect()
        }))
    }

    /// These records, as far as they are unfinished, and all that they wait for.
    #[must_use]
    pub fn with_those_before(&self, records: Vec<u64>) -> BTreeSet<u64> {
        let mut todo = records;
        todo.retain(|seq| self.nodes.contains_key(seq));
        let mut needed = BTreeSet::new();
        while let Some(seq) = todo.pop() {
            if needed.insert(seq)
                && let Some(node) = self.nodes.get(&seq)
            {
                todo.extend(&node.before);
            }
        }
        needed
    }
}

/// What a record holds. A thing may be listed twice (a rename within one
/// directory); [`Hold::Alone`] comes first then.
pub fn holds(op: &OwedOp) -> Vec<(Thing, Hold)> {
    let name = |dir: Fid, name: &Name| (Thing::Name(dir, name.clone()), Hold::Alone);
    let moved = |fid| (Thing::Inode(fid), Hold::Alone);
    let within = |dir| (Thing::Inode(dir), Hold::Shared);
    match op {
        OwedOp::Create(o) | OwedOp::Link(o) => {
            vec![moved(o.fid), name(o.parent, &o.name), within(o.parent)]
        }
        OwedOp::Unlink(o) => vec![moved(o.fid), name(o.parent, &o.name), within(o.parent)],
        OwedOp::Rename(o) => {
            let mut all = vec![moved(o.fid), name(o.from, &o.from_name), within(o.from)];
            all.push(name(o.to, &o.to_name));
            if o.to != o.from {
                all.push(within(o.to));
            }
            all.extend(o.victim.filter(|victim| *victim != o.fid).map(moved));
            all
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{FileKind, SnapEpoch, Time};
    use crate::namespace::record::{OwedName, OwedRename, OwedUnlink};
    use proptest::prelude::*;

    fn record(op: OwedOp) -> Rc<Owed> {
        Rc::new(Owed {
            target: 1,
            at: Time::default(),
            epoch: SnapEpoch(0),
            op,
            after: Vec::new(),
        })
    }

    fn ops() -> impl Strategy<Value = OwedOp> {
        let fid = || (1u32..6).prop_map(|oid| Fid::new(1, oid));
        let name = || prop_oneof![Just("a"), Just("b")];
        let name = move || name().prop_map(|s| Name::new(s.as_bytes()).expect("a name"));
        let named = (fid(), name(), fid()).prop_map(|(parent, name, fid)| OwedName {
            parent,
            name,
            fid,
            kind: FileKind::Regular,
        });
        let unlink = (fid(), name(), fid()).prop_map(|(parent, name, fid)| OwedUnlink {
            parent,
            name,
            fid,
            dir: false,
            last: true,
            identity: None,
        });
        let rename = (
            fid(),
            name(),
            fid(),
            name(),
            fid(),
            proptest::option::of(fid()),
        );
        let rename = rename.prop_map(|(from, from_name, to, to_name, fid, victim)| OwedRename {
            from,
            from_name,
            to,
            to_name,
            fid,
            dir: false,
            victim,
            victim_identity: None,
            victim_last: true,
            exchange: false,
        });
        prop_oneof![
            named.clone().prop_map(OwedOp::Create),
            named.prop_map(OwedOp::Link),
            unlink.prop_map(OwedOp::Unlink),
            rename.prop_map(OwedOp::Rename),
        ]
    }

    fn in_the_way(a: &OwedOp, b: &OwedOp) -> bool {
        let b = holds(b);
        holds(a).into_iter().any(|(thing, hold)| {
            b.iter().any(|(other, other_hold)| {
                thing == *other && (hold, *other_hold) != (Hold::Shared, Hold::Shared)
            })
        })
    }

    proptest! {
        /// Ready is exactly what no earlier unfinished record is in the way of,
        /// whatever order the ready ones finish in (O8, O9).
        #[test]
        fn ready_agrees_with_the_definition(
            log in proptest::collection::vec((ops(), 0usize..4), 1..40),
            picks in proptest::collection::vec(any::<usize>(), 80),
        ) {
            let mut graph = Graph::default();
            let mut left: BTreeMap<u64, OwedOp> = BTreeMap::new();
            let mut picks = picks.into_iter();
            let mut steps: Vec<(u64, OwedOp, usize)> = log
                .into_iter().enumerate()
                .map(|(seq, (op, n))| (seq as u64, op, n))
                .collect();
            steps.push((1 << 20, OwedOp::Create(OwedName {
                parent: Fid::new(9, 9),
                name: Name::new(b"end").expect("a name"),
                fid: Fid::new(9, 8),
                kind: FileKind::Regular,
            }), 80));
            for (seq, op, finishes) in steps {
                graph.insert(seq, record(op.clone()));
                left.insert(seq, op);
                for _ in 0..=finishes {
                    let free: Vec<u64> = left.iter()
                        .filter(|(seq, op)| {
                            !left.range(..**seq).any(|(_, earlier)| in_the_way(earlier, op))
                        })
                        .map(|(seq, _)| *seq)
                        .collect();
                    let ready: Vec<u64> = graph.ready().map(|(seq, _)| seq).collect();
                    prop_assert_eq!(&ready, &free);
                    let Some(pick) = picks.next() else { break };
                    if free.is_empty() || finishes == 0 {
                        break;
                    }
                    let done = free[pick % free.len()];
                    graph.finish(done);
                    left.remove(&done);
                }
            }
            prop_assert_eq!(graph.len(), left.len());
        }
    }
}
