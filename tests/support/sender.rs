// SPDX-License-Identifier: GPL-3.0-or-later
//! A well-behaved mail server that hands one message to a Postfix, and reports at which stage it got which answer.
//!
//! It comes from the address it is told to come from (XCLIENT, Postfix' XCLIENT_README). lettre speaks SMTP; it joins
//! the lines of a refusal with blanks, which is fine for reading. Tests of exact bytes use another client.

use std::error::Error as _;
use std::fmt;
use std::time::Duration;

use lettre::transport::smtp::client::AsyncSmtpConnection;
use lettre::transport::smtp::commands::{Data, Ehlo};
use lettre::transport::smtp::extension::ClientId;
use lettre::transport::smtp::response::Response;

/// Longer than any deadline of the daemons.
const TIMEOUT: Duration = Duration::from_secs(200);

/// Who seems to send.
#[derive(Debug, Clone)]
pub struct Sender {
    /// Client address.
    pub address: String,
    /// Verified host name of the client, also its HELO.
    pub name: String,
}

impl Default for Sender {
    /// Documentation addresses (RFC 5737) and names (RFC 2606).
    fn default() -> Sender {
        Sender { address: "192.0.2.25".to_owned(), name: "mail.sender.test".to_owned() }
    }
}

/// Where in the dialog the decisive answer came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The TCP connection or the greeting.
    Connect,
    /// MAIL FROM.
    Mail,
    /// RCPT TO; the first recipient that was not accepted decides.
    Rcpt,
    /// DATA.
    Data,
    /// The final dot.
    EndOfMessage,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stage::Connect => "connect",
            Stage::Mail => "MAIL",
            Stage::Rcpt => "RCPT",
            Stage::Data => "DATA",
            Stage::EndOfMessage => "end of DATA",
        })
    }
}

/// The answer that decided about a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Where it came.
    pub stage: Stage,
    /// Code and text, `250 2.0.0 Ok`; without a code when the connection failed.
    pub reply: String,
}

impl Outcome {
    /// True when the message was taken.
    pub fn accepted(&self) -> bool {
        self.stage == Stage::EndOfMessage && self.reply.starts_with('2')
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.reply, self.stage)
    }
}

impl Sender {
    /// Offers one message to the server on this port of 127.0.0.1. `from` may be empty (null sender), `from` and `to`
    /// may carry parameters after `>`; they are sent as they stand between `<` and the end of the line.
    pub async fn deliver(&self, port: u16, from: &str, to: &[&str], message: &[u8]) -> Outcome {
        let mut stage = Stage::Connect;
        let reply = match self.dialog(&mut stage, port, from, to, message).await {
            Ok(response) => text(&response),
            Err(error) => refusal(&error),
        };
        Outcome { stage, reply }
    }

    async fn dialog(
        &self,
        stage: &mut Stage,
        port: u16,
        from: &str,
        to: &[&str],
        message: &[u8],
    ) -> Result<Response, lettre::transport::smtp::Error> {
        let hello = ClientId::Domain(self.name.clone());
        let mut server =
            AsyncSmtpConnection::connect_tokio1(("127.0.0.1", port), Some(TIMEOUT), &hello, None, None).await?;
        server.command(format!("XCLIENT ADDR={} NAME={}\r\n", self.address, self.name)).await?;
        server.command(Ehlo::new(hello)).await?;
        *stage = Stage::Mail;
        server.command(format!("MAIL FROM:<{}\r\n", closed(from))).await?;
        *stage = Stage::Rcpt;
        for recipient in to {
            server.command(format!("RCPT TO:<{}\r\n", closed(recipient))).await?;
        }
        *stage = Stage::Data;
        server.command(Data).await?;
        *stage = Stage::EndOfMessage;
        let accepted = server.message(message).await?;
        // The message is theirs now, whatever becomes of the connection.
        let _ = server.quit().await;
        Ok(accepted)
    }
}

fn closed(address: &str) -> String {
    if address.contains('>') { address.to_owned() } else { format!("{address}>") }
}

fn text(response: &Response) -> String {
    let lines: Vec<&str> = response.message().collect();
    format!("{} {}", response.code(), lines.join(" "))
}

fn refusal(error: &lettre::transport::smtp::Error) -> String {
    let why = error.source().map(ToString::to_string).unwrap_or_else(|| error.to_string());
    match error.status() {
        Some(code) => format!("{code} {why}"),
        None => why,
    }
}
