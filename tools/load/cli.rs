//! The command line.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

#[derive(Parser)]
#[command(
    name = "forebay-load",
    version,
    about = "Load generator for file systems and for a Forebay box"
)]
pub struct Cli {
    #[command(subcommand)]
    pub work: Work,
}

#[derive(Subcommand)]
pub enum Work {
    /// Reads and writes of file data.
    Data(Data),
    /// Creates, looks up, reads, renames and removes small files.
    Meta(Meta),
}

/// Where the work is done.
#[derive(Args, Clone)]
#[group(required = true, multiple = false)]
pub struct Where {
    /// A directory of the file system under test.
    #[arg(long)]
    path: Option<PathBuf>,
    /// A box and its target, over the protocol: HOST:PORT[,HOST:PORT…]/TARGET.
    #[arg(long, value_parser = native)]
    native: Option<(Vec<String>, String)>,
}

/// Where the work is done, resolved.
pub enum Place {
    Path(PathBuf),
    Native { hosts: Vec<String>, target: String },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Op {
    Read,
    Write,
    /// Seven reads to three writes.
    Mixed,
}

#[derive(Args, Clone)]
pub struct Data {
    #[command(flatten)]
    pub place: Where,
    #[arg(long, value_enum, default_value = "read")]
    pub op: Op,
    /// Bytes of one operation.
    #[arg(long, default_value = "128K", value_parser = size)]
    pub block: u64,
    /// Bytes of each client's file.
    #[arg(long, default_value = "64M", value_parser = size)]
    pub file_size: u64,
    /// Operations in flight of each client.
    #[arg(long, default_value_t = 1)]
    pub depth: usize,
    /// Clients, each with a file of its own (and natively a connection).
    #[arg(long, default_value_t = 1)]
    pub clients: usize,
    /// Offsets at random instead of one after another.
    #[arg(long)]
    pub random: bool,
    /// O_DIRECT (mounted paths; natively there is no cache to go around).
    #[arg(long)]
    pub direct: bool,
    /// How long to work.
    #[arg(long, default_value = "5", value_parser = seconds)]
    pub seconds: Duration,
    /// Stop after so many operations of each client, if that is sooner.
    #[arg(long, default_value_t = u64::MAX)]
    pub ops: u64,
    /// Fsync at the end, within the time that is measured.
    #[arg(long)]
    pub fsync: bool,
    /// Seed of random offsets.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Step {
    Create,
    Stat,
    OpenRead,
    Rename,
    Unlink,
}

impl Step {
    pub fn label(self) -> &'static str {
        match self {
            Step::Create => "create",
            Step::Stat => "stat",
            Step::OpenRead => "open-read",
            Step::Rename => "rename",
            Step::Unlink => "unlink",
        }
    }
}

#[derive(Args, Clone)]
pub struct Meta {
    #[command(flatten)]
    pub place: Where,
    /// Steps, run one after another over all files, in this order.
    #[arg(long, value_enum, value_delimiter = ',',
          default_values_t = [Step::Create, Step::Stat, Step::OpenRead, Step::Rename, Step::Unlink])]
    pub steps: Vec<Step>,
    /// Workers at a time: threads, or natively connections.
    #[arg(long, default_value_t = 1)]
    pub clients: usize,
    /// Natively: operations in flight of each worker.
    #[arg(long, default_value_t = 1)]
    pub depth: usize,
    /// Directories of each worker.
    #[arg(long, default_value_t = 4)]
    pub dirs: u64,
    /// Files in each directory, per worker.
    #[arg(long, default_value_t = 250)]
    pub files: u64,
    /// Bytes written to each file at create.
    #[arg(long, default_value = "4K", value_parser = size)]
    pub size: u64,
    /// All workers work in the same directories.
    #[arg(long)]
    pub shared: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

impl Cli {
    pub fn place(&self) -> Place {
        let place = match &self.work {
            Work::Data(data) => &data.place,
            Work::Meta(meta) => &meta.place,
        };
        match (&place.path, &place.native) {
            (_, Some((hosts, target))) => Place::Native {
                hosts: hosts.clone(),
                target: target.clone(),
            },
            // One of the two is there: the argument group says so.
            (path, None) => Place::Path(path.clone().unwrap_or_default()),
        }
    }

    pub fn json(&self) -> bool {
        match &self.work {
            Work::Data(data) => data.json,
            Work::Meta(meta) => meta.json,
        }
    }
}

fn native(text: &str) -> Result<(Vec<String>, String), String> {
    let (hosts, target) = text
        .split_once('/')
        .ok_or("wanted HOST:PORT/TARGET, for instance 127.0.0.1:9880/main")?;
    if hosts.is_empty() || target.is_empty() {
        return Err("neither the host nor the target may be empty".into());
    }
    let with_port = |host: &str| match host.contains(':') {
        true => host.to_owned(),
        false => format!("{host}:9880"),
    };
    Ok((hosts.split(',').map(with_port).collect(), target.to_owned()))
}

/// Bytes, with K, M or G for powers of 1024.
fn size(text: &str) -> Result<u64, String> {
    let (digits, unit) = match text.char_indices().next_back() {
        Some((at, 'K' | 'k')) => (&text[..at], 10),
        Some((at, 'M' | 'm')) => (&text[..at], 20),
        Some((at, 'G' | 'g')) => (&text[..at], 30),
        _ => (text, 0),
    };
    let number: u64 = digits
        .parse()
        .map_err(|_| "wanted a number with K, M or G")?;
    number
        .checked_mul(1 << unit)
        .filter(|n| *n > 0)
        .ok_or_else(|| "out of range".into())
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "wanted seconds")?;
    Duration::try_from_secs_f64(seconds).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_places_are_read() {
        assert_eq!(size("4K"), Ok(4096));
        assert_eq!(size("1G"), Ok(1 << 30));
        assert!(size("0").is_err() && size("x").is_err() && size("").is_err());
        let (hosts, target) = native("a,b:1/main").expect("valid");
        assert_eq!(
            (hosts.join(" ").as_str(), target.as_str()),
            ("a:9880 b:1", "main")
        );
        assert!(native("a").is_err() && native("/main").is_err());
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
