// SPDX-License-Identifier: GPL-3.0-or-later
//! Directives about networks and relays: `trusted_networks`, `internal_networks`, `msa_networks`, `originating_ip_headers`,
//! `envelope_sender_header`.

use super::Networks;

/// Directives about networks and relays.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// As given, loopback first.
    pub(super) trusted: Networks,
    pub(super) internal: Networks,
    pub(super) msa: Networks,
    pub(super) trusted_given: bool,
    pub(super) internal_given: bool,
    /// Fields with one address, which count as the oldest `Received` fields.
    pub(super) originating: Vec<String>,
    /// The field in which the mail server leaves the sender of the envelope.
    pub(crate) sender_field: Option<String>,
    /// Whether that field, or `Return-Path`, is believed also where the message has come through other hosts of ours.
    pub(crate) trusts_sender: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            trusted: Networks::loopback(),
            internal: Networks::loopback(),
            msa: Networks::default(),
            trusted_given: false,
            internal_given: false,
            originating: Vec::new(),
            sender_field: None,
            trusts_sender: false,
        }
    }
}

impl Settings {
    /// Takes a directive; `None` when it is none of these.
    pub(crate) fn set(&mut self, key: &str, value: &str) -> Option<Result<(), String>> {
        let done = match key {
            "trusted_networks" => {
                self.trusted_given = true;
                add(&mut self.trusted, value)
            }
            "internal_networks" => {
                self.internal_given = true;
                add(&mut self.internal, value)
            }
            "msa_networks" => add(&mut self.msa, value),
            "clear_trusted_networks" => {
                (self.trusted, self.trusted_given) = (Networks::loopback(), false);
                nothing(value)
            }
            "clear_internal_networks" => {
                (self.internal, self.internal_given) = (Networks::loopback(), false);
                nothing(value)
            }
            "clear_msa_networks" => {
                self.msa = Networks::default();
                nothing(value)
            }
            "originating_ip_headers" => self.add_originating(value),
            "clear_originating_ip_headers" => {
                self.originating.clear();
                nothing(value)
            }
            "envelope_sender_header" => self.set_sender_field(value),
            "always_trust_envelope_sender" => match value.trim() {
                "0" | "1" => {
                    self.trusts_sender = value.trim() == "1";
                    Ok(())
                }
                other => Err(format!("{other:?} is neither 1 nor 0")),
            },
            _ => return None,
        };
        Some(done)
    }

    fn add_originating(&mut self, value: &str) -> Result<(), String> {
        let mut names = value.split_whitespace().map(|n| n.trim_end_matches(':')).peekable();
        names.peek().ok_or("no header field named")?;
        for name in names {
            if !self.originating.iter().any(|known| known.eq_ignore_ascii_case(name)) {
                self.originating.push(name.to_string());
            }
        }
        Ok(())
    }

    fn set_sender_field(&mut self, value: &str) -> Result<(), String> {
        let name = value.trim().trim_end_matches(':');
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err("one header field is to be named".into());
        }
        self.sender_field = Some(name.to_string());
        Ok(())
    }

    /// The list that counts for trust: where only one of the two lists is given, it is both.
    pub(crate) fn trusted(&self) -> &Networks {
        if self.trusted_given || !self.internal_given { &self.trusted } else { &self.internal }
    }

    /// The list of our own networks, found in the same way.
    pub(crate) fn internal(&self) -> &Networks {
        if self.internal_given || !self.trusted_given { &self.internal } else { &self.trusted }
    }

    /// Whether the administrator named any network; where not, trust is inferred.
    pub(super) fn given(&self) -> bool {
        self.trusted_given || self.internal_given
    }
}

fn add(networks: &mut Networks, value: &str) -> Result<(), String> {
    let mut any = false;
    for text in value.split([' ', '\t', ',']).filter(|t| !t.is_empty()) {
        networks.add(text)?;
        any = true;
    }
    if any { Ok(()) } else { Err("no network named".into()) }
}

fn nothing(value: &str) -> Result<(), String> {
    if value.trim().is_empty() { Ok(()) } else { Err("takes no value".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_list_stands_for_the_other() {
        let mut settings = Settings::default();
        settings.set("trusted_networks", "10.0.0.0/8 192.0.2.1").unwrap().unwrap();
        assert!(settings.internal().contains("10.1.1.1") && settings.trusted().contains("127.0.0.1"));
        settings.set("internal_networks", "192.0.2.1").unwrap().unwrap();
        assert!(!settings.internal().contains("10.1.1.1"));
        settings.set("clear_trusted_networks", "").unwrap().unwrap();
        assert!(settings.trusted().contains("192.0.2.1") && !settings.trusted().contains("10.1.1.1"));
    }

    #[test]
    fn mistakes() {
        let mut settings = Settings::default();
        for (key, value) in [
            ("trusted_networks", ""),
            ("msa_networks", "x"),
            ("envelope_sender_header", "a b"),
            ("originating_ip_headers", " "),
        ] {
            assert!(settings.set(key, value).unwrap().is_err(), "{key}");
        }
        assert!(settings.set("required_score", "5").is_none());
    }
}
