//! Connections keep their bytes in order, bounded, and end visibly.

use forebay::base::{Buf, Errno};
use forebay::sim::{Accept, Faults, Sim, SimConn, SimWorld};
use forebay::world::{Arrival, Conn, World};
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

/// Two ends of a connection between the nodes "c" and "s".
async fn pair(sim: &Sim) -> (SimConn, SimConn, SimWorld) {
    let server = sim.world("s");
    sim.accept("s", Accept::Raw);
    let client = sim.world("c");
    let near = client.connect("s:1").await.unwrap();
    let Arrival::Client { conn: far, .. } = server.arrival().await else {
        panic!("a client came")
    };
    (near, far, client)
}

async fn receive(conn: &SimConn, len: usize) -> Vec<u8> {
    let mut got = Vec::new();
    while got.len() < len {
        let (n, buf) = conn.recv(Buf::alone(len - got.len()), 0).await;
        match n {
            Ok(0) | Err(_) => break,
            Ok(n) => got.extend_from_slice(&buf[..n]),
        }
    }
    got
}

#[test]
fn bytes_arrive_in_order() {
    for seed in 0..50 {
        let sim = Sim::new(seed);
        sim.run(async {
            let (near, far, client) = pair(&sim).await;
            let sent: Vec<u8> = (0..100_000u32).map(|i| (i % 251) as u8).collect();
            let parts = sent.chunks(7919).map(|c| c.to_vec().into()).collect();
            client.spawn(async move {
                near.send(parts).await.unwrap();
            });
            assert_eq!(
                receive(&far, 200_000).await,
                sent,
                "and then the end of stream"
            );
        });
    }
}

#[test]
fn a_sender_waits_for_a_slow_receiver() {
    let sim = Sim::new(1);
    sim.run(async {
        let (near, far, client) = pair(&sim).await;
        let done = Rc::new(Cell::new(false));
        let set = Rc::clone(&done);
        client.spawn(async move {
            near.send(vec![vec![1; 1 << 20].into()]).await.unwrap();
            set.set(true);
        });
        client.sleep(Duration::from_secs(60)).await;
        assert!(!done.get(), "a megabyte does not fit into the buffers");
        assert_eq!(receive(&far, 1 << 20).await.len(), 1 << 20);
        client.sleep(Duration::from_secs(1)).await;
        assert!(done.get());
    });
}

#[test]
fn a_partition_delays_and_a_cut_breaks() {
    let sim = Sim::new(1);
    sim.run(async {
        let (near, far, client) = pair(&sim).await;
        sim.partition("c", "s");
        near.send(vec![b"later".to_vec().into()]).await.unwrap();
        client.sleep(Duration::from_secs(60)).await;
        assert_eq!(client.connect("s:1").await.err(), Some(Errno::ETIMEDOUT));
        sim.heal();
        assert_eq!(receive(&far, 5).await, b"later");
        sim.cut("s", "c");
        assert_eq!(far.recv(Buf::alone(1), 0).await.0, Err(Errno::ECONNRESET));
        assert_eq!(
            near.send(vec![vec![1].into()]).await,
            Err(Errno::ECONNRESET)
        );
    });
}

#[test]
fn shutdown_ends_what_is_pending() {
    let sim = Sim::new(1);
    sim.run(async {
        let (near, far, client) = pair(&sim).await;
        let near = Rc::new(near);
        let closer = Rc::clone(&near);
        client.spawn(async move { closer.shutdown() });
        assert_eq!(near.recv(Buf::alone(1), 0).await.0, Ok(0));
        assert_eq!(far.recv(Buf::alone(1), 0).await.0, Ok(0));
    });
}

#[test]
fn a_crashed_peer_resets() {
    let sim = Sim::new(1);
    sim.run(async {
        let (near, _far, client) = pair(&sim).await;
        sim.crash("s");
        assert_eq!(near.recv(Buf::alone(1), 0).await.0, Err(Errno::ECONNRESET));
        assert_eq!(client.connect("s:1").await.err(), Some(Errno::ECONNREFUSED));
        assert_eq!(client.connect("t:1").await.err(), Some(Errno::EHOSTUNREACH));
    });
}

#[test]
fn faults_drop_connections() {
    let sim = Sim::with(
        5,
        Faults {
            net_drop_one_in: 20,
            ..Faults::default()
        },
    );
    sim.run(async {
        let (near, _far, _) = pair(&sim).await;
        let mut sends = 0;
        while near.send(vec![vec![1].into()]).await.is_ok() {
            sends += 1;
            assert!(sends < 1000, "one in twenty");
        }
    });
}
