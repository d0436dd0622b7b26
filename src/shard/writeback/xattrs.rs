//! Bringing a file's xattrs at the origin to what they are here.

use super::engine::Engine;
use super::{Shard, origin};
use crate::base::codec::Bytes;
use crate::base::{Errno, Fid};
use crate::namespace::key;
use crate::namespace::xattr::CUSTODY;
use crate::origin::{OriginOp, Place};
use crate::world::World;
use std::collections::BTreeMap;
use std::rc::Rc;

/// Pairs read at a time.
const PAGE: usize = 64;

/// Sets what differs and removes what is not known here. They are known in full
/// when any is owed: a change of one asks the origin for all first.
pub async fn carry<W: World>(
    shard: &Rc<Shard<W>>,
    engine: &Engine,
    fid: Fid,
    file: &Place,
) -> Result<(), Errno> {
    let wanted = wanted(shard, fid).await?;
    let there = there(shard, engine, file).await?;
    for name in there.iter().filter(|name| !wanted.contains_key(*name)) {
        let (file, name) = (file.clone(), name.clone());
        match origin::done(shard, engine.target, OriginOp::XattrRemove { file, name }).await {
            Ok(()) | Err(Errno::ENODATA) => {}
            Err(e) => return Err(e),
        }
    }
    for (name, value) in wanted {
        let file = file.clone();
        let op = OriginOp::XattrSet { file, name, value };
        origin::done(shard, engine.target, op).await?;
    }
    Ok(())
}

async fn wanted<W: World>(
    shard: &Rc<Shard<W>>,
    fid: Fid,
) -> Result<BTreeMap<Vec<u8>, Bytes>, Errno> {
    let prefix = key::xattr(fid, b"");
    // Names are compared as bytes and hold no 0xff followed by more of them
    // than a name is long: this is above them all.
    let end = key::xattr(fid, &[0xff; 256]);
    let mut from = [&prefix[..], &[0]].concat(); // The list of names has the empty name.
    let mut out = BTreeMap::new();
    loop {
        let page = shard.flash.scan(from.clone()..end.clone(), PAGE).await?;
        let Some((last, _)) = page.last() else { break };
        from = [&last[..], &[0]].concat();
        let full = page.len() == PAGE;
        for (key, value) in page {
            let name = key.get(prefix.len()..);
            // A release that did not reserve this one may have stored it.
            if let Some(name) = name.filter(|name| *name != CUSTODY) {
                out.insert(name.to_vec(), Bytes(value.to_vec()));
            }
        }
        if !full {
            break;
        }
    }
    Ok(out)
}

/// Names at the origin that the box carries; the rest is the origin's own.
async fn there<W: World>(
    shard: &Rc<Shard<W>>,
    engine: &Engine,
    file: &Place,
) -> Result<Vec<Vec<u8>>, Errno> {
    let file = file.clone();
    let list = origin::bytes(shard, engine.target, OriginOp::XattrList { file }).await?;
    let names = list.split(|b| *b == 0).filter(|name| is_carried(name));
    Ok(names.map(<[u8]>::to_vec).collect())
}

fn is_carried(name: &[u8]) -> bool {
    const SPACES: [&[u8]; 2] = [b"user.", b"trusted."];
    const NAMES: [&[u8]; 3] = [
        b"security.capability",
        b"system.posix_acl_access",
        b"system.posix_acl_default",
    ];
    if name == CUSTODY {
        return false;
    }
    SPACES.iter().any(|space| name.starts_with(space)) || NAMES.contains(&name)
}
