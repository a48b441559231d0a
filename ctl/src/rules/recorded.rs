// SPDX-License-Identifier: GPL-3.0-or-later
//! Recorded requests: as Postfix sends them, or the lines that policyd logs of its decisions (docs/logging.md), logfmt or JSON, with or
//! without what journald and syslog put before them.
//!
//! Pure. A log line has fewer attributes than a request had; what it has not is unknown to the rules, too.

use policyd::request::{PolicyRequest, ProtocolState};
use policyd::wire::Framer;

/// Calls `with` for each request; gives how many there were. The error names the place of what cannot be read.
pub(super) async fn each(mut input: &[u8], mut with: impl AsyncFnMut(&PolicyRequest<'_>)) -> Result<usize, String> {
    if !input.split(|byte| *byte == b'\n').any(|line| line.starts_with(b"request=")) {
        return each_line(input, with).await;
    }
    let (mut framer, mut count) = (Framer::new(), 0);
    loop {
        while let Some(rest) = input.strip_prefix(b"\n") {
            input = rest;
        }
        if input.is_empty() {
            return Ok(count);
        }
        count += 1;
        let wrong = |error: &dyn std::fmt::Display| format!("request {count}: {error}");
        let length =
            framer.find(input).map_err(|error| wrong(&error))?.ok_or_else(|| wrong(&"no empty line at its end"))?;
        with(&PolicyRequest::parse(framer.block(&input[..length]))).await;
        framer.restart();
        input = &input[length..];
    }
}

async fn each_line(input: &[u8], mut with: impl AsyncFnMut(&PolicyRequest<'_>)) -> Result<usize, String> {
    let mut count = 0;
    for line in input.split(|byte| *byte == b'\n') {
        let line = String::from_utf8_lossy(line);
        if let Some(fields) = fields(&line) {
            with(&request(&fields)).await;
            count += 1;
        }
    }
    match count {
        0 => Err("neither a request (request=smtpd_access_policy) nor a decision (msg=policy) is in it".to_owned()),
        count => Ok(count),
    }
}

/// Names and values of a line about a decision; none for any other line.
fn fields(line: &str) -> Option<Vec<(String, String)>> {
    let fields = match line.find('{').filter(|at| line[*at..].starts_with("{\"")) {
        Some(at) => json_fields(&line[at..])?,
        None => logfmt_fields(line),
    };
    let is_decision =
        |(name, value): &(String, String)| matches!(name.as_str(), "msg" | "message") && value == "policy";
    fields.iter().any(is_decision).then_some(fields)
}

fn json_fields(text: &str) -> Option<Vec<(String, String)>> {
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text.trim_end()).ok()?;
    let value = |value: serde_json::Value| match value {
        serde_json::Value::String(text) => text,
        other => other.to_string(),
    };
    Some(object.into_iter().map(|(name, content)| (name, value(content))).collect())
}

fn logfmt_fields(line: &str) -> Vec<(String, String)> {
    let (mut fields, mut rest) = (Vec::new(), line);
    while let Some((before, after)) = rest.split_once('=') {
        let name = before.rsplit(' ').next().unwrap_or_default().to_owned();
        let (value, left) = match after.strip_prefix('"') {
            Some(quoted) => unquoted(quoted),
            None => after.split_once(' ').map_or((after.to_owned(), ""), |(value, left)| (value.to_owned(), left)),
        };
        fields.push((name, value));
        rest = left;
    }
    fields
}

/// A value up to its closing quote, and what follows.
fn unquoted(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &text[at + 1..]),
            '\\' => match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, 'r')) => value.push('\r'),
                Some((_, 't')) => value.push('\t'),
                Some((start, 'u')) => {
                    let digits: String = text[start..].chars().skip(2).take_while(char::is_ascii_hexdigit).collect();
                    value.extend(u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32));
                    chars.by_ref().find(|(_, c)| *c == '}');
                }
                Some((_, other)) => value.push(other),
                None => {}
            },
            c => value.push(c),
        }
    }
    (value, "")
}

/// The request that a decision was about, as far as the line tells.
fn request(fields: &[(String, String)]) -> PolicyRequest<'_> {
    let get = |name: &str| fields.iter().find(|(field, _)| field == name).map_or("", |(_, value)| value.as_str());
    let known = |name: &str| Some(get(name)).filter(|value| !value.is_empty() && *value != "unknown").map(Into::into);
    let state = ProtocolState::ALL.into_iter().find(|state| state.word() == get("state")).unwrap_or_default();
    PolicyRequest {
        state,
        client_address: get("client").parse().ok(),
        client_name: known("client_name"),
        // The log has the confirmed name only, which was claimed, too.
        reverse_client_name: known("client_name"),
        helo_name: get("helo").into(),
        sender: get("sender").into(),
        recipient: get("rcpt").into(),
        instance: get("instance").into(),
        queue_id: get("queue_id").into(),
        ..PolicyRequest::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    async fn senders(text: &str) -> Result<Vec<String>, String> {
        let mut found = Vec::new();
        each(text.as_bytes(), async |request| found.push(format!("{} {:?}", request.sender, request.client_address)))
            .await?;
        Ok(found)
    }

    #[tokio::test]
    async fn requests_and_log_lines_are_read() {
        let request = "request=smtpd_access_policy\nsender=a@x.example\nclient_address=192.0.2.1\n\n";
        assert_eq!(senders(&format!("{request}\n{request}")).await.unwrap().len(), 2);
        let lines = "time=1 level=info msg=policy id=x client=192.0.2.1 helo=\"a b\" sender=a@x.example state=RCPT\n\
            Nov 22 mx octroi[1]: level=info msg=policy client=192.0.2.1 sender=\"b\\\"=\\u{e9}@x\" rcpt=c@d\n\
            level=info msg=message sender=other\nnonsense\n\
            {\"level\":\"INFO\",\"message\":\"policy\",\"client\":\"192.0.2.1\",\"sender\":\"c@x.example\"}\n";
        let found = senders(lines).await.unwrap();
        assert_eq!(found, ["a@x.example Some(192.0.2.1)", "b\"=é@x Some(192.0.2.1)", "c@x.example Some(192.0.2.1)"]);
        assert!(senders("nothing\n").await.unwrap_err().starts_with("neither"));
        assert!(senders("request=smtpd_access_policy\nsender=a\n").await.unwrap_err().contains("no empty line"));
    }

    proptest! {
        #[test]
        fn any_line_is_read(line in "\\PC{0,80}") {
            let _ = fields(&line);
            let _ = fields(&format!("msg=policy sender=\"{line}"));
        }
    }
}
