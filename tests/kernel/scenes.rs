//! What seeds have found once, by itself.

use crate::mounts::mount;
use crate::names::Created;
use forebay::base::{Name, Slice};
use forebay::client::{Client, Context, Directory, File};
use forebay::sim::cluster::Cluster;
use forebay::sim::{Faults, SimWorld};
use forebay::world::World;
use forebay::world::sync::Promise;
use std::time::Duration;

/// What was born below a directory that a machine has to itself has no lock of
/// its own: its kernel believes it under the directory's, and no longer.
#[test]
fn what_was_born_under_a_lock_is_taken_back_with_it() {
    for minor in [43, 45] {
        let cluster = Cluster::with(7, Faults::default());
        cluster.run(async {
            cluster.start();
            let (one, client) = mount(&cluster, "m0", minor, 1).await;
            let (other, _client) = mount(&cluster, "m1", minor, 2).await;
            let (root, far) = (one.root(), other.root());
            let at = |n: u32| Name::new(format!("f{n}").as_bytes()).expect("a name");
            let mut newest = 0;
            // Ahead of the box, and so with nothing but the root's lock.
            while client.counters().ahead == 0 {
                newest += 1;
                let made = one.create(&root, &at(newest), true).await;
                assert!(matches!(made, Ok(Created::New(..))));
            }
            let name = at(newest);
            let inode = one.walk(&root, &name).await.expect("answered");
            let inode = inode.expect("it was made");
            one.getattr(&inode).await.expect("answered");
            let found = other.walk(&far, &name).await.expect("answered");
            let found = found.expect("it was made");
            other.chmod(&found, 0o600).await.expect("changed");
            let attr = one.getattr(&inode).await.expect("answered");
            assert_eq!(attr.mode & 0o7777, 0o600, "minor {minor}");
            other.unlink(&far, &name).await.expect("removed");
            let gone = one.walk(&root, &name).await.expect("answered");
            assert!(gone.is_none(), "minor {minor}");
        });
    }
}

/// A client without a kernel, and the file `f` that it has made: one page of zeros.
async fn one_page(cluster: &Cluster) -> (Client<SimWorld>, Directory<SimWorld>, File) {
    let maker = cluster.client("maker").await.expect("the box is up").client;
    let root = maker.at_root(Context::of(0, 0));
    let file = root.create_file("f").await.expect("made");
    let bytes = Slice::from(vec![0; 4096]);
    root.write(file, 0, bytes).await.expect("written");
    (maker, root, file)
}

/// A fault fills a page while a write past it is under way, which the kernel
/// sent after it had dropped the page: what the READ brings is perhaps older
/// than the write, and must not stay. The READ may come before the mount has
/// looked at the WRITE that came just before it.
#[test]
fn a_page_that_is_filled_beside_a_write_is_not_kept() {
    filled_beside_writes(false);
}

/// The same where the READ brings a lock, since another had it before: that the
/// lock is held does not make its bytes newer than the write.
#[test]
fn nor_is_one_that_came_with_its_lock() {
    filled_beside_writes(true);
}

fn filled_beside_writes(is_taken: bool) {
    for seed in 0..20 {
        let cluster = Cluster::with(seed, Faults::default());
        cluster.run(async {
            cluster.start();
            let (_maker, root, file) = one_page(&cluster).await;
            let (linux, _client) = mount(&cluster, "m", 45, seed).await;
            let name = Name::new(b"f").expect("a name");
            let found = linux.walk(&linux.root(), &name).await.expect("answered");
            let inode = found.expect("there");
            let mapped = linux.open(&inode, libc::O_RDONLY).await.expect("open");
            linux.mmap(&mapped).await;
            let direct = linux.open(&inode, libc::O_RDWR).await.expect("open");
            for value in 1..40 {
                if is_taken {
                    let bytes = Slice::from(vec![1; 8]);
                    root.write(file, 8, bytes).await.expect("written");
                } else {
                    linux.load(&mapped, 0).await.expect("loaded");
                }
                let written = Promise::default();
                let (writer, to, done) = (linux.clone(), direct.clone(), written.clone());
                linux.world.spawn(async move {
                    done.set(writer.write(&to, 0, value).await);
                });
                // The WRITE goes out, and the mount has not run yet.
                linux.world.yield_now().await;
                let meanwhile = linux.load(&mapped, 0).await.expect("loaded");
                assert!([value - 1, value].contains(&meanwhile), "seed {seed}");
                written.get().await.expect("written");
                let after = linux.load(&mapped, 0).await;
                assert_eq!(after, Ok(value), "seed {seed}");
            }
        });
    }
}

/// Two machines store to one page through mappings, each as often as it can:
/// the lock goes to and fro, and whoever has it gets something done. A callback
/// comes with each grant, since the other waits already.
#[test]
fn two_that_store_to_one_page_both_come_to_an_end() {
    const EACH: u64 = 100;
    const LOOK: Duration = Duration::from_millis(2);
    let mut sent = 0;
    for seed in 0..20 {
        let cluster = Cluster::with(seed, Faults::default());
        cluster.run(async {
            cluster.start();
            let (maker, root, file) = one_page(&cluster).await;
            root.close(file).await.expect("closed");
            maker.close().await;
            let name = Name::new(b"f").expect("a name");
            let mut ends = Vec::new();
            let mut clients = Vec::new();
            for machine in 0..2 {
                let own = format!("m{machine}");
                let (linux, client) = mount(&cluster, &own, 45, seed + machine).await;
                let found = linux.walk(&linux.root(), &name).await.expect("answered");
                let inode = found.expect("there");
                let file = linux.open(&inode, libc::O_RDWR).await.expect("open");
                linux.mmap(&file).await;
                clients.push((client, linux.clone()));
                let end = Promise::default();
                ends.push(end.clone());
                let world = linux.world.clone();
                world.spawn(async move {
                    for value in 1..=EACH {
                        let at = machine * 8;
                        linux.store(&file, at, value).await.expect("stored");
                        let seen = linux.load(&file, at).await;
                        assert_eq!(seen, Ok(value), "seed {seed}");
                        linux.load(&file, 8 - at).await.expect("loaded");
                        let pause = linux.below(LOOK.as_nanos() as u64);
                        linux.world.sleep(Duration::from_nanos(pause)).await;
                    }
                    end.set(());
                });
            }
            for end in ends {
                end.get().await;
            }
            for (client, _) in &clients {
                sent += client.counters().sent;
            }
        });
    }
    // 4,800; without pins 6,700. Where a READ takes the box longer than a callback
    // takes to come, there would be no end to them.
    assert!(sent < 5_500, "{sent} requests");
}
