// SPDX-License-Identifier: GPL-3.0-or-later
//! What the plugins of SpamAssassin's suite do, which are written in Perl, done by extensions of spamrules.

use std::sync::{Arc, Mutex};

use spamrules::{Extension, View};

/// Rules that call what SpamAssassin calls at fixed points of a run.
pub(super) const RULES: &[u8] =
    b"if has(Texts::check_texts)\nheader __TEXTS eval:check_texts()\nendif\nif has(Dumpheaders::dump_headers)\nheader __DUMP eval:dump_headers()\nendif\n";

/// What extensions have said.
#[derive(Clone, Default)]
pub(super) struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn add(&self, line: String) {
        self.0.lock().expect("nobody panics while it is held").push(line);
    }

    pub(super) fn lines(&self) -> Vec<String> {
        self.0.lock().expect("nobody panics while it is held").clone()
    }
}

/// Says when an extension ends.
struct Finish {
    name: String,
    log: Log,
}

impl Drop for Finish {
    fn drop(&mut self) {
        self.log.add(format!("{} finishing", self.name));
    }
}

/// The extensions for the `loadplugin` lines of a configuration.
pub(super) fn all(config: &str, log: &Log) -> Vec<Extension> {
    let mut found = Vec::new();
    for line in config.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["loadplugin", name @ "Mail::SpamAssassin::Plugin::Test"] => found.push(test(name, log)),
            ["loadplugin", name, path] if path.ends_with("/testplugin.pm") => {
                found.push(test(name, log).header("Plugin-Meta-Test", |_| Some(b"bar".to_vec())));
            }
            ["loadplugin", name, path] if path.ends_with("/testplugin2.pm") => found.push(second(name)),
            ["loadplugin", _, path] if path.ends_with("/taintcheckplugin.pm") => found.push(texts(log)),
            ["loadplugin", _, path] if path.ends_with("/Dumpheaders.pm") => found.push(dump(log)),
            _ => {}
        }
    }
    found
}

/// SpamAssassin's example of a plugin.
fn test(name: &str, log: &Log) -> Extension {
    log.add(format!("registered {name}"));
    let finish = Finish { name: name.to_owned(), log: log.clone() };
    Extension::new(name)
        .function("check_test_plugin", move |_, _| {
            finish.log.add(format!("{} eval test called", finish.name));
            1
        })
        .function("check_return_2", |_, _| 2)
        .feature("test_feature_xxxx_true", true)
        .feature("test_feature_xxxx_false", false)
}

/// A second plugin that makes its field of what the first has made.
fn second(name: &str) -> Extension {
    Extension::new(name).header("Plugin-Meta-Test2", |view| {
        let first = view.header("Plugin-Meta-Test")?;
        Some([&first[..], b"2"].concat())
    })
}

/// Which ways there are to a message. That what comes out of them is marked as coming from outside is Perl's matter: here everything is data.
fn texts(log: &Log) -> Extension {
    let log = log.clone();
    Extension::new("Texts").function("check_texts", move |view, _| {
        let holds = |text: &[u8]| text.windows(5).any(|word| word == b"GTUBE");
        let ways: [(&str, bool); 8] = [
            ("get_header", view.header("Subject").is_some_and(|text| holds(&text))),
            ("get_pristine", holds(view.raw())),
            ("get_pristine_body", holds(view.raw_body())),
            ("get_pristine_header", holds(view.raw_header())),
            ("get_body", view.parts().any(|part| holds(part.raw()))),
            ("get_visible_rendered_body_text_array", view.body().any(holds)),
            ("get_decoded_body_text_array", view.rawbody().any(holds)),
            ("get_rendered_body_text_array", view.body().any(holds)),
        ];
        ways.iter().filter(|(_, found)| *found).for_each(|(way, _)| log.add(format!("tainted {way} found")));
        0
    })
}

/// Shows header fields in all ways in which they can be asked for.
fn dump(log: &Log) -> Extension {
    let log = log.clone();
    Extension::new("Dumpheaders").function("dump_headers", move |view, _| {
        let whole = [("all-raw", "ALL:raw"), ("all-noraw", "ALL"), ("from-raw", "From:raw"), ("from-noraw", "From")];
        for (name, selector) in whole {
            log.add(format!("scalar-text-{name}: {}[END]", marked(&view.headers(selector).concat())));
            log.add(format!("list-text-{name}: {}[END]", list(view, selector)));
        }
        let first = view.headers("From:addr").into_iter().next().unwrap_or_default();
        log.add(format!("scalar-text-from-addr: {}[END]", marked(&first)));
        let parts = [
            ("from-addr", "From:addr"),
            ("from-first-addr", "From:first:addr"),
            ("from-last-addr", "From:last:addr"),
            ("msgid-host", "MESSAGEID:host"),
            ("msgid-domain", "MESSAGEID:domain"),
            ("received-ip", "Received:ip"),
            ("received-revip", "Received:revip"),
        ];
        parts.iter().for_each(|(name, selector)| log.add(format!("list-text-{name}: {}[END]", list(view, selector))));
        0
    })
}

fn list(view: &View<'_>, selector: &str) -> String {
    view.headers(selector).iter().map(|value| marked(value)).collect::<Vec<_>>().join("[LIST]")
}

/// A text with its line ends and tabs shown.
fn marked(text: &[u8]) -> String {
    String::from_utf8_lossy(text).replace('\n', "[\\n]").replace('\t', "[\\t]")
}
