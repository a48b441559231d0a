// SPDX-License-Identifier: GPL-3.0-or-later
//! SMTP typed by hand: exactly the bytes a test wants, replies as text with their lines joined by LF. RFC 5321.

use common::address::Address;
use tests::smtp_client::SmtpClient;

/// One connection.
pub struct Dialog {
    client: SmtpClient,
}

impl Dialog {
    /// Connects to a port of 127.0.0.1 and has exchanged greeting and EHLO at return.
    pub async fn open(port: u16) -> Dialog {
        Dialog { client: SmtpClient::greeted(&Address::tcp("127.0.0.1", port)).await }
    }

    /// As [`Dialog::open`], seen by Postfix as a client from outside (XCLIENT).
    pub async fn from_outside(port: u16, address: &str) -> Dialog {
        let mut dialog = Dialog::open(port).await;
        assert!(dialog.say(&format!("XCLIENT ADDR={address} NAME=mail.sender.test")).await.starts_with("220"));
        assert!(dialog.say("EHLO mail.sender.test").await.starts_with("250"));
        dialog
    }

    /// Sends one command and returns its reply.
    pub async fn say(&mut self, command: &str) -> String {
        self.raw(format!("{command}\r\n").as_bytes()).await;
        self.reply().await
    }

    /// MAIL, RCPT and DATA, all of which must be accepted.
    pub async fn envelope(&mut self, from: &str, to: &[&str]) {
        let mut commands = vec![(format!("MAIL FROM:<{from}>"), "250")];
        commands.extend(to.iter().map(|recipient| (format!("RCPT TO:<{recipient}>"), "250")));
        commands.push(("DATA".to_owned(), "354"));
        for (command, code) in commands {
            let reply = self.say(&command).await;
            assert!(reply.starts_with(code), "{command}: {reply}");
        }
    }

    /// Sends a message with its lines stuffed as RFC 5321 4.5.2 wants, and the final dot; the reply to it.
    pub async fn message(&mut self, message: &[u8]) -> String {
        let mut stuffed = Vec::with_capacity(message.len() + 64);
        for line in message.split_inclusive(|&byte| byte == b'\n') {
            if line.starts_with(b".") {
                stuffed.push(b'.');
            }
            stuffed.extend_from_slice(line);
        }
        stuffed.extend_from_slice(b".\r\n");
        self.raw(&stuffed).await;
        self.reply().await
    }

    /// Sends bytes as they are.
    pub async fn raw(&mut self, bytes: &[u8]) {
        self.client.send(bytes).await;
    }

    /// The next reply. Empty when the server has closed.
    pub async fn reply(&mut self) -> String {
        self.client.answer().await.text().replace('\r', "").trim_end().to_owned()
    }
}
