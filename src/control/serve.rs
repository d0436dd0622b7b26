//! The life of a box: conf, cache, sockets, shards, service, clean stop.

use super::admin::EMBEDDED_DIR;
use super::cache::{Cache, shard_count};
use super::cli::{Failure, Serve};
use super::{door, mounted};
use crate::base::{Pool, ShardId, TargetId};
use crate::conf::{Conf, Shards, TargetConf};
use crate::dlm::Limits;
use crate::flash;
use crate::origin::posix::Posix;
use crate::reactor::signals::Signals;
use crate::reactor::{self, Inbox, Local, Log, Options, Origins, Port};
use crate::shard::{self, Begin};
use crate::store::superblock::TargetEntry;
use crate::world::Level;
use rustix::process::Signal;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

/// Runs a box until it is told to stop.
pub fn run(options: &Serve) -> Result<(), Failure> {
    let conf = load(options)?;
    // Before there are other threads. A stop asked for during a start comes
    // right after it, and is a clean one.
    let signals = Signals::block(&[Signal::TERM, Signal::INT])
        .map_err(|e| Failure::failed(format!("signals cannot be received: {e}")))?;
    check_origins(&conf)?;
    let listener = listen(&conf)?;
    let mut cache = Cache::open(&conf, options.force)?;
    let admin = admin_socket(&conf.admin_socket)?;
    let log = Log::stderr(Level::Info);
    let shards = start_shards(&conf, &cache, &log)?;
    let addr = listener
        .local_addr()
        .map_err(|e| Failure::failed(format!("the listening socket has no address: {e}")))?;
    let desk = door::Desk {
        listener,
        admin,
        inboxes: shards.iter().map(|s| s.inbox.clone()).collect(),
        routes: routes(&conf, &cache),
        facts: facts(&conf, &cache, addr),
        log: log.clone(),
    };
    let mount = options.mount.clone().map(|dir| mounted::Wanted {
        dir,
        addr,
        target: conf.targets[0].name.clone(),
    });
    let mut own = Options::new("control", port()?);
    own.entries = 64;
    own.log = log;
    let served = reactor::run(own, |world| door::serve(world, desk, signals, mount))
        .map_err(|e| Failure::failed(e.to_string()))?;
    let stopped = stop_shards(shards);
    let _ = std::fs::remove_file(&conf.admin_socket);
    stopped?;
    cache.mark_clean(&conf.cache_path)?;
    served
}

fn load(options: &Serve) -> Result<Conf, Failure> {
    if let Some(path) = &options.conf {
        return Conf::load(path).map_err(|faults| Failure::usage(faults.to_string()));
    }
    let here = std::env::current_dir()
        .map_err(|e| Failure::failed(format!("the working directory is gone: {e}")))?;
    let conf = Conf::embedded(&here.join(EMBEDDED_DIR));
    for target in &conf.targets {
        std::fs::create_dir_all(&target.origin)
            .map_err(|e| Failure::failed(format!("{}: {e}", target.origin.display())))?;
    }
    Ok(conf)
}

/// A mistyped origin is told before anything is made. An origin that goes away
/// later, or is away over a restart, is the write-back's business.
fn check_origins(conf: &Conf) -> Result<(), Failure> {
    for target in &conf.targets {
        let known = conf.cache_path.exists();
        let fault = match look(&target.origin) {
            Some(Ok(true)) => continue,
            Some(Ok(false)) => "not a directory",
            Some(Err(_)) | None if known => continue,
            Some(Err(_)) => "there is no such directory",
            None => "it does not answer",
        };
        return Err(Failure::failed(format!(
            "target {}: origin {}: {fault}: mount or create it, or correct target.{}.origin",
            target.name,
            target.origin.display(),
            target.name
        )));
    }
    Ok(())
}

/// Whether a directory is there; None if that cannot be found out soon. In a
/// thread of its own: a file system whose server is away answers nobody, and
/// what is cached of it is to be served all the same.
fn look(path: &Path) -> Option<std::io::Result<bool>> {
    let (tell, told) = mpsc::channel();
    let path = path.to_path_buf();
    let work = move || {
        // Who asked may have given up.
        let _ = tell.send(std::fs::metadata(path).map(|meta| meta.is_dir()));
    };
    let thread = std::thread::Builder::new().name("look".into()).spawn(work);
    thread.ok().and_then(|_| told.recv_timeout(LOOK).ok())
}

