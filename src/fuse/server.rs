//! The loop of a mount: poll the device, drain it, let the tasks run.

use super::device::{Inbox, Received};
use super::session::Session;
use super::upstream::Upstream;
use crate::base::Errno;
use crate::reactor::{Descriptor, Local};
use crate::world::World;
use std::rc::Rc;

/// Serves the mount whose device is `device` until it is unmounted. Tasks that
/// it started may still run then: see [`quiet`](Session::quiet).
///
/// # Errors
/// The device cannot be read, or says what no kernel says.
pub async fn serve<U: Upstream>(
    local: Local,
    session: Rc<Session<Local, U>>,
    device: Descriptor,
) -> Result<(), Errno> {
    local.spawn(carry(local.clone(), Rc::clone(&session), device.clone()));
    let mut inbox = Inbox::new(local.pool().clone());
    loop {
        local.poll_readable(&device).await?;
        while !drain(&session, &mut inbox)? {
            local.yield_now().await;
        }
        if session.is_unmounted() {
            return Ok(());
        }
    }
}

/// Carries notices to the kernel, each in a context of its own (C3).
async fn carry<U: Upstream>(local: Local, session: Rc<Session<Local, U>>, device: Descriptor) {
    while let Some(letter) = session.next_notice().await {
        let (own, device) = (local.clone(), device.clone());
        local.spawn(async move {
            let message = letter.notice.to_bytes();
            let written = own.write_apart(&device, message).await;
            letter.end(written.map(|_| ()));
        });
    }
}

/// Takes in what the kernel has, up to a bound: false if there may be more.
///
/// While one request is all that is under way, as for one thread at work, the
/// look that would find nothing behind it is spared: the poll tells as well.
fn drain<U: Upstream>(session: &Rc<Session<Local, U>>, inbox: &mut Inbox) -> Result<bool, Errno> {
    for _ in 0..TAKEN_AT_ONCE {
        match session.kernel.receive(inbox)? {
            Received::Message(message) => {
                let others = session.unanswered();
                let now = || session.world.now();
                session.kernel.beside.on_message(&message, others, now);
                session.on_message(message);
            }
            Received::Nothing => return Ok(true),
            Received::Unmounted => {
                session.on_unmounted();
                return Ok(true);
            }
        }
        if session.unanswered() <= 1 {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Requests taken in before the tasks of earlier ones run.
const TAKEN_AT_ONCE: usize = 64;
