//! Names: dentries with timeouts and epochs, and the directory's semaphore
//! around all that looks up or changes them (`fuse_lookup`,
//! `fuse_dentry_revalidate`, `fuse_create_open`).

use crate::inode::{Dentry, Inode};
use crate::linux::{Linux, MINOR_EPOCHS, decode, valid_for};
use crate::locks::Down;
use forebay::base::{Errno, Mono, Name};
use forebay::fuse::abi::input::CreateIn;
use forebay::fuse::abi::output::{EntryOut, OpenOut};
use forebay::fuse::abi::parse::{LookupName, Op};
use std::cell::Cell;
use std::rc::Rc;

impl Linux {
    /// What `name` leads to, for a path walk.
    pub async fn walk(&self, dir: &Rc<Inode>, name: &Name) -> Result<Option<Rc<Inode>>, Errno> {
        // Searching a directory needs its attributes (`default_permissions`).
        self.getattr(dir).await?;
        loop {
            if let Some(dentry) = self.valid(dir, name).await? {
                return Ok(dentry.target.clone());
            }
            let down = self.down(dir, name, false).await;
            let asked = self.look_up(dir, name).await;
            drop(down);
            if let Some(dentry) = asked? {
                return Ok(dentry.target.clone());
            }
        }
    }

    /// The same with the directory's semaphore held.
    async fn walk_locked(&self, dir: &Rc<Inode>, name: &Name) -> Result<Rc<Dentry>, Errno> {
        loop {
            if let Some(dentry) = self.valid(dir, name).await? {
                return Ok(dentry);
            }
            if let Some(dentry) = self.look_up(dir, name).await? {
                return Ok(dentry);
            }
        }
    }

    async fn down(&self, dir: &Rc<Inode>, name: &Name, is_writer: bool) -> Down {
        let node = dir.nodeid;
        let _wait = self.waits(|| format!("directory {node}, for {name}, writer: {is_writer}"));
        match is_writer {
            true => dir.sem.down_write().await,
            false => dir.sem.down_read().await,
        }
    }

    /// The cached dentry, if it is valid or was found to be; needs no lock.
    async fn valid(&self, dir: &Rc<Inode>, name: &Name) -> Result<Option<Rc<Dentry>>, Errno> {
        let cached = dir.names.borrow().get(name).cloned();
        let Some(dentry) = cached else {
            return Ok(None);
        };
        if self.revalidate(dir, name, &dentry).await? {
            return Ok(Some(dentry));
        }
        self.unhash(dir, name, &dentry);
        Ok(None)
    }

    async fn revalidate(
        &self,
        dir: &Rc<Inode>,
        name: &Name,
        dentry: &Dentry,
    ) -> Result<bool, Errno> {
        if dentry.epoch < self.epoch.get() {
            return Ok(false);
        }
        if dentry.until.get() > self.now() {
            self.counts.hits.set(self.counts.hits.get() + 1);
            return Ok(true);
        }
        let Some(inode) = &dentry.target else {
            return Ok(false);
        };
        let version = self.attr_version.get();
        // Until what is answered is done, which no lock covers.
        let thread = self.thread();
        let answer = self.ask_as(&thread, dir.nodeid, lookup(name), None).await;
        let out: EntryOut = match answer {
            Ok(answer) => decode(&answer).0,
            Err(Errno::EINTR) => return Err(Errno::EINTR),
            Err(_) => return Ok(false),
        };
        if out.nodeid != inode.nodeid {
            if out.nodeid != 0 {
                self.forget(out.nodeid, 1);
            }
            return Ok(false);
        }
        inode.lookups.set(inode.lookups.get() + 1);
        let valid = valid_for(out.attr_valid, out.attr_valid_nsec);
        self.change_attrs(inode, &out.attr, valid, version).await;
        dentry.until.set(self.entry_end(&out));
        Ok(true)
    }

    pub fn entry_end(&self, out: &EntryOut) -> Mono {
        self.now() + valid_for(out.entry_valid, out.entry_valid_nsec)
    }

    pub fn unhash(&self, dir: &Inode, name: &Name, dentry: &Rc<Dentry>) {
        let mut names = dir.names.borrow_mut();
        if names.get(name).is_some_and(|d| Rc::ptr_eq(d, dentry)) {
            names.remove(name);
        }
    }

