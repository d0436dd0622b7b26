//! A file that one mount writes and another looks at, all the time.

use super::support::until;
use super::{called_back, counted, counter, on_mounts};
use std::fs::{self, File};
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Whoever looks sees all that has been written before he looked, and takes
/// nothing away: the writer keeps the file to itself, and asks nobody.
#[test]
fn a_file_that_is_written_is_looked_at_by_glimpses() {
    const STEP: u64 = 4096;
    on_mounts("", 2, |site, m| {
        let dir = m[0].join("own");
        fs::create_dir(&dir).unwrap();
        let path = dir.join("log");
        let mut log = File::create_new(&path).unwrap();
        let (begun, done) = (AtomicU64::new(0), AtomicU64::new(0));
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let step = [7; STEP as usize];
                while !is_over.load(Ordering::SeqCst) {
                    begun.fetch_add(STEP, Ordering::SeqCst);
                    log.write_all(&step).unwrap();
                    done.fetch_add(STEP, Ordering::SeqCst);
                }
            });
            let _ends = Ends(&is_over);
            let other = m[1].join("own/log");
            let look = || {
                let least = done.load(Ordering::SeqCst);
                let seen = fs::metadata(&other).unwrap().len();
                let most = begun.load(Ordering::SeqCst);
                assert!((least..=most).contains(&seen), "{least} ≤ {seen} ≤ {most}");
            };
            until("the writer has the file to itself", || {
                look();
                counted(site, "glimpses") > 0
            });
            let sums = || {
                let boxs = [called_back(site), counted(site, "glimpses")];
                let writes = done.load(Ordering::SeqCst) / STEP;
                [boxs[0], boxs[1], writes, counter(&m[0], "sent")]
            };
            let (before, since) = (sums(), Instant::now());
            let mut looks = 0;
            while since.elapsed() < Duration::from_secs(3) {
                look();
                looks += 1;
            }
            let after = sums();
            let [calls, glimpses, writes, sent] = [0, 1, 2, 3].map(|n| after[n] - before[n]);
            let told = format!(
                "{writes} writes, {sent} sent; {looks} looks, {glimpses} glimpses, {calls} callbacks"
            );
            assert!(calls <= 3 && glimpses > looks / 2, "{told}");
            assert!(sent < writes / 2, "{told}");
            println!("{told}");
        });
    });
}

/// The writer ends with whoever looks, however that goes.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
