// SPDX-License-Identifier: GPL-3.0-or-later
//! A policy request as types: the attributes that checks look at, borrowed from the request's bytes.
//!
//! Pure. Which attribute has a value at which stage: Postfix SMTPD_POLICY_README. Absent, empty and `unknown` all
//! mean that Postfix does not know.

use std::borrow::Cow;
use std::net::IpAddr;
use std::str::FromStr;

use crate::wire::Block;

/// The SMTP stage at which Postfix asks (`protocol_state`). With `smtpd_delay_reject = yes`, the default, client,
/// HELO and sender restrictions are asked at RCPT too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ProtocolState {
    /// At connection.
    Connect,
    /// EHLO.
    Ehlo,
    /// HELO.
    Helo,
    /// MAIL FROM.
    Mail,
    /// RCPT TO, once per recipient.
    Rcpt,
    /// DATA, or the first BDAT.
    Data,
    /// After the content.
    EndOfMessage,
    /// VRFY.
    Vrfy,
    /// ETRN.
    Etrn,
    /// None of these; a later Postfix may have more.
    #[default]
    Other,
}

impl ProtocolState {
    /// Every state, in the order of their numbers.
    pub const ALL: [Self; 10] = [
        Self::Connect,
        Self::Ehlo,
        Self::Helo,
        Self::Mail,
        Self::Rcpt,
        Self::Data,
        Self::EndOfMessage,
        Self::Vrfy,
        Self::Etrn,
        Self::Other,
    ];

    /// The word of Postfix, for log and metric.
    pub fn word(self) -> &'static str {
        match self {
            Self::Connect => "CONNECT",
            Self::Ehlo => "EHLO",
            Self::Helo => "HELO",
            Self::Mail => "MAIL",
            Self::Rcpt => "RCPT",
            Self::Data => "DATA",
            Self::EndOfMessage => "END-OF-MESSAGE",
            Self::Vrfy => "VRFY",
            Self::Etrn => "ETRN",
            Self::Other => "other",
        }
    }

    fn parse(value: &[u8]) -> Self {
        Self::ALL.into_iter().find(|state| state.word().as_bytes() == value).unwrap_or_default()
    }

    /// True when MAIL has been given, so that an empty sender is the null sender and not an unknown one.
    pub fn has_sender(self) -> bool {
        matches!(self, Self::Mail | Self::Rcpt | Self::Data | Self::EndOfMessage)
    }
}

/// One request. Values that are not UTF-8 have their wrong bytes replaced by U+FFFD.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PolicyRequest<'a> {
    /// Stage.
    pub state: ProtocolState,
    /// IP address of the client; none when Postfix does not know it.
    pub client_address: Option<IpAddr>,
    /// Host name of the client, confirmed in both directions by Postfix; none otherwise.
    pub client_name: Option<Cow<'a, str>>,
    /// Name from the address alone, confirmed or not; none when there is none.
    pub reverse_client_name: Option<Cow<'a, str>>,
    /// What the client called itself.
    pub helo_name: Cow<'a, str>,
    /// Envelope sender; empty for the null sender, and before MAIL.
    pub sender: Cow<'a, str>,
    /// Envelope recipient; at DATA and END-OF-MESSAGE only when there is exactly one.
    pub recipient: Cow<'a, str>,
    /// Ties the requests of one message on one Postfix host; empty before RCPT.
    pub instance: Cow<'a, str>,
    /// Queue id; empty for the first recipient.
    pub queue_id: Cow<'a, str>,
    /// Log-in name; empty when the client has not authenticated.
    pub sasl_username: Cow<'a, str>,
    /// How the client authenticated.
    pub sasl_method: Cow<'a, str>,
    /// AUTH= of MAIL FROM.
    pub sasl_sender: Cow<'a, str>,
    /// SMTP or ESMTP.
    pub protocol_name: Cow<'a, str>,
    /// Port of the client; 0 when it is not known.
    pub client_port: u16,
    /// Address of ours to which the client is connected.
    pub server_address: Option<IpAddr>,
    /// Port of ours; 0 when it is not known.
    pub server_port: u16,
    /// Size in bytes: what MAIL FROM announced, the real one at END-OF-MESSAGE; 0 when it is not known.
    pub size: u64,
    /// Recipients accepted so far; known at DATA and END-OF-MESSAGE.
    pub recipient_count: u32,
    /// TLS version; empty without TLS.
    pub encryption_protocol: Cow<'a, str>,
    /// TLS cipher.
    pub encryption_cipher: Cow<'a, str>,
    /// Bits of the TLS key.
    pub encryption_keysize: u32,
    /// Server name that the client asked for (Postfix 3.12).
    pub tls_sni: Cow<'a, str>,
    /// Subject of the client's certificate.
    pub ccert_subject: Cow<'a, str>,
    /// Issuer of the client's certificate.
    pub ccert_issuer: Cow<'a, str>,
    /// Fingerprint of the client's certificate.
    pub ccert_fingerprint: Cow<'a, str>,
    /// Fingerprint of the public key in the client's certificate.
    pub ccert_pubkey_fingerprint: Cow<'a, str>,
    /// What ETRN asks for.
    pub etrn_domain: Cow<'a, str>,
    /// `smtpd_policy_service_policy_context`, or that of the service in the restriction list.
    pub policy_context: Cow<'a, str>,
    /// Postfix is short of smtpd processes.
    pub stress: bool,
    /// Version of Postfix (3.8).
    pub mail_version: Cow<'a, str>,
    /// Postfix' compatibility_level (3.8).
    pub compatibility_level: Cow<'a, str>,
}

