//! What reaches a reactor from other threads of the box: mail from control,
//! messages from other shards. Everything is a bounded queue and the doorbell.

use crate::base::ShardId;
use crate::reactor::doorbell::Doorbell;
use crate::reactor::executor::Remote;
use crate::reactor::spsc;
use crossbeam_queue::ArrayQueue;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::task::Waker;

/// What control hands to a shard.
pub enum Mail {
    /// A client's connected socket, and what was read of it already.
    Client { socket: OwnedFd, first: Vec<u8> },
    /// A command; the answer goes to `reply`, in the shard's thread.
    Admin {
        request: String,
        reply: Box<dyn FnOnce(String) + Send>,
    },
}

/// The way to a reactor, for any thread.
#[derive(Clone)]
pub struct Inbox {
    letters: Arc<Letters>,
    remote: Arc<Remote>,
}

struct Letters {
    mail: ArrayQueue<Mail>,
    stop: AtomicBool,
}

impl Inbox {
    /// Gives the mail back when the reactor is that far behind: a client then
    /// gets "later", and nothing piles up.
    pub fn send(&self, mail: Mail) -> Result<(), Mail> {
        let sent = self.letters.mail.push(mail);
        self.remote.bell.ring();
        sent
    }

    /// Asks the reactor to stop, after the mail it has.
    pub fn stop(&self) {
        self.letters.stop.store(true, Ordering::Release);
        self.remote.bell.ring();
    }
}

/// A reactor's place among the others. Made by control, moved to the thread.
pub struct Port {
    id: ShardId,
    inbox: Inbox,
    links: Vec<Option<Link>>,
}

/// Both directions between this reactor and another one.
struct Link {
    out: spsc::Sender<Vec<u8>>,
    incoming: spsc::Receiver<Vec<u8>>,
    /// The sender of a direction found its ring full, and wants to be woken.
    out_waits: Arc<AtomicBool>,
    incoming_waits: Arc<AtomicBool>,
    other: Arc<Remote>,
}

impl Port {
    /// A place with no others: a client, a tool.
    pub fn alone() -> io::Result<Port> {
        let mut ports = Port::mesh(1)?;
        Ok(ports.remove(0))
    }

    /// `count` places, each linked to each.
    pub fn mesh(count: u16) -> io::Result<Vec<Port>> {
        let mut ports = Vec::new();
        for id in 0..count {
            let inbox = Inbox {
                letters: Arc::new(Letters {
                    mail: ArrayQueue::new(MAIL_MAX),
                    stop: AtomicBool::new(false),
                }),
                remote: Arc::new(Remote::new(Doorbell::new()?)),
            };
            ports.push(Port {
                id: ShardId(id),
                inbox,
                links: (0..count).map(|_| None).collect(),
            });
        }
        for low in 0..ports.len() {
            for high in low + 1..ports.len() {
                let (up, from_low) = spsc::ring(LINK_LEN);
                let (down, from_high) = spsc::ring(LINK_LEN);
                let up_waits = Arc::new(AtomicBool::new(false));
                let down_waits = Arc::new(AtomicBool::new(false));
                ports[low].links[high] = Some(Link {
                    out: up,
                    incoming: from_high,
                    out_waits: Arc::clone(&up_waits),
                    incoming_waits: Arc::clone(&down_waits),
                    other: Arc::clone(&ports[high].inbox.remote),
                });
                ports[high].links[low] = Some(Link {
                    out: down,
                    incoming: from_low,
                    out_waits: down_waits,
                    incoming_waits: up_waits,
                    other: Arc::clone(&ports[low].inbox.remote),
                });
            }
        }
        Ok(ports)
    }

    #[must_use]
    pub fn id(&self) -> ShardId {
        self.id
    }
    #[must_use]
    pub fn inbox(&self) -> Inbox {
        self.inbox.clone()
    }
    pub(super) fn remote(&self) -> &Arc<Remote> {
        &self.inbox.remote
    }
}

/// What came.
pub(super) enum Delivery {
    Mail(Mail),
    Peer(ShardId, Vec<u8>),
    Stop,
}

/// Why a message was not taken; it comes back.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    NoShard(Vec<u8>),
    /// Ring and backlog are full.
    Behind(Vec<u8>),
}

