// SPDX-License-Identifier: GPL-3.0-or-later
//! What a limit counts, and at which stages of SMTP that is known (SMTPD_POLICY_README).

use serde::{Deserialize, Serialize};

use crate::request::{PolicyRequest, ProtocolState};

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Connections of clients, each once, at the first request that it leads to.
    Connections,
    /// Messages.
    Messages,
    /// Recipients of messages.
    Recipients,
    /// Sizes of messages, in bytes.
    Bytes,
    /// Refusals for good by another check of ours.
    Rejects,
    /// Recipients that are not among those of the period.
    DistinctRecipients,
    /// Log-ins, each once per connection.
    Auth,
}

/// Where a limit is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Stage {
    /// At RCPT, for each recipient.
    #[serde(rename = "rcpt")]
    Rcpt,
    /// At DATA, for all recipients that were accepted.
    #[serde(rename = "data")]
    Data,
    /// After the content.
    #[serde(rename = "end-of-message")]
    EndOfMessage,
}

impl Stage {
    /// The state in which Postfix asks.
    pub fn state(self) -> ProtocolState {
        match self {
            Self::Rcpt => ProtocolState::Rcpt,
            Self::Data => ProtocolState::Data,
            Self::EndOfMessage => ProtocolState::EndOfMessage,
        }
    }

    /// The restriction list of Postfix that must ask us.
    pub fn list(self) -> &'static str {
        match self {
            Self::Rcpt => "smtpd_recipient_restrictions",
            Self::Data => "smtpd_data_restrictions",
            Self::EndOfMessage => "smtpd_end_of_data_restrictions",
        }
    }
}

impl Unit {
    /// The word of the option.
    pub fn word(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Messages => "messages",
            Self::Recipients => "recipients",
            Self::Bytes => "bytes",
            Self::Rejects => "rejects",
            Self::DistinctRecipients => "distinct_recipients",
            Self::Auth => "auth",
        }
    }

    /// The one stage at which it is counted, where there is one: the default and what may be chosen.
    pub fn stages(self) -> &'static [Stage] {
        match self {
            Self::Messages => &[Stage::Data, Stage::EndOfMessage, Stage::Rcpt],
            Self::Recipients => &[Stage::Rcpt, Stage::Data, Stage::EndOfMessage],
            Self::Bytes => &[Stage::EndOfMessage],
            Self::DistinctRecipients => &[Stage::Rcpt],
            Self::Connections | Self::Rejects | Self::Auth => &[],
        }
    }

    /// How much a request is charged in this unit at this stage; none when it is not counted there.
    pub fn amount(self, stage: Option<Stage>, request: &PolicyRequest<'_>) -> Option<u64> {
        if stage.is_some_and(|stage| stage.state() != request.state) {
            return None;
        }
        match self {
            Self::Connections if request.client_port == 0 || !before_content(request.state) => None,
            Self::Auth if request.sasl_username.is_empty() || !before_content(request.state) => None,
            Self::Rejects if !before_content(request.state) => None,
            Self::DistinctRecipients if request.recipient.is_empty() => None,
            Self::Connections | Self::Auth | Self::Rejects | Self::DistinctRecipients => Some(1),
            // Without an instance a repetition could not be told from another message.
            _ if request.instance.is_empty() => None,
            Self::Messages => Some(1),
            Self::Recipients if request.state == ProtocolState::Rcpt => Some(1),
            Self::Recipients => Some(u64::from(request.recipient_count.max(1))),
            Self::Bytes => Some(request.size),
        }
    }
}

/// States before a message is under way, and RCPT, at which Postfix asks the lists of all of them by default.
fn before_content(state: ProtocolState) -> bool {
    use ProtocolState::{Connect, Ehlo, Helo, Mail, Rcpt};
    matches!(state, Connect | Ehlo | Helo | Mail | Rcpt)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_depends_on_the_stage() {
        let request = |state| PolicyRequest {
            state,
            instance: "1".into(),
            recipient: "r@x".into(),
            recipient_count: 3,
            size: 5000,
            client_port: 1,
            ..PolicyRequest::default()
        };
        use ProtocolState::{Connect, Data, EndOfMessage, Rcpt};
        for (unit, stage, state, amount) in [
            (Unit::Recipients, Some(Stage::Rcpt), Rcpt, Some(1)),
            (Unit::Recipients, Some(Stage::Rcpt), Data, None),
            (Unit::Recipients, Some(Stage::Data), Data, Some(3)),
            (Unit::Messages, Some(Stage::Data), Data, Some(1)),
            (Unit::Bytes, Some(Stage::EndOfMessage), EndOfMessage, Some(5000)),
            (Unit::Connections, None, Connect, Some(1)),
            (Unit::Connections, None, Rcpt, Some(1)),
            (Unit::Connections, None, Data, None),
            (Unit::Auth, None, Rcpt, None),
            (Unit::Rejects, None, Rcpt, Some(1)),
        ] {
            assert_eq!(unit.amount(stage, &request(state)), amount, "{unit:?} {state:?}");
        }
        let unknown = PolicyRequest { state: Data, ..PolicyRequest::default() };
        assert_eq!(Unit::Messages.amount(Some(Stage::Data), &unknown), None, "no instance");
    }
}
