// SPDX-License-Identifier: GPL-3.0-or-later
//! `[policyd.shield]`: how many requests one client may cause on this host before it is told to come again, without a look-up or the store.

use std::num::NonZeroU32;
use std::time::Duration;

use common::config::{Mistakes, Source};
use serde::{Deserialize, Serialize};

use super::limit::{OverAction, Reply, reply_of};
use crate::limits::rate::{Rate, Span};

/// Section `[policyd.shield]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ShieldSettings {
    /// Requests of one client (IPv6: its /64) in which time, such as `"3000/1m"`; empty: no shield.
    pub rate: String,
    /// Requests at once; 0: the number of the rate.
    pub burst: u32,
    /// What is answered above it: `defer` or `defer_if_permit` with a text, or `dunno`, which only counts.
    pub action: String,
}

impl Default for ShieldSettings {
    fn default() -> Self {
        Self {
            rate: String::new(),
            burst: 0,
            action: "defer 4.7.1 Too many requests of your host, try again in {left}; id {id}".to_owned(),
        }
    }
}

/// A shield, ready for use.
#[derive(Debug, Clone)]
pub struct ShieldRate {
    /// Time in which one request is free again.
    pub every: Duration,
    /// Requests at once.
    pub burst: NonZeroU32,
    /// The answer above it.
    pub reply: Reply,
}

impl ShieldSettings {
    /// What it means; none when it is off. The error has the key.
    pub fn compile(&self) -> Result<Option<ShieldRate>, (&'static str, String)> {
        let reply = reply_of(&self.action, "shield").map_err(|message| ("action", message))?;
        if matches!(reply.action, OverAction::Reject) {
            return Err(("action", "a shield only defers: what comes too fast is nothing bad by itself".to_owned()));
        }
        if self.rate.is_empty() {
            return Ok(None);
        }
        let rate: Rate = self.rate.parse().map_err(|message| ("rate", message))?;
        let Span::Sliding(time) = rate.span else {
            return Err((
                "rate",
                format!("{:?}: here stands a time such as 1m, and no window of the calendar", self.rate),
            ));
        };
        let number = u32::try_from(rate.number).ok().and_then(NonZeroU32::new);
        let every = number.map(|number| time.0 / number.get()).filter(|every| !every.is_zero());
        let (Some(number), Some(every)) = (number, every) else {
            return Err(("rate", format!("{:?} is more than can be told apart", self.rate)));
        };
        Ok(Some(ShieldRate { every, burst: NonZeroU32::new(self.burst).unwrap_or(number), reply }))
    }

    pub(super) fn check(&self, source: &Source, mistakes: &mut Mistakes) {
        if let Err((key, message)) = self.compile() {
            mistakes.push(source.mistake(&format!("policyd.shield.{key}"), message));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compiled(rate: &str, burst: u32) -> Result<Option<ShieldRate>, (&'static str, String)> {
        ShieldSettings { rate: rate.to_owned(), burst, ..ShieldSettings::default() }.compile()
    }

    #[test]
    fn it_is_off_or_a_rate() {
        assert!(compiled("", 0).unwrap().is_none());
        let shield = compiled("600/1m", 0).unwrap().unwrap();
        assert_eq!((shield.every, shield.burst.get()), (Duration::from_millis(100), 600));
        assert_eq!(compiled("600/1m", 5).unwrap().unwrap().burst.get(), 5);
        for wrong in ["600", "600/day", "0/1m", "9999999999999/1s"] {
            assert_eq!(compiled(wrong, 0).unwrap_err().0, "rate", "{wrong}");
        }
        let never = ShieldSettings { action: "reject 5.7.1 never".to_owned(), ..ShieldSettings::default() };
        assert_eq!(never.compile().unwrap_err().0, "action");
    }
}
