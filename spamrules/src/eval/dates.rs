// SPDX-License-Identifier: GPL-3.0-or-later
//! Tests that compare the date of a message with the dates of its handovers.

use super::header::within;
use super::matching::pattern;
use super::{Argument, Eval};
use crate::context::Context;
use crate::headers::{date, text};

pub(super) fn find(name: &str) -> Option<Eval> {
    Some(match name {
        "check_for_shifted_date" => check_for_shifted_date,
        "received_within_months" => received_within_months,
        "check_outlook_message_id" => check_outlook_message_id,
        _ => return None,
    })
}

/// Seconds in a year of the Gregorian calendar.
const YEAR: f64 = 31_556_952.0;

/// The dates of a message.
#[derive(Debug, Default)]
struct Dates {
    /// What the sender wrote.
    sent: Option<i64>,
    /// When servers took the message, newest first.
    received: Vec<i64>,
    /// When a program fetched it.
    fetched: Option<i64>,
    /// Sent less received, for the handover where they are nearest.
    difference: i64,
}

fn dates(context: &Context<'_>) -> std::rc::Rc<Dates> {
    context.memo(|context| {
        let headers = context.message.headers();
        let sent = headers
            .all("Resent-Date")
            .chain(headers.all("Date"))
            .find_map(|field| date::parse(&String::from_utf8_lossy(field.decoded())));
        let (received, fetched) = handovers(context);
        let difference = sent.map_or(0, |sent| nearest(sent, &received));
        Dates { sent, received, fetched, difference }
    })
}

fn nearest(sent: i64, received: &[i64]) -> i64 {
    let mut differences: Vec<i64> = received.iter().map(|time| sent - time).collect();
    // The first server may have written the date itself.
    if differences.len() > 1 && differences.last() == Some(&0) {
        differences.pop();
    }
    differences.into_iter().min_by_key(|d| d.abs()).unwrap_or(0)
}

fn handovers(context: &Context<'_>) -> (Vec<i64>, Option<i64>) {
    let lines: Vec<&[u8]> = context
        .message
        .headers()
        .all("Received")
        .map(crate::message::Header::decoded)
        .filter(|line| line.iter().any(|b| !crate::message::is_space(*b)))
        .collect();
    let local = |line: &[u8]| {
        pattern!(r"\bfrom (?:localhost\s|(?:\S+ ){1,2}\S*\b127\.0\.0\.1\b)").is_match(line)
            || pattern!(r"qmail \d+ invoked by uid \d+").is_match(line)
    };
    let fetchmail = |line: &[u8]| pattern!(r"\bby localhost with \w+ \(fetchmail-[\d.]+").is_match(line);
    let first = usize::from(lines.first().is_some_and(|line| local(line)));
    // A local handover counts as one unless a program that fetches mail stands behind it.
    let local = if lines.get(first).is_some_and(|line| fetchmail(line)) { first + 1 } else { 0 };
    let (fetched, received) = lines.split_at(local);
    let newest = fetched.iter().filter_map(|line| time(line)).filter(|time| *time <= context.environment.now).max();
    (received.iter().filter_map(|line| time(line)).collect(), newest)
}

/// The date of a `Received` field.
fn time(line: &[u8]) -> Option<i64> {
    let found = pattern!(r"\s.?\d+ \S\S\S \d+ \d+:\d+:\d+ \S+").find(line)?;
    date::parse(&String::from_utf8_lossy(found.as_bytes()))
}

/// `(least, below)` in hours: how far the date of the message is from that of its nearest handover.
fn check_for_shifted_date(context: &Context<'_>, arguments: &[Argument]) -> u32 {
    #[expect(clippy::cast_precision_loss, reason = "seconds of a few decades")]
    let difference = dates(context).difference as f64;
    u32::from(within(difference, arguments, 3600.0))
}

