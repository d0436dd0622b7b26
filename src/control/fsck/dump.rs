//! A listing of everything, from the superblock to the last answer to a client,
//! as it is read: nothing of it is kept but what is needed to go on.

use super::each_shard;
use super::medium::Shared;
use super::names::{self, TargetName, entries_of, fid_key, shown};
use super::owed::{self, Line, time, word};
use super::report::Report;
use super::shard::{View, shown_key};
use super::volume;
use crate::base::codec::Codec;
use crate::base::{Fid, FileKind};
use crate::cache::Extent;
use crate::control::cli::Failure;
use crate::namespace::record::flag;
use crate::namespace::{Dirent, Inode, key};
use crate::shard::session::{ClientRecord, ReplyRecord};
use crate::store::Superblock;
use crate::store::space::Role;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Lists a cache.
///
/// # Errors
/// It is no cache of this format.
pub fn all(medium: &Shared, report: &Report) -> Result<(), Failure> {
    // Opened once more for each shard: what is wrong is told only once, here.
    let quiet = Report::new(Box::new(std::io::sink()), report.is_json, false);
    if let Some(volume) = volume::open(medium, &quiet)? {
        superblock(&volume.superblock, report);
    }
    each_shard(medium, report, |view| {
        let targets = names::targets(view);
        let dump = Dump {
            view,
            targets: &targets,
            report,
        };
        dump.root();
        dump.segments();
        dump.tables();
        dump.journal();
        for target in &targets {
            dump.tree(target);
        }
        dump.nameless();
        dump.owed();
        dump.clients();
    })?;
    report.flush();
    Ok(())
}

fn superblock(s: &Superblock, report: &Report) {
    let targets = |t: &crate::store::superblock::TargetEntry| json!({"id": t.id.0, "name": t.name, "root": t.root.to_string()});
    report.entry(
        || {
            json!({
                "record": "superblock", "sequence": s.sequence,
                "box": format!("{:032x}", s.box_id.0), "generation": s.generation.0,
                "release": s.release, "clean": s.clean,
                "segment_bytes": s.segment_bytes, "segments": s.segments, "shards": s.shards,
                "bytes": s.devices.first().map(|d| d.bytes),
                "targets": s.targets.iter().map(targets).collect::<Vec<_>>(),
                "next_sequence": s.next_seq, "clean_clients": s.clean_clients.len(),
            })
        },
        || {
            let clean = if s.clean { "cleanly" } else { "uncleanly" };
            format!(
                "superblock {}: box {:032x}, generation {}, release {}, stopped {clean}; \
                 {} segments of {} bytes, {} shards",
                s.sequence,
                s.box_id.0,
                s.generation,
                s.release,
                s.segments,
                s.segment_bytes,
                s.shards
            )
        },
    );
}

struct Dump<'a> {
    view: &'a View,
    targets: &'a [TargetName],
    report: &'a Report,
}

