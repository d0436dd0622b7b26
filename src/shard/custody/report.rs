//! `forebay custody`: one file's, or a page of what is owed below a directory.

use super::list::{self, Item, Page, Row, What};
use super::text;
use crate::base::{Errno, Fid, FileKind, Name, Time};
use crate::shard::{Shard, Target, meta};
use crate::world::World;
use serde_json::{Value, json};
use std::rc::Rc;

/// What is asked: a path of a target, and which part of the list.
pub struct Asked<'a> {
    pub path: &'a str,
    /// Rows wanted.
    pub limit: usize,
    /// Where the page before ended, as it said.
    pub after: &'a str,
}

/// # Errors
/// What to tell the administrator.
pub async fn report<W: World>(
    shard: &Rc<Shard<W>>,
    target: &Rc<Target>,
    asked: &Asked<'_>,
) -> Result<Value, String> {
    let name = target.conf.borrow().name.clone();
    let found = walk(shard, target, asked.path).await;
    let (fid, above) = found.map_err(|e| unfound(&name, asked.path, e))?;
    let failed = |e: Errno| format!("{name}/{}: custody is not known: {e}", asked.path);
    let kind = meta::inode(shard, fid).await.map_err(failed)?.attr.kind;
    let mut all = json!({ "target": name, "path": asked.path });
    if kind != FileKind::Directory {
        let custody = super::of(shard, target, fid, (None, &above)).await;
        all["custody"] = custody.map_err(failed)?.to_json();
        return Ok(all);
    }
    let after = cursor_in(asked.after).map_err(|()| {
        "where to go on is not said as the last page said it: list from the beginning".to_owned()
    })?;
    let page = list::page(shard, target, fid, (after, asked.limit)).await;
    let page = page.map_err(failed)?;
    all["summary"] = sum(shard, target, &page);
    all["owed"] = page.rows.iter().map(row).collect();
    all["next"] = match page.rows.last() {
        Some(last) if page.sum.more > 0 => json!(cursor(last.item)),
        _ => Value::Null,
    };
    Ok(all)
}

fn unfound(target: &str, path: &str, errno: Errno) -> String {
    let shown = format!("{target}/{path}");
    match errno {
        Errno::ENOENT | Errno::ENOTDIR => format!(
            "{shown}: there is no such file: `forebay custody {target}` lists what is not at the \
             origin"
        ),
        errno => format!("{shown}: it cannot be looked up: {errno}"),
    }
}

fn sum<W: World>(shard: &Shard<W>, target: &Target, page: &Page) -> Value {
    let sum = &page.sum;
    let age = sum.oldest.map_or(0, |at| age_seconds(shard, at));
    json!({
        "files": sum.files,
        "flash bytes": sum.flash_bytes,
        "memory bytes": sum.memory_bytes,
        "names owed": sum.names,
        "failing": sum.failing,
        "oldest seconds": age,
        "copies": super::COPIES,
        "more": sum.more,
        "clients that may be ahead": shard.locks.lonely(target.id),
    })
}

fn age_seconds<W: World>(shard: &Shard<W>, at: Time) -> u64 {
    let nanos = shard.world.wall().nanos().saturating_sub(at.nanos());
    u64::try_from(nanos / 1_000_000_000).unwrap_or(0)
}

fn row(row: &Row) -> Value {
    let mut all = match &row.what {
        What::File(custody) => custody.to_json(),
        What::Name {
            operation,
            place,
            age,
            reason,
        } => {
            let mut all = json!({
                "where": place.word(),
                "dirty bytes": 0,
                "age seconds": age.as_secs(),
                "copies": super::COPIES,
                "names owed": [operation],
            });
            text::reason_into(reason, &mut all);
            all
        }
    };
    all["path"] = json!(row.path);
    all
}

/// Where a list goes on: opaque to who asks.
fn cursor(item: Item) -> String {
    match item {
        Item::File(at, fid) => {
            format!(
                "f {} {} {} {} {}",
                at.sec, at.nsec, fid.seq, fid.oid, fid.ver
            )
        }
        Item::Name(at, seq) => format!("n {} {} {seq}", at.sec, at.nsec),
    }
}

fn cursor_in(text: &str) -> Result<Option<Item>, ()> {
    let mut parts = text.split_whitespace();
    let Some(kind) = parts.next() else {
        return Ok(None);
    };
    let numbers: Vec<i64> = parts
        .map(str::parse)
        .collect::<Result<_, _>>()
        .map_err(drop)?;
    let time = |sec: i64, nsec: i64| {
        let nsec = u32::try_from(nsec).map_err(drop)?;
        Ok(Time { sec, nsec })
    };
    match (kind, &numbers[..]) {
        ("f", [sec, nsec, seq, oid, ver]) => {
            let fid = Fid {
                seq: u64::try_from(*seq).map_err(drop)?,
                oid: u32::try_from(*oid).map_err(drop)?,
                ver: u32::try_from(*ver).map_err(drop)?,
            };
            Ok(Some(Item::File(time(*sec, *nsec)?, fid)))
        }
        ("n", [sec, nsec, seq]) => {
            let seq = u64::try_from(*seq).map_err(drop)?;
            Ok(Some(Item::Name(time(*sec, *nsec)?, seq)))
        }
        _ => Err(()),
    }
}

/// The file at `path` from the target's root, and the directories on the way.
async fn walk<W: World>(
    shard: &Rc<Shard<W>>,
    target: &Rc<Target>,
    path: &str,
) -> Result<(Fid, Vec<Fid>), Errno> {
    let (mut fid, mut above) = (target.root, Vec::new());
    for part in path.split('/').filter(|p| !p.is_empty()) {
        let name = Name::new(part.as_bytes())?;
        let found = meta::child(shard, target, fid, &name).await?;
        above.push(fid);
        fid = found.ok_or(Errno::ENOENT)?;
    }
    Ok((fid, above))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_in_a_list_is_found_again() {
        let at = Time {
            sec: 1_700_000_000,
            nsec: 999_999_999,
        };
        let items = [Item::File(at, Fid::new(1 << 33, 7)), Item::Name(at, 12)];
        for item in items {
            assert_eq!(cursor_in(&cursor(item)), Ok(Some(item)));
        }
        assert_eq!(cursor_in(""), Ok(None));
        for wrong in ["f 1 2", "n 1 -2 3", "x 1 2 3", "n one 2 3"] {
            assert_eq!(cursor_in(wrong), Err(()), "{wrong}");
        }
    }
}
