//! What the administrator asks of a shard: numbers, and flushes.

use super::custody::{self, Asked, Paths};
use super::{Shard, Target, data, locks, meta, writeback};
use crate::base::{Errno, Fid, FileKind, Name, TargetId};
use crate::world::World;
use serde_json::{Value, json};
use std::rc::Rc;

/// Answers one command; both are JSON.
pub async fn answer<W: World>(shard: &Rc<Shard<W>>, request: &str) -> String {
    let Ok(request) = serde_json::from_str::<Value>(request) else {
        return failed("not a command");
    };
    let text = |field: &str| request[field].as_str().unwrap_or_default().to_owned();
    match text("verb").as_str() {
        "status" => {
            let lost = lost(shard).await;
            json!({ "done": status(shard, lost) }).to_string()
        }
        "flush" => {
            let wait = request["wait"].as_bool().unwrap_or(false);
            flush(shard, &text("target"), &text("path"), wait).await
        }
        "custody" => {
            let (path, after) = (text("path"), text("after"));
            let limit = request["limit"].as_u64().unwrap_or(0);
            let asked = Asked {
                path: &path,
                limit: usize::try_from(limit).unwrap_or(usize::MAX),
                after: &after,
            };
            custody(shard, &text("target"), &asked).await
        }
        other => failed(&format!("a shard has no command {other}")),
    }
}

fn failed(why: &str) -> String {
    json!({ "failed": why }).to_string()
}

fn status<W: World>(shard: &Rc<Shard<W>>, lost: Vec<Value>) -> Value {
    let usage = shard.flash.usage();
    let targets: Vec<Value> = shard
        .targets
        .borrow()
        .values()
        .map(|t| target(shard, t.id))
        .chain(shard.starting.borrow().values().map(|conf| {
            let origin = conf.origin.display().to_string();
            json!({ "target": conf.name, "origin": origin, "state": "starting" })
        }))
        .collect();
    let clients = shard.sessions.clients().into_iter().map(|c| {
        json!({
            "client": format!("{:032x}", c.client.0),
            "name": c.name,
            "peer": c.peer,
            "target": c.target,
            "recovering": c.recovering,
            "open files": c.opens,
            "requests running": c.running,
        })
    });
    json!({
        "shard": shard.id.0,
        "recovering": shard.sessions.is_recovering(),
        "transno": shard.transno.get().0,
        "last committed": shard.flash.last_committed().0,
        "flash": {
            "total bytes": usage.total_bytes,
            "free bytes": usage.free_bytes,
            "fenced": shard.flash.is_fenced(),
            "damaged": shard.flash.damaged(),
        },
        "scrub": scrub(shard),
        "lost bytes": lost,
        "locks": shard.locks.total(),
        "file locks": shard.file_locks.borrow().locks(),
        "file lock waits": shard.file_locks.borrow().waits(),
        "counters": shard.counters.to_json(),
        "memory bytes": shard.data.memory_bytes(),
        "targets": targets,
        "clients": clients.collect::<Vec<_>>(),
    })
}

fn scrub<W: World>(shard: &Shard<W>) -> Value {
    let scrub = data::scrub_progress(shard);
    json!({
        "passes": scrub.passes,
        "bytes checked": scrub.bytes,
        "damaged tables": scrub.bad_tables,
    })
}

/// Damaged bytes that only the box had, by file.
async fn lost<W: World>(shard: &Rc<Shard<W>>) -> Vec<Value> {
    let all = data::lost(shard);
    let mut rows = Vec::with_capacity(all.len());
    let targets: Vec<Rc<Target>> = shard.targets.borrow().values().cloned().collect();
    for target in targets {
        let is_its = |fid: Fid| shard.target_of(fid).is_ok_and(|t| t.id == target.id);
        let own: Vec<_> = all.iter().filter(|lost| is_its(lost.fid)).collect();
        if own.is_empty() {
            continue;
        }
        let fids = own.iter().map(|lost| lost.fid);
        let paths = Paths::find(shard, &target, fids).await;
        let name = target.conf.borrow().name.clone();
        rows.extend(own.iter().map(|lost| {
            let fid = lost.fid;
            let path = paths.as_ref().map(|paths| paths.path(fid));
            json!({
                "target": name,
                "path": path.unwrap_or_else(|e| format!("[{fid}]: {e}")),
                "file": fid.to_string(),
                "from": lost.range.start,
                "to": lost.range.end,
            })
        }));
    }
    rows
}

