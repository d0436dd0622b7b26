//! What applications do with the bytes of open files, and through mappings.

use crate::inode::PAGE;
use crate::run::{Object, is_trouble};
use crate::work::{Done, Failure, Open, Place, Role, Worker};
use forebay::base::Errno;
use forebay::sim::history::Deed;

impl Worker {
    /// Pages have no timeouts: a stopped mount process cannot take them back.
    async fn note_bytes(
        &self,
        object: Object,
        doing: impl Future<Output = Result<Option<u64>, Errno>>,
    ) -> Done {
        let was_stale = self.linux.is_out_of_date();
        let seen = |seen: Result<Option<u64>, Errno>| {
            let is_stale = was_stale || self.linux.is_out_of_date();
            Ok(seen?.filter(|_| !is_stale).map(Deed::Read))
        };
        self.note(object, None, doing, seen).await
    }

    /// A file, open for what this application does with it.
    async fn opened(&self) -> Result<Open, Errno> {
        if self.below(8) == 0 {
            self.put_away().await;
        }
        if let Some(open) = self.open.borrow().clone() {
            return Ok(open);
        }
        let files = u64::from(Place::FILES);
        let n = match self.role {
            Role::Sizes => Place::SIZED,
            Role::Bytes => self.below(files - 1) as u8,
            _ => self.below(files) as u8,
        };
        let flags = match self.role {
            Role::Looks => libc::O_RDONLY,
            _ => libc::O_RDWR,
        };
        let inode = self.inode(n).await?;
        let file = self.linux.open(&inode, flags).await?;
        // A file is stored to, or written to, by one machine: what both at
        // once do to a page is no more defined than with any direct file.
        let is_mapped = match self.role {
            Role::Looks => self.below(2) == 0,
            Role::Bytes => (self.machine + usize::from(n)).is_multiple_of(2),
            _ => true,
        };
        if is_mapped {
            self.linux.mmap(&file).await;
        }
        let open = Open { n, file, is_mapped };
        *self.open.borrow_mut() = Some(open.clone());
        Ok(open)
    }

    pub async fn put_away(&self) {
        let open = self.open.borrow_mut().take();
        if let Some(open) = open {
            if open.is_mapped {
                self.linux.munmap(&open.file).await;
            }
            // Lost pages are told by the next sync.
            let _ = self.linux.close(open.file).await;
        }
    }

    /// The file at hand; none while the box is away.
    async fn at_hand(&self) -> Result<Option<Open>, Failure> {
        let what = format!("an open by {:?} of {}", self.role, self.linux.mount);
        let called = self.run.begin(self.linux.now(), what.clone());
        let opened = self.opened().await;
        self.run.end(self.linux.now(), called);
        match opened {
            Ok(open) => Ok(Some(open)),
            Err(e) if is_trouble(self.run.plan, e) => Ok(None),
            Err(e) => Err(format!("{what}: {e}")),
        }
    }

    /// One of two places in one of the file's pages.
    fn spot(&self, n: u8) -> u64 {
        let pages = if n == Place::SIZED { 1 } else { 3 };
        self.below(pages) * PAGE + self.below(2) * (PAGE / 2)
    }

    pub async fn read(&self) -> Done {
        let Some(open) = self.at_hand().await? else {
            return Ok(());
        };
        let at = self.spot(open.n);
        let object = Object::Bytes(open.n, at);
        let read = async {
            match open.is_mapped {
                true => self.linux.load(&open.file, at).await.map(Some),
                false => self.linux.read(&open.file, at).await,
            }
        };
        self.note_bytes(object, read).await
    }

    pub async fn write(&self) -> Done {
        let Some(open) = self.at_hand().await? else {
            return Ok(());
        };
        let (at, value) = (self.spot(open.n), self.run.fresh());
        let object = Object::Bytes(open.n, at);
        let write = async {
            match open.is_mapped {
                true => self.linux.store(&open.file, at, value).await,
                false => self.linux.write(&open.file, at, value).await,
            }
        };
        let maybe = (!open.is_mapped).then_some(Deed::MaybeWrite(value));
        self.note(object, maybe, write, |seen| {
            seen.map(|()| Some(Deed::Write(value)))
        })
        .await
    }

    pub async fn sync(&self) -> Done {
        let Some(open) = self.at_hand().await? else {
            return Ok(());
        };
        let what = format!("a sync by {}", self.linux.mount);
        let called = self.run.begin(self.linux.now(), what.clone());
        let synced = self.linux.sync(&open.file).await;
        self.run.end(self.linux.now(), called);
        match synced {
            Err(e) if !is_trouble(self.run.plan, e) => Err(format!("{what}: {e}")),
            _ => Ok(()),
        }
    }
}
