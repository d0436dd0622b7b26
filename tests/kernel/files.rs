//! Open files and mappings: the system calls that read and change bytes.

use crate::inode::{Folio, Inode, PAGE};
use crate::linux::{Linux, decode};
use forebay::base::{Errno, SetAttr, Slice};
use forebay::fuse::abi::flag::{fopen, read, write};
use forebay::fuse::abi::input::{FlushIn, FsyncIn, OpenIn, ReadIn, ReleaseIn, WriteIn};
use forebay::fuse::abi::output::{OpenOut, WriteOut};
use forebay::fuse::abi::parse::Op;
use std::rc::Rc;

/// `struct file`: released when the last descriptor, mapping and request has
/// let go of it.
pub struct File {
    linux: Linux,
    pub inode: Rc<Inode>,
    pub fh: u64,
    pub flags: u32,
    is_direct: bool,
}

impl Drop for File {
    fn drop(&mut self) {
        self.inode.writers.borrow_mut().retain(|fh| *fh != self.fh);
        if !self.is_direct {
            self.inode.cached.set(self.inode.cached.get() - 1);
            self.inode.mode_changed.notify();
        }
        let args = ReleaseIn {
            fh: self.fh,
            flags: self.flags,
            release_flags: 0,
            lock_owner: 0,
        };
        let nodeid = self.inode.nodeid;
        self.linux.send(nodeid, Op::Release(args), None, |_| {});
    }
}

impl Linux {
    pub async fn open(&self, inode: &Rc<Inode>, flags: i32) -> Result<Rc<File>, Errno> {
        let args = OpenIn {
            flags: flags.cast_unsigned(),
            open_flags: 0,
        };
        let answer = self.ask(inode.nodeid, Op::Open(args)).await?;
        let file = self.opened(inode, flags, decode(&answer).0).await;
        Ok(file)
    }

    /// `fuse_finish_open`: pages go, unless the mount says that they are good.
    pub async fn opened(&self, inode: &Rc<Inode>, flags: i32, out: OpenOut) -> Rc<File> {
        let is_direct = out.open_flags & fopen::DIRECT_IO != 0;
        if !is_direct {
            let _wait = self.waits(|| format!("direct writes of node {}", inode.nodeid));
            inode.cached.set(inode.cached.get() + 1);
            while inode.parallel.get() > 0 {
                inode.mode_changed.wait().await;
            }
        }
        if flags & libc::O_ACCMODE != libc::O_RDONLY {
            inode.writers.borrow_mut().push(out.fh);
        }
        let file = Rc::new(File {
            linux: self.clone(),
            inode: Rc::clone(inode),
            fh: out.fh,
            flags: flags.cast_unsigned(),
            is_direct,
        });
        if out.open_flags & fopen::KEEP_CACHE == 0 {
            self.invalidate_pages(inode, 0, u64::MAX).await;
        }
        file
    }

