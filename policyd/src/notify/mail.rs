// SPDX-License-Identifier: GPL-3.0-or-later
//! A notice as mail: short plain text, marked as made by a machine (RFC 3834), so that no vacation notice comes back.

use common::address::Address;
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, Message};
use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor};

use super::{Kind, Notice};
use crate::config::NotifySettings;

/// Gives the mail to the mail server.
pub(super) async fn send(settings: &NotifySettings, notice: &Notice) -> Result<(), String> {
    let message = compose(settings, notice)?;
    let Address::Tcp { host, port } = &settings.mail_server else {
        return Err("notify.mail_server is not \"host:port\"".to_owned());
    };
    let transport = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(host.as_str())
        .port(*port)
        .timeout(Some(settings.timeout.0))
        .build();
    transport.send(message).await.map(drop).map_err(|error| error.to_string())
}

fn compose(settings: &NotifySettings, notice: &Notice) -> Result<Message, String> {
    let from = match settings.mail_from.as_str() {
        "" => format!("octroi@{}", common::mail::hostname()),
        from => from.to_owned(),
    };
    let mailbox = |text: &str| -> Result<Mailbox, String> {
        let address = text.parse().map_err(|error| format!("{text}: {error}"))?;
        Ok(Mailbox::new(None, address))
    };
    let machine = HeaderValue::new(HeaderName::new_from_ascii_str("Auto-Submitted"), "auto-generated".to_owned());
    let mut message = Message::builder()
        .from(mailbox(&from)?)
        .subject(format!("octroi: {}", notice.summary()))
        .raw_header(machine)
        .header(ContentType::TEXT_PLAIN);
    for to in &settings.mail_to {
        message = message.to(mailbox(to)?);
    }
    message.body(text(notice)).map_err(|error| error.to_string())
}

fn text(notice: &Notice) -> String {
    let Notice { limit, key, unit, rate, host, .. } = notice;
    let consequence = match notice.kind {
        Kind::Warning => "Nothing is refused yet.",
        Kind::Blocked => "It is refused now, as the action of the limit says.",
    };
    format!(
        "{key} has passed {rate} {unit}, limit \"{limit}\", seen first by {host}.\n{consequence}\n\n\
         How it stands:        octroi limit show '{key}'\n\
         Begin anew:           octroi limit reset '{key}'\n\
         More for two hours:   octroi limit grant '{key}' +100 --for 2h\n\n\
         This is told once in the time of the limit.\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mail_names_what_to_do() {
        let settings = NotifySettings {
            mail_to: vec!["a@example.org".to_owned(), "b@example.org".to_owned()],
            mail_from: "octroi@mx.example.org".to_owned(),
            ..NotifySettings::default()
        };
        let notice = Notice {
            kind: Kind::Blocked,
            limit: "user".to_owned(),
            key: "jö@example.org".to_owned(),
            unit: "recipients",
            rate: "100/1h".to_owned(),
            keep: 1,
            host: "mx1".to_owned(),
        };
        let message = String::from_utf8(compose(&settings, &notice).unwrap().formatted()).unwrap();
        let head = message.split("\r\n\r\n").next().unwrap();
        assert!(head.is_ascii(), "{head}");
        assert!(
            head.contains("To: a@example.org, b@example.org") && head.contains("Auto-Submitted: auto-generated"),
            "{head}"
        );
        assert!(text(&notice).contains("octroi limit show 'jö@example.org'"));
    }
}
