//! File locks of the shard's clients: requests about them, and the ways they end
//! with a handle or a client. The rules are in [`dlm::FileLocks`]; here is what
//! the table must not know: sessions, handles, and whom to tell.
//!
//! A handler looks at the table once, without an await, after it has waited for
//! the clients that may claim locks from before a restart (at most the recovery
//! window; a bounded wait may hold its slot). Nothing of the table is on flash:
//! clients claim what they had. Whether the handle is open is not asked: one of
//! before an eviction is not, and works on.
//!
//! [`dlm::FileLocks`]: crate::dlm::FileLocks

use super::meta::Call;
use super::session::{self, Export};
use super::{Outgoing, Shard};
use crate::base::{Errno, Extent, HeldLock, Lsn, OpenId, OwnerKind, Transno};
use crate::dlm::{LockAsked, LockOutcome, LockOwner, LockWoken, OwnedLocks, Wait};
use crate::wire::filelock::{Getlk, LockAnswer, LockState, Locked, Relock, Setlk, Unwait};
use crate::wire::op::Close;
use crate::wire::{Features, Notice, Reply};
use crate::world::World;

pub async fn setlk<W: World>(call: &Call<'_, W>, op: &Setlk) -> Result<Outgoing, Errno> {
    let owner = owner_of(call)?;
    let range = checked(op.range)?;
    let shard = call.shard;
    let Some(kind) = op.kind else {
        let unlocked = shard.file_locks.borrow_mut().unlock(op.fid, owner, range);
        tell(shard, unlocked.map_err(errno_of)?);
        return Ok(answer(LockState::Granted));
    };
    shard.sessions.reclaimed().await;
    is_here(call.export)?;
    let lock = HeldLock {
        range,
        kind,
        pid: op.pid,
    };
    let open = op.open;
    let asked = LockAsked { owner, open, lock };
    let (outcome, woken) = shard.file_locks.borrow_mut().set(op.fid, asked, op.wait);
    tell(shard, woken);
    match outcome {
        LockOutcome::Granted => Ok(answer(LockState::Granted)),
        LockOutcome::Queued => Ok(answer(LockState::Queued)),
        refused => Err(errno_of(refused)),
    }
}

pub async fn getlk<W: World>(call: &Call<'_, W>, op: &Getlk) -> Result<Outgoing, Errno> {
    let owner = owner_of(call)?;
    let lock = HeldLock {
        range: checked(op.range)?,
        kind: op.kind,
        pid: 0,
    };
    call.shard.sessions.reclaimed().await;
    let open = OpenId(0);
    let asked = LockAsked { owner, open, lock };
    let found = call.shard.file_locks.borrow().test(op.fid, asked);
    Ok(found.map_or_else(
        || answer(LockState::Granted),
        |found| {
            let is_own = found.owner.client == owner.client;
            let pid = if is_own { found.lock.pid } else { 0 };
            let found = Some(HeldLock { pid, ..found.lock });
            let state = LockState::InTheWay;
            outgoing(LockAnswer { state, found })
        },
    ))
}

/// A wait that is unknown was granted, and the notice of it is on its way, or
/// went with a box that restarted: what the owner has tells.
pub fn unwait<W: World>(call: &Call<'_, W>, op: &Unwait) -> Result<Outgoing, Errno> {
    let owner = owner_of(call)?;
    let lock = HeldLock {
        range: checked(op.range)?,
        kind: op.kind,
        pid: 0,
    };
    let open = OpenId(0);
    let asked = LockAsked { owner, open, lock };
    let client = owner.client;
    let id = op.wait;
    let mut locks = call.shard.file_locks.borrow_mut();
    let was_granted = !locks.withdraw(Wait { client, id }) && locks.has(op.fid, &asked);
    Ok(answer(match was_granted {
        true => LockState::Granted,
        false => LockState::Withdrawn,
    }))
}

/// A handle is closed: every lock that was taken through it ends (L12).
pub fn closed<W: World>(call: &Call<'_, W>, op: &Close) {
    let client = call.export.client;
    let mut locks = call.shard.file_locks.borrow_mut();
    let woken = locks.close(op.fid, client, op.open);
    drop(locks);
    tell(call.shard, woken);
}

/// The export is gone for good, and its locks and waits with it.
pub fn dropped<W: World>(shard: &Shard<W>, export: &Export) {
    let woken = shard.file_locks.borrow_mut().drop_client(export.client);
    tell(shard, woken);
}

/// Takes back what one owner had before the restart, all of it or nothing.
pub fn claim<W: World>(shard: &Shard<W>, export: &Export, claim: &Relock) -> Result<(), Errno> {
    is_here(export)?;
    if !export.is_recovering() {
        return Err(Errno::EINVAL);
    }
    let own = OwnedLocks {
        fid: claim.fid,
        owner: LockOwner {
            client: export.client,
            id: claim.owner,
            kind: claim.owner_kind,
        },
        opens: claim.opens.clone(),
        locks: claim.locks.clone(),
    };
    let ranges = own.locks.iter().map(|lock| checked(lock.range));
    ranges.collect::<Result<Vec<_>, _>>()?;
    let (is_granted, woken) = shard.file_locks.borrow_mut().claim(&own);
    tell(shard, woken);
    if is_granted {
        Ok(())
    } else {
        Err(Errno::ENOLCK)
    }
}

/// Tells those whose wait is over. Who has no connection asks again.
fn tell<W: World>(shard: &Shard<W>, woken: Vec<LockWoken>) {
    for LockWoken { wait, outcome } in woken {
        let status = match outcome {
            LockOutcome::Granted => 0,
            other => errno_of(other).0,
        };
        let wait_id = wait.id;
        let notice = Notice::Locked(Locked {
            wait: wait_id,
            status,
        });
        session::tell(shard, wait.client, &notice);
    }
}

fn owner_of<W: World>(call: &Call<'_, W>) -> Result<LockOwner, Errno> {
    let head = &call.incoming.head;
    owner_in(call.export, head.owner, head.owner_kind)
}

fn owner_in(export: &Export, id: u64, kind: u8) -> Result<LockOwner, Errno> {
    if !export.has(Features::FILE_LOCKS) {
        return Err(Errno::ENOSYS);
    }
    let kind = OwnerKind::of(kind).ok_or(Errno::EINVAL)?;
    let client = export.client;
    Ok(LockOwner { client, id, kind })
}

fn checked(range: Extent) -> Result<Extent, Errno> {
    match range.start <= range.end {
        true => Ok(range),
        false => Err(Errno::EINVAL),
    }
}

/// Who was thrown out gets no locks any more: nobody would give them up.
fn is_here(export: &Export) -> Result<(), Errno> {
    match export.is_ended() {
        true => Err(Errno::ENOTCONN),
        false => Ok(()),
    }
}

fn errno_of(outcome: LockOutcome) -> Errno {
    match outcome {
        LockOutcome::WouldBlock => Errno::EAGAIN,
        LockOutcome::Deadlock => Errno::EDEADLK,
        LockOutcome::TooMany => Errno::ENOLCK,
        // No failures: nobody asks for their errno.
        LockOutcome::Granted | LockOutcome::Queued => Errno::EIO,
    }
}

fn answer(state: LockState) -> Outgoing {
    outgoing(LockAnswer { state, found: None })
}

fn outgoing(answer: LockAnswer) -> Outgoing {
    Outgoing {
        result: Ok((Reply::Lock(answer), Vec::new())),
        transno: Transno(0),
        lsn: Lsn(0),
    }
}

#[cfg(test)]
mod tests;
