// SPDX-License-Identifier: GPL-3.0-or-later
//! The relays that a message came through, read from its `Received` fields, and how far they can be trusted.
//!
//! [`received`] understands one field, [`walk`] goes through all of them from the newest to the oldest; [`networks`] are the lists
//! that an administrator gives. Rules see the result as `X-Spam-Relays-*` strings.

mod auth;
mod formats;
pub(crate) mod ip;
mod networks;
mod received;
mod settings;
mod shape;
mod walk;

use crate::context::Context;

pub(crate) use networks::Networks;
pub(crate) use settings::Settings;

/// A host that handed the message over, as the server that took it wrote down.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Relay {
    /// Its address; empty when the line does not tell.
    pub(crate) ip: String,
    /// Its name by reverse lookup.
    pub(crate) rdns: String,
    /// The name that it claimed.
    pub(crate) helo: String,
    /// The server that took the message.
    pub(crate) by: String,
    pub(crate) ident: String,
    /// The sender of the envelope, where the line has it.
    pub(crate) sender: Option<String>,
    pub(crate) id: String,
    /// How the client had logged in; empty when it had not.
    pub(crate) auth: String,
    /// The server looked for a name and found none.
    pub(crate) no_rdns: bool,
    /// It is not known whether the client has a name.
    pub(crate) rdns_unknown: bool,
    /// The address is one that the internet does not route.
    pub(crate) private: bool,
    /// The server belongs to the internal networks.
    pub(crate) internal: bool,
    /// The server takes mail from users.
    pub(crate) msa: bool,
}

impl Relay {
    /// The form in which rules read it.
    fn write(&self, text: &mut String) {
        let sender = self.sender.as_deref().filter(|s| *s != "0").unwrap_or_default();
        let parts = [
            ("[ ip=", self.ip.as_str()),
            (" rdns=", &self.rdns),
            (" helo=", &self.helo),
            (" by=", &self.by),
            (" ident=", &self.ident),
            (" envfrom=", sender),
            (" intl=", if self.internal { "1" } else { "0" }),
            (" id=", &self.id),
            (" auth=", &self.auth),
            (" msa=", if self.msa { "1" } else { "0" }),
        ];
        for (name, value) in parts {
            text.push_str(name);
            text.push_str(value);
        }
        text.push_str(" ]");
    }
}

/// The relays of one message, newest first.
#[derive(Debug, Default)]
pub(crate) struct Relays {
    /// Handovers on which the servers before can be believed.
    pub(crate) trusted: Vec<Relay>,
    pub(crate) untrusted: Vec<Relay>,
    /// Handovers to hosts of our own.
    pub(crate) internal: Vec<Relay>,
    pub(crate) external: Vec<Relay>,
    /// How many fields could not be understood.
    pub(crate) unparseable: usize,
    /// Which `Received` field is the last trusted, the last internal one; -1 for none.
    pub(crate) last_trusted: isize,
    pub(crate) last_internal: isize,
    /// The same as text, in the order trusted, untrusted, internal, external.
    texts: [String; 4],
}

impl Relays {
    pub(crate) fn new(context: &Context<'_>) -> Relays {
        let headers = context.message.headers();
        let settings = &context.settings.relays;
        let mut lines: Vec<Vec<u8>> = headers.all("Received").map(|field| field.decoded().to_vec()).collect();
        for name in &settings.originating {
            let value = headers.last(name).map(crate::message::Header::decoded).unwrap_or_default();
            if let Some(range) = ip::find(value) {
                lines.push([b"from X-Originating-IP: ", &value[range]].concat());
            }
        }
        walk::walk(&lines, settings)
    }

    /// `X-Spam-Relays-Trusted` and its three siblings.
    pub(crate) fn text(&self, which: Which) -> &str {
        &self.texts[which as usize]
    }

    fn write(mut self) -> Self {
        for (which, relays) in [&self.trusted, &self.untrusted, &self.internal, &self.external].into_iter().enumerate()
        {
            let mut text = String::new();
            for relay in relays {
                if !text.is_empty() {
                    text.push(' ');
                }
                relay.write(&mut text);
            }
            self.texts[which] = text;
        }
        self
    }
}

/// One of the four lists of relays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    Trusted,
    Untrusted,
    Internal,
    External,
}
