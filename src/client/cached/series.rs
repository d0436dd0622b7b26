//! Names that are looked up one after another and differ by a number, as the
//! frames of a film or the parts of an archive do, pure: in a directory that
//! nobody has listed, the names that come next can be told all the same, and are
//! asked for before anybody looks them up.

use crate::base::{Fid, FidMap, Name};
use std::collections::VecDeque;

/// Equal steps in a row before the next names are asked for. Three names that
/// happen to be in order are no sign yet.
const HITS_MIN: u8 = 3;

/// Names that are asked for ahead of the one that is looked up; more are when
/// half of them have been.
pub const AHEAD: u64 = 16;

/// Series in one directory at a time: so many processes may walk through it.
const RUNS_MAX: usize = 4;

/// Directories that are remembered.
const DIRS_MAX: usize = 256;

/// Digits that a number may have.
const DIGITS_MAX: usize = 18;

#[derive(Debug, Default)]
pub struct Series {
    /// The series of each directory, the one seen last in front.
    dirs: FidMap<VecDeque<Run>>,
}

#[derive(Debug)]
struct Run {
    last: Name,
    step: i64,
    hits: u8,
    /// Names beyond the last one that were asked for.
    asked: u64,
    /// The number that is not there any more, if one was met.
    end: Option<i64>,
}

/// A name as its series sees it.
#[derive(Debug, PartialEq, Eq)]
struct Numbered<'a> {
    before: &'a [u8],
    number: i64,
    /// Digits that it is filled up to with zeros.
    width: usize,
    after: &'a [u8],
}

impl Series {
    /// `name` is looked up in `dir`. Returns the names that are to be asked for
    /// now.
    pub fn on_lookup(&mut self, dir: Fid, name: &Name) -> Vec<Name> {
        if self.dirs.len() >= DIRS_MAX && !self.dirs.contains_key(&dir) {
            self.dirs.clear();
        }
        let runs = self.dirs.entry(dir).or_default();
        // Looked up again: to be opened, say, after its attributes were asked for.
        if runs.iter().any(|run| run.last == *name) {
            return Vec::new();
        }
        let found = runs
            .iter()
            .enumerate()
            .find_map(|(at, run)| Some((at, numbered(&run.last, name)?)))
            .map(|(at, (old, new))| (at, new.number - old.number, new));
        let Some((at, step, new)) = found else {
            runs.truncate(RUNS_MAX - 1);
            runs.push_front(Run::new(name));
            return Vec::new();
        };
        let mut run = runs.remove(at).unwrap_or_else(|| Run::new(name));
        let wanted = run.on_step(step, &new);
        run.last = name.clone();
        runs.push_front(run);
        wanted
    }

    /// There is no `name` in `dir`: its series ends before it, or is one of names
    /// that are about to be made.
    pub fn on_absent(&mut self, dir: Fid, name: &Name) {
        for run in self.dirs.get_mut(&dir).into_iter().flatten() {
            if run.last == *name {
                (run.hits, run.asked) = (0, 0);
            } else if let Some((last, absent)) = numbered(&run.last, name) {
                run.on_end(last.number, absent.number);
            }
        }
    }
}

impl Run {
    fn new(name: &Name) -> Run {
        Run {
            last: name.clone(),
            step: 0,
            hits: 0,
            asked: 0,
            end: None,
        }
    }

    /// There is no such number: the series ends there, if it gets there.
    fn on_end(&mut self, last: i64, absent: i64) {
        let far = |end: i64| (end - last).checked_mul(self.step.signum());
        let is_nearer = |end: i64| far(absent) < far(end);
        if far(absent) > Some(0) && self.end.is_none_or(is_nearer) {
            self.end = Some(absent);
        }
    }

    fn on_step(&mut self, step: i64, new: &Numbered<'_>) -> Vec<Name> {
        if step != self.step {
            (self.step, self.hits, self.asked) = (step, 1, 0);
            self.end = None;
            return Vec::new();
        }
        // It has got further: somebody made more.
        self.end = self.end.filter(|end| is_before(new.number, *end, step));
        self.hits = self.hits.saturating_add(1);
        self.asked = self.asked.saturating_sub(1);
        if self.hits < HITS_MIN || self.asked > AHEAD / 2 {
            return Vec::new();
        }
        let next = self.asked + 1..=AHEAD;
        self.asked = AHEAD;
        let end = self.end;
        next.map_while(|n| {
            let by = step.checked_mul(n.cast_signed())?;
            let number = new.number.checked_add(by)?;
            let is_there = end.is_none_or(|end| is_before(number, end, step));
            new.moved(by).filter(|_| is_there)
        })
        .collect()
    }
}

impl Numbered<'_> {
    /// The name that is so much further.
    fn moved(&self, by: i64) -> Option<Name> {
        let number = self.number.checked_add(by).filter(|n| *n >= 0)?;
        let digits = format!("{number:0width$}", width = self.width);
        let name = [self.before, digits.as_bytes(), self.after].concat();
        Name::new(&name).ok()
    }
}

const fn is_before(number: i64, end: i64, step: i64) -> bool {
    (end - number).signum() == step.signum()
}

/// The two names, if they differ by one number only.
fn numbered<'a, 'b>(old: &'a Name, new: &'b Name) -> Option<(Numbered<'a>, Numbered<'b>)> {
    let (old, new) = (old.as_bytes(), new.as_bytes());
    let common = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let digits_before = old[..common]
        .iter()
        .rev()
        .take_while(|b| b.is_ascii_digit());
    let start = common - digits_before.count();
    let (a, b) = (split(old, start)?, split(new, start)?);
    let is_one = a.after == b.after && a.number != b.number;
    // "9" and "10" are neighbours, and so are "09" and "10"; "9" and "010" are not.
    let is_alike = a.width == b.width || a.width.min(b.width) == 0;
    let width = a.width.max(b.width);
    let fits =
        |n: &Numbered<'_>, whole: &[u8]| n.moved(0).is_some_and(|name| name.as_bytes() == whole);
    let (a, b) = (Numbered { width, ..a }, Numbered { width, ..b });
    (is_one && is_alike && fits(&a, old) && fits(&b, new)).then_some((a, b))
}