/// How long a start waits for one origin.
const LOOK: Duration = Duration::from_secs(1);

fn listen(conf: &Conf) -> Result<TcpListener, Failure> {
    let is_taken = |e: &std::io::Error| e.kind() == std::io::ErrorKind::AddrInUse;
    let listener = patiently(is_taken, || TcpListener::bind(conf.listen)).map_err(|e| {
        let why = match e.kind() {
            std::io::ErrorKind::AddrInUse => "the address is in use".to_owned(),
            _ => e.to_string(),
        };
        Failure::failed(format!(
            "listen = {}: {why}: stop what listens there, or choose another",
            conf.listen
        ))
    })?;
    listener
        .set_nonblocking(true)
        .map_err(|e| Failure::failed(format!("listen = {}: {e}", conf.listen)))?;
    Ok(listener)
}

/// Tries again for a short while where the fault may be a box that was just
/// killed: the kernel closes the files of its rings only after the process is
/// gone, and its last writes end with them (F1).
pub fn patiently<T, E>(
    may_pass: impl Fn(&E) -> bool,
    mut attempt: impl FnMut() -> Result<T, E>,
) -> Result<T, E> {
    for _ in 0..ATTEMPTS {
        match attempt() {
            Err(e) if may_pass(&e) => std::thread::sleep(BETWEEN),
            done => return done,
        }
    }
    attempt()
}

/// Together three seconds.
const ATTEMPTS: u32 = 150;
const BETWEEN: Duration = Duration::from_millis(20);

