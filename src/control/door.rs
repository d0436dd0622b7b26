//! The control thread at work: it accepts clients and hands each to its shard,
//! answers the administrator, minds the mount, and ends the service.

use super::admin::{Answer, Command};
use super::cli::Failure;
use super::mounted::{self, Mounted};
use crate::base::{ShardId, Slice, TargetId};
use crate::reactor::signals::{SignalStream, Signals};
use crate::reactor::{Descriptor, Inbox, Local, Log, Mail};
use crate::wire::frame::{Bounds, Content, Layout};
use crate::wire::{ConnectRequest, Features};
use crate::world::sync::{Promise, Signal};
use crate::world::{Level, World};
use rustix::net::RecvFlags;
use serde_json::{Value, json};
use std::cell::{Cell, RefCell};
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::rc::Rc;
use std::sync::mpsc;
use std::time::Duration;

/// Everything that the control thread serves with.
pub struct Desk {
    pub listener: TcpListener,
    pub admin: UnixListener,
    pub inboxes: Vec<Inbox>,
    /// Each target's name, id, and shard.
    pub routes: Vec<(String, TargetId, ShardId)>,
    /// What `status` says of the box itself.
    pub facts: Value,
    /// Of the whole box.
    pub log: Log,
}

struct Door {
    world: Local,
    desk: Desk,
    stopping: Cell<bool>,
    stop: Signal,
    /// Answers of shards that arrive on their threads, by ticket.
    mounted: RefCell<Option<Mounted>>,
    /// Clients that have not finished their CONNECT.
    arriving: Cell<usize>,
    accepted: Cell<u64>,
    /// Connections that were closed before a shard had them.
    turned_away: Cell<u64>,
}

/// Serves until one of `signals`, a `shutdown`, or the end of the mount.
pub async fn serve(
    world: Local,
    desk: Desk,
    signals: Signals,
    mount: Option<mounted::Wanted>,
) -> Result<(), Failure> {
    let addr = desk
        .listener
        .local_addr()
        .map(|a| a.to_string())
        .unwrap_or_default();
    let door = Rc::new(Door {
        world: world.clone(),
        desk,
        stopping: Cell::new(false),
        stop: Signal::default(),
        mounted: RefCell::new(None),
        arriving: Cell::new(0),
        accepted: Cell::new(0),
        turned_away: Cell::new(0),
    });
    world.spawn(accept_clients(Rc::clone(&door)));
    world.spawn(accept_admins(Rc::clone(&door)));
    world.spawn(end_at_signal(Rc::clone(&door), signals.on(&world)));
    println!("ready on {addr}");
    if let Some(wanted) = mount {
        let mounted = Mounted::start(&wanted)?;
        world.spawn(mounted::watch(world.clone(), mounted.pidfd()?, {
            let door = Rc::clone(&door);
            move || door.end()
        }));
        *door.mounted.borrow_mut() = Some(mounted);
    }
    while !door.stopping.get() {
        door.stop.wait().await;
    }
    let mounted = door.mounted.borrow_mut().take();
    if let Some(mounted) = mounted {
        mounted.end(&door.world).await?;
    }
    Ok(())
}

impl Door {
    fn end(&self) {
        self.stopping.set(true);
        self.stop.notify();
    }

    fn turn_away(&self, peer: &str, why: &str) {
        self.turned_away.set(self.turned_away.get() + 1);
        let line = format!("{peer}: closed: {why}");
        self.world.log(Level::Warn, &line);
    }

    /// The inbox of the shard that serves the CONNECT in `first`; the first
    /// shard refuses what nobody serves.
    fn inbox_for(&self, first: &[u8]) -> Option<&Inbox> {
        let shard = connect_in(first).and_then(|c| {
            self.desk
                .routes
                .iter()
                .find(|r| r.0 == c.target)
                .map(|r| r.2)
        });
        self.desk
            .inboxes
            .get(usize::from(shard.unwrap_or(ShardId(0)).0))
    }
}

