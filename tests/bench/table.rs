// SPDX-License-Identifier: GPL-3.0-or-later
//! The result of a run: one table for people, one JSON object for programs. Pure: makes text, prints nothing.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::cpu::Memory;
use crate::measure::{Round, Row};

/// Everything that was measured.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// In the order measured; the servers of one load stand together.
    pub(crate) rows: Vec<Row>,
    /// Memory of each server at the end: part of the run, server.
    pub(crate) memory: Vec<(&'static str, &'static str, Memory)>,
    /// What follows from the rows, a line each.
    pub(crate) notes: Vec<String>,
}

const TITLES: [&str; 12] = [
    "load",
    "at a time",
    "server",
    "per s",
    "p50 ms",
    "p99 ms",
    "CPU µs",
    "beside µs",
    "CPU ×",
    "rate ×",
    "errors",
    "answers",
];
/// The columns that hold words.
const WORDS: [usize; 2] = [0, 2];

const LEGEND: &str = "\
CPU µs: user and system time of the server per request or message; beside: the same of PostgreSQL or clamd.
CPU ×, rate ×: both together, and the rate, as multiples of the do-nothing server's in the same round. Medians of the
rounds. Quote CPU and ratios: rates and latencies share the processors with the load generator.
";

impl Report {
    /// True when every answer was right.
    pub(crate) fn is_right(&self) -> bool {
        self.rows.iter().all(|row| row.errors == 0 && row.rounds.iter().all(|round| round.done > 0))
    }

    /// One line for each row that has wrong answers, or none at all.
    pub(crate) fn mistakes(&self) -> Vec<String> {
        let place = |row: &Row| format!("{}, {}, {} at a time", row.server, row.load, row.clients);
        let wrong = self.rows.iter().filter_map(|row| {
            let first = row.first_error.as_ref()?;
            Some(format!("{}: {} wrong, the first: {first}", place(row), row.errors))
        });
        let idle = self.rows.iter().filter(|row| row.errors == 0 && row.rounds.iter().any(|round| round.done == 0));
        wrong.chain(idle.map(|row| format!("{}: a round without any answer", place(row)))).collect()
    }

    /// The table with its legend.
    pub(crate) fn text(&self) -> String {
        let lines: Vec<[String; 12]> = self.rows.iter().map(cells).collect();
        let widths: [usize; 12] = std::array::from_fn(|column| {
            let longest = lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
            longest.max(TITLES[column].chars().count())
        });
        let mut out = line_of(&TITLES.map(str::to_owned), &widths);
        let mut last = None;
        for (row, line) in self.rows.iter().zip(&lines) {
            let this = Some((&row.load, row.clients));
            if last != this {
                out.push_str(&format!("{}\n", "-".repeat(widths.iter().sum::<usize>() + 2 * (widths.len() - 1))));
            }
            last = this;
            out.push_str(&line_of(line, &widths));
        }
        out.push('\n');
        out.push_str(LEGEND);
        if !self.memory.is_empty() {
            self.write_memory(&mut out);
        }
        for note in &self.notes {
            out.push_str(&format!("{note}.\n"));
        }
        out
    }

    fn write_memory(&self, out: &mut String) {
        let mib = |kib: u64| kib as f64 / 1024.0;
        let each = self.memory.iter().map(|(part, server, memory)| {
            format!("{part} {server} {:.1} (peak {:.1})", mib(memory.resident), mib(memory.peak))
        });
        let all: Vec<String> = each.collect();
        let written = writeln!(out, "Resident memory at the end, MiB: {}.", all.join("; "));
        debug_assert!(written.is_ok(), "a String takes everything");
    }

    /// The same for programs, with every round.
    pub(crate) fn json(&self) -> Value {
        let memory = self.memory.iter().map(|(part, server, memory)| {
            json!({"part": part, "server": server, "resident_kib": memory.resident, "peak_kib": memory.peak})
        });
        json!({"rows": self.rows.iter().map(row_json).collect::<Vec<_>>(), "memory": memory.collect::<Vec<_>>(),
            "notes": self.notes})
    }
}

