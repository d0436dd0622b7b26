//! Custody as a line of `key=value` for programs, and as JSON. Keys are only
//! ever added, after those that are there.

use super::{COPIES, Custody, Place, Reason};
use crate::shard::writeback::Why;
use serde_json::{Value, json};
use std::fmt::Write;

impl Place {
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Place::Memory => "memory",
            Place::Flash => "flash",
            Place::Origin => "origin",
        }
    }
}

impl Reason {
    /// One word.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Reason::None => "none",
            Reason::Client(_) => "client",
            Reason::Commit => "commit",
            Reason::Owed(why) => word(why),
        }
    }
}

fn word(why: &Why) -> &'static str {
    match why {
        Why::Carrying => "carrying",
        Why::Lag { .. } => "lag",
        Why::Queued => "queued",
        Why::Waiting { .. } => "waiting",
        Why::Refused { .. } => "refused",
        Why::Suspect { .. } => "suspect",
        Why::Away { .. } => "away",
    }
}

impl Custody {
    /// `where=flash dirty=4096 age=12 copies=1 why=lag next=3`: bytes and whole
    /// seconds. What a key does not apply to is left out; the first five always
    /// stand there, in this order.
    #[must_use]
    pub fn line(&self) -> String {
        let mut line = format!(
            "where={} dirty={} age={} copies={COPIES} why={}",
            self.place.word(),
            self.dirty_bytes,
            self.age.as_secs(),
            self.reason.word(),
        );
        // Writing to a string does not fail.
        let _ = match &self.reason {
            Reason::Client(name) => write!(line, " client={}", without_blanks(name)),
            Reason::Owed(Why::Lag { next }) => write!(line, " next={}", next.as_secs()),
            Reason::Owed(Why::Refused { errno, next }) => {
                write!(line, " errno={} next={}", errno.label(), next.as_secs())
            }
            Reason::Owed(Why::Waiting {
                errno: Some(errno), ..
            }) => write!(line, " errno={}", errno.label()),
            Reason::Owed(Why::Suspect { since } | Why::Away { since }) => {
                write!(line, " since={}", since.as_secs())
            }
            _ => Ok(()),
        };
        if !self.names.is_empty() {
            let _ = write!(line, " names={}", self.names.len());
        }
        if !self.mapped.is_empty() {
            let _ = write!(line, " mapped={}", self.mapped.len());
        }
        line
    }

    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut all = json!({
            "where": self.place.word(),
            "dirty bytes": self.dirty_bytes,
            "age seconds": self.age.as_secs(),
            "copies": COPIES,
            "names owed": self.names,
        });
        reason_into(&self.reason, &mut all);
        if !self.mapped.is_empty() {
            all["mapped by"] = json!(self.mapped);
        }
        all
    }
}

/// Adds why it is not further, and what belongs to that.
pub fn reason_into(reason: &Reason, all: &mut Value) {
    all["why"] = json!(reason.word());
    match reason {
        Reason::Client(name) => all["client"] = json!(name),
        Reason::Owed(why) => why_into(why, all),
        Reason::None | Reason::Commit => {}
    }
}

fn why_into(why: &Why, all: &mut Value) {
    match why {
        Why::Lag { next } => all["next seconds"] = json!(next.as_secs()),
        Why::Refused { errno, next } => {
            all["errno"] = json!(errno.label());
            all["error"] = json!(errno.to_string());
            all["next seconds"] = json!(next.as_secs());
        }
        Why::Waiting { on, errno } => {
            all["waits for"] = json!(on);
            if let Some(errno) = errno {
                all["errno"] = json!(errno.label());
                all["error"] = json!(errno.to_string());
            }
        }
        Why::Suspect { since } | Why::Away { since } => {
            all["since seconds"] = json!(since.as_secs());
        }
        Why::Carrying | Why::Queued => {}
    }
}

/// Values have no blanks: they part the pairs.
fn without_blanks(name: &str) -> String {
    name.replace(|c: char| c.is_whitespace() || c == '=', "_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Errno;
    use std::time::Duration;

    fn custody(place: Place, reason: Reason) -> Custody {
        Custody {
            place,
            dirty_bytes: 4096,
            age: Duration::from_millis(12_900),
            reason,
            names: Vec::new(),
            mapped: Vec::new(),
        }
    }

    /// The form that programs read: see docs/CUSTODY.md before changing it.
    #[test]
    fn the_line_is_as_the_documentation_says() {
        let next = Duration::from_secs(3);
        let line = |place, reason| custody(place, reason).line();
        let owed = |why| line(Place::Flash, Reason::Owed(why));
        let at = "where=flash dirty=4096 age=12 copies=1";
        assert_eq!(owed(Why::Lag { next }), format!("{at} why=lag next=3"));
        assert_eq!(owed(Why::Queued), format!("{at} why=queued"));
        assert_eq!(owed(Why::Carrying), format!("{at} why=carrying"));
        let refused = Why::Refused {
            errno: Errno::EDQUOT,
            next,
        };
        assert_eq!(
            owed(refused),
            format!("{at} why=refused errno=EDQUOT next=3")
        );
        let waiting = Why::Waiting {
            on: "create d in x".to_owned(),
            errno: Some(Errno::EACCES),
        };
        assert_eq!(owed(waiting), format!("{at} why=waiting errno=EACCES"));
        let since = Duration::from_secs(40);
        assert_eq!(owed(Why::Away { since }), format!("{at} why=away since=40"));
        assert_eq!(
            owed(Why::Suspect { since }),
            format!("{at} why=suspect since=40")
        );
        let client = Reason::Client("a host:/a dir".to_owned());
        assert_eq!(
            line(Place::Memory, client),
            "where=memory dirty=4096 age=12 copies=1 why=client client=a_host:/a_dir"
        );
        let named = Custody {
            names: vec!["create f".to_owned()],
            mapped: vec!["c".to_owned()],
            ..custody(Place::Memory, Reason::Commit)
        };
        assert_eq!(
            named.line(),
            "where=memory dirty=4096 age=12 copies=1 why=commit names=1 mapped=1"
        );
        let clean = Custody {
            dirty_bytes: 0,
            age: Duration::ZERO,
            ..custody(Place::Origin, Reason::None)
        };
        assert_eq!(clean.line(), "where=origin dirty=0 age=0 copies=1 why=none");
    }
}