/// `(least, below)` in months before now.
fn received_within_months(context: &Context<'_>, arguments: &[Argument]) -> u32 {
    let dates = dates(context);
    let mut possible: Vec<i64> =
        dates.sent.into_iter().chain(dates.received.first().copied()).chain(dates.fetched).collect();
    if let (Some(sent), false) = (dates.sent, dates.received.is_empty()) {
        possible.push(sent - dates.difference);
    }
    possible.sort_unstable_by(|a, b| b.cmp(a));
    let received = possible.get(possible.len().saturating_sub(1) / 2).copied().unwrap_or(0);
    #[expect(clippy::cast_precision_loss, reason = "seconds of a few decades")]
    let age = (context.environment.now - received) as f64;
    u32::from(within(age, arguments, YEAR / 12.0))
}

/// Outlook puts the time into its message ids; here it is another time than that of the message.
fn check_outlook_message_id(context: &Context<'_>, _: &[Argument]) -> u32 {
    /// Units of the id per second, their number at the beginning of 1970, and how far both may be apart.
    const SCALE: (f64, f64, f64) = (0.002_328_306_436_538_7, 27_111_902.832_984_9, 250.0);
    let id = text(context, "MESSAGEID");
    let found = pattern!(r"^<[0-9a-f]{4}([0-9a-f]{8})\$[0-9a-f]{8}\$[0-9a-f]{8}@")
        .captures(id.as_bytes())
        .and_then(|c| c.get(1));
    let Some(token) =
        found.and_then(|f| std::str::from_utf8(f.as_bytes()).ok()).and_then(|t| u32::from_str_radix(t, 16).ok())
    else {
        return 0;
    };
    let far = |text: &str| {
        #[expect(clippy::cast_precision_loss, reason = "seconds of a few decades")]
        let seconds = date::parse(text).unwrap_or(0) as f64;
        (f64::from(token) - seconds.mul_add(SCALE.0, SCALE.1).trunc()).abs() >= SCALE.2
    };
    u32::from(far(&text(context, "Date")) && far(&text(context, "Received")))
}

#[cfg(test)]
mod tests {
    use super::super::tests::eval;

    const RECEIVED: &str =
        "Received: from a (a [203.0.113.1]) by b (Postfix) with SMTP id 1111; Thu, 22 Aug 2002 15:00:00 +0000\n";

    #[test]
    fn shifted_dates() {
        let shifted = |date: &str, least, below| {
            eval(&format!("{RECEIVED}Date: {date}\n"), "check_for_shifted_date", &[least, below])
        };
        assert_eq!(shifted("Thu, 22 Aug 2002 19:30:00 +0000", "3", "6"), 1);
        assert_eq!(shifted("Thu, 22 Aug 2002 10:30:00 +0000", "-6", "-3"), 1);
        assert_eq!(shifted("Thu, 22 Aug 2002 15:30:00 +0000", "3", "undef"), 0);
        assert_eq!(shifted("no date", "3", "undef"), 0);
        assert_eq!(eval("Date: Thu, 22 Aug 2002 15:30:00 +0000\n", "check_for_shifted_date", &["undef", "-96"]), 0);
    }

    #[test]
    fn ages() {
        let recent = format!("{RECEIVED}Date: Thu, 22 Aug 2002 15:00:00 +0000\n");
        assert_eq!(
            eval(&recent, "received_within_months", &["6", "undef"]),
            0,
            "the tests' clock is at the time of the message"
        );
        assert_eq!(eval(&recent, "received_within_months", &["undef", "1"]), 1);
    }

    #[test]
    fn outlook() {
        let id = "Message-Id: <000a01c24a00$12345678$0100007f@host>\n";
        assert_eq!(eval(&format!("{id}Date: Thu, 22 Aug 1996 15:00:00 +0000\n"), "check_outlook_message_id", &[]), 1);
        assert_eq!(eval("Message-Id: <x@host>\n", "check_outlook_message_id", &[]), 0);
    }
}
