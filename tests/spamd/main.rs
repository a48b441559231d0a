// SPDX-License-Identifier: GPL-3.0-or-later
//! contentd in the place of SpamAssassin's daemon: the real spamc asks it, and clients that break the protocol in every way.
//!
//! All messages and rules are made here. What needs real mail is in `corpus`.

mod client;
mod dialogue;

use common::address::Address;
use tests::filter::Filter;

/// Rules with hits on some of the messages that the tests make.
const RULES: &str = "\
header   T_LOTTERY Subject =~ /lottery/i
describe T_LOTTERY The subject speaks of a lottery, and this is a description that does not fit into one line
score    T_LOTTERY 3.5
body     T_PILLS /cheap pills/i
describe T_PILLS Pills
score    T_PILLS 2.25
header   T_LIST exists:List-Id
score    T_LIST -1.5
uri      T_LINK /example\\.org/
score    T_LINK 0.01
";

/// A contentd with those rules, and what it needs.
struct Gate {
    filter: Filter,
    folder: tempfile::TempDir,
}

impl Gate {
    /// With these lines in `[spamd]` and further sections behind them.
    async fn start(lines: &str) -> Gate {
        Gate::start_with("", lines).await
    }

    /// The same with lines in `[contentd]`.
    async fn start_with(contentd: &str, lines: &str) -> Gate {
        let folder = tempfile::tempdir().expect("a folder");
        let rules = folder.path().join("local.cf");
        std::fs::write(&rules, RULES).expect("a file of rules");
        let listen = if lines.contains("listen = ") { "" } else { "listen = [\"127.0.0.1:0\"]\n" };
        let text = format!("{contentd}\n[spam]\nrules = [\"{}\"]\n[spamd]\n{listen}{lines}\n", rules.display());
        // Nothing is sent on.
        let filter = Filter::start(&Address::tcp("127.0.0.1", 1), &text).await;
        Gate { filter, folder }
    }

    fn port(&self) -> u16 {
        match self.filter.spamd.as_ref().expect("it listens") {
            Address::Tcp { port, .. } => *port,
            Address::Unix(path) => panic!("{}", path.display()),
        }
    }
}