    /// Asks for a name that has no dentry; `None`: there is one by now.
    async fn look_up(&self, dir: &Rc<Inode>, name: &Name) -> Result<Option<Rc<Dentry>>, Errno> {
        if dir.names.borrow().contains_key(name) {
            return Ok(None);
        }
        if !dir.in_lookup.borrow_mut().insert(name.clone()) {
            let _wait = self.waits(|| format!("another look-up of {name}"));
            while dir.in_lookup.borrow().contains(name) {
                dir.looked_up.wait().await;
            }
            return Ok(None);
        }
        let found = self.look_up_alone(dir, name).await;
        dir.in_lookup.borrow_mut().remove(name);
        dir.looked_up.notify();
        found.map(Some)
    }

    async fn look_up_alone(&self, dir: &Rc<Inode>, name: &Name) -> Result<Rc<Dentry>, Errno> {
        let (epoch, version) = (self.epoch.get(), self.attr_version.get());
        let absent = |until| {
            Rc::new(Dentry {
                target: None,
                until: Cell::new(until),
                epoch,
            })
        };
        let out: EntryOut = match self.ask(dir.nodeid, lookup(name)).await {
            Ok(answer) => decode(&answer).0,
            Err(Errno::ENOENT) => return Ok(absent(Mono(0))),
            Err(e) => return Err(e),
        };
        let dentry = match out.nodeid {
            0 => absent(self.entry_end(&out)),
            _ => Rc::new(Dentry {
                target: Some(self.iget(&out, version).await),
                until: Cell::new(self.entry_end(&out)),
                epoch,
            }),
        };
        self.hash(dir, name, &dentry);
        Ok(dentry)
    }

    pub fn hash(&self, dir: &Inode, name: &Name, dentry: &Rc<Dentry>) {
        let (node, until) = (dir.nodeid, dentry.until.get());
        self.say(|| format!("{name} of node {node} is believed until {until:?}"));
        dir.names
            .borrow_mut()
            .insert(name.clone(), Rc::clone(dentry));
    }

    /// `open(O_CREAT | O_RDWR)`, which opens what is there unless `is_exclusive`.
    /// `Err(EEXIST)` then; the file and what its open was told, else.
    pub async fn create(
        &self,
        dir: &Rc<Inode>,
        name: &Name,
        is_exclusive: bool,
    ) -> Result<Created, Errno> {
        self.getattr(dir).await?;
        let _down = self.down(dir, name, true).await;
        if let Some(found) = &self.walk_locked(dir, name).await?.target {
            return match is_exclusive {
                true => Err(Errno::EEXIST),
                false => Ok(Created::There(Rc::clone(found))),
            };
        }
        let epoch = self.epoch.get();
        let excl = if is_exclusive { libc::O_EXCL } else { 0 };
        let args = CreateIn {
            flags: (libc::O_RDWR | libc::O_CREAT | excl).cast_unsigned(),
            mode: libc::S_IFREG | 0o644,
            umask: 0,
            open_flags: 0,
        };
        let op = Op::Create {
            name: name.clone(),
            args,
        };
        let answer = self.ask(dir.nodeid, op).await?;
        let (out, rest): (EntryOut, &[u8]) = decode(&answer);
        let (opened, _): (OpenOut, &[u8]) = decode(rest);
        let inode = self.iget(&out, 0).await;
        let dentry = Rc::new(Dentry {
            target: Some(Rc::clone(&inode)),
            until: Cell::new(self.entry_end(&out)),
            epoch,
        });
        self.hash(dir, name, &dentry);
        self.dir_changed(dir);
        Ok(Created::New(inode, opened))
    }

    pub async fn unlink(&self, dir: &Rc<Inode>, name: &Name) -> Result<(), Errno> {
        self.getattr(dir).await?;
        let _down = self.down(dir, name, true).await;
        let dentry = self.walk_locked(dir, name).await?;
        let Some(inode) = &dentry.target else {
            return Err(Errno::ENOENT);
        };
        let _victim = self.down(inode, name, true).await;
        let done = self.ask(dir.nodeid, Op::Unlink(name.clone())).await;
        match done {
            Ok(_) => {
                self.dir_changed(dir);
                self.invalidate_attrs(inode);
                self.unhash(dir, name, &dentry);
                Ok(())
            }
            Err(e) => {
                if matches!(e, Errno::EINTR | Errno::ENOENT) {
                    self.unhash(dir, name, &dentry);
                }
                Err(e)
            }
        }
    }

