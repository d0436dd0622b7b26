//! Directories that processes are in: they keep their place when the directory's
//! name is taken back, and see at once where it leads then.

use crate::inode::Inode;
use crate::linux::Linux;
use crate::mounts::mount;
use forebay::base::{Errno, Name};
use forebay::client::{Client, Context, Directory};
use forebay::sim::cluster::Cluster;
use forebay::sim::{Faults, SimWorld};
use forebay::world::World;
use std::rc::Rc;
use std::time::Duration;

struct Scene {
    linux: Linux,
    client: Client<SimWorld>,
    /// A client without a kernel.
    other: Client<SimWorld>,
    root: Directory<SimWorld>,
}

impl Scene {
    async fn start(cluster: &Cluster, minor: u32, seed: u64) -> Scene {
        cluster.start();
        let other = cluster.client("other").await.expect("the box is up").client;
        let root = other.at_root(Context::of(0, 0));
        root.directory("d").await.expect("made");
        let (linux, client) = mount(cluster, "m", minor, seed).await;
        Scene {
            linux,
            client,
            other,
            root,
        }
    }

    async fn find(&self, name: &str) -> Result<Option<Rc<Inode>>, Errno> {
        self.linux.walk(&self.linux.root(), &at(name)).await
    }

    /// Is the name known in the machine's cache, so that whoever is there can
    /// tell where it is?
    fn is_in_place(&self, dir: &Rc<Inode>, name: &str) -> bool {
        let names = &self.linux.root().names;
        let names = names.borrow();
        let target = names.get(&at(name)).and_then(|d| d.target.as_ref());
        target.is_some_and(|target| Rc::ptr_eq(target, dir))
    }

    /// Processes that look `name` up.
    fn walk_about(&self, name: &'static str) {
        for _ in 0..8 {
            let linux = self.linux.clone();
            self.linux.world.spawn(async move {
                let pause = Duration::from_micros(linux.below(1000));
                linux.world.sleep(pause).await;
                let _ = linux.walk(&linux.root(), &at(name)).await;
            });
        }
    }

    async fn end(self) {
        self.client.close().await;
        self.other.close().await;
    }
}

fn at(name: &str) -> Name {
    Name::new(name.as_bytes()).expect("a name")
}

const MINORS: [u32; 2] = [43, 45];

/// The kernel believes names for so long.
const BELIEVED: Duration = Duration::from_secs(5);
/// Longer than a directory that was changed by another is not given away.
const COOL: Duration = Duration::from_secs(3);

/// Another client moves the directory away and back: nobody here has looked at
/// it meanwhile, and who is in it can still tell where.
#[test]
fn a_directory_that_is_called_back_keeps_who_is_in_it() {
    for (seed, minor) in (0..10).flat_map(|seed| MINORS.map(|minor| (seed, minor))) {
        let cluster = Cluster::with(seed, Faults::default());
        cluster.run(async {
            let scene = Scene::start(&cluster, minor, seed).await;
            let dir = scene.find("d").await.expect("answered").expect("there");
            for _ in 0..5 {
                let notices = scene.linux.counts.notices.get();
                scene
                    .root
                    .rename("d", &scene.root, "e")
                    .await
                    .expect("moved");
                assert!(scene.linux.counts.notices.get() > notices, "called back");
                scene
                    .root
                    .rename("e", &scene.root, "d")
                    .await
                    .expect("moved");
                assert!(scene.is_in_place(&dir, "d"), "seed {seed}, minor {minor}");
                scene.linux.world.sleep(COOL).await;
                let found = scene.find("d").await.expect("answered");
                assert!(found.is_some_and(|found| Rc::ptr_eq(&found, &dir)));
            }
            scene.end().await;
        });
    }
}

/// It is moved away just when the kernel has asked for it anew, and takes in
/// the answers whenever those who asked get to run: what another has done is
/// seen.
#[test]
fn a_directory_that_is_moved_by_another_is_not_found_where_it_was() {
    for (seed, minor) in (0..20).flat_map(|seed| MINORS.map(|minor| (seed, minor))) {
        let cluster = Cluster::with(seed, Faults::default());
        cluster.run(async {
            let scene = Scene::start(&cluster, minor, seed).await;
            let sleep = |for_| scene.linux.world.sleep(for_);
            for _ in 0..10 {
                let _dir = scene.find("d").await.expect("answered").expect("there");
                sleep(BELIEVED).await;
                scene.walk_about("d");
                sleep(Duration::from_micros(scene.linux.below(2000))).await;
                scene
                    .root
                    .rename("d", &scene.root, "e")
                    .await
                    .expect("moved");
                let found = scene.find("d").await.expect("answered");
                assert!(found.is_none(), "seed {seed}, minor {minor}");
                scene
                    .root
                    .rename("e", &scene.root, "d")
                    .await
                    .expect("moved");
                sleep(COOL).await;
            }
            scene.end().await;
        });
    }
}