fn connect_in(first: &[u8]) -> Option<ConnectRequest> {
    let layout = Layout::of(first, &Bounds::CONNECT).ok()??;
    let message = layout.decode(first, &[], Features::default()).ok()?;
    match message.content {
        Content::Connect(_, request) => Some(*request),
        _ => None,
    }
}

async fn accept_clients(door: Rc<Door>) {
    let Ok(fd) = door.desk.listener.as_fd().try_clone_to_owned() else {
        return door.end();
    };
    let fd = Descriptor::new(fd);
    while door.world.poll_readable(&fd).await.is_ok() {
        while let Ok((stream, peer)) = door.desk.listener.accept() {
            door.accepted.set(door.accepted.get() + 1);
            if door.arriving.get() >= ARRIVING_MAX {
                door.turn_away(&peer.to_string(), "too many are connecting");
                continue;
            }
            door.arriving.set(door.arriving.get() + 1);
            let (door2, peer) = (Rc::clone(&door), peer.to_string());
            door.world.spawn(async move {
                if let Err(why) = introduce(&door2, stream.into(), &peer).await {
                    door2.turn_away(&peer, &why);
                }
                door2.arriving.set(door2.arriving.get() - 1);
            });
        }
    }
}

/// Reads a newcomer's CONNECT and hands the socket to its shard.
async fn introduce(door: &Rc<Door>, socket: OwnedFd, peer: &str) -> Result<(), String> {
    let watched = socket.try_clone().map_err(|e| e.to_string())?;
    rustix::io::ioctl_fionbio(&watched, true).map_err(|e| e.to_string())?;
    let late = Promise::default();
    let (world, ring) = (door.world.clone(), late.clone());
    door.world.spawn(async move {
        world.sleep(CONNECT_WITHIN).await;
        ring.set(());
    });
    let fd = Descriptor::new(socket.try_clone().map_err(|e| e.to_string())?);
    let mut first = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        match Layout::of(&first, &Bounds::CONNECT) {
            Err(e) => return Err(format!("not a Forebay client: {e}")),
            Ok(Some(layout)) if first.len() >= layout.len() => break,
            Ok(_) if late.is_set() => return Err("no CONNECT in time".to_owned()),
            Ok(_) => {}
        }
        door.world
            .poll_readable(&fd)
            .await
            .map_err(|e| e.to_string())?;
        match rustix::net::recv(&watched, &mut chunk, RecvFlags::empty()) {
            Ok((0, _)) => return Err("left before its CONNECT".to_owned()),
            Ok((n, _)) => first.extend_from_slice(&chunk[..n.min(chunk.len())]),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.to_string()),
        }
    }
    let inbox = door.inbox_for(&first).ok_or("no shard")?;
    let sent = inbox.send(Mail::Client { socket, first });
    sent.map_err(|_| format!("the shard is too busy to take {peer}"))
}

async fn accept_admins(door: Rc<Door>) {
    let Ok(fd) = door.desk.admin.as_fd().try_clone_to_owned() else {
        return door.end();
    };
    let fd = Descriptor::new(fd);
    while door.world.poll_readable(&fd).await.is_ok() {
        while let Ok((stream, _)) = door.desk.admin.accept() {
            let door2 = Rc::clone(&door);
            door.world.spawn(async move {
                if let Err(e) = attend(&door2, stream).await {
                    door2.world.log(Level::Debug, &format!("admin: {e}"));
                }
            });
        }
    }
}

