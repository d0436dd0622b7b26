//! `forebay custody`: what the box says of a file or of what is owed below a
//! directory, as a table for people or as JSON.

use super::admin::{self, Command};
use super::cli::{Failure, Find};
use super::commands::target_and_path;
use serde_json::Value;
use std::io::{BufWriter, Write};

/// Rows that are shown unless all are asked for.
const SHOWN: u64 = 20;
/// Rows of one question where all are.
const PAGE: u64 = 1024;

/// Prints where the newest copies are.
///
/// # Errors
/// No box answers, or it has no such target or file.
pub fn custody(what: &str, json: bool, all: bool, find: &Find) -> Result<(), Failure> {
    let (target, path) = target_and_path(what);
    let limit = if all { PAGE } else { SHOWN };
    let page = |after: &str| {
        let command = Command::Custody {
            target: target.clone(),
            path: path.clone(),
            limit,
            after: after.to_owned(),
        };
        admin::ask(find, &command)
    };
    let first = page("")?;
    let mut out = BufWriter::new(std::io::stdout().lock());
    let printed = match (json, all) {
        (true, false) => writeln!(out, "{first}").map(|()| None),
        (true, true) => objects(&mut out, &first).map(Some),
        (false, _) => people(&mut out, (what, all), &first).map(Some),
    };
    let Some(mut next) = told(printed)? else {
        return told(out.flush());
    };
    while let Some(after) = next.take().filter(|_| all) {
        let more = page(&after)?;
        told(match json {
            true => rows(&more).try_for_each(|row| writeln!(out, "{row}")),
            false => rows(&more).try_for_each(|row| writeln!(out, "{}", line(row))),
        })?;
        next = more["next"].as_str().map(str::to_owned);
    }
    told(out.flush())
}

fn told<T>(printed: std::io::Result<T>) -> Result<T, Failure> {
    printed.map_err(|e| Failure::failed(format!("nothing takes what is printed: {e}")))
}

fn rows(page: &Value) -> impl Iterator<Item = &Value> {
    page["owed"].as_array().into_iter().flatten()
}

/// One object a line: what it is about with the sums, then each row. Where the
/// next page begins.
fn objects(out: &mut impl Write, page: &Value) -> std::io::Result<Option<String>> {
    let mut head = page.clone();
    if let Some(head) = head.as_object_mut() {
        head.remove("owed");
        head.remove("next");
    }
    writeln!(out, "{head}")?;
    rows(page).try_for_each(|row| writeln!(out, "{row}"))?;
    Ok(page["next"].as_str().map(str::to_owned))
}

fn people(
    out: &mut impl Write,
    (what, all): (&str, bool),
    page: &Value,
) -> std::io::Result<Option<String>> {
    if page["custody"].is_object() {
        file(out, what, &page["custody"])?;
        return Ok(None);
    }
    let sum = &page["summary"];
    let n = |key: &str| sum[key].as_u64().unwrap_or(0);
    writeln!(out, "{what}: what the origin lacks")?;
    writeln!(
        out,
        "  {} files, {} bytes on flash (copies: {}), {} bytes in memory",
        n("files"),
        n("flash bytes"),
        n("copies"),
        n("memory bytes")
    )?;
    writeln!(
        out,
        "  {} names; the oldest is {} s old; {} files keep failing",
        n("names owed"),
        n("oldest seconds"),
        n("failing")
    )?;
    let ahead = sum["clients that may be ahead"].as_array();
    for client in ahead.into_iter().flatten().filter_map(Value::as_str) {
        writeln!(
            out,
            "  {client} has files to itself and may be ahead of the box"
        )?;
    }
    if rows(page).next().is_some() {
        writeln!(out, "where        dirty      age  why       path")?;
    }
    rows(page).try_for_each(|row| writeln!(out, "{}", line(row)))?;
    let next = page["next"].as_str().map(str::to_owned);
    let left = n("more");
    if left > 0 && !all {
        writeln!(out, "and {left} more: --all lists them")?;
    }
    Ok(next)
}

fn line(row: &Value) -> String {
    let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
    let n = |key: &str| row[key].as_u64().unwrap_or(0);
    let detail = match detail(row) {
        detail if detail.is_empty() => detail,
        detail => format!("  ({detail})"),
    };
    format!(
        "{:<7} {:>10} {:>7}s  {:<8}  {}{detail}",
        text("where"),
        n("dirty bytes"),
        n("age seconds"),
        text("why"),
        match text("path") {
            root if root.is_empty() => ".".to_owned(),
            path => path,
        },
    )
}

fn file(out: &mut impl Write, what: &str, custody: &Value) -> std::io::Result<()> {
    let text = |key: &str| custody[key].as_str().unwrap_or_default();
    let n = |key: &str| custody[key].as_u64().unwrap_or(0);
    writeln!(out, "{what}")?;
    writeln!(out, "  where   {} (copies: {})", text("where"), n("copies"))?;
    if text("where") != "origin" {
        let (bytes, age) = (n("dirty bytes"), n("age seconds"));
        writeln!(out, "  dirty   {bytes} bytes, {age} s old")?;
        writeln!(out, "  why     {}: {}", text("why"), detail(custody))?;
    }
    let names = custody["names owed"].as_array();
    for name in names.into_iter().flatten().filter_map(Value::as_str) {
        writeln!(out, "  owed    {name}")?;
    }
    let mapped = custody["mapped by"].as_array();
    for client in mapped.into_iter().flatten().filter_map(Value::as_str) {
        writeln!(
            out,
            "  mapped  by {client}, whose kernel may have newer pages"
        )?;
    }
    Ok(())
}

/// Why, in words.
fn detail(custody: &Value) -> String {
    let text = |key: &str| custody[key].as_str().unwrap_or_default();
    let n = |key: &str| custody[key].as_u64().unwrap_or(0);
    let mut words = match text("why") {
        "lag" => format!("carried in {} s", n("next seconds")),
        "refused" => format!("{}, next try in {} s", text("error"), n("next seconds")),
        "waiting" => format!("for {}", text("waits for")),
        "away" => format!("the origin is away since {} s", n("since seconds")),
        "suspect" => format!("the origin does not answer since {} s", n("since seconds")),
        "client" => format!("{} has the file to itself", text("client")),
        "commit" => "on its way to the box's flash".to_owned(),
        "carrying" => "on its way to the origin".to_owned(),
        "queued" => "due, others are carried first".to_owned(),
        _ => String::new(),
    };
    if text("why") == "waiting" && !text("error").is_empty() {
        words.push_str(": ");
        words.push_str(text("error"));
    }
    words
}
