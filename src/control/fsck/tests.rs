//! The check over images of simulated boxes: sound ones are called sound, and
//! each class of damage is found and named.
#![allow(clippy::unwrap_used, reason = "tests")]

mod bed;
mod damage;
mod lives;
mod rescue;
mod rot;
mod wrong;

use super::kind::{Gravity, Kind};
use super::report::Finding;

/// The kinds of what was found, worse than notes, each once.
fn kinds(found: &[Finding]) -> Vec<Kind> {
    let mut kinds: Vec<Kind> = found.iter().map(|f| f.kind).collect();
    kinds.retain(|kind| kind.gravity() > Gravity::Note);
    kinds.sort();
    kinds.dedup();
    kinds
}

#[test]
fn every_kind_is_documented() {
    let doc = include_str!("../../../docs/STORE.md");
    for kind in Kind::ALL {
        let row = format!("| `{}` | {} |", kind.label(), kind.gravity());
        assert!(
            doc.contains(&row),
            "docs/STORE.md lacks a row that begins {row}"
        );
    }
}
