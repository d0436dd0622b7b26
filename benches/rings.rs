//! What the reactor's own machinery costs: the ring between shards, a wake
//! within a thread and from another, a task, a timer, a round trip by socket.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use forebay::base::{Buf, Slice};
use forebay::reactor::{Local, Options, Port, Stream, run, spsc};
use forebay::world::{Arrival, Conn, World};
use std::future::Future;
use std::hint::black_box;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

/// Times `main`, run on a reactor of its own.
fn timed<F: Future<Output = Duration> + 'static>(main: impl FnOnce(Local) -> F) -> Duration {
    let port = Port::alone().expect("a port");
    run(Options::new("bench", port), main).expect("a ring")
}

fn spsc_ring(c: &mut Criterion) {
    let mut group = c.benchmark_group("spsc");
    group.throughput(Throughput::Elements(1));
    group.bench_function("push and pop, one thread", |b| {
        let (sender, receiver) = spsc::ring(1024);
        b.iter(|| {
            sender.push(black_box(1_u64)).expect("room");
            black_box(receiver.pop())
        });
    });
    group.bench_function("stream to another thread", |b| {
        b.iter_custom(|count| {
            let (sender, receiver) = spsc::ring(1024);
            let started = Instant::now();
            let other = thread::spawn(move || {
                for n in 0..count {
                    while sender.push(n).is_err() {
                        thread::yield_now();
                    }
                }
            });
            for _ in 0..count {
                while receiver.pop().is_none() {
                    thread::yield_now();
                }
            }
            other.join().expect("no panic");
            started.elapsed()
        });
    });
    group.finish();
}

fn executor(c: &mut Criterion) {
    let mut group = c.benchmark_group("executor");
    group.throughput(Throughput::Elements(1));
    group.bench_function("yield", |b| {
        b.iter_custom(|count| {
            timed(move |world| async move {
                let started = Instant::now();
                for _ in 0..count {
                    world.yield_now().await;
                }
                started.elapsed()
            })
        });
    });
    group.bench_function("spawn and run a task", |b| {
        b.iter_custom(|count| {
            timed(move |world| async move {
                let started = Instant::now();
                for _ in 0..count {
                    world.spawn(async {});
                    world.yield_now().await;
                }
                started.elapsed()
            })
        });
    });
    group.bench_function("make and drop a timer", |b| {
        b.iter_custom(|count| {
            timed(move |world| async move {
                let started = Instant::now();
                for _ in 0..count {
                    let mut sleep = std::pin::pin!(world.sleep(Duration::from_secs(60)));
                    std::future::poll_fn(|cx| {
                        let polled = sleep.as_mut().poll(cx);
                        std::task::Poll::Ready(black_box(polled))
                    })
                    .await
                    .is_ready();
                }
                started.elapsed()
            })
        });
    });
    group.finish();
}

fn messages(c: &mut Criterion) {
    let mut group = c.benchmark_group("shards");
    group.throughput(Throughput::Elements(1));
    for depth in [1, 64] {
        group.bench_function(format!("round trip, {depth} at once"), |b| {
            b.iter_custom(|count| round_trips(count, depth));
        });
    }
    group.finish();
}

/// `count` messages to another shard and back, `depth` under way.
fn round_trips(count: u64, depth: u64) -> Duration {
    let mut ports = Port::mesh(2).expect("ports");
    let far = ports.pop().expect("two ports");
    let stop = far.inbox();
    let echo = thread::spawn(move || {
        run(Options::new("far", far), |world: Local| async move {
            while let Arrival::Peer { from, message } = world.arrival().await {
                world.tell(from, message).expect("room");
            }
        })
        .expect("a ring");
    });
    let near = Options::new("near", ports.pop().expect("two ports"));
    let main = move |world: Local| async move {
        let to = forebay::base::ShardId(1);
        let started = Instant::now();
        let mut sent = 0;
        for received in 0..count {
            while sent < count && sent < received + depth {
                world.tell(to, vec![0; 16]).expect("room");
                sent += 1;
            }
            black_box(world.arrival().await);
        }
        started.elapsed()
    };
    let elapsed = run(near, main).expect("a ring");
    stop.stop();
    echo.join().expect("no panic");
    elapsed
}

fn sockets(c: &mut Criterion) {
    let mut group = c.benchmark_group("socket");
    group.throughput(Throughput::Elements(1));
    group.bench_function("4 KiB there and back, two tasks of a thread", |b| {
        b.iter_custom(|count| {
            timed(move |world| async move {
                let (a, b) = UnixStream::pair().expect("a pair");
                let near = world.adopt(a.into()).expect("a stream");
                let far = world.adopt(b.into()).expect("a stream");
                world.spawn(async move {
                    for _ in 0..count {
                        let got = receive(&far).await;
                        far.send(vec![got]).await.expect("sent");
                    }
                });
                let message = Slice::from(vec![7; 4096]);
                let started = Instant::now();
                for _ in 0..count {
                    near.send(vec![message.clone()]).await.expect("sent");
                    black_box(receive(&near).await);
                }
                started.elapsed()
            })
        });
    });
    group.finish();
}

async fn receive(conn: &Stream) -> Slice {
    let mut buf = Buf::alone(4096);
    let mut at = 0;
    while at < 4096 {
        let (got, back) = conn.recv(buf, at).await;
        buf = back;
        at += got.expect("bytes");
    }
    buf.freeze()
}

criterion_group!(benches, spsc_ring, executor, messages, sockets);
criterion_main!(benches);
