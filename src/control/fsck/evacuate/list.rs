//! `forebay-evacuated.json`: written as the rescue goes on, one file a line, so
//! that nothing is kept in memory but the owed operations.

use crate::store::Superblock;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{self, BufWriter, Write};

pub struct List {
    out: BufWriter<File>,
    is_first: bool,
    owed: Vec<Value>,
}

impl List {
    pub fn begin(file: File, superblock: &Superblock) -> io::Result<List> {
        let mut out = BufWriter::new(file);
        let id = format!("{:032x}", superblock.box_id.0);
        writeln!(out, "{{\"format\": 1,")?;
        writeln!(out, " \"box\": {},", json!(id))?;
        writeln!(out, " \"release\": {},", json!(superblock.release))?;
        write!(out, " \"files\": [")?;
        Ok(List {
            out,
            is_first: true,
            owed: Vec::new(),
        })
    }

    pub fn file(&mut self, file: &Value) -> io::Result<()> {
        let comma = if self.is_first { "" } else { "," };
        self.is_first = false;
        write!(self.out, "{comma}\n  {file}")
    }

    pub fn owed(&mut self, owed: Value) {
        self.owed.push(owed);
    }

    /// Closes the list; with how much was found to be damaged, and lost.
    pub fn finish(mut self, damages: u64, losses: u64) -> io::Result<()> {
        write!(self.out, "\n ],\n \"owed\": [")?;
        for (i, owed) in self.owed.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(self.out, "{comma}\n  {owed}")?;
        }
        writeln!(self.out, "\n ],")?;
        writeln!(self.out, " \"damages\": {damages}, \"losses\": {losses}}}")?;
        self.out.flush()
    }
}
