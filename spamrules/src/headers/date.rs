// SPDX-License-Identifier: GPL-3.0-or-later
//! Dates of `Date` and `Received` fields as seconds since 1970, read as tolerantly as SpamAssassin 4.0.1 reads them: impossible times
//! are moved to possible ones, unknown time zones are UTC.

/// Zones that have names in mail (RFC 5322 section 4.3 and what is met), in minutes east of UTC.
const ZONES: &[(&str, i64)] = &[
    ("UT", 0),
    ("UTC", 0),
    ("GMT", 0),
    ("WET", 0),
    ("NDT", -150),
    ("NST", -210),
    ("AST", -240),
    ("ADT", -180),
    ("EST", -300),
    ("EDT", -240),
    ("CST", -360),
    ("CDT", -300),
    ("MST", -420),
    ("MDT", -360),
    ("PST", -480),
    ("PDT", -420),
    ("HST", -600),
    ("AKST", -540),
    ("AKDT", -480),
    ("HADT", -540),
    ("HAST", -600),
    ("BST", 60),
    ("IST", 60),
    ("WEST", 60),
    ("CET", 60),
    ("MET", 60),
    ("MEZ", 60),
    ("CEST", 120),
    ("EET", 120),
    ("MEST", 120),
    ("MESZ", 120),
    ("EEST", 180),
    ("MSK", 180),
    ("IDT", 180),
    ("MSD", 240),
    ("BRST", -120),
    ("BRT", -180),
    ("AEST", 600),
    ("AEDT", 660),
    ("ACST", 570),
    ("ACDT", 630),
    ("AWST", 480),
    ("NZST", 720),
    ("NZDT", 780),
    ("JST", 540),
    ("KST", 540),
    ("HKT", 480),
    ("SGT", 480),
    ("PHT", 480),
];

/// Longest text that is read.
const LONGEST: usize = 100_000;

/// The first date of a text.
pub(crate) fn parse(text: &str) -> Option<i64> {
    let text = text.get(..LONGEST).unwrap_or(text).replace(',', " ");
    let mut words: Vec<&str> = text.split_ascii_whitespace().collect();
    let (day, month, year) = take_day(&mut words)?;
    let (hour, minute, second) = take_time(&mut words).unwrap_or((0, 0, 0));
    let offset = zone(&mut words);
    let (day, month, year) = possible(day, month, year);
    if day == 0 {
        return None;
    }
    let seconds = days(year, month, day) * 86_400 + hour.min(23) * 3600 + minute.min(59) * 60 + second.min(59);
    Some(if offset > 0 { (seconds - offset * 60).max(0) } else { seconds - offset * 60 })
}

/// Day, month and year, with which words they stood in removed.
fn take_day(words: &mut Vec<&str>) -> Option<(i64, i64, i64)> {
    let usual = |digits: std::ops::RangeInclusive<usize>| {
        move |w: &[&str]| match w {
            [day, month, year] if is_number(day) && is_number(year) && digits.contains(&year.len()) => {
                Some((number(day), self::month(month)?, full_year(year)))
            }
            _ => None,
        }
    };
    let unix = |w: &[&str]| match w {
        [month, day, time, year] if is_number(day) && year.len() == 4 && is_number(year) && is_clock(time) => {
            Some((number(day), self::month(month)?, number(year)))
        }
        _ => None,
    };
    take(words, 3, usual(4..=4)).or_else(|| take(words, 4, unix)).or_else(|| take(words, 3, usual(2..=3)))
}

fn take<T>(words: &mut Vec<&str>, count: usize, read: impl Fn(&[&str]) -> Option<T>) -> Option<T> {
    let (at, found) = words.windows(count).enumerate().find_map(|(at, window)| Some((at, read(window)?)))?;
    words.drain(at..at + count);
    Some(found)
}

fn take_time(words: &mut Vec<&str>) -> Option<(i64, i64, i64)> {
    take(words, 1, |word| {
        let parts: Vec<&str> = word.first()?.split(':').collect();
        let two = |text: &str| text.len() == 2 && is_number(text);
        match parts[..] {
            [hour, minute] if hour.len() <= 2 && is_number(hour) && two(minute) => {
                Some((number(hour), number(minute), 0))
            }
            [hour, minute, second] if hour.len() <= 2 && is_number(hour) && two(minute) && two(second) => {
                Some((number(hour), number(minute), number(second)))
            }
            _ => None,
        }
    })
}