fn target<W: World>(shard: &Rc<Shard<W>>, id: TargetId) -> Value {
    let targets = shard.targets.borrow();
    let Some(target) = targets.get(&id) else {
        return Value::Null;
    };
    let name = target.conf.borrow().name.clone();
    let origin = target.conf.borrow().origin.display().to_string();
    let Some(p) = writeback::progress(shard, id) else {
        return json!({ "target": name, "origin": origin, "state": "starting" });
    };
    json!({
        "target": name,
        "origin": origin,
        "state": format!("{:?}", p.state).to_lowercase(),
        "owed operations": p.owed_records + p.owed_unread,
        "dirty files": p.dirty_files,
        "more dirty files": p.dirty_more,
        "dirty bytes": p.memory_bytes + p.flash_bytes,
        "custody": { "memory bytes": p.memory_bytes, "flash bytes": p.flash_bytes },
        "failing": p.failing,
        "oldest seconds": p.oldest.as_secs(),
        "last error": p.last_error.map(|(errno, what)| format!("{what}: {errno}")),
    })
}

async fn custody<W: World>(shard: &Rc<Shard<W>>, target: &str, asked: &Asked<'_>) -> String {
    let Some(target) = in_service(shard, target) else {
        return not_in_service(target);
    };
    match custody::report(shard, &target, asked).await {
        Ok(report) => json!({ "done": report }).to_string(),
        Err(why) => failed(&why),
    }
}

fn in_service<W: World>(shard: &Shard<W>, name: &str) -> Option<Rc<Target>> {
    let targets = shard.targets.borrow();
    let found = targets.values().find(|t| t.conf.borrow().name == name);
    found.cloned()
}

fn not_in_service(name: &str) -> String {
    failed(&format!(
        "no target {name} is in service: is its origin there?"
    ))
}

async fn flush<W: World>(shard: &Rc<Shard<W>>, target: &str, path: &str, wait: bool) -> String {
    let Some(target) = in_service(shard, target) else {
        return not_in_service(target);
    };
    // What applications were told is done is meant, wherever it is yet.
    if wait {
        locks::settle(shard, target.id).await;
    }
    let fid = match walk(shard, &target, path).await {
        Ok(fid) => fid,
        Err(e) => return failed(&format!("{path}: {e}")),
    };
    if !wait {
        let (flushed, id) = (Rc::clone(shard), target.id);
        shard.world.spawn(async move {
            locks::settle(&flushed, id).await;
            // What fails is retried and shown by status.
            let _ = carry(&flushed, id, fid).await;
        });
        return json!({ "done": "begun" }).to_string();
    }
    match carry(shard, target.id, fid).await {
        Ok(()) => json!({ "done": "at the origin" }).to_string(),
        Err(e) => {
            let last = writeback::progress(shard, target.id).and_then(|p| p.last_error);
            let what = last.map_or_else(String::new, |(_, what)| format!(" ({what})"));
            failed(&format!(
                "not all is at the origin: {e}{what}; nothing is lost, it is retried"
            ))
        }
    }
}

/// A file, or a directory and all that is below it; of the root, the target.
async fn carry<W: World>(shard: &Rc<Shard<W>>, target: TargetId, fid: Fid) -> Result<(), Errno> {
    if shard.target_of(fid)?.root == fid {
        return writeback::flush(shard, target, None).await;
    }
    match meta::inode(shard, fid).await?.attr.kind {
        FileKind::Directory => writeback::flush_below(shard, target, fid).await,
        _ => writeback::flush(shard, target, Some(fid)).await,
    }
}

/// The file at `path` from the target's root.
async fn walk<W: World>(
    shard: &Rc<Shard<W>>,
    target: &Rc<Target>,
    path: &str,
) -> Result<Fid, Errno> {
    let mut fid = target.root;
    for part in path.split('/').filter(|p| !p.is_empty()) {
        let name = Name::new(part.as_bytes())?;
        fid = meta::child(shard, target, fid, &name)
            .await?
            .ok_or(Errno::ENOENT)?;
    }
    Ok(fid)
}