/// The reactor's own side of its port.
pub(super) struct Post {
    port: Port,
    /// Messages that found their ring full, for each other reactor.
    backlog: RefCell<Vec<VecDeque<Vec<u8>>>>,
    backlog_len: Cell<usize>,
    /// Which link is asked first next time, so that none is starved.
    turn: Cell<usize>,
    /// Who waits for a delivery.
    waiters: RefCell<Vec<Waker>>,
}

impl Post {
    pub fn new(port: Port) -> Post {
        let backlog = port.links.iter().map(|_| VecDeque::new()).collect();
        Post {
            port,
            backlog: RefCell::new(backlog),
            backlog_len: Cell::new(0),
            turn: Cell::new(0),
            waiters: RefCell::default(),
        }
    }

    pub fn id(&self) -> ShardId {
        self.port.id
    }

    /// The next delivery, else `waker` is kept for it.
    pub fn poll(&self, waker: &Waker) -> Option<Delivery> {
        let delivery = self.take();
        let mut waiters = self.waiters.borrow_mut();
        if delivery.is_none() && !waiters.iter().any(|w| w.will_wake(waker)) {
            waiters.push(waker.clone());
        }
        delivery
    }

    fn take(&self) -> Option<Delivery> {
        let letters = &self.port.inbox.letters;
        if let Some(mail) = letters.mail.pop() {
            return Some(Delivery::Mail(mail));
        }
        if letters.stop.load(Ordering::Relaxed) && letters.stop.swap(false, Ordering::Acquire) {
            return Some(Delivery::Stop);
        }
        let count = self.port.links.len();
        for step in 0..count {
            let from = (self.turn.get() + step) % count;
            let Some(link) = &self.port.links[from] else {
                continue;
            };
            if let Some(message) = link.incoming.pop() {
                self.turn.set((from + 1) % count);
                link.tell_room();
                let from = ShardId(u16::try_from(from).expect("mesh counts in u16"));
                return Some(Delivery::Peer(from, message));
            }
        }
        None
    }

    /// Is there something to do before sleeping? Asked after the doorbell was
    /// told of the sleep.
    pub fn has_work(&self) -> bool {
        self.has_delivery() || self.has_room()
    }

    /// Is there something that somebody waits for?
    fn has_delivery(&self) -> bool {
        if self.waiters.borrow().is_empty() {
            return false;
        }
        let letters = &self.port.inbox.letters;
        !letters.mail.is_empty()
            || letters.stop.load(Ordering::Relaxed)
            || self.links().any(|link| !link.incoming.is_empty())
    }

    /// Has a receiver made room since its ring was found full? It rang, but
    /// perhaps while this reactor was still awake.
    fn has_room(&self) -> bool {
        let backlog = self.backlog.borrow();
        let mut pairs = backlog.iter().zip(&self.port.links);
        self.backlog_len.get() > 0
            && pairs.any(|(queue, link)| {
                let asked = link
                    .as_ref()
                    .is_some_and(|link| link.out_waits.load(Ordering::Relaxed));
                !queue.is_empty() && !asked
            })
    }

    fn links(&self) -> impl Iterator<Item = &Link> {
        self.port.links.iter().flatten()
    }

    /// Wakes who waits, if there is something; moves what found its ring full.
    pub fn attend(&self) {
        if self.has_delivery() {
            for waker in self.waiters.take() {
                waker.wake();
            }
        }
        if self.backlog_len.get() > 0 {
            self.flush();
        }
    }

    /// Sends to another reactor, or queues for it.
    pub fn tell(&self, to: ShardId, message: Vec<u8>) -> Result<(), Refused> {
        let to = usize::from(to.0);
        let Some(Some(link)) = self.port.links.get(to) else {
            return Err(Refused::NoShard(message));
        };
        let mut backlog = self.backlog.borrow_mut();
        let unsent = if backlog[to].is_empty() {
            link.push(message)
        } else {
            Err(message)
        };
        let Err(message) = unsent else { return Ok(()) };
        if backlog[to].len() >= BACKLOG_MAX {
            return Err(Refused::Behind(message));
        }
        backlog[to].push_back(message);
        self.backlog_len.set(self.backlog_len.get() + 1);
        Ok(())
    }

