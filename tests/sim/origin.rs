//! The origin model: its contract, what a power cut takes, and that it is the
//! same as a real file system's (`posix`) where both can be asked.

use forebay::base::codec::Bytes;
use forebay::base::{Attr, Buf, Errno, FileKind, Name, SetAttr, TargetId, Time};
use forebay::origin::posix::Posix;
use forebay::origin::{Found, Origin as _, OriginCall, OriginOp, OriginReply, Place};
use forebay::sim::origin::Origin;
use forebay::sim::{Faults, Sim};
use forebay::world::World;
use proptest::prelude::*;

const TARGET: TargetId = TargetId(1);

fn name(s: &str) -> Name {
    Name::new(s.as_bytes()).unwrap()
}

fn root() -> Place {
    Place {
        identity: None,
        path: Vec::new(),
    }
}

fn below(found: &Found, path: &[&str]) -> Place {
    Place {
        identity: Some(found.identity.clone()),
        path: path.iter().map(|s| name(s)).collect(),
    }
}

fn attr(kind: FileKind, mode: u32) -> Attr {
    let time = Time {
        sec: 1_600_000_000,
        nsec: 5,
    };
    Attr {
        kind,
        mode,
        uid: 0,
        gid: 0,
        nlink: 1,
        rdev: 0,
        ino: 0,
        size: 0,
        blocks: 0,
        atime: time,
        mtime: time,
        ctime: time,
        btime: time,
        version: 0,
    }
}

fn create(dir: Place, n: &str, kind: FileKind) -> OriginOp {
    let link = (kind == FileKind::Symlink).then(|| b"over/there".to_vec());
    OriginOp::Create {
        dir,
        name: name(n),
        kind,
        attr: attr(kind, 0o640),
        link,
    }
}

fn found(reply: OriginReply) -> Found {
    match reply {
        OriginReply::Found(found) => *found,
        other => panic!("{other:?}"),
    }
}

struct Scene {
    sim: Sim,
    origin: Origin,
}

impl Scene {
    fn new(seed: u64) -> Scene {
        let sim = Sim::new(seed);
        let origin = sim.origin(TARGET);
        Scene { sim, origin }
    }
    fn make(&self, dir: Place, n: &str, kind: FileKind) -> Found {
        found(self.origin.apply(&self.sim, create(dir, n, kind)))
    }
    fn does(&self, op: OriginOp) {
        let reply = self.origin.apply(&self.sim, op);
        assert!(!matches!(reply, OriginReply::Failed(_)), "{reply:?}");
    }
    fn write(&self, file: Place, bytes: &[u8]) {
        self.does(OriginOp::Write {
            file,
            offset: 0,
            data: vec![bytes.to_vec().into()],
        });
    }
    fn sync(&self, file: Place) {
        self.does(OriginOp::Fsync { file });
    }
    fn bytes(&self, path: &str) -> Option<Vec<u8>> {
        let tree = self.origin.tree();
        let bytes = &tree.0.get(path.as_bytes())?.bytes;
        let mut out = vec![0; usize::try_from(bytes.size()).unwrap()];
        bytes.read(0, &mut out);
        Some(out)
    }
}

#[test]
fn synced_files_in_synced_directories_survive() {
    for seed in 0..100 {
        let s = Scene::new(seed);
        let file = s.make(root(), "f", FileKind::Regular);
        s.write(below(&file, &["f"]), b"bytes");
        s.sync(below(&file, &["f"]));
        s.sync(root());
        s.write(below(&file, &["f"]), b"BYTES");
        s.origin.power_cut(&s.sim);
        let bytes = s.bytes("f").expect("the name was synced");
        assert!([b"bytes", b"BYTES"].contains(&bytes.as_slice().try_into().unwrap()));
    }
}