/// Binds the admin socket; one that a dead box left behind is replaced.
fn admin_socket(path: &Path) -> Result<UnixListener, Failure> {
    let failed = |e: std::io::Error| {
        Failure::failed(format!(
            "admin.socket = {}: {e}: choose another path",
            path.display()
        ))
    };
    if let Some(dir) = path.parent().filter(|d| !d.as_os_str().is_empty()) {
        std::fs::create_dir_all(dir).map_err(failed)?;
    }
    if path.exists() {
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(Failure::refused(format!(
                "admin.socket = {}: another box answers there: stop it, or choose another path",
                path.display()
            )));
        }
        std::fs::remove_file(path).map_err(failed)?;
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

fn port() -> Result<Port, Failure> {
    Port::alone().map_err(|e| Failure::failed(format!("no doorbell for the control thread: {e}")))
}

/// A shard's thread.
struct Running {
    inbox: Inbox,
    thread: JoinHandle<Result<(), String>>,
}

/// Buffers of 1 MiB that a shard registers with its ring, where the limit of
/// locked memory allows it: flash reads and large writes use them.
const REGISTERED_BUFFERS: u16 = 16;

/// What a shard's thread is started with.
struct Start {
    options: Options,
    begin: Begin,
    volume: crate::store::volume::Volume,
    id: ShardId,
}

fn start_shards(conf: &Conf, cache: &Cache, log: &Log) -> Result<Vec<Running>, Failure> {
    let count = cache.volume.superblock.shards;
    let ports = Port::mesh(count)
        .map_err(|e| Failure::failed(format!("no doorbells for {count} shards: {e}")))?;
    let origins = Origins::default();
    let (ready, is_ready) = mpsc::channel();
    let mut running = Vec::new();
    for port in ports {
        let mut start = prepare(conf, cache, port, &origins)?;
        start.options.log = log.clone();
        let inbox = start.options.port.inbox();
        let ready = ready.clone();
        let thread = std::thread::Builder::new()
            .name(format!("shard-{}", start.id))
            .spawn(move || shard_thread(start, &ready))
            .map_err(|e| Failure::failed(format!("no thread for a shard: {e}")))?;
        running.push(Running { inbox, thread });
    }
    drop(ready);
    for _ in 0..count {
        // A thread that ends without a word leaves its reason in its result.
        if !matches!(is_ready.recv(), Ok(true)) {
            return Err(stop_shards(running)
                .err()
                .unwrap_or_else(|| Failure::failed("a shard did not start")));
        }
    }
    Ok(running)
}

fn prepare(conf: &Conf, cache: &Cache, port: Port, origins: &Origins) -> Result<Start, Failure> {
    let id = port.id();
    let count = u64::from(cache.volume.superblock.shards);
    let mut options = Options::new(&format!("shard-{id}"), port);
    options.cpu = match &conf.shards {
        Shards::Cpus(cpus) => cpus.get(usize::from(id.0)).copied(),
        // On a machine of two CPUs, pinning the one shard only hinders the scheduler.
        Shards::Auto if shard_count(conf) == 1 => None,
        Shards::Auto => Some(usize::from(id.0) * 2),
    };
    options.entries = 1024;
    options.pool = Pool::with_numbered([512, 128, 32], REGISTERED_BUFFERS);
    options.origins = origins.clone();
    options.flash =
        Some(reactor::flash::open(&conf.cache_path).map_err(|e| Failure::failed(e.to_string()))?);
    let entries: Vec<(TargetEntry, TargetConf)> = conf
        .targets
        .iter()
        .filter_map(|target| Some((entry_of(cache, &target.name)?, target.clone())))
        .filter(|(entry, _)| shard_of(cache, entry) == id)
        .collect();
    for (entry, target) in &entries {
        let posix = Posix::closed(&target.origin, true);
        origins.set(entry.id, Arc::new(posix), target.origin_threads);
    }
    let targets = entries
        .into_iter()
        .map(|(entry, target)| (entry.id, target))
        .collect();
    let begin = Begin {
        id,
        box_id: cache.volume.superblock.box_id,
        generation: cache.volume.superblock.generation,
        map: shard_map(cache),
        lease: conf.lease,
        scrub: conf.scrub,
        locks: Limits::default(),
        memory: conf.memory / count,
        targets,
    };
    Ok(Start {
        options,
        begin,
        volume: cache.volume.clone(),
        id,
    })
}

fn shard_thread(start: Start, ready: &mpsc::Sender<bool>) -> Result<(), String> {
    let Start {
        options,
        begin,
        volume,
        id,
    } = start;
    let ready_then = ready.clone();
    let ended = reactor::run(options, move |world: Local| async move {
        let room = flash::Options::fitting(volume.shard_bytes(id), begin.memory);
        let opened = flash::Flash::open_with(world.clone(), id, &volume, room).await;
        let (flash, _) = opened.map_err(|e| e.to_string())?;
        let shard = shard::start(world, flash, begin).await?;
        // Control may have given up already; then the shard stops by its inbox.
        let _ = ready_then.send(true);
        shard::run(shard).await
    });
    let ended = ended.map_err(|e| e.to_string()).and_then(|r| r);
    if ended.is_err() {
        let _ = ready.send(false);
    }
    ended
}

/// Stops every shard and waits; the first failure is told.
fn stop_shards(running: Vec<Running>) -> Result<(), Failure> {
    running.iter().for_each(|r| r.inbox.stop());
    let mut result = Ok(());
    for r in running {
        let ended = r
            .thread
            .join()
            .unwrap_or_else(|_| Err("a shard's thread panicked".to_owned()));
        if let (Err(why), Ok(())) = (ended, &result) {
            result = Err(Failure::failed(why));
        }
    }
    result
}

fn entry_of(cache: &Cache, name: &str) -> Option<TargetEntry> {
    cache
        .volume
        .superblock
        .targets
        .iter()
        .find(|t| t.name == name)
        .cloned()
}

fn shard_map(cache: &Cache) -> crate::wire::ShardMap {
    let s = &cache.volume.superblock;
    let mut ranges: Vec<(u64, ShardId)> = s.map.iter().map(|r| (r.first, r.shard)).collect();
    ranges.sort_unstable();
    crate::wire::ShardMap {
        epoch: s.map_epoch,
        ranges,
    }
}

fn shard_of(cache: &Cache, entry: &TargetEntry) -> ShardId {
    shard_map(cache).shard_of(entry.root).unwrap_or(ShardId(0))
}

fn routes(conf: &Conf, cache: &Cache) -> Vec<(String, TargetId, ShardId)> {
    let entry = |t: &TargetConf| entry_of(cache, &t.name);
    let route = |e: TargetEntry| (e.name.clone(), e.id, shard_of(cache, &e));
    conf.targets.iter().filter_map(entry).map(route).collect()
}

fn facts(conf: &Conf, cache: &Cache, addr: std::net::SocketAddr) -> serde_json::Value {
    serde_json::json!({
        "release": env!("CARGO_PKG_VERSION"),
        "listen": addr.to_string(),
        "cache": conf.cache_path.display().to_string(),
        "generation": cache.volume.superblock.generation.0,
        "last stop": if cache.was_formatted { "new cache" } else if cache.was_clean { "clean" } else { "unclean" },
        "last release": cache.last_release,
        "shards": cache.volume.superblock.shards,
    })
}
