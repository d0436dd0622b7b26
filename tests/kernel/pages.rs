//! The page cache: filling, writing back, dropping. A page's lock is held while
//! a READ fills it and while it is laundered; one under write-back is waited for.

use crate::files::File;
use crate::inode::{Folio, Inode, PAGE, PageWrite};
use crate::linux::{Answer, Linux};
use forebay::base::{Errno, Slice};
use forebay::fuse::abi::flag::write;
use forebay::fuse::abi::input::{ReadIn, WriteIn};
use forebay::fuse::abi::parse::Op;
use std::rc::Rc;

impl Linux {
    /// Waits for the page's lock, and takes it.
    pub async fn lock(&self, inode: &Inode, folio: &Folio) {
        let (node, index) = (inode.nodeid, folio.index);
        let _wait = self.waits(|| format!("the lock of page {index} of node {node}"));
        folio.lock().await;
    }

    async fn wait_written(&self, inode: &Inode, folio: &Folio) {
        let (node, index) = (inode.nodeid, folio.index);
        let _wait = self.waits(|| format!("write-back of page {index} of node {node}"));
        folio.written().await;
    }

    /// `invalidate_inode_pages2_range`: page by page, each with its lock held;
    /// dirty ones are written first.
    pub async fn invalidate_pages(&self, inode: &Rc<Inode>, first: u64, last: u64) {
        let mut next = Some(first);
        while let Some(folio) = next.and_then(|next| inode.next_page(next, last)) {
            next = folio.index.checked_add(1);
            self.lock(inode, &folio).await;
            if !folio.is_gone.get() {
                self.wait_written(inode, &folio).await;
                if folio.is_dirty.get() {
                    self.counts.laundered.set(self.counts.laundered.get() + 1);
                    self.write_pages(inode, vec![Rc::clone(&folio)]);
                    self.wait_written(inode, &folio).await;
                }
                inode.remove_page(&folio);
            }
            folio.unlock();
        }
    }

    /// `truncate_pagecache`: what is dirty behind the new end is dropped.
    pub async fn truncate_pages(&self, inode: &Rc<Inode>, size: u64) {
        let mut next = size.div_ceil(PAGE);
        while let Some(folio) = inode.next_page(next, u64::MAX) {
            next = folio.index + 1;
            self.lock(inode, &folio).await;
            if !folio.is_gone.get() {
                self.wait_written(inode, &folio).await;
                inode.remove_page(&folio);
            }
            folio.unlock();
        }
        let within = (size % PAGE) as usize;
        if let Some(folio) = inode.page(size / PAGE).filter(|_| within > 0) {
            self.lock(inode, &folio).await;
            if !folio.is_gone.get() {
                self.wait_written(inode, &folio).await;
                folio.data.borrow_mut()[within..].fill(0);
            }
            folio.unlock();
        }
    }

    /// Sends the locked pages to be written: neighbours in one WRITE.
    fn write_pages(&self, inode: &Rc<Inode>, folios: Vec<Rc<Folio>>) {
        let mut stores = Vec::new();
        for folio in &folios {
            folio.is_dirty.set(false);
            folio.is_writable.set(false);
            folio.is_writeback.set(true);
            stores.extend(folio.stores.take());
        }
        let write = PageWrite { folios, stores };
        inode.queued.borrow_mut().push_back(write);
        self.flush_queued(inode);
    }

    fn flush_queued(&self, inode: &Rc<Inode>) {
        while inode.writing.get() >= 0 {
            let Some(write) = inode.queued.borrow_mut().pop_front() else {
                return;
            };
            inode.writing.set(inode.writing.get() + 1);
            self.send_write(inode, write);
        }
    }

    /// What lies behind the end of the file by now is left out.
    fn send_write(&self, inode: &Rc<Inode>, pages: PageWrite) {
        let offset = pages.folios[0].index * PAGE;
        let most = inode.size.get().saturating_sub(offset) as usize;
        let mut bytes = Vec::new();
        for folio in &pages.folios {
            bytes.extend_from_slice(&folio.data.borrow());
        }
        bytes.truncate(most);
        let fh = inode.writers.borrow().last().copied();
        let (linux, of) = (self.clone(), Rc::clone(inode));
        let end = move |answer: Answer| linux.end_write(&of, &pages, answer.is_ok());
        let (Some(fh), false) = (fh, bytes.is_empty()) else {
            return end(if most == 0 {
                Ok(Vec::new())
            } else {
                Err(Errno::EIO)
            });
        };
        let args = WriteIn {
            fh,
            offset,
            size: bytes.len() as u32,
            write_flags: write::CACHE,
            lock_owner: 0,
            flags: 0,
            padding: 0,
        };
        let payload = Some(Slice::from(bytes));
        self.send(inode.nodeid, Op::Write(args), payload, end);
    }

    fn end_write(&self, inode: &Inode, pages: &PageWrite, is_written: bool) {
        if !is_written {
            self.lost.borrow_mut().extend(&pages.stores);
        }
        for folio in &pages.folios {
            folio.is_writeback.set(false);
            folio.changed.notify();
        }
        inode.writing.set(inode.writing.get() - 1);
        inode.written.notify();
    }

