// SPDX-License-Identifier: GPL-3.0-or-later
//! Protected recipients, such as the list of all staff: only insiders may write to them, or only some of the insiders.
//!
//! An insider has logged in, or comes from one of our networks. A sender address alone proves nothing: anybody can use it.

use std::borrow::Cow;

use common::config::Mistakes;

use crate::config::recipients::ProtectedSettings;
use crate::policy::Policy;
use crate::recipients::list::{Addresses, Clients};
use crate::request::PolicyRequest;
use crate::verdict::{Finding, Reason, Verdict};

/// One `[[protected]]`, loaded.
#[derive(Debug)]
pub struct Protected {
    settings: ProtectedSettings,
    recipients: Addresses,
    senders: Addresses,
    networks: Clients,
}

impl Protected {
    /// Loads the list files. `origin` is where the entry stands.
    pub fn load(origin: &str, settings: &ProtectedSettings) -> Result<Self, Mistakes> {
        Ok(Self {
            recipients: Addresses::load(&settings.recipients, origin, "protected.recipients")?,
            senders: Addresses::load(&settings.senders, origin, "protected.senders")?,
            networks: Clients::load(&settings.networks, origin, "protected.networks")?,
            settings: settings.clone(),
        })
    }

    fn admits(&self, policy: &Policy, request: &PolicyRequest<'_>) -> bool {
        let (ip, name) = (request.client_address, request.client_name.as_deref());
        let inside = self.settings.authenticated && !request.sasl_username.is_empty()
            || self.networks.find(ip, name).is_some()
            || policy.lists.now().client(|tables| &tables.own_networks, request).is_some();
        inside && (self.settings.senders.is_empty() || self.senders.find(&request.sender).is_some())
    }
}

/// The refusal for who may not write to this recipient; every entry that names it must admit.
pub fn refusal(policy: &Policy, request: &PolicyRequest<'_>) -> Option<Finding> {
    for protected in &policy.protected {
        let Some(entry) = protected.recipients.find(&request.recipient) else { continue };
        if !protected.admits(policy, request) {
            let verdict = Verdict::RejectAs(Cow::Owned(format!("550 {}", protected.settings.text)));
            let fact = format!("{} ({})", entry.entry, entry.origin);
            return Some(Finding { verdict, ..Finding::pass(Reason::RecipientProtected) }.because(fact));
        }
    }
    None
}