/// Each half of the promise is needed: the file's fsync and the directory's.
#[test]
fn what_was_not_synced_may_be_lost() {
    let (mut nameless, mut empty) = (0, 0);
    for seed in 0..100 {
        let s = Scene::new(seed);
        let synced = s.make(root(), "a", FileKind::Regular);
        s.write(below(&synced, &["a"]), b"bytes");
        s.sync(below(&synced, &["a"]));
        s.origin.power_cut(&s.sim);
        nameless += usize::from(s.bytes("a").is_none());

        let named = s.make(root(), "b", FileKind::Regular);
        s.write(below(&named, &["b"]), b"bytes");
        s.sync(root());
        s.origin.power_cut(&s.sim);
        empty += usize::from(s.bytes("b").expect("the name was synced") != b"bytes");
    }
    assert!(nameless > 20 && empty > 20, "{nameless} {empty}");
}

/// A rename is atomic over a power cut, whichever directory was synced.
#[test]
fn a_renamed_file_is_somewhere() {
    for seed in 0..100 {
        let s = Scene::new(seed);
        let (a, b) = (
            s.make(root(), "a", FileKind::Directory),
            s.make(root(), "b", FileKind::Directory),
        );
        let file = s.make(below(&a, &["a"]), "f", FileKind::Regular);
        for place in [
            below(&file, &["a", "f"]),
            below(&a, &["a"]),
            below(&b, &["b"]),
            root(),
        ] {
            s.sync(place);
        }
        s.does(OriginOp::Rename {
            from: (below(&a, &["a"]), name("f")),
            to: (below(&b, &["b"]), name("g")),
            identity: file.identity.clone(),
            victim: None,
            exchange: false,
        });
        match seed % 3 {
            0 => s.sync(below(&a, &["a"])),
            1 => s.sync(below(&b, &["b"])),
            _ => {}
        }
        s.origin.power_cut(&s.sim);
        let at = (s.bytes("a/f").is_some(), s.bytes("b/g").is_some());
        assert!(at.0 != at.1, "exactly one name: {at:?}");
        assert!(seed % 3 == 2 || at.1, "synced renames stay");
    }
}

#[test]
fn a_call_of_a_crashed_node_happens_or_not() {
    let mut happened = 0;
    for seed in 0..100 {
        let s = Scene::new(seed);
        let world = s.sim.world("box");
        let inside = world.clone();
        world.spawn(async move {
            let op = create(root(), "f", FileKind::Regular);
            inside.origin(OriginCall { target: TARGET, op }).await;
        });
        // Long before the call can end by itself.
        s.sim.run(s.sim.sleep(std::time::Duration::from_micros(10)));
        s.sim.crash("box");
        happened += usize::from(s.bytes("f").is_some());
    }
    assert!((20..80).contains(&happened), "{happened}");
}

#[test]
fn an_origin_that_is_away_answers_when_it_is_back() {
    let s = Scene::new(1);
    let world = s.sim.world("box");
    s.origin.goes_away();
    let (origin, sim) = (s.origin.clone(), s.sim.clone());
    world.spawn(async move {
        sim.sleep(std::time::Duration::from_secs(3600)).await;
        origin.comes_back();
    });
    let before = world.now();
    let op = OriginOp::Stat { place: root() };
    let reply = s.sim.run(world.origin(OriginCall { target: TARGET, op }));
    assert_eq!(found(reply).attr.kind, FileKind::Directory);
    assert!((world.now() - before).as_secs() >= 3600);
}

#[test]
fn faults_are_answered_with_errors() {
    let faults = Faults {
        origin_error_one_in: 4,
        ..Faults::default()
    };
    let sim = Sim::with(2, faults);
    let world = sim.world("box");
    let mut failed = 0;
    sim.run(async {
        for i in 0..100 {
            let op = create(root(), &format!("f{i}"), FileKind::Regular);
            let reply = world.origin(OriginCall { target: TARGET, op }).await;
            failed += usize::from(matches!(reply, OriginReply::Failed(_)));
        }
    });
    assert!((10..50).contains(&failed), "{failed}");
}

