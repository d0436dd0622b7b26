//! A barrier that its members may leave, so that one that fails does not keep
//! the others waiting for ever.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

#[derive(Default)]
struct State {
    members: usize,
    arrived: usize,
    round: u64,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    moved: Condvar,
}

/// One member's place; it leaves when this is dropped.
pub struct Member(Arc<Shared>);

/// A meeting of `count` members.
pub fn meeting(count: usize) -> Vec<Member> {
    let shared = Arc::new(Shared::default());
    shared.lock().members = count;
    (0..count).map(|_| Member(Arc::clone(&shared))).collect()
}

impl Shared {
    /// A member that panicked has left; the state is whole all the same.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_round(&self, state: &mut State) {
        state.arrived = 0;
        state.round += 1;
        self.moved.notify_all();
    }
}

impl Member {
    /// Waits until all members that have not left are here. Blocks the thread.
    pub fn wait(&self) {
        let mut state = self.0.lock();
        state.arrived += 1;
        if state.arrived == state.members {
            self.0.next_round(&mut state);
            return;
        }
        let round = state.round;
        while state.round == round {
            let woken = self.0.moved.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.members -= 1;
        if state.members > 0 && state.arrived == state.members {
            self.0.next_round(&mut state);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn who_leaves_is_not_waited_for() {
        let mut members = meeting(3);
        let leaver = members.pop();
        let threads: Vec<_> = members
            .into_iter()
            .map(|member| {
                thread::spawn(move || {
                    member.wait();
                    member.wait();
                })
            })
            .collect();
        drop(leaver);
        for thread in threads {
            thread.join().expect("both went through");
        }
    }
}
