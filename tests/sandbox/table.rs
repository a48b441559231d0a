// SPDX-License-Identifier: GPL-3.0-or-later
//! A plain text table with wrapped cells, for a terminal of 120 columns. Knows nothing of mail.

/// Column headings and widths, in characters.
const COLUMNS: [(&str, usize); 4] = [("sent", 34), ("at", 11), ("SMTP answered", 40), ("where it ended", 24)];

/// One row: what was sent, at which stage, what was answered, where it ended.
pub type Row = [String; 4];

/// The line of headings with the rule under it.
pub fn head() -> String {
    let headings = COLUMNS.map(|(heading, _)| heading.to_owned());
    format!("{}{}", row(&headings), rule())
}

/// One row, as many lines as its longest cell needs, and the rule under it.
pub fn line(cells: &Row) -> String {
    format!("{}{}", row(cells), rule())
}

fn row(cells: &Row) -> String {
    let wrapped: Vec<Vec<String>> = cells.iter().zip(COLUMNS).map(|(cell, (_, width))| wrap(cell, width)).collect();
    let height = wrapped.iter().map(Vec::len).max().unwrap_or_default();
    let mut text = String::new();
    for index in 0..height {
        let cells = wrapped.iter().zip(COLUMNS).map(|(lines, (_, width))| {
            let cell = lines.get(index).map_or("", String::as_str);
            format!("{cell:width$}")
        });
        text.push_str(cells.collect::<Vec<_>>().join(" | ").trim_end());
        text.push('\n');
    }
    text
}

fn rule() -> String {
    COLUMNS.map(|(_, width)| "-".repeat(width)).join("-+-") + "\n"
}

/// Breaks at blanks; a word longer than the line is cut.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let mut rest: Vec<char> = word.chars().collect();
        while !rest.is_empty() {
            let line = lines.last_mut().expect("there is always a line");
            let used = line.chars().count();
            let gap = usize::from(used > 0);
            if used + gap + rest.len() <= width {
                line.push_str(&" ".repeat(gap));
                line.extend(rest.drain(..));
            } else if used > 0 {
                lines.push(String::new());
            } else {
                line.extend(rest.drain(..width.min(rest.len())));
            }
        }
    }
    lines
}
