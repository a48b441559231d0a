// SPDX-License-Identifier: GPL-3.0-or-later
//! The conditions of `if` and `ifplugin` lines.

use std::sync::LazyLock;

use regex::{Captures, Regex};

use super::plugins::Plugins;
use crate::meta::Expression;

/// The version of SpamAssassin whose language this is, as rules compare it.
const VERSION: &str = "4.000001";
/// A version of Perl with all that rules ask for.
const PERL_VERSION: &str = "5.036000";

static CALL: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"\b(plugin|can|has)\s*\(\s*([A-Za-z_][\w:]*)\s*\)").expect("the pattern is fixed"));
static WORD: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"\b(version|perl_version|local_tests_only)\b").expect("the pattern is fixed"));

/// Whether a condition holds; an error says what is wrong with it.
pub(super) fn holds(condition: &str, plugins: &Plugins, network: bool) -> Result<bool, String> {
    let truth = |yes: bool| if yes { "1" } else { "0" };
    let called = CALL.replace_all(condition, |found: &Captures<'_>| match &found[1] {
        "plugin" => truth(plugins.is_loaded(&found[2])),
        "can" => truth(plugins.feature(&found[2]) == Some(true)),
        _ => truth(plugins.feature(&found[2]).is_some()),
    });
    let plain = WORD.replace_all(&called, |found: &Captures<'_>| match &found[1] {
        "version" => VERSION,
        "perl_version" => PERL_VERSION,
        _ => truth(!network),
    });
    let expression = Expression::parse(&plain).map_err(|error| error.to_string())?;
    if let Some(name) = expression.names().first() {
        return Err(format!("{name:?} cannot be asked for in a condition"));
    }
    Ok(expression.value(|_| 0.0).is_some_and(|value| value != 0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(condition: &str) -> Result<bool, String> {
        holds(condition, &Plugins::default(), false)
    }

    #[test]
    fn conditions() {
        assert_eq!(ask("(version >= 3.004002)"), Ok(true));
        assert_eq!(ask("version > 4.000001"), Ok(false));
        assert_eq!(ask("!plugin(Mail::SpamAssassin::Plugin::DKIM)"), Ok(false));
        assert_eq!(ask("plugin ( Mail::SpamAssassin::Plugin::DKIM ) && local_tests_only"), Ok(true));
        assert_eq!(ask("!(can(Mail::SpamAssassin::Conf::feature_bug6558_free))"), Ok(false));
        assert!(ask("system(1)").is_err());
        assert!(ask("").is_err());
    }
}
