//! Applications: what each does, and what it writes down of it.

use crate::files::File;
use crate::inode::{Inode, PAGE};
use crate::linux::Linux;
use crate::names::Created;
use crate::run::{Object, Run, is_trouble};
use forebay::base::{Errno, Mono, Name};
use forebay::client::Client;
use forebay::fuse::abi::output::FuseAttr;
use forebay::sim::SimWorld;
use forebay::sim::history::{Deed, Record};
use forebay::world::World;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

/// What an application does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Looks only, at what is cached, also when its machine is cut off.
    Looks,
    /// Makes, moves and removes names; changes attributes.
    Names,
    /// Writes through a direct file, or stores through a mapping.
    Bytes,
    /// Cuts and grows a file that it has mapped.
    Sizes,
    /// Makes and removes names in its machine's own directory, where others look
    /// seldom: most of that is answered ahead of the box.
    Own,
    /// Makes a file longer, or looks how long it is, through a mapping.
    Grows,
}

impl Role {
    pub const ALL: [Role; 7] = [
        Role::Looks,
        Role::Looks,
        Role::Names,
        Role::Bytes,
        Role::Sizes,
        Role::Own,
        Role::Grows,
    ];
}

/// The directory and the files that all share.
#[derive(Clone)]
pub struct Place {
    root: Rc<Inode>,
}

impl Place {
    pub const DIR: &str = "d";
    pub const FILES: u8 = 3;
    pub const BYTES: u64 = 3 * PAGE;
    /// Names in the directory.
    pub const NAMES: u8 = 3;
    /// The file whose size changes, never below its first page.
    pub const SIZED: u8 = 2;
    /// The file that grows, beside those.
    pub const GROWING: u8 = 3;

    /// The directory of a machine.
    pub fn own(machine: u8) -> String {
        format!("o{machine}")
    }

    pub fn file(n: u8) -> String {
        format!("f{n}")
    }

    pub async fn find(linux: &Linux) -> Result<Place, Errno> {
        let root = linux.root();
        linux.getattr(&root).await?;
        Ok(Place { root })
    }
}

/// One application on one machine.
pub struct Worker {
    pub machine: usize,
    pub role: Role,
    pub linux: Linux,
    client: Client<SimWorld>,
    pub run: Rc<Run>,
    place: Place,
    rng: RefCell<fastrand::Rng>,
    pub open: RefCell<Option<Open>>,
    pub growing: RefCell<Option<(Rc<File>, Mono)>>,
    spare: Cell<u32>,
}

/// A file that it has open.
#[derive(Clone)]
pub struct Open {
    pub n: u8,
    pub file: Rc<File>,
    pub is_mapped: bool,
}

/// Why an application stops working: what should not have happened.
pub type Failure = String;
pub type Done = Result<(), Failure>;
/// What an answer says of an object; an error if it should not have come.
type Seen = Result<Option<Deed>, Errno>;

impl Worker {
    pub fn new(
        machine: usize,
        role: Role,
        (linux, client): &(Linux, Client<SimWorld>),
        run: &Rc<Run>,
        place: &Place,
        rng: fastrand::Rng,
    ) -> Worker {
        Worker {
            machine,
            role,
            linux: linux.clone(),
            client: client.clone(),
            run: Rc::clone(run),
            place: place.clone(),
            rng: RefCell::new(rng),
            open: RefCell::default(),
            growing: RefCell::default(),
            spare: Cell::new(0),
        }
    }

    pub async fn work(self, deeds: usize) {
        // Whose pauses are long.
        let deeds = match self.role {
            Role::Grows => deeds / 3,
            _ => deeds,
        };
        for _ in 0..deeds {
            self.linux.world.sleep(self.pause()).await;
            if let Err(why) = self.deed().await {
                let line = format!("{} {:?}: {why}", self.linux.mount, self.role);
                *self.run.failed.borrow_mut() = Some(line);
                break;
            }
        }
        self.put_away().await;
        self.put_growing_away().await;
        self.note_lost();
        self.run.working.set(self.run.working.get() - 1);
    }

    /// Mostly short; at times as long as what is kept may be believed.
    fn pause(&self) -> Duration {
        if self.role == Role::Grows {
            return self.growth_pause();
        }
        let longest = [1, 1, 10, 100, 2000][self.below(5) as usize];
        Duration::from_micros(self.below(longest * 1000))
    }

    pub fn below(&self, bound: u64) -> u64 {
        self.rng.borrow_mut().u64(0..bound)
    }

