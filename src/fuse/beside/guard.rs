//! Whoever runs beside its caller may be kept from running by it, and stays there
//! when the caller has gone: a thread looks after the mount for as long as it is
//! there, and puts it back.

#[cfg(loom)]
use loom::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst, fence};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst, fence};
use std::time::Duration;

/// How often it looks: a mount that cannot run answers the box somewhat later
/// than this.
pub const TICK: Duration = Duration::from_millis(5);

/// What the mount and its guard know of each other.
///
/// The mount ranks low only between [`Post::lower`] and [`Post::raised`], and the
/// guard goes to sleep only when it has seen that it does not, and will not.
#[derive(Debug)]
pub struct Post {
    is_beside: AtomicBool,
    is_low: AtomicBool,
    /// Counts requests.
    beat: AtomicU32,
}

/// What the guard does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duty {
    /// Nothing, for a [`TICK`].
    Watch,
    /// It puts the mount back; then as for `Watch`.
    PutBack,
    /// It sleeps until it is called.
    Rest,
}

impl Post {
    pub fn new() -> Post {
        Post {
            is_beside: AtomicBool::new(false),
            is_low: AtomicBool::new(false),
            beat: AtomicU32::new(0),
        }
    }

    /// The mount is beside its caller from now on. The guard is to be called.
    pub fn join(&self) {
        self.is_beside.store(true, SeqCst);
    }

    /// The mount is by itself again.
    pub fn part(&self) {
        self.is_beside.store(false, SeqCst);
    }

    pub fn is_beside(&self) -> bool {
        self.is_beside.load(SeqCst)
    }

    /// A request has come.
    pub fn beat(&self) {
        self.beat.fetch_add(1, SeqCst);
    }

    /// May the mount rank low for a while? If so it says when it does no more.
    pub fn lower(&self) -> bool {
        self.is_low.store(true, SeqCst);
        // The guard may have ended it just before: either it sees that the mount
        // is low, and stays up, or the mount sees the end.
        fence(SeqCst);
        let may = self.is_beside.load(SeqCst);
        if !may {
            self.is_low.store(false, SeqCst);
        }
        may
    }

    pub fn raised(&self) {
        self.is_low.store(false, SeqCst);
    }

    /// The guard looks; `seen`: how many requests there had been last time.
    pub fn look(&self, seen: &mut u32) -> Duty {
        let before = std::mem::replace(seen, self.beat.load(SeqCst));
        if self.is_beside.load(SeqCst) && before != *seen {
            return Duty::Watch;
        }
        let was_beside = self.is_beside.swap(false, SeqCst);
        fence(SeqCst); // See `lower`.
        match was_beside || self.is_low.load(SeqCst) {
            true => Duty::PutBack,
            false => Duty::Rest,
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_mount_that_does_not_move_is_put_back_and_then_left() {
        let post = Post::new();
        let mut seen = 0;
        assert_eq!(post.look(&mut seen), Duty::Rest);
        post.join();
        for _ in 0..9 {
            post.beat();
            assert_eq!(post.look(&mut seen), Duty::Watch);
        }
        assert!(post.lower());
        // Kept from running while it ranks low: put back until it has run.
        assert_eq!(post.look(&mut seen), Duty::PutBack);
        assert!(!post.is_beside());
        assert_eq!(post.look(&mut seen), Duty::PutBack);
        post.raised();
        assert!(!post.lower(), "not until it joins again");
        assert_eq!(post.look(&mut seen), Duty::Rest);
        post.join();
        assert!(post.lower());
        post.raised();
        post.part();
        assert_eq!(post.look(&mut seen), Duty::Rest);
    }
}

#[cfg(all(test, loom))]
mod models {
    use super::*;
    use loom::sync::Arc;

    /// A guard that rests has left no mount that ranks low.
    #[test]
    fn model_nobody_is_left_low() {
        loom::model(|| {
            let post = Arc::new(Post::new());
            post.join();
            let rests = Arc::new(AtomicBool::new(false));
            let guard = {
                let (post, rests) = (Arc::clone(&post), Arc::clone(&rests));
                loom::thread::spawn(move || {
                    let mut seen = 0;
                    for _ in 0..3 {
                        if post.look(&mut seen) == Duty::Rest {
                            rests.store(true, SeqCst);
                            return;
                        }
                    }
                })
            };
            if post.lower() {
                assert!(!rests.load(SeqCst), "nobody would raise it");
                post.raised();
            }
            guard.join().unwrap();
        });
    }
}