    /// `fuse_flush`; the file itself ends with its last user.
    pub async fn close(&self, file: Rc<File>) -> Result<(), Errno> {
        self.write_and_wait(&file.inode, 0, u64::MAX).await;
        let args = FlushIn {
            fh: file.fh,
            unused: 0,
            padding: 0,
            lock_owner: 0,
        };
        match self.ask(file.inode.nodeid, Op::Flush(args)).await {
            Err(Errno::ENOSYS) => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// `msync` and `fsync`.
    pub async fn sync(&self, file: &File) -> Result<(), Errno> {
        let inode = &file.inode;
        let wait = self.waits(|| format!("the semaphore of node {} to sync", inode.nodeid));
        let _down = inode.sem.down_write().await;
        drop(wait);
        self.write_and_wait(inode, 0, u64::MAX).await;
        self.set_nowrite(inode).await;
        self.release_nowrite(inode);
        let args = FsyncIn {
            fh: file.fh,
            fsync_flags: 0,
            padding: 0,
        };
        self.ask(inode.nodeid, Op::Fsync(args)).await.map(|_| ())
    }

    /// `pread` of the eight bytes at `at`; `None` at the end of the file.
    pub async fn read(&self, file: &Rc<File>, at: u64) -> Result<Option<u64>, Errno> {
        match file.is_direct {
            true => self.read_direct(file, at).await,
            false => self.read_cached(file, at).await,
        }
    }

    async fn read_cached(&self, file: &Rc<File>, at: u64) -> Result<Option<u64>, Errno> {
        let inode = &file.inode;
        if at + 8 > inode.size.get() {
            self.getattr(inode).await?;
        }
        let (index, within) = (at / PAGE, (at % PAGE) as usize);
        let mut has_failed = false;
        loop {
            if at + 8 > inode.size.get() {
                return Ok(None);
            }
            let Some(folio) = inode.page(index) else {
                self.read_ahead(file, index);
                continue;
            };
            if folio.is_uptodate.get() {
                self.counts.hits.set(self.counts.hits.get() + 1);
                return Ok(Some(folio.load(within)));
            }
            // A READ that failed is tried once more, by itself.
            self.lock(inode, &folio).await;
            let is_there = !folio.is_gone.get() && !folio.is_uptodate.get();
            if is_there && has_failed {
                let filled = self.fill_locked(file, &folio).await;
                folio.unlock();
                filled?;
                continue;
            }
            has_failed = is_there;
            folio.unlock();
        }
    }

    async fn read_direct(&self, file: &Rc<File>, at: u64) -> Result<Option<u64>, Errno> {
        let (inode, index) = (&file.inode, at / PAGE);
        self.write_and_wait(inode, index, index).await;
        let args = ReadIn {
            fh: file.fh,
            offset: at,
            size: 8,
            read_flags: read::LOCKOWNER,
            lock_owner: 1,
            flags: file.flags,
            padding: 0,
        };
        let answer = self.ask(inode.nodeid, Op::Read(args)).await?;
        let bytes: Option<[u8; 8]> = answer[..].try_into().ok();
        Ok(bytes.map(u64::from_le_bytes))
    }

    /// `pwrite` through a direct file: beside others, unless the page cache is
    /// in use or the file grows.
    pub async fn write(&self, file: &Rc<File>, at: u64, value: u64) -> Result<(), Errno> {
        let (inode, index) = (&file.inode, at / PAGE);
        let grows = at + 8 > inode.size.get();
        let is_alone = grows || inode.cached.get() > 0;
        let wait = self.waits(|| format!("the semaphore of node {} to write", inode.nodeid));
        let _down = match is_alone {
            true => inode.sem.down_write().await,
            false => inode.sem.down_read().await,
        };
        drop(wait);
        let is_parallel = !is_alone && inode.cached.get() == 0;
        inode
            .parallel
            .set(inode.parallel.get() + u32::from(is_parallel));
        self.write_and_wait(inode, index, index).await;
        self.invalidate_pages(inode, index, index).await;
        let args = WriteIn {
            fh: file.fh,
            offset: at,
            size: 8,
            write_flags: write::LOCKOWNER,
            lock_owner: 1,
            flags: file.flags,
            padding: 0,
        };
        let payload = Some(Slice::from(value.to_le_bytes().to_vec()));
        let answer = self.ask_with(inode.nodeid, Op::Write(args), payload).await;
        inode
            .parallel
            .set(inode.parallel.get() - u32::from(is_parallel));
        inode.mode_changed.notify();
        let out: WriteOut = decode(&answer?).0;
        self.invalidate_attrs(inode);
        if at + u64::from(out.size) > inode.size.get() {
            inode.size.set(at + u64::from(out.size));
        }
        Ok(())
    }

    pub async fn truncate(&self, inode: &Rc<Inode>, size: u64) -> Result<(), Errno> {
        let set = SetAttr {
            size: Some(size),
            ..SetAttr::default()
        };
        self.change(inode, set).await
    }

    pub async fn chmod(&self, inode: &Rc<Inode>, mode: u32) -> Result<(), Errno> {
        let set = SetAttr {
            mode: Some(mode),
            ..SetAttr::default()
        };
        self.change(inode, set).await
    }

    async fn change(&self, inode: &Rc<Inode>, set: SetAttr) -> Result<(), Errno> {
        let wait = self.waits(|| format!("the semaphore of node {} to change", inode.nodeid));
        let _down = inode.sem.down_write().await;
        drop(wait);
        self.setattr(inode, set).await
    }

    /// `mmap(MAP_SHARED)`: of a direct file, pages go first.
    pub async fn mmap(&self, file: &Rc<File>) {
        if file.is_direct {
            self.invalidate_pages(&file.inode, 0, u64::MAX).await;
        }
    }

    /// `munmap`: what was stored is written.
    pub async fn munmap(&self, file: &Rc<File>) {
        self.write_and_wait(&file.inode, 0, u64::MAX).await;
    }

    /// Loads through a mapping; fails with [`SIGBUS`] behind the end.
    pub async fn load(&self, file: &Rc<File>, at: u64) -> Result<u64, Errno> {
        let within = (at % PAGE) as usize;
        if let Some(folio) = file.inode.page(at / PAGE)
            && folio.is_uptodate.get()
            && !folio.is_locked.get()
            && at < file.inode.size.get()
        {
            self.counts.hits.set(self.counts.hits.get() + 1);
            return Ok(folio.load(within));
        }
        let folio = self.fault(file, at).await?;
        let value = folio.load(within);
        folio.unlock();
        Ok(value)
    }

    /// Stores through a mapping: without a word, once the page may be dirty.
    pub async fn store(&self, file: &Rc<File>, at: u64, value: u64) -> Result<(), Errno> {
        let folio = match file.inode.page(at / PAGE) {
            Some(folio) if folio.is_writable.get() => folio,
            _ => {
                let folio = self.fault(file, at).await?;
                // `fuse_page_mkwrite`
                folio.written().await;
                folio.is_dirty.set(true);
                folio.is_writable.set(true);
                folio.unlock();
                folio
            }
        };
        folio.store((at % PAGE) as usize, value);
        folio.stores.borrow_mut().push(value);
        Ok(())
    }

    /// The page, filled, with its lock held.
    async fn fault(&self, file: &Rc<File>, at: u64) -> Result<Rc<Folio>, Errno> {
        let inode = &file.inode;
        let index = at / PAGE;
        let is_behind = || index >= inode.size.get().div_ceil(PAGE);
        loop {
            if is_behind() {
                return Err(SIGBUS);
            }
            let Some(folio) = inode.page(index) else {
                self.read_ahead(file, index);
                continue;
            };
            self.lock(inode, &folio).await;
            if folio.is_gone.get() {
                folio.unlock();
                continue;
            }
            if !folio.is_uptodate.get()
                && let Err(e) = self.fill_locked(file, &folio).await
            {
                folio.unlock();
                return Err(e);
            }
            if is_behind() {
                folio.unlock();
                return Err(SIGBUS);
            }
            return Ok(folio);
        }
    }
}

/// What an access behind the end of the file ends with.
pub const SIGBUS: Errno = Errno(libc::EFAULT);