    async fn deed(&self) -> Done {
        match (self.role, self.below(8)) {
            (Role::Looks, 0..3) => self.look_up().await,
            (Role::Looks, 3) => {
                self.list().await?;
                self.list().await
            }
            (Role::Looks, 4..6) => self.look_at().await,
            (Role::Looks, _) => self.read().await,
            (Role::Names, 0..2) => self.put().await,
            (Role::Names, 2..4) => self.unlink().await,
            (Role::Names, 4) => self.create().await,
            (Role::Names, 5) => self.look_up().await,
            (Role::Names, _) => self.chmod().await,
            (Role::Bytes, 0..4) => self.write().await,
            (Role::Bytes, 4) => self.sync().await,
            (Role::Bytes, _) => self.read().await,
            (Role::Sizes, 0..3) => self.truncate().await,
            (Role::Sizes, 3..6) => self.write().await,
            (Role::Sizes, _) => self.look_at().await,
            (Role::Own, 0..3) => self.create().await,
            (Role::Own, 3..6) => self.unlink().await,
            (Role::Own, _) => self.look_up().await,
            (Role::Grows, _) if self.is_growing() => self.grow().await,
            (Role::Grows, _) => self.watch_growth().await,
        }
    }

    /// Does it, and notes what it did and when. `maybe`: what is noted if it
    /// failed, and may have happened all the same.
    pub async fn note<T>(
        &self,
        object: Object,
        maybe: Option<Deed>,
        doing: impl Future<Output = Result<T, Errno>>,
        as_seen: impl FnOnce(Result<T, Errno>) -> Seen,
    ) -> Done {
        self.note_lost();
        let what = format!("{object:?} by {:?} of {}", self.role, self.linux.mount);
        let called = self.run.begin(self.linux.now(), what.clone());
        let seen = doing.await;
        let returned = self.run.end(self.linux.now(), called);
        if maybe.is_some() {
            self.run.changes(object, self.machine, called, returned);
        }
        let (deed, returned) = match seen {
            Err(errno) if is_trouble(self.run.plan, errno) => (maybe, u64::MAX),
            seen => match as_seen(seen) {
                Ok(deed) => (deed, returned),
                Err(errno) => return Err(format!("{what}: {errno}")),
            },
        };
        if let Some(deed) = deed {
            let record = Record {
                client: self.machine,
                called,
                returned,
                deed,
            };
            self.linux.say(|| format!("{object:?} {record:?}"));
            self.run.note(object, record);
        }
        Ok(())
    }

    /// What the machine's client has lost by an eviction is told.
    fn note_lost(&self) {
        let mut losses = self.run.losses.borrow_mut();
        losses.note(&self.run, self.machine, &self.client);
    }

    async fn dir(&self, object: Object) -> Result<Rc<Inode>, Errno> {
        let dir = match object {
            Object::Own(machine, _) => Place::own(machine),
            _ => Place::DIR.to_owned(),
        };
        let found = self.linux.walk(&self.place.root, &name(&dir)).await?;
        found.ok_or(Errno::ENOENT)
    }

    pub async fn inode(&self, n: u8) -> Result<Rc<Inode>, Errno> {
        let name = name(&Place::file(n));
        let found = self.linux.walk(&self.place.root, &name).await?;
        found.ok_or(Errno::ENOENT)
    }

    pub fn shared_name(n: u8) -> String {
        format!("n{n}")
    }

    fn one_name(&self) -> (Object, Name) {
        let n = self.below(u64::from(Place::NAMES)) as u8;
        let object = match self.role {
            Role::Own => Object::Own(self.machine as u8, n),
            _ => Object::Name(n),
        };
        (object, name(&Worker::shared_name(n)))
    }

    /// One to look at, now and then in the directory of another machine.
    fn name_to_see(&self) -> (Object, Name) {
        let (object, name) = self.one_name();
        match object {
            Object::Own(_, n) if self.below(8) == 0 => {
                let machine = self.below(self.run.plan.mounts as u64) as u8;
                (Object::Own(machine, n), name)
            }
            _ => (object, name),
        }
    }

    async fn look_up(&self) -> Done {
        let (object, name) = self.name_to_see();
        let found = async {
            let dir = self.dir(object).await?;
            let found = self.linux.walk(&dir, &name).await?;
            let is_late = self.linux.is_dropped_late(&dir, &name);
            Ok((!is_late).then(|| found.map_or(0, |inode| inode.ino)))
        };
        self.note(object, None, found, |seen| Ok(seen?.map(Deed::Read)))
            .await
    }

    /// Each name is in one part of a listing, and so as it was at one instant
    /// since the directory was opened.
    async fn list(&self) -> Done {
        self.note_lost();
        let what = format!("a listing by {}", self.linux.mount);
        let called = self.run.begin(self.linux.now(), what.clone());
        let listed = async { self.linux.readdir(&self.dir(Object::Name(0)).await?).await };
        let listed = listed.await;
        let returned = self.run.end(self.linux.now(), called);
        let listed = match listed {
            Ok(listed) => listed,
            Err(errno) if is_trouble(self.run.plan, errno) => return Ok(()),
            Err(errno) => return Err(format!("{what}: {errno}")),
        };
        for n in 0..Place::NAMES {
            let name = Worker::shared_name(n);
            let found = listed.iter().find(|(other, _)| *other == name.as_bytes());
            let record = Record {
                client: self.machine,
                called,
                returned,
                deed: Deed::Read(found.map_or(0, |(_, ino)| *ino)),
            };
            self.linux.say(|| format!("{name} listed: {record:?}"));
            self.run.note(Object::Name(n), record);
        }
        Ok(())
    }