impl Dump<'_> {
    fn root(&self) {
        let (root, shard) = (&self.view.root, self.view.id);
        let manifest = root.manifest.as_ref().map(|m| m.segment);
        let home = manifest.map_or("none".to_owned(), |s| format!("in segment {s}"));
        self.report.entry(
            || {
                json!({
                    "record": "root", "shard": shard.0, "sequence": root.sequence,
                    "generation": root.generation.0, "checkpoint": root.checkpoint.0,
                    "flushed": root.flushed.0, "transno": root.transno.0,
                    "journal_segment": root.journal.segment,
                    "journal_offset": root.journal.offset, "manifest_segment": manifest,
                })
            },
            || {
                format!(
                    "shard {shard}: root {}, generation {}, checkpoint {}, flushed {}, transno {}, \
                     journal from segment {}+{}, manifest {home}",
                    root.sequence,
                    root.generation,
                    root.checkpoint,
                    root.flushed,
                    root.transno,
                    root.journal.segment,
                    root.journal.offset
                )
            },
        );
    }

    fn segments(&self) {
        let live: std::collections::BTreeMap<u32, u32> =
            self.view.found.live.iter().copied().collect();
        for &(segment, role) in &self.view.found.roles {
            if role == Role::Free {
                continue;
            }
            let live = live.get(&segment).copied().unwrap_or(0);
            let header = self.view.header(segment).map(|h| h.kind);
            // Manifests have no header before them.
            let opened = header.map_or("no header".to_owned(), |kind| {
                format!("opened for {kind:?}")
            });
            let role = match role {
                Role::Sealed | Role::Open => "data".to_owned(),
                role => format!("{role:?}").to_lowercase(),
            };
            self.report.entry(
                || {
                    json!({
                        "record": "segment", "shard": self.view.id.0, "segment": segment,
                        "use": role, "header": opened, "live_bytes": live,
                    })
                },
                || format!("segment {segment}: {role}, {opened}, {live} bytes alive"),
            );
        }
        let free = self
            .view
            .found
            .roles
            .iter()
            .filter(|(_, r)| *r == Role::Free);
        let free = free.count();
        self.report.entry(
            || json!({"record": "free", "shard": self.view.id.0, "segments": free}),
            || format!("shard {}: {free} segments free", self.view.id),
        );
    }

    fn tables(&self) {
        for table in &self.view.found.manifest.tables {
            let (first, last) = (shown_key(&table.first.0), shown_key(&table.last.0));
            self.report.entry(
                || {
                    json!({
                        "record": "table", "shard": self.view.id.0, "id": table.id,
                        "level": table.level, "segment": table.segment,
                        "entries": table.entries, "first": first, "last": last,
                    })
                },
                || {
                    format!(
                        "table {}: level {}, segment {}, {} entries, {first} to {last}",
                        table.id, table.level, table.segment, table.entries
                    )
                },
            );
        }
    }

    fn journal(&self) {
        for part in &self.view.found.journal {
            for (offset, group) in &part.groups {
                let (segment, sequence) = (part.segment, part.sequence);
                self.report.entry(
                    || {
                        json!({
                            "record": "group", "shard": self.view.id.0, "segment": segment,
                            "sequence": sequence, "offset": offset,
                            "generation": group.generation.0, "first": group.first.0,
                            "records": group.count, "flushed": group.flushed.0,
                            "record_bytes": group.records_bytes, "data_bytes": group.data_bytes,
                        })
                    },
                    || {
                        format!(
                            "journal {segment}+{offset}: records {} to {}, flushed {}, \
                             {} bytes and {} of data",
                            group.first,
                            group.last(),
                            group.flushed,
                            group.records_bytes,
                            group.data_bytes
                        )
                    },
                );
            }
        }
    }

    fn tree(&self, target: &TargetName) {
        let (id, root) = (target.id.0, target.root.to_string());
        self.report.entry(
            || json!({"record": "target", "id": id, "name": target.name, "root": root}),
            || {
                format!(
                    "target {} ({id}), root {root}",
                    shown(target.name.as_bytes())
                )
            },
        );
        let mut open = vec![(target.root, shown(target.name.as_bytes()))];
        let mut seen = BTreeSet::from([target.root]);
        self.file(Some(&open[0].1), target.root);
        while let Some((dir, path)) = open.pop() {
            for (_, value) in self.view.index.range(entries_of(dir)) {
                let Ok(dirent) = Dirent::from_slice(&value) else {
                    continue;
                };
                if dirent.fid.is_none() || self.report.is_broken() {
                    continue;
                }
                let path = format!("{path}/{}", shown(dirent.name.as_bytes()));
                self.file(Some(&path), dirent.fid);
                if dirent.kind == FileKind::Directory && seen.insert(dirent.fid) {
                    open.push((dirent.fid, path));
                }
            }
        }
    }

    /// Files that are kept without names.
    fn nameless(&self) {
        for (key, _) in self.view.index.letter(key::table::ORPHAN) {
            if let Some(fid) = fid_key(&key) {
                self.file(None, fid);
            }
        }
    }

    fn file(&self, path: Option<&str>, fid: Fid) {
        let inode: Option<Inode> = self.view.index.record(&key::inode(fid));
        let shown = path.unwrap_or("(without a name)");
        let Some(inode) = inode else {
            self.report.entry(
                || json!({"record": "file", "path": path, "fid": fid.to_string(), "inode": false}),
                || format!("{shown} ({fid}): its inode is not there"),
            );
            return;
        };
        let (cached, dirty) = self.bytes(fid);
        let a = &inode.attr;
        let owes = owes(inode.flags);
        self.report.entry(
            || {
                json!({
                    "record": "file", "path": path, "fid": fid.to_string(),
                    "type": word(a.kind), "mode": format!("{:04o}", a.mode),
                    "uid": a.uid, "gid": a.gid, "nlink": a.nlink, "size": a.size,
                    "mtime": time(a.mtime), "owes": owes, "cached_bytes": cached,
                    "dirty_bytes": dirty, "at_origin": inode.locator.identity.is_some(),
                    "link": link(&inode),
                })
            },
            || {
                let owes = match owes.is_empty() {
                    true => String::new(),
                    false => format!(", owes {}", owes.join(" ")),
                };
                format!(
                    "{shown} ({fid}): {} {:04o} {}:{}, {} bytes, mtime {}, \
                     {cached} cached, {dirty} dirty{owes}",
                    word(a.kind),
                    a.mode,
                    a.uid,
                    a.gid,
                    a.size,
                    time(a.mtime)
                )
            },
        );
    }

    /// Bytes on flash of a file, and those of them that the origin lacks.
    fn bytes(&self, fid: Fid) -> (u64, u64) {
        let extents = self.view.index.range(entries_of_extents(fid));
        let extents = extents.filter_map(|(_, value)| Extent::from_slice(&value).ok());
        extents
            .filter(|e| !e.is_hole())
            .fold((0, 0), |(all, dirty), e| {
                let len = if e.is_dirty() { e.len } else { 0 };
                (all + e.len, dirty + len)
            })
    }

    fn owed(&self) {
        let mut lines = owed::all(self.view);
        owed::tell(self.view, self.targets, &mut lines);
        for line in lines {
            let Line { json, text, .. } = line;
            self.report.entry(|| json, || format!("owed {text}"));
        }
    }

    fn clients(&self) {
        for (key, value) in self.view.index.letter(key::table::CLIENT) {
            let id = shown_key(key.get(1..).unwrap_or_default());
            let Ok(client) = ClientRecord::from_slice(&value) else {
                continue;
            };
            self.report.entry(
                || {
                    json!({
                        "record": "client", "id": id, "name": client.name,
                        "target": client.target, "incarnation": client.incarnation,
                        "lease_ms": client.lease_ms, "read_only": client.read_only,
                        "unstable": client.unstable, "clean": client.clean,
                        "since": time(client.since),
                    })
                },
                || format!("client {id}: {}, since {}", client.name, time(client.since)),
            );
        }
        for (key, value) in self.view.index.letter(key::table::REPLY) {
            let (Some((client, tag)), Ok(reply)) =
                (key.split_last_chunk::<2>(), ReplyRecord::from_slice(&value))
            else {
                continue;
            };
            let client = shown_key(client.get(1..).unwrap_or_default());
            let (tag, what) = (u16::from_be_bytes(*tag), reply.reply.label());
            self.report.entry(
                || {
                    json!({
                        "record": "reply", "client": client, "tag": tag, "xid": reply.xid.0,
                        "transno": reply.transno.0, "op": reply.op, "reply": what,
                    })
                },
                || {
                    format!(
                        "answer to {client}, slot {tag}: xid {}, transno {}, {what}",
                        reply.xid, reply.transno
                    )
                },
            );
        }
    }
}

/// All extent records of a file.
pub fn entries_of_extents(fid: Fid) -> std::ops::Range<Vec<u8>> {
    key::extent(fid, 0)..key::extent(fid, u64::MAX)
}

/// What the origin is owed of a file, by state.
#[must_use]
pub fn owes(flags: u32) -> Vec<&'static str> {
    let all = [
        (flag::UNBORN, "birth"),
        (flag::DATA_OWED, "data"),
        (flag::ATTRS_OWED, "attributes"),
        (flag::XATTRS_OWED, "xattrs"),
    ];
    let owed = all.into_iter().filter(|(bit, _)| flags & bit != 0);
    owed.map(|(_, word)| word).collect()
}

/// Where a symbolic link leads.
#[must_use]
pub fn link(inode: &Inode) -> Value {
    match &inode.link {
        Some(link) => json!(shown(&link.0)),
        None => Value::Null,
    }
}