impl<'a> PolicyRequest<'a> {
    /// Reads the attributes of a block. Unknown names are passed over; of two equal names the last counts.
    pub fn parse(block: Block<'a>) -> Self {
        let mut request = Self::default();
        for (name, value) in block.attributes() {
            match name {
                b"protocol_state" => request.state = ProtocolState::parse(value),
                b"client_address" => request.client_address = ip(value),
                b"client_name" => request.client_name = known(value),
                b"reverse_client_name" => request.reverse_client_name = known(value),
                b"helo_name" => request.helo_name = text(value),
                b"sender" => request.sender = text(value),
                b"recipient" => request.recipient = text(value),
                b"instance" => request.instance = text(value),
                b"queue_id" => request.queue_id = text(value),
                b"sasl_username" => request.sasl_username = text(value),
                b"sasl_method" => request.sasl_method = text(value),
                b"sasl_sender" => request.sasl_sender = text(value),
                b"protocol_name" => request.protocol_name = text(value),
                b"client_port" => request.client_port = number(value),
                b"server_address" => request.server_address = ip(value),
                b"server_port" => request.server_port = number(value),
                b"size" => request.size = number(value),
                b"recipient_count" => request.recipient_count = number(value),
                b"encryption_protocol" => request.encryption_protocol = text(value),
                b"encryption_cipher" => request.encryption_cipher = text(value),
                b"encryption_keysize" => request.encryption_keysize = number(value),
                b"tls_sni" => request.tls_sni = text(value),
                b"ccert_subject" => request.ccert_subject = xtext(value),
                b"ccert_issuer" => request.ccert_issuer = xtext(value),
                b"ccert_fingerprint" => request.ccert_fingerprint = text(value),
                b"ccert_pubkey_fingerprint" => request.ccert_pubkey_fingerprint = text(value),
                b"etrn_domain" => request.etrn_domain = text(value),
                b"policy_context" => request.policy_context = text(value),
                b"stress" => request.stress = value == b"yes",
                b"mail_version" => request.mail_version = text(value),
                b"compatibility_level" => request.compatibility_level = text(value),
                _ => {}
            }
        }
        request
    }

