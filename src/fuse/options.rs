//! What `forebay mount` is told: where from, and how.

use super::fault::Fault;
use super::sys::attach::Flag;
use crate::conf::value;
use std::path::PathBuf;
use std::time::Duration;

/// `HOST[:PORT][,HOST…]/TARGET`, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Each with its port, in the order to try.
    pub hosts: Vec<String>,
    pub target: String,
}

impl Source {
    pub fn parse(text: &str) -> Result<Source, Fault> {
        let wrong = || {
            Fault::usage(format!(
                "\"{text}\" does not say what to mount: write HOST[:PORT][,HOST…]/TARGET, \
                 for example box1:{PORT}/main"
            ))
        };
        let (hosts, target) = text.split_once('/').ok_or_else(wrong)?;
        if target.is_empty() || target.contains('/') {
            return Err(wrong());
        }
        let hosts: Option<Vec<String>> = hosts.split(',').map(address).collect();
        Ok(Source {
            hosts: hosts.ok_or_else(wrong)?,
            target: target.to_owned(),
        })
    }
}

/// `host`, `host:port`, `[v6]` or `[v6]:port`, with the port filled in.
fn address(host: &str) -> Option<String> {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => {
            let (name, rest) = rest.split_once(']')?;
            let port = match rest.strip_prefix(':') {
                Some(port) => Some(port),
                None if rest.is_empty() => None,
                None => return None,
            };
            (format!("[{name}]"), port)
        }
        None => match host.split_once(':') {
            Some((name, port)) => (name.to_owned(), Some(port)),
            None => (host.to_owned(), None),
        },
    };
    if name.is_empty() || name == "[]" {
        return None;
    }
    let port = match port {
        Some(port) => port.parse::<u16>().ok().filter(|&p| p > 0)?,
        None => PORT,
    };
    Some(format!("{name}:{port}"))
}

/// The words after `-o`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    pub read_only: bool,
    /// None: as root, yes; for a user, no.
    pub allow_other: Option<bool>,
    pub deadline: Option<Duration>,
    /// What the box's lists call this mount.
    pub name: Option<String>,
    /// Where the mount process writes what it has to say; else to syslog.
    pub log: Option<PathBuf>,
    suid: bool,
    dev: bool,
    others: Vec<Flag>,
}

impl Options {
    /// Later words win over earlier ones, as with mount(8).
    pub fn parse(words: &[String]) -> Result<Options, Fault> {
        let mut options = Options::default();
        for word in words.iter().map(|w| w.trim()).filter(|w| !w.is_empty()) {
            let (key, value) = match word.split_once('=') {
                Some((key, value)) => (key, Some(value)),
                None => (word, None),
            };
            match value {
                Some(value) => options.set(key, value)?,
                None => options.switch(key)?,
            }
        }
        Ok(options)
    }

    fn set(&mut self, key: &str, text: &str) -> Result<(), Fault> {
        let empty = || Fault::usage(format!("-o {key}= wants a value"));
        match key {
            "deadline" => {
                let wanted = |w| Fault::usage(format!("-o deadline={text} is not a time: {w}"));
                let time = value::time(text).map_err(wanted)?;
                self.deadline = Some(time).filter(|t| !t.is_zero());
            }
            "name" if text.is_empty() => return Err(empty()),
            "name" => self.name = Some(text.to_owned()),
            "log" if text.is_empty() => return Err(empty()),
            "log" => self.log = Some(PathBuf::from(text)),
            _ if key.starts_with("x-") => {}
            _ => return Err(unknown(key)),
        }
        Ok(())
    }