    /// `filemap_write_and_wait_range`.
    pub async fn write_and_wait(&self, inode: &Rc<Inode>, first: u64, last: u64) {
        let mut next = Some(first);
        let mut run: Vec<Rc<Folio>> = Vec::new();
        let mut all = Vec::new();
        while let Some(folio) = next.and_then(|next| inode.next_page(next, last)) {
            next = folio.index.checked_add(1);
            all.push(Rc::clone(&folio));
            if !folio.is_dirty.get() {
                continue;
            }
            self.lock(inode, &folio).await;
            if !folio.is_gone.get() && folio.is_dirty.get() {
                self.wait_written(inode, &folio).await;
                if run.last().is_some_and(|f| f.index + 1 != folio.index) {
                    self.write_pages(inode, std::mem::take(&mut run));
                }
                // Clean, and under write-back, before its lock is let go.
                folio.is_writable.set(false);
                folio.is_writeback.set(true);
                run.push(Rc::clone(&folio));
            }
            folio.unlock();
        }
        if !run.is_empty() {
            self.write_pages(inode, run);
        }
        for folio in all {
            self.wait_written(inode, &folio).await;
        }
    }

    /// `fuse_set_nowrite`: page writes that are under way end, others wait.
    pub async fn set_nowrite(&self, inode: &Inode) {
        let node = inode.nodeid;
        let _wait = self.waits(|| format!("no page writes of node {node}"));
        inode.writing.set(inode.writing.get() + NOWRITE);
        while inode.writing.get() != NOWRITE {
            inode.written.wait().await;
        }
    }

    pub fn release_nowrite(&self, inode: &Rc<Inode>) {
        inode.writing.set(inode.writing.get() - NOWRITE);
        self.flush_queued(inode);
    }

    /// Begins to fill pages from `index` on, as far as they are not there: one
    /// READ, whose answer unlocks them all.
    pub fn read_ahead(&self, file: &Rc<File>, index: u64) {
        let inode = &file.inode;
        let end = inode
            .size
            .get()
            .div_ceil(PAGE)
            .min(index + 1 + self.below(AHEAD));
        let missing = (index..end).take_while(|i| inode.page(*i).is_none());
        let folios: Vec<_> = missing.map(|i| inode.add_page(i)).collect();
        if folios.is_empty() {
            return;
        }
        let version = self.attr_version.get();
        let (linux, of) = (self.clone(), Rc::clone(file));
        let args = read_of(file, index, folios.len() as u32);
        self.send(inode.nodeid, Op::Read(args), None, move |answer| {
            linux.end_fill(&of.inode, &folios, answer, version);
        });
    }

    fn end_fill(&self, inode: &Inode, folios: &[Rc<Folio>], answer: Answer, version: u64) {
        if let Ok(bytes) = &answer {
            for (n, folio) in folios.iter().enumerate() {
                let from = (n as u64 * PAGE) as usize;
                folio.fill(bytes.get(from..).unwrap_or_default());
            }
            self.short_read(inode, folios, bytes.len() as u64, version);
        }
        folios.iter().for_each(|folio| folio.unlock());
    }

    /// An answer that ends early tells the size, if nothing newer does.
    fn short_read(&self, inode: &Inode, folios: &[Rc<Folio>], got: u64, version: u64) {
        let size = folios[0].index * PAGE + got;
        let is_short = got < folios.len() as u64 * PAGE;
        if is_short
            && version >= inode.attr_version.get()
            && size < inode.size.get()
            && !inode.is_unstable.get()
        {
            self.bump(inode);
            inode.size.set(size);
        }
    }

    /// Fills one page whose lock is held.
    pub async fn fill_locked(&self, file: &Rc<File>, folio: &Rc<Folio>) -> Result<(), Errno> {
        let version = self.attr_version.get();
        let args = read_of(file, folio.index, 1);
        let answer = self.ask(file.inode.nodeid, Op::Read(args)).await?;
        folio.fill(&answer);
        let one = std::slice::from_ref(folio);
        self.short_read(&file.inode, one, answer.len() as u64, version);
        Ok(())
    }

    /// `fuse_notify_store` of one byte.
    pub async fn store_byte(&self, nodeid: u64, offset: u64, byte: u8) -> Result<(), Errno> {
        let inode = self.find(nodeid).ok_or(Errno::ENOENT)?;
        let end = offset + 1;
        if end > inode.size.get() {
            self.invalidate_attrs(&inode);
            inode.size.set(end);
        }
        let (index, at) = (offset / PAGE, (offset % PAGE) as usize);
        let folio = loop {
            match inode.page(index) {
                None => break inode.add_page(index),
                Some(folio) => {
                    self.lock(&inode, &folio).await;
                    if !folio.is_gone.get() {
                        break folio;
                    }
                    folio.unlock();
                }
            }
        };
        folio.data.borrow_mut()[at] = byte;
        if at == 0 && inode.size.get() == end {
            folio.is_uptodate.set(true);
        }
        folio.unlock();
        Ok(())
    }
}

fn read_of(file: &File, index: u64, pages: u32) -> ReadIn {
    ReadIn {
        fh: file.fh,
        offset: index * PAGE,
        size: pages * PAGE as u32,
        read_flags: 0,
        lock_owner: 0,
        flags: file.flags,
        padding: 0,
    }
}

/// FUSE_NOWRITE.
const NOWRITE: i64 = i32::MIN as i64;
/// Pages that are read together, at most.
const AHEAD: u64 = 3;
