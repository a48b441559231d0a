// SPDX-License-Identifier: GPL-3.0-or-later
//! Help for tests of eval functions.

use super::{Argument, find};
use crate::answers::{Answers, NoAnswers};
use crate::context::{Context, Environment};
use crate::message::Message;
use crate::settings::Settings;

/// What the functions are told of domains in tests.
pub(super) const DOMAINS: [(&str, &str); 2] = [("util_rb_tld", "com org net uk"), ("util_rb_2tld", "co.uk")];

/// How often a function hits a message of these header fields.
pub(super) fn eval(header: &str, name: &str, arguments: &[&str]) -> u32 {
    with(&format!("{header}\nbody\n"), &[], &NoAnswers, name, arguments)
}

/// The same for a whole message, with directives and answers.
pub(super) fn with(
    message: &str,
    directives: &[(&str, &str)],
    answers: &dyn Answers,
    name: &str,
    arguments: &[&str],
) -> u32 {
    let mut settings = Settings::default();
    for (key, value) in DOMAINS.iter().chain(directives) {
        settings.set(key, value).unwrap_or_else(|| panic!("{key}")).unwrap();
    }
    let message = Message::parse(message.as_bytes());
    let environment = Environment { now: 1_030_028_400 };
    let context = Context::new(&message, &settings, &environment, answers);
    context.set_rule("RULE");
    let arguments: Vec<Argument> = arguments.iter().copied().map(Argument::new).collect();
    find(name).unwrap_or_else(|| panic!("{name}"))(&context, &arguments)
}