    /// Both semaphores are held over it, in one order for all.
    pub async fn rename(
        &self,
        from: (&Rc<Inode>, &Name),
        to: (&Rc<Inode>, &Name),
    ) -> Result<(), Errno> {
        let mut dirs = [from, to];
        dirs.sort_by_key(|(dir, _)| dir.nodeid);
        let _first = self.down(dirs[0].0, dirs[0].1, true).await;
        let _second = match dirs[0].0.nodeid == dirs[1].0.nodeid {
            true => None,
            false => Some(self.down(dirs[1].0, dirs[1].1, true).await),
        };
        let old = self.walk_locked(from.0, from.1).await?;
        let Some(inode) = &old.target else {
            return Err(Errno::ENOENT);
        };
        let new = self.walk_locked(to.0, to.1).await?;
        let mut both: Vec<_> = [Some(inode), new.target.as_ref()]
            .into_iter()
            .flatten()
            .collect();
        both.sort_by_key(|inode| inode.nodeid);
        both.dedup_by_key(|inode| inode.nodeid);
        let mut downs = Vec::new();
        for one in both {
            downs.push(self.down(one, from.1, true).await);
        }
        let op = Op::Rename {
            newdir: to.0.nodeid,
            flags: 0,
            from: from.1.clone(),
            to: to.1.clone(),
        };
        if let Err(e) = self.ask(from.0.nodeid, op).await {
            if matches!(e, Errno::EINTR | Errno::ENOENT) {
                self.unhash(from.0, from.1, &old);
                self.unhash(to.0, to.1, &new);
            }
            return Err(e);
        }
        self.invalidate_attrs(inode);
        self.dir_changed(from.0);
        self.dir_changed(to.0);
        if let Some(replaced) = &new.target {
            self.invalidate_attrs(replaced);
        }
        self.unhash(from.0, from.1, &old);
        self.hash(to.0, to.1, &old);
        Ok(())
    }

    /// `fuse_reverse_inval_entry`.
    pub async fn invalidate_entry(
        &self,
        parent: u64,
        name: &Name,
        expires: bool,
    ) -> Result<(), Errno> {
        let dir = self.find(parent).ok_or(Errno::ENOENT)?;
        dir.to_drop.borrow_mut().push(name.clone());
        let _down = self.down(&dir, name, true).await;
        let at = dir.to_drop.borrow().iter().position(|n| n == name);
        dir.to_drop
            .borrow_mut()
            .swap_remove(at.expect("as it was put"));
        let dentry = dir.names.borrow().get(name).cloned();
        let dentry = dentry.ok_or(Errno::ENOENT)?;
        self.dir_changed(&dir);
        dentry.until.set(Mono(0));
        if !expires {
            self.unhash(&dir, name, &dentry);
        }
        Ok(())
    }

    /// The mount was stopped for so long that others may have changed the name;
    /// it goes on, and has said that the name is not to be believed. A kernel
    /// without epochs makes that wait for the directory's semaphore, which a task
    /// may hold that was answered and does not get to run: no mount can help it.
    pub fn is_dropped_late(&self, dir: &Inode, name: &Name) -> bool {
        let is_waiting = dir.to_drop.borrow().contains(name);
        let goes_on = self.stopped.since.get().is_none();
        is_waiting && goes_on && self.minor < MINOR_EPOCHS && self.is_out_of_date()
    }

    fn dir_changed(&self, dir: &Inode) {
        dir.changes.set(dir.changes.get() + 1);
        self.invalidate_attrs(dir);
    }
}

/// What came of an open that may create.
pub enum Created {
    /// To be opened.
    There(Rc<Inode>),
    New(Rc<Inode>, OpenOut),
}

fn lookup(name: &Name) -> Op {
    Op::Lookup(LookupName::Child(name.clone()))
}
