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
        let mut looks = 0;
        while !session.is_unmounted() {
            match drain(&session, &mut inbox)? {
                Drained::More => {}
                // Whoever takes turns with the mount has the next one ready when
                // it is back from answering.
                Drained::One if session.kernel.beside.is_on() && looks < LOOKS => looks += 1,
                Drained::One | Drained::All => break,
            }
            local.yield_now().await;
        }
        if session.is_unmounted() {
            return Ok(());
        }
    }
}

/// Turns between two looks at the ring.
const LOOKS: usize = 8;

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

enum Drained {
    /// There may be more.
    More,
    /// One request is all that is under way, as for one thread at work: the look
    /// that would find nothing behind it was spared.
    One,
    All,
}

/// Takes in what the kernel has, up to a bound.
fn drain<U: Upstream>(
    session: &Rc<Session<Local, U>>,
    inbox: &mut Inbox,
) -> Result<Drained, Errno> {
    for _ in 0..TAKEN_AT_ONCE {
        match session.kernel.receive(inbox)? {
            Received::Message(message) => {
                let others = session.unanswered();
                let now = || session.world.now();
                session.kernel.beside.on_message(&message, others, now);
                session.on_message(message);
            }
            Received::Nothing => return Ok(Drained::All),
            Received::Unmounted => {
                session.on_unmounted();
                return Ok(Drained::All);
            }
        }
        if session.unanswered() <= 1 {
            return Ok(Drained::One);
        }
    }
    Ok(Drained::More)
}

/// Requests taken in before the tasks of earlier ones run.
const TAKEN_AT_ONCE: usize = 64;