    /// The request as Postfix writes it, for another policy server. What we do not know it is not told.
    pub fn written(&self) -> String {
        let mut out = String::with_capacity(1024);
        out.push_str("request=smtpd_access_policy\n");
        let address = |ip: Option<IpAddr>| ip.map(|ip| ip.to_string()).unwrap_or_default();
        let number = |number: u64| if number == 0 { String::new() } else { number.to_string() };
        for (name, value) in [
            ("protocol_state", self.state.word()),
            ("protocol_name", &self.protocol_name),
            ("helo_name", &self.helo_name),
            ("queue_id", &self.queue_id),
            ("sender", &self.sender),
            ("recipient", &self.recipient),
            ("recipient_count", &self.recipient_count.to_string()),
            ("client_address", &address(self.client_address)),
            ("client_name", self.client_name.as_deref().unwrap_or("unknown")),
            ("reverse_client_name", self.reverse_client_name.as_deref().unwrap_or("unknown")),
            ("client_port", &number(self.client_port.into())),
            ("instance", &self.instance),
            ("sasl_method", &self.sasl_method),
            ("sasl_username", &self.sasl_username),
            ("sasl_sender", &self.sasl_sender),
            ("size", &self.size.to_string()),
            ("ccert_subject", &self.ccert_subject),
            ("ccert_issuer", &self.ccert_issuer),
            ("ccert_fingerprint", &self.ccert_fingerprint),
            ("ccert_pubkey_fingerprint", &self.ccert_pubkey_fingerprint),
            ("encryption_protocol", &self.encryption_protocol),
            ("encryption_cipher", &self.encryption_cipher),
            ("encryption_keysize", &self.encryption_keysize.to_string()),
            ("etrn_domain", &self.etrn_domain),
            ("stress", if self.stress { "yes" } else { "" }),
            ("policy_context", &self.policy_context),
            ("server_address", &address(self.server_address)),
            ("server_port", &number(self.server_port.into())),
            ("tls_sni", &self.tls_sni),
            ("mail_version", &self.mail_version),
            ("compatibility_level", &self.compatibility_level),
        ] {
            out.push_str(name);
            out.push('=');
            // A name of a certificate, decoded, may have a line end in it.
            out.extend(value.chars().map(|c| if matches!(c, '\n' | '\0') { '?' } else { c }));
            out.push('\n');
        }
        out.push('\n');
        out
    }

    /// True for the null sender `<>`; false while no sender has been given.
    pub fn is_null_sender(&self) -> bool {
        self.state.has_sender() && self.sender.is_empty()
    }
}

/// Text; wrong bytes become U+FFFD. Nearly all of it is right, and to see that is cheaper than to look for what is wrong.
fn text(value: &[u8]) -> Cow<'_, str> {
    std::str::from_utf8(value).map_or_else(|_| String::from_utf8_lossy(value), Cow::Borrowed)
}

/// A name, unless it is empty or Postfix' word for "none".
fn known(value: &[u8]) -> Option<Cow<'_, str>> {
    (!value.is_empty() && value != b"unknown").then(|| text(value))
}

/// A number; 0, Postfix' own word for an unknown one, when it is none or too large.
fn number<T: FromStr + Default>(value: &[u8]) -> T {
    std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// A text in which `+XX` stands for a byte (RFC 3461 section 4), as Postfix writes names of certificates.
fn xtext(value: &[u8]) -> Cow<'_, str> {
    if !value.contains(&b'+') {
        return String::from_utf8_lossy(value);
    }
    let (mut out, mut rest) = (Vec::with_capacity(value.len()), value);
    while let [first, after @ ..] = rest {
        let digits = after.get(..2).filter(|_| *first == b'+').and_then(|hex| std::str::from_utf8(hex).ok());
        match digits.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = &after[2..];
            }
            None => {
                out.push(*first);
                rest = after;
            }
        }
    }
    Cow::Owned(String::from_utf8_lossy(&out).into_owned())
}