/// Minutes east of UTC.
fn zone(words: &mut Vec<&str>) -> i64 {
    let numeric = take(words, 1, |word| {
        let word = word.first()?;
        let digits = word.strip_prefix(['+', '-']).filter(|d| d.len() == 4 && is_number(d))?;
        let minutes = number(&digits[..2]) * 60 + number(&digits[2..]);
        Some(if word.starts_with('-') { -minutes } else { minutes })
    });
    numeric
        .or_else(|| {
            let name = words
                .iter()
                .flat_map(|w| w.split(|c: char| !c.is_alphanumeric() && c != '_' && c != '-'))
                .find_map(|w| {
                    let name = w.strip_suffix("-DST").unwrap_or(w);
                    let upper = |n: &str| (2..=4).contains(&n.len()) && n.bytes().all(|b| b.is_ascii_uppercase());
                    if upper(name) { Some(w) } else { w.split('-').find(|part| upper(part)) }
                })?;
            ZONES.iter().find(|(zone, _)| *zone == name).map(|(_, minutes)| *minutes)
        })
        .unwrap_or(0)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

fn number(text: &str) -> i64 {
    text.parse().unwrap_or(i64::MAX / 1_000_000_000)
}

fn is_clock(text: &str) -> bool {
    text.split(':').count() == 3 && text.split(':').all(is_number)
}

fn month(text: &str) -> Option<i64> {
    const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
    (1..).zip(MONTHS).find(|(_, name)| name.eq_ignore_ascii_case(text)).map(|(number, _)| number)
}

/// Years of two and three digits (RFC 5322 section 4.3).
fn full_year(text: &str) -> i64 {
    match (text.len(), number(text)) {
        (4, year) => year,
        (2, year) if year < 50 => year + 2000,
        (_, year) => year + 1900,
    }
}

/// A day that exists, in a year that fits.
fn possible(day: i64, month: i64, year: i64) -> (i64, i64, i64) {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 != 0);
    let last = match month {
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => 31,
    };
    let (day, month, year) = match (day > last, month) {
        (true, 12) => (1, 1, year + 1),
        (true, _) => (1, month + 1, year),
        (false, _) => (day, month, year),
    };
    (day, month, year.clamp(1970, 2037))
}

/// Days since 1970-01-01 of a date of the Gregorian calendar.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month > 2 { year } else { year - 1 };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn usual_dates() {
        assert_eq!(parse("Thu, 22 Aug 2002 15:01:33 +0100"), Some(1_030_024_893));
        assert_eq!(parse("22 Aug 02 14:01:33 GMT"), Some(1_030_024_893));
        assert_eq!(parse("Thu, 22 Aug 2002 10:01:33 -0400 (EDT)"), Some(1_030_024_893));
        assert_eq!(parse("Thu, 22 Aug 2002 10:01:33 (EDT)"), Some(1_030_024_893));
        assert_eq!(parse("from a by b; Thu, 22 Aug 2002 14:01 UT"), Some(1_030_024_860));
        assert_eq!(parse("Thu Aug 22 14:01:33 2002"), Some(1_029_974_400), "the time of this form is not read");
    }

    #[test]
    fn impossible_dates() {
        assert_eq!(parse("31 Feb 2002 25:61:61 +0000"), parse("1 Mar 2002 23:59:59 +0000"));
        assert_eq!(parse("1 Jan 1900 00:00:00 +0100"), Some(0));
        assert_eq!(parse("1 Jan 9999 00:00:00 +0000"), parse("1 Jan 2037 00:00:00 +0000"));
        assert_eq!(parse("0 Jan 2002 00:00:00"), None);
        assert_eq!(parse("yesterday"), None);
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in ".{0,80}|([0-9]{1,20}|[A-Z][a-z]{2}|:|[+-]| ){0,30}") {
            let _ = parse(&text);
        }
    }
}
