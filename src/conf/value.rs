//! Values: sizes, times, switches, lists. Each parser says what it wanted.

use std::time::Duration;

/// What a value should have looked like.
pub type Wanted = String;

/// `4096`, `64K`, `1.5G`: bytes, with binary suffixes K M G T.
pub fn size(text: &str) -> Result<u64, Wanted> {
    let wanted = || "write a size such as 64M, 20G or 1T".to_owned();
    let (number, shift) = match text.chars().last().ok_or_else(wanted)?.to_ascii_uppercase() {
        'K' => (&text[..text.len() - 1], 10),
        'M' => (&text[..text.len() - 1], 20),
        'G' => (&text[..text.len() - 1], 30),
        'T' => (&text[..text.len() - 1], 40),
        '0'..='9' => (text, 0),
        _ => return Err(wanted()),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |s: &str| s.chars().all(|c| c.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) || fraction.len() > 6 {
        return Err(wanted());
    }
    let units = whole.parse::<u128>().map_err(|_| wanted())? << shift;
    let part = match fraction {
        "" => 0,
        f => (f.parse::<u128>().map_err(|_| wanted())? << shift) / 10u128.pow(u32_of(f.len())),
    };
    u64::try_from(units + part).map_err(|_| wanted())
}

fn u32_of(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// `0`, `500ms`, `15s`, `10m`, `4h`, `2d`.
pub fn time(text: &str) -> Result<Duration, Wanted> {
    let wanted = || "write a time such as 500ms, 15s, 10m or 4h".to_owned();
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let unit_at = text
        .find(|c: char| !c.is_ascii_digit())
        .ok_or_else(wanted)?;
    let number = text[..unit_at].parse::<u64>().map_err(|_| wanted())?;
    let ms = match &text[unit_at..] {
        "ms" => Some(number),
        "s" => number.checked_mul(1_000),
        "m" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        "d" => number.checked_mul(86_400_000),
        _ => None,
    };
    ms.map(Duration::from_millis).ok_or_else(wanted)
}

/// One of the words of `table`.
pub fn word<T: Copy>(text: &str, table: &[(&str, T)]) -> Result<T, Wanted> {
    let hit = table.iter().find(|(word, _)| *word == text);
    hit.map(|(_, value)| *value).ok_or_else(|| {
        let words: Vec<&str> = table.iter().map(|(word, _)| *word).collect();
        format!("write {}", words.join(" or "))
    })
}

/// `2-5,8`: CPU numbers.
pub fn cpus(text: &str) -> Result<Vec<usize>, Wanted> {
    let wanted = || "write auto, or a CPU list such as 2-5,8".to_owned();
    let mut out = Vec::new();
    for part in text.split(',') {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let from = from.trim().parse::<usize>().map_err(|_| wanted())?;
        let to = to.trim().parse::<usize>().map_err(|_| wanted())?;
        if from > to || to >= CPUS_MAX {
            return Err(wanted());
        }
        out.extend(from..=to);
    }
    out.sort_unstable();
    out.dedup();
    Ok(out)
}

/// As many CPUs as the kernel's own masks hold.
const CPUS_MAX: usize = 8192;

/// An integer within bounds.
pub fn count(text: &str, min: usize, max: usize) -> Result<usize, Wanted> {
    let n = text
        .parse::<usize>()
        .ok()
        .filter(|n| (min..=max).contains(n));
    n.ok_or_else(|| format!("write a number from {min} to {max}"))
}
