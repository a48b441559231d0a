// SPDX-License-Identifier: GPL-3.0-or-later
//! What of SpamAssassin's suite is not for a library of rules, each with its reason; and what its tests check without naming a string.

/// Tests that cannot be here.
pub(super) const OUTSIDE: &[(&str, &str)] = &[
    (
        "authres.t",
        "its plugin believes Authentication-Results fields; here the caller says what SPF, DKIM and DMARC give",
    ),
    ("db_based_welcomelist.t", "no string is stated: a database of senders (AWL) that SpamAssassin writes itself"),
    ("db_based_welcomelist_ips.t", "no string is stated: a database of senders (AWL) that SpamAssassin writes itself"),
    ("db_based_whitelist.t", "no string is stated: a database of senders (AWL) that SpamAssassin writes itself"),
    ("db_based_whitelist_ips.t", "no string is stated: a database of senders (AWL) that SpamAssassin writes itself"),
    ("extracttext.t", "no string is stated: runs external programs over attachments"),
    ("olevbmacro.t", "its plugin opens documents; contentd does that, and a library of rules has no unpackers"),
    ("phishing.t", "no string is stated: feeds of URIs in files of their own format"),
    (
        "relaycountry.t",
        "a header of SpamAssassin's report, from databases of addresses that are not in the suite's data",
    ),
    ("root_spamd_u_dcc.t", "reports a message to DCC: an act on the network, not a rule"),
    ("uridetail.t", "its rule is not in the suite's data; spamrules has tests of uri_detail of its own"),
    ("welcomelist_addrs.t", "no string is stated: adds senders to a database (AWL)"),
    ("whitelist_addrs.t", "no string is stated: adds senders to a database (AWL)"),
];

/// Runs of tests whose other runs pass.
pub(super) const RUNS_OUTSIDE: &[(&str, &[usize], &str)] = &[
    ("dcc.t", &[0, 1], "report a message to DCC: an act on the network, not a rule"),
    ("razor2.t", &[2, 3], "debugging output of the connection to Razor's servers"),
];

/// Strings about the form of SpamAssassin's report and of its debugging.
pub(super) const FORM: &[&str] = &[
    "Spam detection software, running on the system \"",
    "report",
    "timing: total",
    // A version after 4.0.1 shows the first word of an answer; here it is shown whole.
    "[askdnsspf.spamassassin.org TXT:v=spf1]",
    "[txttcp.spamassassin.org TXT:v=spf1]",
];

/// What tests check in code of their own, and what is checked in place of strings about the form: test, run, and what must be there.
pub(super) const ADDED: &[(&str, usize, &str)] = &[
    ("askdns.t", 1, " [askdnsspf.spamassassin.org TXT:v=spf1 -all] "),
    ("askdns.t", 2, " [txttcp.spamassassin.org TXT:v=spf1 include:dnsbltest.spamassassin.org -all] "),
    ("prefs_include.t", 0, " 1.0 INCLUDED "),
    // The tag of the subject, fields of the filter and its report are gone, and a field that it had replaced is back.
    ("stripmarkup.t", 0, " Subject: \"100% HERBALSENSATION\" "),
    ("stripmarkup.t", 0, " Content-Type: text/html "),
    ("stripmarkup.t", 0, " first line: <HTML></P><P ALIGN=CENTER><FONT COLOR=\"#ff0000\" SIZE=4 PTSIZE=12><B>SWEET "),
    ("welcomelist_subject.t", 0, " -100 SUBJECT_IN_WELCOMELIST "),
    ("welcomelist_subject.t", 1, " 100 SUBJECT_IN_BLOCKLIST "),
    ("whitelist_subject.t", 0, " -100 SUBJECT_IN_WELCOMELIST "),
    ("whitelist_subject.t", 1, " 100 SUBJECT_IN_BLOCKLIST "),
    // A description with letters beyond ASCII comes out whole.
    ("reportheader_8bit.t", 0, " INVALID_DATE Invalid Date: header \u{c2}\u{ae} \u{c2}\u{af} \u{c2}\u{b0} foo "),
];

/// What tests check in code of their own: test, run, and what must not be there.
pub(super) const FORBIDDEN: &[(&str, usize, &str)] = &[
    ("all_modules.t", 0, " error: "),
    ("all_modules.t", 1, " error: "),
    // The network is asked, and nothing is wrong with rules or run.
    ("debug.t", 0, " warn: "),
    ("stripmarkup.t", 0, " X-Spam-Prev-"),
    ("stripmarkup.t", 0, "*****SPAM*****"),
];