fn cells(row: &Row) -> [String; 12] {
    let median = |figure: fn(&Round) -> f64| row.median(figure);
    let ratio = |of: fn(&(f64, f64)) -> f64| {
        row.ratios.as_ref().map(of).filter(|ratio| ratio.is_finite()).map_or("-".to_owned(), three)
    };
    [
        row.load.clone(),
        row.clients.to_string(),
        row.server.to_owned(),
        three(median(|round| round.rate)),
        three(median(|round| round.p50) / 1000.0),
        three(median(|round| round.p99) / 1000.0),
        three(median(|round| round.cpu)),
        if row.has_beside { three(median(|round| round.beside)) } else { "-".to_owned() },
        ratio(|ratios| ratios.0),
        ratio(|ratios| ratios.1),
        row.errors.to_string(),
        row.rounds.iter().map(|round| round.done).sum::<u64>().to_string(),
    ]
}

fn line_of(cells: &[String; 12], widths: &[usize; 12]) -> String {
    let padded = cells.iter().zip(widths).enumerate().map(|(column, (cell, &width))| match WORDS.contains(&column) {
        true => format!("{cell:<width$}"),
        false => format!("{cell:>width$}"),
    });
    let line: Vec<String> = padded.collect();
    format!("{}\n", line.join("  ").trim_end())
}

/// Three significant digits: more would pretend.
fn three(value: f64) -> String {
    let decimals = match value.abs() {
        small if small < 0.9995 => 3,
        small if small < 9.995 => 2,
        small if small < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$}")
}

fn row_json(row: &Row) -> Value {
    let round_json = |round: &Round| {
        json!({"answers": round.done, "per_second": round.rate, "p50_us": round.p50, "p99_us": round.p99,
               "cpu_us": round.cpu, "beside_cpu_us": round.beside})
    };
    json!({
        "load": row.load, "clients": row.clients, "server": row.server,
        "per_second": row.median(|round| round.rate), "p50_us": row.median(|round| round.p50), "p99_us": row.median(|round| round.p99),
        "cpu_us": row.median(|round| round.cpu), "beside_cpu_us": row.has_beside.then(|| row.median(|round| round.beside)),
        "cpu_ratio": row.ratios.map(|ratios| ratios.0), "rate_ratio": row.ratios.map(|ratios| ratios.1),
        "errors": row.errors, "first_error": row.first_error,
        "rounds": row.rounds.iter().map(round_json).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(server: &'static str, errors: u64) -> Row {
        let round = Round { done: 10, rate: 12345.6, p50: 71.2, p99: 1234.0, cpu: 7.26, beside: 0.0 };
        Row {
            server,
            load: "first contact".to_owned(),
            clients: 16,
            has_beside: false,
            rounds: vec![round, Round { cpu: 9.0, ..round }, round],
            errors,
            first_error: (errors > 0).then(|| "closed".to_owned()),
            ratios: (server != "do-nothing").then_some((2.5, 0.4)),
        }
    }

    #[test]
    fn three_digits() {
        for (value, text) in
            [(0.0, "0.000"), (0.07123, "0.071"), (7.256, "7.26"), (71.23, "71.2"), (9.999, "10.0"), (12345.6, "12346")]
        {
            assert_eq!(three(value), text);
        }
    }

    #[test]
    fn the_table_shows_medians_and_ratios() {
        let memory = Memory { resident: 10240, peak: 20480 };
        let report = Report {
            rows: vec![row("do-nothing", 0), row("policyd", 0)],
            memory: vec![("policy", "policyd", memory)],
            notes: vec!["as fast as it gets".to_owned()],
        };
        let text = report.text();
        let line = text.lines().find(|line| line.contains("  policyd")).unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(
            words,
            ["first", "contact", "16", "policyd", "12346", "0.071", "1.23", "7.26", "-", "2.50", "0.400", "0", "30"]
        );
        assert!(text.contains("policy policyd 10.0 (peak 20.0)"), "{text}");
        assert!(text.ends_with("\nas fast as it gets.\n"), "{text}");
        assert!(report.is_right() && report.mistakes().is_empty());
        let json = report.json();
        assert_eq!((&json["rows"][1]["cpu_ratio"], &json["rows"][0]["cpu_ratio"]), (&json!(2.5), &Value::Null));
        assert_eq!(json["rows"][0]["rounds"].as_array().map(Vec::len), Some(3));
    }

    #[test]
    fn wrong_answers_and_silence_are_told() {
        let mut silent = row("contentd", 0);
        silent.rounds[1].done = 0;
        let report = Report { rows: vec![row("policyd", 3), silent], memory: Vec::new(), notes: Vec::new() };
        assert!(!report.is_right());
        let told = report.mistakes();
        assert_eq!(told[0], "policyd, first contact, 16 at a time: 3 wrong, the first: closed");
        assert_eq!(told[1], "contentd, first contact, 16 at a time: a round without any answer");
    }
}
