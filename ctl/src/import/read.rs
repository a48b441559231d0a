// SPDX-License-Identifier: GPL-3.0-or-later
//! The inputs of an import: text from a file or standard input, or tables of a database. What is in them decides which parser reads
//! them, not their names.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::PathBuf;

use common::store::StoreError;

use super::database::Target;
use super::record::{Bad, Found};
use super::sink::Sink;
use super::table::{self, Row};
use super::{Args, Failure, Program, cluebringer, dump, gld, iredapd, milter_greylist, postgrey, relaydelay, sqlgrey};

/// How a SQLite file begins.
const SQLITE: &[u8] = b"SQLite format 3\0";

/// Reads all inputs, one after the other.
pub(super) async fn all(args: &Args, sink: &mut Sink) -> Result<(), Failure> {
    for input in &args.inputs {
        match Target::parse(input) {
            Some(target) => {
                let target = target.map_err(Failure::Usage)?;
                // A URL may hold a password.
                let name = input.split(':').next().unwrap_or_default();
                tables(&target, name, args, sink).await?;
            }
            None if input.starts_with("mysql:") => {
                return Err(Failure::Usage("MySQL is not read directly; give the output of mysqldump".to_owned()));
            }
            None => text(input, args, sink).await?,
        }
    }
    Ok(())
}

/// The tables that a program writes; none when it writes something else.
fn in_tables(program: Program) -> Option<&'static table::Program> {
    match program {
        Program::Postgrey | Program::MilterGreylist => None,
        Program::Sqlgrey => Some(&sqlgrey::PROGRAM),
        Program::Gld => Some(&gld::PROGRAM),
        Program::Relaydelay => Some(&relaydelay::PROGRAM),
        Program::Iredapd => Some(&iredapd::PROGRAM),
        Program::Cluebringer => Some(&cluebringer::PROGRAM),
    }
}

async fn text(input: &str, args: &Args, sink: &mut Sink) -> Result<(), Failure> {
    let name = if input == "-" { "standard input" } else { input };
    let failed = |error: io::Error| Failure::Input { name: name.to_owned(), why: error.to_string() };
    let mut reader: Box<dyn BufRead> = match input {
        "-" => Box::new(BufReader::new(io::stdin())),
        path => Box::new(BufReader::new(File::open(path).map_err(failed)?)),
    };
    let start = reader.fill_buf().map_err(failed)?;
    if start.starts_with(SQLITE) {
        if input == "-" {
            return Err(Failure::Usage("a SQLite file cannot be read from standard input; give its name".to_owned()));
        }
        return tables(&Target::Sqlite(PathBuf::from(input)), name, args, sink).await;
    }
    match (args.program, in_tables(args.program)) {
        (_, Some(program)) => sql(reader, name, program, sink).await,
        (Program::MilterGreylist, None) => {
            let mut dump = milter_greylist::Dump::new(reader, sink.old);
            drain(name, || dump.next(), sink).await
        }
        (_, None) => {
            let mut dump = postgrey::Dump::new(reader, sink.old);
            drain(name, || dump.next(), sink).await
        }
    }
}

/// Hands over all that a parser finds.
async fn drain(
    name: &str,
    mut next: impl FnMut() -> io::Result<Option<Found>>,
    sink: &mut Sink,
) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::Input { name: name.to_owned(), why: error.to_string() };
    while let Some(found) = next().map_err(failed)? {
        sink.take(name, found).await?;
    }
    Ok(())
}

async fn sql(
    reader: Box<dyn BufRead>,
    name: &str,
    program: &'static table::Program,
    sink: &mut Sink,
) -> Result<(), Failure> {
    let mut dump = dump::Dump::new(reader, program.tables);
    let old = sink.old;
    let mut rows = false;
    let next = || {
        let Some((line, row)) = dump.next()? else { return Ok(None) };
        rows = true;
        Ok(Some(Found { line, entry: row.and_then(|row| (program.entry)(&row, &old)) }))
    };
    drain(name, next, sink).await?;
    match rows || dump.knows_tables() {
        true => Ok(()),
        false => Err(no_tables(name, program)),
    }
}

fn no_tables(name: &str, program: &table::Program) -> Failure {
    let tables: Vec<&str> = program.tables.iter().map(|table| table.name).collect();
    Failure::Input { name: name.to_owned(), why: format!("holds none of the tables {}", tables.join(", ")) }
}

async fn tables(target: &Target, name: &str, args: &Args, sink: &mut Sink) -> Result<(), Failure> {
    let Some(program) = in_tables(args.program) else {
        return Err(Failure::Usage(format!("{name}: this program keeps no database that could be asked; give a file")));
    };
    let failed = |error: StoreError| {
        let name = name.to_owned();
        match error {
            StoreError::Unavailable(why) => Failure::Unreachable { name, why },
            StoreError::Broken(why) => Failure::Input { name, why },
        }
    };
    let mut reader = target.open().await.map_err(failed)?;
    if args.utc_offset.is_none() {
        sink.old.utc_offset = reader.utc_offset().await.map_err(failed)?;
    }
    let mut any = false;
    for table in program.tables {
        let Some(mut cursor) = reader.begin(table).await.map_err(failed)? else { continue };
        any = true;
        let (name, mut number) = (format!("{name}: row of {}", table.name), 0);
        loop {
            let page = reader.page(&mut cursor).await.map_err(failed)?;
            if page.is_empty() {
                break;
            }
            for row in page {
                number += 1;
                sink.take(&name, found(number, row, program, sink)).await?;
            }
        }
    }
    reader.close().await.map_err(failed)?;
    if any { Ok(()) } else { Err(no_tables(name, program)) }
}

fn found(line: u64, row: Result<Row, Bad>, program: &table::Program, sink: &Sink) -> Found {
    Found { line, entry: row.and_then(|row| (program.entry)(&row, &sink.old)) }
}
