//! A mount in the simulated world: the session as it is, over the client as it
//! is, with the model where the device would be.

use crate::linux::Linux;
use forebay::base::Errno;
use forebay::client::{Client, Options};
use forebay::fuse::abi::notify::Notice;
use forebay::fuse::session::Session;
use forebay::sim::cluster::BOX;
use forebay::sim::{Cluster, SimWorld};
use forebay::world::World;
use std::rc::Rc;
use std::time::Duration;

/// The session of one mount, whose process runs on a node of its own.
type Mount = Rc<Session<SimWorld, Client<SimWorld>, Linux>>;

/// Mounts the cluster's target on a machine called `name`.
pub async fn mount(
    cluster: &Cluster,
    name: &str,
    minor: u32,
    seed: u64,
) -> (Linux, Client<SimWorld>) {
    let linux = Linux::new(&cluster.sim, name, minor, seed);
    let world = cluster.sim.world(name);
    let options = Options {
        name: name.to_owned(),
        first_connect: Duration::from_secs(120),
        locks: true,
        callers_checked: true,
        // With few slots changes wait for each other, and go together.
        tags: [128, 16][usize::from(seed % 2 == 1)],
        ..Options::default()
    };
    let hosts = vec![format!("{BOX}:9880")];
    let connected = Client::connect(world.clone(), hosts, "main", options).await;
    let client = connected.expect("the box is up");
    let session = Session::new(world.clone(), client.clone(), linux.clone());
    world.spawn(take_requests(linux.clone(), Rc::clone(&session)));
    world.spawn(carry(linux.clone(), session));
    linux.init().await;
    linux.world.spawn(age(linux.clone()));
    (linux, client)
}

async fn take_requests(linux: Linux, session: Mount) {
    while let Some(message) = linux.requests.pop().await {
        session.on_message(message);
    }
}

/// Each notice waits in a context of its own, which is the kernel's.
async fn carry(linux: Linux, session: Mount) {
    while let Some(letter) = session.next_notice().await {
        let world = linux.world.clone();
        let linux = linux.clone();
        world.spawn(async move {
            let (now, most) = linux.contexts.get();
            linux.contexts.set((now + 1, most.max(now + 1)));
            let result = linux.notify(&letter.notice).await;
            linux.say(|| format!("has taken in {:?}: {result:?}", letter.notice));
            let (now, most) = linux.contexts.get();
            linux.contexts.set((now - 1, most));
            letter.end(result);
        });
    }
}

/// Memory is short now and then, and dirty pages are written when they are old.
async fn age(linux: Linux) {
    loop {
        let for_ = Duration::from_millis(50 + linux.below(2000));
        linux.world.sleep(for_).await;
        linux.reclaim();
        if linux.chance(3) {
            let all: Vec<_> = linux.nodes.borrow().values().cloned().collect();
            for inode in all.iter().filter(|inode| !inode.is_dir) {
                linux.write_and_wait(inode, 0, u64::MAX).await;
            }
        }
    }
}

impl Linux {
    /// What a write of this notice to the device does, and waits for.
    async fn notify(&self, notice: &Notice) -> Result<(), Errno> {
        self.counts.notices.set(self.counts.notices.get() + 1);
        let _wait = self.waits(|| format!("the end of {notice:?}"));
        self.say(|| format!("told {notice:?}"));
        match notice {
            Notice::Pages {
                nodeid,
                offset,
                len,
            } => {
                let inode = self.find(*nodeid).ok_or(Errno::ENOENT)?;
                self.invalidate_attrs(&inode);
                if inode.is_dir {
                    inode.collected.borrow_mut().drop_pages();
                }
                let last = match *len {
                    0 => u64::MAX,
                    len => (offset + len - 1).cast_unsigned() >> 12,
                };
                let first = offset.cast_unsigned() >> 12;
                self.invalidate_pages(&inode, first, last).await;
                Ok(())
            }
            Notice::Entry {
                parent,
                name,
                expires,
            } => self.invalidate_entry(*parent, name, *expires).await,
            Notice::Store {
                nodeid,
                offset,
                byte,
            } => self.store_byte(*nodeid, *offset, *byte).await,
            Notice::Attributes { .. } | Notice::Epoch => panic!("{notice:?} goes by itself"),
        }
    }
}