/// A name whose number begins at `start`.
fn split(name: &[u8], start: usize) -> Option<Numbered<'_>> {
    let (before, rest) = name.split_at(start);
    let len = rest.iter().take_while(|b| b.is_ascii_digit()).count();
    let (digits, after) = rest.split_at(len);
    let text = std::str::from_utf8(digits).ok()?;
    let number = text.parse().ok().filter(|_| len <= DIGITS_MAX)?;
    let is_filled = len > 1 && digits[0] == b'0';
    Some(Numbered {
        before,
        number,
        width: if is_filled { len } else { 0 },
        after,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIR: Fid = Fid::new(1, 1);

    fn name(text: &str) -> Name {
        Name::new(text.as_bytes()).expect("a name")
    }

    /// Looks names up in turn; all that were asked for, with the place at which.
    fn look(series: &mut Series, names: &[String]) -> Vec<(usize, String)> {
        let mut all = Vec::new();
        for (at, one) in names.iter().enumerate() {
            let wanted = series.on_lookup(DIR, &name(one));
            let text = |n: &Name| String::from_utf8(n.as_bytes().to_vec()).expect("ASCII");
            all.extend(wanted.iter().map(|n| (at, text(n))));
        }
        all
    }

    #[test]
    fn each_name_is_asked_for_once_and_in_time() {
        let shapes: [fn(i64) -> String; 6] = [
            |n| format!("shot2.{n:04}.mp4"),
            |n| format!("{n}"),
            |n| format!("part-{n}-of-3"),
            |n| format!("f{:03}", 2 * n),
            |n| format!("back{}", 300 - n),
            |n| format!("{:05}", 20_000 - 5 * n),
        ];
        for shape in shapes {
            let names: Vec<String> = (1..=200).map(shape).collect();
            let all = look(&mut Series::default(), &names);
            let asked: Vec<&String> = all.iter().map(|(_, name)| name).collect();
            let first = usize::from(HITS_MIN) + 1;
            let expected: Vec<&String> = names[first..].iter().collect();
            assert_eq!(asked[..expected.len()], expected, "{}", names[0]);
            for (at, name) in &all {
                if let Some(found) = names.iter().position(|n| n == name) {
                    assert!((at + 1..=at + AHEAD as usize).contains(&found), "{name}");
                }
            }
        }
    }

    #[test]
    fn other_names_are_no_series() {
        let none: [&[&str]; 5] = [
            &["a1", "b2", "a3", "b4", "a5", "b6"],
            &["a1", "a2", "a4", "a8", "a16", "a32"],
            &["x", "y", "z", "x1y", "x2z", "x3w"],
            &["9", "010", "0011", "00012", "000013"],
            &["a1", "a1", "a1", "a1", "a1", "a1"],
        ];
        for names in none {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            let asked = look(&mut Series::default(), &names);
            assert!(asked.is_empty(), "{names:?}: {asked:?}");
        }
    }

    #[test]
    fn several_may_walk_through_one_directory() {
        let walk = |n: i64| [format!("l.{n:03}.exr"), format!("r.{:03}.exr", 500 - n)];
        let names: Vec<String> = (1..=50).flat_map(walk).collect();
        let asked = look(&mut Series::default(), &names);
        let missed = names[8..]
            .iter()
            .filter(|n| !asked.iter().any(|(_, a)| a == *n));
        assert_eq!(missed.count(), 0);
    }

    #[test]
    fn it_ends_where_there_are_no_more() {
        let mut series = Series::default();
        let names: Vec<String> = (1..=6).map(|n| format!("f{n}")).collect();
        assert!(!look(&mut series, &names).is_empty());
        series.on_absent(DIR, &name("f20"));
        series.on_absent(DIR, &name("f17"));
        series.on_absent(DIR, &name("f19"));
        let more: Vec<String> = (7..=16).map(|n| format!("f{n}")).collect();
        assert!(look(&mut series, &more).is_empty(), "f5 to f20 were");
        // Somebody made more.
        let more: Vec<String> = (17..=30).map(|n| format!("f{n}")).collect();
        assert!(!look(&mut series, &more).is_empty());
        // Who looks for a name that is free, or makes names, asks for no more.
        let mut series = Series::default();
        for n in 9..100 {
            let next = name(&format!("f{n}"));
            assert!(series.on_lookup(DIR, &next).is_empty());
            series.on_absent(DIR, &next);
        }
    }

    #[test]
    fn memory_and_numbers_are_bounded() {
        let mut series = Series::default();
        for n in 0..10_000 {
            let dir = Fid::new(3, n);
            for name in ["a1", "b1", "c1", "d1", "e1", "f1"] {
                series.on_lookup(dir, &self::name(name));
            }
            assert!(series.dirs.len() <= DIRS_MAX && series.dirs[&dir].len() <= RUNS_MAX);
        }
        let end: Vec<String> = (0..20).map(|n| format!("{}", i64::MAX - 20 + n)).collect();
        assert!(
            look(&mut series, &end).is_empty(),
            "more digits than counted"
        );
        let start: Vec<String> = (0..10).rev().map(|n| n.to_string()).collect();
        let asked = look(&mut series, &start);
        assert_eq!(
            asked.last().map(|(_, n)| n.as_str()),
            Some("0"),
            "none below"
        );
    }
}
