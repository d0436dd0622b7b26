//! What the calls say of an origin.

use super::*;

fn at(secs: u64) -> Mono {
    Mono(0) + Duration::from_secs(secs)
}

#[test]
fn silence_counts_from_the_last_answer_and_only_under_calls() {
    let c = Contact::default();
    assert_eq!(c.state(at(1000)), OriginState::Connected);
    let (a, b) = (c.begin(at(0)), c.begin(at(3)));
    assert_eq!(c.state(at(4)), OriginState::Connected);
    assert_eq!(c.state(at(5)), OriginState::Suspect);
    assert_eq!(
        (c.state(at(20)), c.away(at(19))),
        (OriginState::Disconnected, None)
    );
    c.end(b, at(21), Some(Errno::ENOENT));
    assert_eq!(
        c.state(at(25)),
        OriginState::Connected,
        "an error is an answer"
    );
    assert_eq!(c.state(at(26)), OriginState::Suspect);
    assert_eq!(c.outages(), 1);
    c.probing.set(true);
    assert_eq!(c.state(at(60)), OriginState::Reconnecting);
    assert_eq!(c.away(at(60)), Some(Duration::from_secs(39)));
    c.end(a, at(61), None);
    assert_eq!((c.state(at(61)), c.outages()), (OriginState::Connected, 2));
}

#[test]
fn a_broken_mount_is_away_and_a_bad_file_is_not() {
    let c = Contact::default();
    for n in 0..8 {
        c.on_end(at(n), Some(Errno::EIO));
    }
    assert!(
        c.is_absent() && c.pause(at(8)).is_some(),
        "write-back rests"
    );
    assert_eq!(
        (c.state(at(8)), c.away(at(8))),
        (OriginState::Suspect, None)
    );
    c.on_end(at(9), Some(Errno::ENOTCONN));
    assert_eq!(c.state(at(9)), OriginState::Disconnected);
    assert_eq!(c.away(at(9)), Some(Duration::from_secs(9)));
    c.on_end(at(10), Some(Errno::ENOSPC));
    assert_eq!(
        (c.state(at(10)), c.away(at(10))),
        (OriginState::Connected, None)
    );
}