/// An IP address. IPv4-mapped IPv6 becomes IPv4, and the zone of a link-local address (`fe80::1%eth0`) is cut.
fn ip(value: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(value).ok()?;
    let address = text.split_once('%').map_or(text, |(address, _)| address);
    address.parse::<IpAddr>().ok().map(|ip| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Framer;
    use proptest::prelude::*;

    /// Calls `look` with the request made of `lines`.
    fn with(lines: &str, look: impl FnOnce(PolicyRequest<'_>)) {
        let text = format!("request=smtpd_access_policy\n{lines}\n");
        let mut framer = Framer::new();
        assert_eq!(framer.find(text.as_bytes()), Ok(Some(text.len())));
        look(PolicyRequest::parse(framer.block(text.as_bytes())));
    }

    #[test]
    fn attributes_become_fields() {
        let lines = "protocol_state=RCPT\nprotocol_name=ESMTP\nhelo_name=some.domain.tld\nqueue_id=8045F2AB23\n\
            sender=foo@bar.tld\nrecipient=bar@foo.tld\nclient_address=1.2.3.4\nclient_name=another.domain.tld\n\
            reverse_client_name=another.domain.tld\ninstance=123.456.7\nsasl_username=you\nnever_heard_of=1\n";
        with(lines, |request| {
            let expected = PolicyRequest {
                state: ProtocolState::Rcpt,
                client_address: Some("1.2.3.4".parse().unwrap()),
                client_name: Some("another.domain.tld".into()),
                reverse_client_name: Some("another.domain.tld".into()),
                helo_name: "some.domain.tld".into(),
                sender: "foo@bar.tld".into(),
                recipient: "bar@foo.tld".into(),
                instance: "123.456.7".into(),
                queue_id: "8045F2AB23".into(),
                sasl_username: "you".into(),
                ..PolicyRequest::default()
            };
            assert_eq!(PolicyRequest { protocol_name: "".into(), ..request.clone() }, expected);
            assert!(!request.is_null_sender());
        });
    }

    #[test]
    fn a_written_request_is_read_again() {
        let lines = "protocol_state=DATA\nprotocol_name=ESMTP\nhelo_name=h.example\nqueue_id=8045F2AB23\nsender=f\u{e9}@bar.tld\n\
            recipient=bar@foo.tld\nrecipient_count=3\nclient_address=2001:db8::1\nclient_port=1234\nclient_name=a.example\n\
            reverse_client_name=b.example\ninstance=1.2\nsasl_username=you\nsize=12\nencryption_keysize=256\nstress=yes\n\
            policy_context=x\nserver_address=192.0.2.1\nserver_port=25\n";
        for lines in [lines, "protocol_state=CONNECT\n"] {
            with(lines, |request| {
                let written = request.written();
                let body = written.strip_prefix("request=smtpd_access_policy\n").unwrap().strip_suffix('\n').unwrap();
                with(body, |again| assert_eq!(again, request));
            });
        }
    }

    #[test]
    fn what_postfix_does_not_know_is_none() {
        for lines in [
            "",
            "client_address=\nclient_name=\nreverse_client_name=\n",
            "client_address=unknown\nclient_name=unknown\nreverse_client_name=unknown\n",
        ] {
            with(lines, |request| assert_eq!(request, PolicyRequest::default()));
        }
        with("client_address=::ffff:192.0.2.1\n", |request| {
            assert_eq!(request.client_address, "192.0.2.1".parse().ok())
        });
        with("client_address=fe80::1%eth0\n", |request| assert_eq!(request.client_address, "fe80::1".parse().ok()));
    }

    #[test]
    fn only_after_mail_an_empty_sender_is_the_null_sender() {
        for (state, null) in [
            ("CONNECT", false),
            ("EHLO", false),
            ("MAIL", true),
            ("RCPT", true),
            ("DATA", true),
            ("END-OF-MESSAGE", true),
            ("ETRN", false),
        ] {
            with(&format!("protocol_state={state}\nsender=\n"), |request| {
                assert_eq!(request.state.word(), state);
                assert_eq!(request.is_null_sender(), null, "{state}");
            });
        }
        with("protocol_state=BDAT\n", |request| assert_eq!(request.state, ProtocolState::Other));
    }

    #[test]
    fn numbers_and_names_of_certificates_are_read() {
        let lines = "size=12345\nrecipient_count=2\nclient_port=70000\nserver_port=25\nstress=yes\nccert_subject=A+20+C3+BC+2\n";
        with(lines, |request| {
            assert_eq!((request.size, request.recipient_count, request.client_port), (12345, 2, 0));
            assert_eq!((request.server_port, request.stress, &*request.ccert_subject), (25, true, "A ü+2"));
        });
        with("size=-1\nstress=\nccert_subject=+\n", |request| {
            assert_eq!((request.size, request.stress, &*request.ccert_subject), (0, false, "+"));
        });
    }

    #[test]
    fn the_last_of_two_equal_names_counts() {
        with("sender=a\nsender=b\n", |request| assert_eq!(request.sender, "b"));
    }

    proptest! {
        #[test]
        fn any_values_are_read(values in proptest::collection::vec("[^\n\u{0}]{0,20}", 6)) {
            let names = ["protocol_state", "client_address", "client_name", "helo_name", "sender", "recipient"];
            let lines: String = names.iter().zip(&values).map(|(name, value)| format!("{name}={value}\n")).collect();
            with(&lines, |request| assert_eq!(request.sender, values[4]));
        }
    }
}
