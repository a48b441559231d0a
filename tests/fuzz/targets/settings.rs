// SPDX-License-Identifier: GPL-3.0-or-later
//! The configuration: any text is read or every mistake is told, each on one line, with its place; what was read is usable. The rules for
//! attachments, durations and sizes in it, and clamd's own configuration file.

#![no_main]

use common::address::Address;
use common::config::Source;
use common::units::{Period, Size};
use contentd::config::Settings;
use contentd::scan::banned::BannedFiles;
use contentd::scan::clamd_conf::ServerLimits;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let text = String::from_utf8_lossy(input);
    for line in text.lines().take(20) {
        if let Ok(period) = line.parse::<Period>() {
            assert_eq!(period.to_string().parse(), Ok(period));
        }
        if let Ok(size) = line.parse::<Size>() {
            assert_eq!(size.to_string().parse(), Ok(size));
        }
    }
    for address in [Address::Unix("/run/clamav/clamd.ctl".into()), Address::tcp("127.0.0.1", 3310)] {
        ServerLimits::read(&text, &address);
    }
    let read = Source::from_text("f", &text).and_then(|source| Settings::read(&source));
    match read {
        Ok(settings) => {
            let banned = BannedFiles::new(&settings.banned).expect("what was read can be used");
            banned.separates("a@example.org", "b@example.net");
            banned.judge(&[], &["a@example.org".to_owned()]);
        }
        Err(mistakes) => {
            for mistake in mistakes.iter() {
                assert!(!mistake.to_string().contains('\n') && mistake.origin.starts_with('f'), "{mistake:?}");
            }
        }
    }
});
