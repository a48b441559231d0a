// SPDX-License-Identifier: GPL-3.0-or-later
//! Section `[notify]`: whom to tell when a limit with `warn_at` or `block_at` is passed.

use common::address::Address;
use common::config::{Mistakes, Source};
use common::units::Period;
use serde::{Deserialize, Serialize};

/// Section `[notify]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NotifySettings {
    /// Addresses that get a mail; empty for none.
    pub mail_to: Vec<String>,
    /// From this address; empty for octroi at the name of this host.
    pub mail_from: String,
    /// Mail server that takes it, without authentication.
    pub mail_server: Address,
    /// URL that gets a POST with a JSON object; empty for none.
    pub webhook: String,
    /// How long one mail or POST may take.
    pub timeout: Period,
}

impl Default for NotifySettings {
    fn default() -> Self {
        Self {
            mail_to: Vec::new(),
            mail_from: String::new(),
            mail_server: Address::tcp("127.0.0.1", 25),
            webhook: String::new(),
            timeout: Period::seconds(10),
        }
    }
}

impl NotifySettings {
    pub(super) fn check(&self, source: &Source, mistakes: &mut Mistakes) {
        let mut wrong = |key: &str, message: String| mistakes.push(source.mistake(&format!("notify.{key}"), message));
        if let Some(address) = self.mail_to.iter().find(|address| address.parse::<lettre::Address>().is_err()) {
            wrong("mail_to", format!("{address:?} is not a mail address"));
        }
        if !self.mail_from.is_empty() && self.mail_from.parse::<lettre::Address>().is_err() {
            wrong("mail_from", format!("{:?} is not a mail address", self.mail_from));
        }
        if matches!(self.mail_server, Address::Unix(_)) {
            wrong("mail_server", "must be \"host:port\"".to_owned());
        }
        if !self.webhook.is_empty() && !is_url(&self.webhook) {
            wrong("webhook", "must be an http:// or https:// URL, or empty for none".to_owned());
        }
        if self.timeout.0.is_zero() {
            wrong("timeout", "must be longer than 0s".to_owned());
        }
    }

    /// Whether anybody is told.
    pub fn is_on(&self) -> bool {
        !self.mail_to.is_empty() || !self.webhook.is_empty()
    }
}

fn is_url(text: &str) -> bool {
    let Ok(url) = text.parse::<hyper::Uri>() else { return false };
    matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some_and(|host| !host.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_urls_are_checked() {
        let told = |text: &str| {
            let source = Source::from_text("f", &format!("[notify]\n{text}\n")).unwrap();
            let mut mistakes = Mistakes::new();
            let settings: NotifySettings = source.section("notify", &mut mistakes);
            settings.check(&source, &mut mistakes);
            mistakes.to_string()
        };
        assert_eq!(told("mail_to = ['a@example.org']\nwebhook = 'https://example.org/x'\nmail_server = 'mx:2525'"), "");
        for (line, key) in [
            ("mail_to = ['a b@example.org']", "mail_to"),
            ("mail_from = 'nobody'", "mail_from"),
            ("mail_server = 'unix:/x'", "mail_server"),
            ("webhook = 'ftp://example.org/'", "webhook"),
            ("webhook = 'example.org/x'", "webhook"),
            ("timeout = '0s'", "timeout"),
        ] {
            assert!(told(line).starts_with(&format!("f:2: notify.{key}: ")), "{line}: {}", told(line));
        }
    }
}