    fn switch(&mut self, word: &str) -> Result<(), Fault> {
        match word {
            "ro" => self.read_only = true,
            "rw" => self.read_only = false,
            "allow_other" => self.allow_other = Some(true),
            "noallow_other" => self.allow_other = Some(false),
            "suid" => self.suid = true,
            "nosuid" => self.suid = false,
            "dev" => self.dev = true,
            "nodev" => self.dev = false,
            "noexec" => self.others.push(Flag::NoExec),
            "exec" => self.others.retain(|f| *f != Flag::NoExec),
            "noatime" => self.others.push(Flag::NoAtime),
            "sync" => self.others.push(Flag::Sync),
            // What fstab says to others than us.
            "defaults" | "async" | "atime" | "relatime" | "auto" | "noauto" | "user" | "nouser"
            | "nofail" | "_netdev" => {}
            _ if word.starts_with("x-") => {}
            "deadline" | "name" | "log" => {
                return Err(Fault::usage(format!("-o {word} wants a value: {word}=…")));
            }
            _ => return Err(unknown(word)),
        }
        Ok(())
    }

    /// Nothing is answered before the box has it.
    #[must_use]
    pub fn is_sync(&self) -> bool {
        self.others.contains(&Flag::Sync)
    }

    /// The generic flags of the mount. Without a word to the contrary, files
    /// on it neither change the user nor act as devices, as on any network
    /// file system that is mounted by hand.
    #[must_use]
    pub fn flags(&self) -> Vec<Flag> {
        let mut flags = self.others.clone();
        let off = [
            (Flag::ReadOnly, self.read_only),
            (Flag::NoSuid, !self.suid),
            (Flag::NoDev, !self.dev),
        ];
        flags.extend(off.iter().filter(|(_, on)| *on).map(|(flag, _)| *flag));
        flags
    }
}

fn unknown(word: &str) -> Fault {
    Fault::usage(format!(
        "-o {word} is not an option of forebay mount: leave it out; there are ro, allow_other, \
         noallow_other, suid, dev, noexec, noatime, sync, deadline=TIME, name=TEXT and log=FILE"
    ))
}

/// Where a box listens unless its conf says otherwise.
const PORT: u16 = 9880;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuse::fault::FaultKind;

    #[test]
    fn sources() {
        let hosts = |text: &str| Source::parse(text).map(|s| s.hosts).map_err(|e| e.kind);
        let list = |all: &[&str]| Ok(all.iter().map(|s| (*s).to_owned()).collect());
        assert_eq!(hosts("a/t"), list(&["a:9880"]));
        assert_eq!(
            hosts("a:1,b,[::1]:7,[fe80::1]/t"),
            list(&["a:1", "b:9880", "[::1]:7", "[fe80::1]:9880"])
        );
        for wrong in [
            "",
            "a",
            "a/",
            "/t",
            "a:/t",
            "a:x/t",
            "a:0/t",
            "a:70000/t",
            "a,/t",
            "a/t/u",
            "[::1/t",
            "[]/t",
            "[a]b/t",
        ] {
            assert_eq!(hosts(wrong), Err(FaultKind::Usage), "{wrong}");
        }
    }

    fn parse(text: &str) -> Result<Options, Fault> {
        let words: Vec<String> = text.split(',').map(str::to_owned).collect();
        Options::parse(&words)
    }

    #[test]
    fn options() {
        let got =
            parse("ro,rw,ro,allow_other,deadline=30s,name=lab,log=/l,x-systemd.automount,_netdev")
                .expect("good");
        assert!(got.read_only);
        assert_eq!(got.allow_other, Some(true));
        assert_eq!(got.deadline, Some(Duration::from_secs(30)));
        assert_eq!(
            (got.name.as_deref(), got.log),
            (Some("lab"), Some(PathBuf::from("/l")))
        );
        assert_eq!(
            parse("").expect("none").flags(),
            [Flag::NoSuid, Flag::NoDev]
        );
        assert_eq!(
            parse("suid,dev,noexec,ro").expect("good").flags(),
            [Flag::NoExec, Flag::ReadOnly]
        );
    }

    #[test]
    fn wrong_options_name_themselves_and_the_remedy() {
        for (text, word) in [
            ("color=red", "color"),
            ("fast", "fast"),
            ("deadline=soon", "soon"),
            ("deadline", "deadline="),
            ("name=", "name"),
        ] {
            let fault = parse(text).expect_err("wrong");
            assert_eq!(fault.kind, FaultKind::Usage);
            assert!(fault.message.contains(word), "{fault}");
        }
    }
}
