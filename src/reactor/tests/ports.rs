//! Mail from control, messages between shards.

use super::options;
use crate::base::ShardId;
use crate::reactor::{Inbox, Local, Mail, Options, Port, run};
use crate::world::{Arrival, Conn, World};
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::thread;

/// A reactor in a thread of its own that handles arrivals until it is stopped
/// and returns how many there were.
fn shard(port: Port) -> (Inbox, thread::JoinHandle<usize>) {
    let inbox = port.inbox();
    let serve = move || {
        let options = Options::new("shard", port);
        run(options, |world: Local| async move {
            let mut count = 0;
            loop {
                match world.arrival().await {
                    Arrival::Stop => return count,
                    Arrival::Admin { request, reply } => reply(format!("{request}!")),
                    Arrival::Client { conn, first } => {
                        let _ = conn.send(vec![first.into()]).await;
                    }
                    Arrival::Peer { from, message } => world.tell(from, message).expect("room"),
                }
                count += 1;
            }
        })
        .expect("a ring")
    };
    (inbox, thread::spawn(serve))
}

#[test]
fn control_reaches_a_sleeping_shard() {
    let (inbox, thread) = shard(Port::alone().expect("a port"));
    for round in 0..1000 {
        let (answer, answered) = mpsc::channel();
        let mail = Mail::Admin {
            request: format!("{round}"),
            reply: Box::new(move |text| answer.send(text).expect("somebody waits")),
        };
        assert!(inbox.send(mail).is_ok());
        assert_eq!(answered.recv().as_deref(), Ok(&format!("{round}!")[..]));
    }
    inbox.stop();
    assert_eq!(thread.join().expect("no panic"), 1000);
}

#[test]
fn a_socket_is_handed_over_with_its_first_bytes() {
    let (inbox, thread) = shard(Port::alone().expect("a port"));
    let (far, near) = UnixStream::pair().expect("a pair");
    let mail = Mail::Client {
        socket: far.into(),
        first: b"first".to_vec(),
    };
    assert!(inbox.send(mail).is_ok());
    let mut back = String::new();
    std::io::Read::read_to_string(&mut &near, &mut back).expect("bytes");
    assert_eq!(back, "first");
    inbox.stop();
    assert_eq!(thread.join().expect("no panic"), 1);
}

#[test]
fn a_full_inbox_gives_the_mail_back() {
    // Nobody serves this port.
    let inbox = Port::alone().expect("a port").inbox();
    let mail = || Mail::Admin {
        request: String::new(),
        reply: Box::new(|_| {}),
    };
    let sent = (0..5000).take_while(|_| inbox.send(mail()).is_ok()).count();
    assert_eq!(sent, 1024);
}

#[test]
fn shards_tell_each_other_more_than_a_ring_holds() {
    let mut ports = Port::mesh(3).expect("ports");
    let (_, one) = (ports[1].inbox(), shard(ports.remove(1)));
    let two = shard(ports.remove(1));
    let options = Options {
        port: ports.remove(0),
        ..options()
    };
    let count: u32 = 5000;
    let main = move |world: Local| async move {
        assert_eq!(world.shard(), ShardId(0));
        // All at once: the rings overflow, and every message comes back in order.
        for n in 0..count {
            for to in [1, 2] {
                let told = world.tell(ShardId(to), n.to_le_bytes().to_vec());
                told.expect("room");
            }
        }
        assert_eq!(world.tell(ShardId(9), vec![1]), Err(vec![1]));
        let mut next = [0; 3];
        while next != [0, count, count] {
            let Arrival::Peer { from, message } = world.arrival().await else {
                panic!("only the others write");
            };
            let expected = &mut next[usize::from(from.0)];
            assert_eq!(message, expected.to_le_bytes(), "from {from}");
            *expected += 1;
        }
    };
    run(options, main).expect("a ring");
    for (inbox, thread) in [one, two] {
        inbox.stop();
        assert_eq!(thread.join().expect("no panic"), count as usize);
    }
}

#[test]
fn what_nobody_awaits_is_no_work() {
    let port = Port::alone().expect("a port");
    let inbox = port.inbox();
    inbox.stop();
    let options = Options { port, ..options() };
    let main = |world: Local| async move {
        world.sleep(std::time::Duration::from_millis(1)).await;
        assert!(!world.0.post.has_work(), "nobody waits for it yet");
        assert!(matches!(world.arrival().await, Arrival::Stop));
        // Told once: the shard may go on to wait for mail while it drains.
        assert!(!world.0.post.has_work());
    };
    run(options, main).expect("a ring");
}
