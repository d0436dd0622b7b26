use super::*;

const GOOD: &str = "
listen = 127.0.0.1:0   # any port
shards = 0-1,3
memory = 64M
lease = 5s
cache.path = /var/lib/forebay/cache.fb
cache.size = 1.5G
cache.scrub = 30d
target.home.origin = posix:/srv/home
target.home.writeback = through
target.scratch.origin = posix:/srv/scratch
target.scratch.writeback.bytes = 2G
";

#[test]
fn a_good_conf_parses() {
    let conf = parse("f", GOOD).expect("no fault");
    assert_eq!(conf.shards, Shards::Cpus(vec![0, 1, 3]));
    assert_eq!(conf.cache_size, 3 << 29);
    assert_eq!(conf.scrub, Some(Duration::from_secs(30 * 86_400)));
    let never = parse("f", &GOOD.replace("30d", "off")).expect("no fault");
    assert_eq!(never.scrub, None);
    assert_eq!(conf.targets[0].writeback, Writeback::Through);
    assert_eq!(conf.targets[1].writeback_bytes, 2 << 30);
    assert_eq!(
        conf.targets[1].writeback,
        Writeback::Lag(Duration::from_secs(15))
    );
}

#[test]
fn the_annotated_conf_parses() {
    let text = include_str!("../../conf/forebay.conf");
    parse("conf/forebay.conf", text).expect("the shipped conf is valid");
}

/// Each line alone added to a good conf: exactly one fault, at that line, with that key.
#[test]
fn each_kind_of_fault_is_named_where_it_is() {
    let cases = [
        ("listne = 1", "listne"),
        ("listen", "listen"),
        ("admin.socket =", "admin.socket"),
        ("memory = 65M", "memory"),
        ("cache.scrub = sometimes", "cache.scrub"),
        ("cache.scrub = 0", "cache.scrub"),
        ("target.home.writback = 1s", "target.home.writback"),
        ("target.home.authority = shared", "target.home.authority"),
        ("target.home.prefetch = tree", "target.home.prefetch"),
        (
            "target.home.disconnected.max = 4 hours",
            "target.home.disconnected.max",
        ),
        (
            "target.home.origin.threads = 0",
            "target.home.origin.threads",
        ),
        ("target.x!.origin = posix:/a", "target.x!.origin"),
        ("target.y.origin = /a", "target.y.origin"),
        ("target.z.origin = posix:relative", "target.z.origin"),
        ("target.z.origin = posix:/srv/home/z", "target.z.origin"),
        ("target.z.origin = posix:/var/lib", "target.z.origin"),
        ("fileset.a.match = home:/a/**", "fileset.a.match"),
        ("credmap.a.unknown = deny", "credmap.a.unknown"),
    ];
    let last = GOOD.lines().count() + 1;
    for (line, key) in cases {
        let Faults(faults) = parse("f", &format!("{GOOD}{line}\n")).expect_err(line);
        let at: Vec<_> = faults
            .iter()
            .filter(|f| f.line == last && f.key == key)
            .collect();
        assert_eq!(at.len(), 1, "{line}: {faults:?}");
        assert!(!at[0].remedy.is_empty());
    }
}

#[test]
fn all_faults_are_reported_and_missing_keys_among_them() {
    let Faults(faults) = parse("f", "listen = x\nshards = 4-2\n").expect_err("faulty");
    let keys: Vec<&str> = faults.iter().map(|f| f.key.as_str()).collect();
    assert_eq!(
        keys,
        ["listen", "shards", "cache.path", "cache.size", "target"]
    );
}

#[test]
fn sizes_and_times() {
    for (text, bytes) in [
        ("0", 0),
        ("4096", 4096),
        ("1K", 1024),
        ("0.5G", 1 << 29),
        ("2t", 2 << 40),
    ] {
        assert_eq!(value::size(text), Ok(bytes), "{text}");
    }
    for bad in ["", "K", "1.2.3M", "-1", "1X", "99999999999T", "1.", ".5G"] {
        assert!(value::size(bad).is_err(), "{bad}");
    }
    for (text, ms) in [
        ("0", 0),
        ("250ms", 250),
        ("15s", 15_000),
        ("10m", 600_000),
        ("1d", 86_400_000),
    ] {
        assert_eq!(value::time(text), Ok(Duration::from_millis(ms)), "{text}");
    }
    for bad in ["", "5", "s", "5 s", "99999999999999999999s", "1w"] {
        assert!(value::time(bad).is_err(), "{bad}");
    }
}