/// One command, one answer.
async fn attend(door: &Rc<Door>, stream: UnixStream) -> io::Result<()> {
    stream.set_nonblocking(true)?;
    let fd = Descriptor::new(stream.as_fd().try_clone_to_owned()?);
    let mut line = Vec::new();
    let mut chunk = [0; 1024];
    while !line.contains(&b'\n') && line.len() < LINE_MAX {
        door.world
            .poll_readable(&fd)
            .await
            .map_err(io::Error::from)?;
        match io::Read::read(&mut &stream, &mut chunk) {
            Ok(0) => return Ok(()),
            Ok(n) => line.extend_from_slice(&chunk[..n]),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
    }
    let answer = match serde_json::from_slice::<Command>(&line) {
        Ok(command) => answer(door, &command).await,
        Err(e) => Answer::Failed(format!("not a command of this release: {e}")),
    };
    let mut text = serde_json::to_string(&answer).map_err(io::Error::other)?;
    text.push('\n');
    stream.set_nonblocking(false)?;
    say(door, &fd, text.into_bytes()).await
}

/// Writes a whole answer. Whoever does not read it holds up nobody else.
async fn say(door: &Door, fd: &Descriptor, text: Vec<u8>) -> io::Result<()> {
    let all = Slice::from(text);
    let mut said = 0;
    while said < all.len() {
        let rest = vec![all.part(said..all.len())];
        match door.world.writev(fd, rest).await {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => said += n,
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

async fn answer(door: &Rc<Door>, command: &Command) -> Answer {
    match command {
        Command::Shutdown => {
            door.end();
            Answer::Done(json!("stopping"))
        }
        Command::Status => {
            let mut all = door.desk.facts.clone();
            let mut shards = Vec::new();
            for inbox in &door.desk.inboxes {
                match ask_shard(door, inbox, command).await {
                    Answer::Done(value) => shards.push(value),
                    failed @ Answer::Failed(_) => return failed,
                }
            }
            all["shard"] = Value::Array(shards);
            let (errors, warnings) = door.desk.log.counts();
            all["logged"] = json!({ "errors": errors, "warnings": warnings });
            all["connections"] = json!({
                "accepted": door.accepted.get(),
                "turned away": door.turned_away.get(),
            });
            Answer::Done(all)
        }
        Command::Flush { target, .. } | Command::Custody { target, .. } => {
            match door.desk.routes.iter().find(|r| r.0 == *target) {
                None => Answer::Failed(format!("no target {target}: `forebay status` lists them")),
                Some(route) => {
                    let inbox = &door.desk.inboxes[usize::from(route.2.0)];
                    ask_shard(door, inbox, command).await
                }
            }
        }
    }
}

/// Sends a command to a shard and waits for its answer, which arrives on the
/// shard's thread: through a socket pair, which this thread can await.
async fn ask_shard(door: &Rc<Door>, inbox: &Inbox, command: &Command) -> Answer {
    let broken =
        |e: &dyn std::fmt::Display| Answer::Failed(format!("the shard did not answer: {e}"));
    let (ours, theirs) = match UnixStream::pair() {
        Ok(pair) => pair,
        Err(e) => return broken(&e),
    };
    let request = match serde_json::to_string(command) {
        Ok(request) => request,
        Err(e) => return broken(&e),
    };
    let (post, answer) = mpsc::sync_channel(1);
    let mail = Mail::Admin {
        request,
        reply: Box::new(move |text| {
            let _ = post.send(text);
            drop(theirs);
        }),
    };
    if inbox.send(mail).is_err() {
        return Answer::Failed("the shard is too busy: try again".to_owned());
    }
    let fd = match ours.as_fd().try_clone_to_owned() {
        Ok(fd) => Descriptor::new(fd),
        Err(e) => return broken(&e),
    };
    // Readable (end of stream) when the shard dropped its end, after the answer.
    if let Err(e) = door.world.poll_readable(&fd).await {
        return broken(&e);
    }
    let text = answer.try_recv().unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_else(|e| broken(&e))
}

/// Ends the service at the first signal; later ones change nothing.
async fn end_at_signal(door: Rc<Door>, signals: SignalStream) {
    while signals.next().await.is_ok() {
        door.end();
    }
}

/// Clients that may be between accept and the end of their CONNECT.
const ARRIVING_MAX: usize = 1024;
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// Longest admin command.
const LINE_MAX: usize = 64 << 10;