/// A removed file's number comes back with another identity, and a place
/// without handles that means the old one is stale.
#[test]
fn numbers_are_reused_and_identities_are_not() {
    let s = Scene::new(1);
    s.origin.limits(|l| l.handles = false);
    let old = s.make(root(), "f", FileKind::Regular);
    s.does(OriginOp::Unlink {
        dir: root(),
        name: name("f"),
        identity: old.identity.clone(),
        is_dir: false,
    });
    s.sync(root());
    s.sim.run(s.sim.sleep(std::time::Duration::from_secs(1)));
    let new = s.make(root(), "f", FileKind::Regular);
    assert_eq!(new.identity.ino, old.identity.ino);
    assert_ne!(new.identity, old.identity);
    let stat = |place| s.origin.apply(&s.sim, OriginOp::Stat { place });
    assert!(matches!(
        stat(below(&old, &["f"])),
        OriginReply::Failed(Errno::ESTALE)
    ));
    assert!(matches!(stat(below(&new, &["f"])), OriginReply::Found(_)));
}

/// One random call, on a few names in the root and in one directory.
#[derive(Clone, Debug)]
enum Call {
    Create(usize, FileKind),
    Link(usize, usize),
    Unlink(usize),
    Rename(usize, usize, bool),
    Write(usize, u64, u8),
    Truncate(usize, u64),
    Chmod(usize, u32),
    Read(usize),
    List(usize),
}

/// Names that calls use: three at the root (the first is a directory's), two below it.
const WAYS: [&[&str]; 5] = [&["d"], &["e"], &["f"], &["d", "e"], &["d", "g"]];

fn call() -> impl Strategy<Value = Call> {
    let way = 0..WAYS.len();
    let kind = prop_oneof![
        3 => Just(FileKind::Regular),
        2 => Just(FileKind::Directory),
        1 => Just(FileKind::Symlink),
        1 => Just(FileKind::Fifo)
    ];
    prop_oneof![
        6 => (way.clone(), kind).prop_map(|(w, k)| Call::Create(w, k)),
        2 => (way.clone(), way.clone()).prop_map(|(a, b)| Call::Link(a, b)),
        3 => way.clone().prop_map(Call::Unlink),
        4 => (way.clone(), way.clone(), any::<bool>()).prop_map(|(a, b, x)| Call::Rename(a, b, x)),
        3 => (way.clone(), 0u64..10_000, any::<u8>()).prop_map(|(w, at, b)| Call::Write(w, at, b)),
        2 => (way.clone(), 0u64..10_000).prop_map(|(w, s)| Call::Truncate(w, s)),
        1 => (way.clone(), 0u32..0o1000).prop_map(|(w, m)| Call::Chmod(w, m | 0o700)),
        3 => way.clone().prop_map(Call::Read),
        2 => way.prop_map(Call::List),
    ]
}

/// Either origin behind one call.
type Run<'a> = &'a dyn Fn(OriginOp) -> OriginReply;

/// The way's directory and last name.
fn split(way: usize) -> (Place, Name) {
    let (last, dir) = WAYS[way].split_last().unwrap();
    let path = dir.iter().map(|s| name(s)).collect();
    (
        Place {
            identity: None,
            path,
        },
        name(last),
    )
}

fn look(run: Run, way: usize) -> Option<Found> {
    let (dir, name) = split(way);
    match run(OriginOp::Lookup { dir, name }) {
        OriginReply::Found(found) => Some(*found),
        _ => None,
    }
}

