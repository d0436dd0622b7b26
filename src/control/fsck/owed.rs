//! Operations on names that the origin is owed, in words, in their order, with
//! what each waits for. Each is told by the paths of its time, so that they can
//! be repeated one after the other: from the last to the first, what each did
//! is taken back in the names before the one before it is told.

use super::names::{Names, TargetName, all_names, shown};
use super::shard::View;
use crate::base::codec::Codec;
use crate::base::{Fid, FileKind, Name};
use crate::namespace::{Owed, OwedOp, key};
use crate::shard::writeback::graph::Graph;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::rc::Rc;

/// One operation.
pub struct Line {
    pub seq: u64,
    pub target: u32,
    pub owed: Rc<Owed>,
    /// Earlier ones that must be carried out first.
    after: Vec<u64>,
    /// For people, and for programs; by [`tell`].
    pub text: String,
    pub json: Value,
}

/// All that can be read, in order, not told yet.
#[must_use]
pub fn all(view: &View) -> Vec<Line> {
    let mut graph = Graph::default();
    let mut lines = Vec::new();
    for (key, value) in view.index.letter(key::table::OWED) {
        let seq = key.split_last_chunk::<8>().map(|(_, seq)| *seq);
        let (Some(seq), Ok(owed)) = (seq, Owed::from_slice(&value)) else {
            continue;
        };
        let (seq, owed) = (u64::from_be_bytes(seq), Rc::new(owed));
        graph.insert(seq, Rc::clone(&owed));
        lines.push(Line {
            seq,
            target: owed.target,
            after: graph.before(seq),
            owed,
            text: String::new(),
            json: Value::Null,
        });
    }
    lines
}

/// Puts all operations into words.
pub fn tell(view: &View, targets: &[TargetName], lines: &mut [Line]) {
    let names = Names::new(view, targets);
    let linked = lines.iter().filter_map(|line| match &line.owed.op {
        OwedOp::Link(o) => Some(o.fid),
        _ => None,
    });
    // Of files with several names, those that are left as time goes back.
    let mut several = all_names(&view.index, &linked.collect());
    for line in lines.iter_mut().rev() {
        take_back(&names, &mut several, &line.owed.op);
        (line.text, line.json) = (line.in_words(&names), line.in_json(&names));
    }
}

type Several = BTreeMap<Fid, Vec<(Fid, Name)>>;

/// From here on, the names are as they were before the operation.
fn take_back(names: &Names<'_>, several: &mut Several, op: &OwedOp) {
    let mut swap = |fid: Fid, gone: Option<(Fid, &Name)>, back: Option<(Fid, &Name)>| {
        let own = |(parent, name): (Fid, &Name)| (parent, name.clone());
        let (gone, back) = (gone.map(own), back.map(own));
        let left = several.get_mut(&fid).map(|left| {
            left.retain(|at| Some(at) != gone.as_ref());
            left.extend(back.clone());
            left.first().cloned()
        });
        if let Some((parent, name)) = back.or(left.flatten()) {
            names.go_back(fid, parent, &name);
        }
    };
    match op {
        OwedOp::Rename(o) => {
            let (from, to) = ((o.from, &o.from_name), (o.to, &o.to_name));
            swap(o.fid, Some(to), Some(from));
            if let Some(victim) = o.victim {
                let gone = o.exchange.then_some(from);
                swap(victim, gone, Some(to));
            }
        }
        OwedOp::Unlink(o) => swap(o.fid, None, Some((o.parent, &o.name))),
        OwedOp::Link(o) => swap(o.fid, Some((o.parent, &o.name)), None),
        OwedOp::Create(_) => {}
    }
}

impl Line {
    fn in_words(&self, names: &Names<'_>) -> String {
        let at = |dir: Fid, name: &Name| place(names, dir, name);
        let what = match &self.owed.op {
            OwedOp::Create(o) => {
                format!(
                    "create {} {} ({})",
                    word(o.kind),
                    at(o.parent, &o.name),
                    o.fid
                )
            }
            OwedOp::Link(o) => format!(
                "link {} ({}) to {}",
                names.path_or_fid(o.fid),
                o.fid,
                at(o.parent, &o.name)
            ),
            OwedOp::Unlink(o) => {
                let kind = if o.dir { "rmdir" } else { "unlink" };
                let last = if o.last { ", the last name" } else { "" };
                format!("{kind} {} ({}{last})", at(o.parent, &o.name), o.fid)
            }
            OwedOp::Rename(o) => {
                let how = if o.exchange { "exchange" } else { "rename" };
                let (from, to) = (at(o.from, &o.from_name), at(o.to, &o.to_name));
                let victim = match o.victim {
                    Some(victim) if !o.exchange => format!(", replacing {victim}"),
                    Some(victim) => format!(", with {victim}"),
                    None => String::new(),
                };
                format!("{how} {from} to {to} ({}{victim})", o.fid)
            }
        };
        match self.after.as_slice() {
            [] => format!("{} {what}", self.seq),
            after => {
                let after: Vec<String> = after.iter().map(u64::to_string).collect();
                format!("{} {what}; after {}", self.seq, after.join(" "))
            }
        }
    }

    fn in_json(&self, names: &Names<'_>) -> Value {
        let at = |dir: Fid, name: &Name| place(names, dir, name);
        let mut out = match &self.owed.op {
            OwedOp::Create(o) => json!({
                "op": "create", "path": at(o.parent, &o.name),
                "type": word(o.kind), "fid": o.fid.to_string(),
            }),
            OwedOp::Link(o) => json!({
                "op": "link", "path": at(o.parent, &o.name),
                "file": names.path(o.fid), "fid": o.fid.to_string(),
            }),
            OwedOp::Unlink(o) => json!({
                "op": if o.dir { "rmdir" } else { "unlink" },
                "path": at(o.parent, &o.name),
                "last": o.last, "fid": o.fid.to_string(),
            }),
            OwedOp::Rename(o) => json!({
                "op": if o.exchange { "exchange" } else { "rename" },
                "from": at(o.from, &o.from_name), "to": at(o.to, &o.to_name),
                "fid": o.fid.to_string(), "victim": o.victim.map(|v| v.to_string()),
            }),
        };
        out["record"] = json!("owed");
        out["seq"] = json!(self.seq);
        out["target"] = json!(self.target);
        out["accepted"] = json!(time(self.owed.at));
        out["after"] = json!(self.after);
        out
    }
}

fn place(names: &Names<'_>, dir: Fid, name: &Name) -> String {
    format!("{}/{}", names.path_or_fid(dir), shown(name.as_bytes()))
}

/// What a kind of file is called.
#[must_use]
pub fn word(kind: FileKind) -> &'static str {
    match kind {
        FileKind::Regular => "regular",
        FileKind::Directory => "directory",
        FileKind::Symlink => "symlink",
        FileKind::Fifo => "fifo",
        FileKind::Socket => "socket",
        FileKind::Char => "char",
        FileKind::Block => "block",
    }
}

/// Seconds and nanoseconds.
#[must_use]
pub fn time(time: crate::base::Time) -> String {
    format!("{}.{:09}", time.sec, time.nsec)
}
