// SPDX-License-Identifier: GPL-3.0-or-later
//! The report for people: verdict, score, and the table of rules. Pure.
//!
//! The columns of the table are those of SpamAssassin's own report, which users know and scripts cut up; the words around it are ours.

use super::assessment::{Assessment, Line};

/// Where descriptions begin.
const INDENT: usize = 28;
/// Longest line of the table, in characters.
const WIDTH: usize = 78;

/// The text. `hostname` is ours.
pub fn report(assessment: &Assessment, hostname: &str) -> String {
    let verdict = if assessment.is_spam { "This message is spam" } else { "This message is not spam" };
    let (score, required) = (assessment.shown_score(), assessment.shown_required());
    let mut text = format!("{verdict}, says Octroi at {hostname}.\n\n");
    text += &format!("Content analysis details:   ({score} points, {required} required)\n\n");
    text += " pts rule name              description\n";
    text += "---- ---------------------- --------------------------------------------------\n";
    for line in &assessment.lines {
        text += &row(line);
    }
    text.push('\n');
    text
}

/// One rule; a long description goes on in further lines.
fn row(line: &Line) -> String {
    let mut text = format!("{:>4} {:<22} ", points(line.score), line.name);
    let mut column = text.chars().count();
    if column > INDENT && !line.described().is_empty() {
        text.truncate(text.trim_end().len());
        text = format!("{text}\n{:INDENT$}", "");
        column = INDENT;
    }
    let begin = column;
    for word in line.described().split_whitespace() {
        let length = word.chars().count();
        if column > begin && column + 1 + length > WIDTH {
            text += &format!("\n{:INDENT$}", "");
            column = INDENT;
        } else if column > begin {
            text.push(' ');
            column += 1;
        }
        text += word;
        column += length;
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

/// Points in four characters, as far as they fit: `-0.1`, ` 5.0`, `1000`.
pub fn points(score: f64) -> String {
    let fine = format!("{score:.1}");
    if fine.len() > 4 { format!("{score:.0}") } else { fine }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn line(name: &str, score: f64, description: &str) -> Line {
        Line { name: name.into(), score, description: description.into() }
    }

    #[test]
    fn columns_are_those_of_spamassassin() {
        assert_eq!(
            row(&line("NO_RECEIVED", -0.001, "Informational: message has no Received headers")),
            "-0.0 NO_RECEIVED            Informational: message has no Received headers\n"
        );
        assert_eq!(row(&line("GTUBE", 1000.0, "")), "1000 GTUBE                  GTUBE\n");
        let long = row(&line(&"X".repeat(30), 0.5, &"word ".repeat(20)));
        let lines: Vec<_> = long.lines().collect();
        assert_eq!(lines[0], format!(" 0.5 {}", "X".repeat(30)));
        assert!(lines.len() > 2 && lines[1..].iter().all(|l| l.starts_with(&format!("{:28}word", ""))), "{long}");
        assert_eq!(points(100.0), "100");
        assert_eq!(points(-12.34), "-12");
        assert_eq!(points(10.0), "10.0");
    }

    #[test]
    fn the_whole_text() {
        let assessment =
            Assessment { is_spam: true, score: 6.0, required: 5.0, lines: vec![line("A", 6.0, "Something")] };
        let text = report(&assessment, "mx.test");
        assert!(text.starts_with("This message is spam, says Octroi at mx.test.\n"), "{text}");
        assert!(text.contains("Content analysis details:   (6.0 points, 5.0 required)\n"), "{text}");
        assert!(text.ends_with(" 6.0 A                      Something\n\n"), "{text}");
    }

    proptest! {
        #[test]
        fn no_row_is_too_wide(name in "[A-Z_]{1,60}", score in -2000.0..2000.0, description in "([a-z]{1,12} ){0,30}") {
            for line in row(&line(&name, score, &description)).lines() {
                prop_assert!(line.chars().count() <= WIDTH.max(name.len() + INDENT), "{line}");
            }
        }
    }
}