/// What a call answered, in words that hold for both origins.
fn answer(run: Run, call: &Call) -> String {
    let there = |w: usize| look(run, w);
    let at = |w: usize, f: &Found| below(f, WAYS[w]);
    let op = match call {
        Call::Create(w, kind) => {
            let (dir, n) = split(*w);
            create(dir, std::str::from_utf8(n.as_bytes()).unwrap(), *kind)
        }
        Call::Link(from, to) => {
            let Some(file) = there(*from) else {
                return "none".into();
            };
            let (dir, name) = split(*to);
            OriginOp::Link {
                file: at(*from, &file),
                dir,
                name,
            }
        }
        Call::Unlink(w) => {
            let Some(file) = there(*w) else {
                return "none".into();
            };
            let (dir, name) = split(*w);
            let is_dir = file.attr.kind == FileKind::Directory;
            OriginOp::Unlink {
                dir,
                name,
                identity: file.identity,
                is_dir,
            }
        }
        Call::Rename(a, b, _) if a == b => return "none".into(),
        Call::Rename(a, b, exchange) => {
            let Some(file) = there(*a) else {
                return "none".into();
            };
            let victim = there(*b).map(|f| f.identity);
            let (identity, exchange) = (file.identity, *exchange);
            OriginOp::Rename {
                from: split(*a),
                to: split(*b),
                identity,
                victim,
                exchange,
            }
        }
        Call::Write(w, offset, byte) => {
            let Some(file) = there(*w).filter(is_regular) else {
                return "none".into();
            };
            let data = vec![vec![*byte; 3000].into()];
            OriginOp::Write {
                file: at(*w, &file),
                offset: *offset,
                data,
            }
        }
        Call::Truncate(w, size) => {
            let Some(file) = there(*w).filter(is_regular) else {
                return "none".into();
            };
            OriginOp::Truncate {
                file: at(*w, &file),
                size: *size,
            }
        }
        Call::Chmod(w, mode) => {
            let Some(file) = there(*w) else {
                return "none".into();
            };
            let set = SetAttr {
                mode: Some(*mode),
                ..SetAttr::default()
            };
            OriginOp::SetAttr {
                file: at(*w, &file),
                set,
            }
        }
        Call::Read(w) => {
            let Some(file) = there(*w).filter(is_regular) else {
                return "none".into();
            };
            OriginOp::Read {
                file: at(*w, &file),
                offset: 100,
                buf: Buf::alone(20_000),
            }
        }
        Call::List(w) => {
            let Some(dir) = there(*w).filter(|f| f.attr.kind == FileKind::Directory) else {
                return "none".into();
            };
            OriginOp::List { dir: at(*w, &dir) }
        }
    };
    show(run(op))
}

fn is_regular(found: &Found) -> bool {
    found.attr.kind == FileKind::Regular
}

fn show(reply: OriginReply) -> String {
    let file = |f: &Found| {
        let a = &f.attr;
        let size = if a.kind == FileKind::Directory {
            0
        } else {
            a.size
        };
        let nlink = if a.kind == FileKind::Directory {
            0
        } else {
            a.nlink
        };
        format!("{:?} {:o} {nlink} {size} {:?}", a.kind, a.mode, f.link)
    };
    match reply {
        OriginReply::Failed(errno) => errno.label().to_owned(),
        OriginReply::Found(found) => file(&found),
        OriginReply::Listed(mut entries) => {
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            let entries: Vec<_> = entries
                .iter()
                .map(|(n, f)| format!("{n}: {}", file(f)))
                .collect();
            entries.join(", ")
        }
        OriginReply::Read { result, buf } => {
            format!(
                "{result:?} {:08x}",
                crc32c::crc32c(&buf[..result.unwrap_or(0)])
            )
        }
        OriginReply::Bytes(bytes) => Bytes(bytes).0.escape_ascii().to_string(),
        other => format!("{other:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]
    /// The model and a real directory answer every call alike.
    #[test]
    fn the_model_is_like_a_real_file_system(calls in proptest::collection::vec(call(), 1..60)) {
        let scene = Scene::new(1);
        let dir = tempfile::tempdir().unwrap();
        let posix = Posix::open(dir.path()).unwrap();
        for call in &calls {
            let model = answer(&|op| scene.origin.apply(&scene.sim, op), call);
            let real = answer(&|op| posix.call(op), call);
            prop_assert_eq!(model, real, "{:?} in {:?}", call, &calls);
        }
    }
}