    fn flush(&self) {
        let mut backlog = self.backlog.borrow_mut();
        for (queue, link) in backlog.iter_mut().zip(&self.port.links) {
            let Some(link) = link else { continue };
            while let Some(message) = queue.pop_front() {
                if let Err(message) = link.push(message) {
                    queue.push_front(message);
                    break;
                }
                self.backlog_len.set(self.backlog_len.get() - 1);
            }
        }
    }
}

impl Link {
    /// Sends, or leaves word that room is wanted.
    fn push(&self, message: Vec<u8>) -> Result<(), Vec<u8>> {
        let mut sent = self.out.push(message);
        if let Err(message) = sent {
            self.out_waits.store(true, Ordering::Relaxed);
            // Pairs with the fence in `tell_room`: either this second try sees
            // the room, or the receiver sees the word.
            fence(Ordering::SeqCst);
            sent = self.out.push(message);
        }
        if sent.is_ok() {
            self.other.bell.ring();
        }
        sent
    }

    /// After room was made: wakes the sender if it wants room.
    fn tell_room(&self) {
        fence(Ordering::SeqCst);
        if self.incoming_waits.load(Ordering::Relaxed)
            && self.incoming_waits.swap(false, Ordering::AcqRel)
        {
            self.other.bell.ring();
        }
    }
}

/// Letters that may wait for a reactor.
const MAIL_MAX: usize = 1024;
/// Messages that may wait in a ring.
const LINK_LEN: usize = 1024;
/// Messages that may wait here for one other reactor, past its ring: as many
/// as all requests of a few hundred busy clients, and far from exhausting memory.
const BACKLOG_MAX: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn room_made_while_awake_is_work() {
        let mut ports = Port::mesh(2).expect("ports").into_iter();
        let mut post = || Post::new(ports.next().expect("two"));
        let (near, far) = (post(), post());
        for n in 0..=LINK_LEN {
            assert!(!near.has_work());
            assert_eq!(near.tell(ShardId(1), vec![n as u8]), Ok(()));
        }
        assert!(!near.has_work(), "the ring is full: nothing to do but wait");
        assert!(matches!(far.take(), Some(Delivery::Peer(ShardId(0), _))));
        assert!(near.has_work(), "it would sleep on a message that can go");
        near.attend();
        assert!(!near.has_work());
        for n in 1..=LINK_LEN {
            let Some(Delivery::Peer(_, message)) = far.take() else {
                panic!("message {n} is missing");
            };
            assert_eq!(message, [n as u8]);
        }
        assert!(far.take().is_none());
    }

    #[test]
    fn what_waits_for_a_reactor_is_bounded() {
        let mut ports = Port::mesh(2).expect("ports").into_iter();
        let mut post = || Post::new(ports.next().expect("two"));
        let (near, far) = (post(), post());
        let tell = |n: usize| near.tell(ShardId(1), n.to_le_bytes().to_vec());
        let room = LINK_LEN + BACKLOG_MAX;
        for n in 0..room {
            assert_eq!(tell(n), Ok(()));
        }
        let message = room.to_le_bytes().to_vec();
        assert_eq!(tell(room), Err(Refused::Behind(message)));
        let nobody = near.tell(ShardId(9), vec![7]);
        assert_eq!(nobody, Err(Refused::NoShard(vec![7])));
        // As soon as there is room again, more is taken, and nothing was lost.
        assert!(far.take().is_some());
        near.attend();
        assert_eq!(tell(room), Ok(()));
        for n in 1..=room {
            near.attend();
            let Some(Delivery::Peer(_, message)) = far.take() else {
                panic!("message {n} is missing");
            };
            assert_eq!(message, n.to_le_bytes());
        }
    }

    #[test]
    fn the_stop_comes_after_the_mail() {
        let port = Port::alone().expect("a port");
        let inbox = port.inbox();
        let post = Post::new(port);
        let (answer, _answered) = mpsc::channel();
        let mail = Mail::Admin {
            request: "last".to_string(),
            reply: Box::new(move |text| answer.send(text).unwrap_or(())),
        };
        inbox.stop();
        assert!(inbox.send(mail).is_ok());
        assert!(matches!(post.take(), Some(Delivery::Mail(_))));
        assert!(matches!(post.take(), Some(Delivery::Stop)));
        assert!(post.take().is_none());
    }
}