    /// A file of its own, moved over the shared name.
    async fn put(&self) -> Done {
        self.spare.set(self.spare.get() + 1);
        let spare = format!("s{}-{}", self.machine, self.spare.get());
        let spare = name(&spare);
        let (root, linux) = (&self.place.root, &self.linux);
        let made = linux.create(root, &spare, true).await;
        let (inode, opened) = match made {
            Ok(Created::New(inode, opened)) => (inode, opened),
            Ok(Created::There(_)) => return Err("a spare name was there".into()),
            Err(e) if is_trouble(self.run.plan, e) => return Ok(()),
            // Asked again after an answer was lost: made, and not by another.
            Err(e) => return Err(format!("a spare file: {e}")),
        };
        let file = linux.opened(&inode, libc::O_RDWR, opened).await;
        let _ = linux.close(file).await;
        let (object, to) = self.one_name();
        let ino = inode.ino;
        let moving = async {
            let dir = self.dir(object).await?;
            linux.rename((root, &spare), (&dir, &to)).await
        };
        let maybe = Some(Deed::MaybeWrite(ino));
        let plan = self.run.plan;
        self.note(object, maybe, moving, |seen| match seen {
            Ok(()) => Ok(Some(Deed::Write(ino))),
            // An eviction took the file with it.
            Err(Errno::ENOENT) if !plan.is_calm() => Ok(Some(Deed::MaybeWrite(ino))),
            Err(e) => Err(e),
        })
        .await
    }

    async fn unlink(&self) -> Done {
        let (object, name) = self.one_name();
        let unlink = async { self.linux.unlink(&self.dir(object).await?, &name).await };
        self.note(object, Some(Deed::MaybeRemove), unlink, |seen| match seen {
            Ok(()) => Ok(Some(Deed::Removed)),
            Err(Errno::ENOENT) => Ok(Some(Deed::Missing)),
            Err(e) => Err(e),
        })
        .await
    }

    /// A file made under the shared name itself.
    async fn create(&self) -> Done {
        let (object, name) = self.one_name();
        let is_exclusive = self.below(2) == 0;
        let linux = &self.linux;
        let made = async {
            let dir = self.dir(object).await?;
            match linux.create(&dir, &name, is_exclusive).await? {
                Created::There(inode) => Ok((inode.ino, false)),
                Created::New(inode, opened) => {
                    let file = linux.opened(&inode, libc::O_RDWR, opened).await;
                    let _ = linux.close(file).await;
                    Ok((inode.ino, is_exclusive))
                }
            }
        };
        let called = self.run.tick();
        let has_ended = Cell::new(false);
        let noted = self.note(object, None, made, |seen| {
            has_ended.set(true);
            match seen {
                Ok((ino, true)) => Ok(Some(Deed::Added(0, ino))),
                Ok((ino, false)) => Ok(Some(Deed::Ensured(ino))),
                Err(Errno::EEXIST) => Ok(None),
                Err(e) => Err(e),
            }
        });
        noted.await?;
        let ended = self.run.tick();
        self.run.changes(object, self.machine, called, ended);
        // What was made by a call that failed has no number here.
        if !has_ended.get() {
            self.run.cut(object, called);
        }
        Ok(())
    }

    /// Attributes of one file, as `stat` shows them.
    async fn look_at(&self) -> Done {
        let n = self.below(u64::from(Place::FILES)) as u8;
        let stat = async {
            let inode = self.inode(n).await?;
            self.linux.getattr(&inode).await
        };
        if n == Place::SIZED && self.below(2) == 0 {
            let size = |seen: Result<FuseAttr, Errno>| Ok(Some(Deed::Read(seen?.size)));
            return self.note(Object::Size(n), None, stat, size).await;
        }
        let mode = |seen: Result<FuseAttr, Errno>| {
            let mode = seen?.mode & 0o7777;
            Ok(Some(Deed::Read(u64::from(mode))))
        };
        self.note(Object::Mode(n), None, stat, mode).await
    }

    async fn chmod(&self) -> Done {
        let n = self.below(u64::from(Place::FILES)) as u8;
        let mode = 1 + self.below(0o776) as u32;
        let changed = async {
            let inode = self.inode(n).await?;
            self.linux.chmod(&inode, mode).await
        };
        let maybe = Some(Deed::MaybeWrite(u64::from(mode)));
        self.note(Object::Mode(n), maybe, changed, |seen| {
            seen.map(|()| Some(Deed::Write(u64::from(mode))))
        })
        .await
    }

    async fn truncate(&self) -> Done {
        let n = Place::SIZED;
        let size = PAGE + self.below(Place::BYTES - PAGE);
        let changed = async {
            let inode = self.inode(n).await?;
            self.linux.truncate(&inode, size).await
        };
        let maybe = Some(Deed::MaybeWrite(size));
        self.note(Object::Size(n), maybe, changed, |seen| match seen {
            Ok(()) => Ok(Some(Deed::Write(size))),
            // Of two size changes that crossed, one is refused (C16).
            Err(Errno::EDEADLK) => Ok(None),
            Err(e) => Err(e),
        })
        .await
    }
}

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).expect("a name")
}
