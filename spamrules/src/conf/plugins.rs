// SPDX-License-Identifier: GPL-3.0-or-later
//! Which of SpamAssassin 4.0.1's plugins count as loaded, and which of its features a rule file may ask for with `can()` and `has()`.

use std::collections::{BTreeMap, BTreeSet};

use crate::extension::Extension;

const PREFIX: &str = "Mail::SpamAssassin::Plugin::";

/// What the `.pre` files of a fresh installation load.
const DEFAULT: &[&str] = &[
    "URIDNSBL",
    "SPF",
    "Rule2XSBody",
    "Pyzor",
    "Razor2",
    "SpamCop",
    "AutoLearnThreshold",
    "WelcomeListSubject",
    "MIMEHeader",
    "ReplaceTags",
    "DKIM",
    "Check",
    "HTTPSMismatch",
    "URIDetail",
    "Bayes",
    "BodyEval",
    "DNSEval",
    "HTMLEval",
    "HeaderEval",
    "MIMEEval",
    "RelayEval",
    "URIEval",
    "WLBLEval",
    "VBounce",
    "ImageInfo",
    "FreeMail",
    "AskDNS",
    "HashBL",
    "DMARC",
];

/// Features of the configuration itself.
const CONF: &[&str] = &[
    "feature_originating_ip_headers",
    "feature_dns_local_ports_permit_avoid",
    "feature_bayes_auto_learn_on_error",
    "feature_uri_host_listed",
    "feature_yesno_takes_args",
    "feature_bug6558_free",
    "feature_edns",
    "feature_dns_query_restriction",
    "feature_registryboundaries",
    "feature_geodb",
    "feature_dns_block_rule",
    "feature_compile_regexp",
    "feature_meta_rules_matching",
    "feature_subjprefix",
    "feature_bayes_stopwords",
    "feature_get_host",
    "feature_blocklist_welcomelist",
    "feature_welcomelist_blocklist",
    "feature_header_address_parser",
    "feature_local_tests_only",
    "feature_header_first_last",
    "feature_header_match_many",
    "feature_capture_rules",
    "has_tflags_nosubject",
    "has_tflags_nolog",
    "perl_min_version_5010000",
];

/// Features of plugins.
const PLUGINS: &[(&str, &[&str])] = &[
    ("ASN", &["has_asn_lookup_ipv6", "has_asn_geodb", "has_check_asn", "has_check_asn_tag"]),
    ("AskDNS", &["has_tag_header"]),
    ("BodyEval", &["has_check_body_length", "has_plaintext_body_sig_ratio"]),
    ("DKIM", &["has_arc"]),
    ("DNSEval", &["has_tflags_domains_only", "has_tflags_ips_only"]),
    (
        "HashBL",
        &[
            "has_hashbl_attachments",
            "has_hashbl_bodyre",
            "has_hashbl_bodyre_num",
            "has_hashbl_email_domain",
            "has_hashbl_email_domain_alias",
            "has_hashbl_email_regex",
            "has_hashbl_email_welcomelist",
            "has_hashbl_email_whitelist",
            "has_hashbl_emails",
            "has_hashbl_ignore",
            "has_hashbl_sha256",
            "has_hashbl_tag",
            "has_hashbl_uris",
        ],
    ),
    ("MIMEEval", &["has_check_for_ascii_text_illegal", "has_check_abundant_unicode_ratio", "has_check_qp_ratio"]),
    (
        "MIMEHeader",
        &["has_all_header", "has_tflags_range", "has_tflags_concat", "has_tflags_multiple", "has_capture_rules"],
    ),
    ("OLEVBMacro", &["has_olemacro_redirect_uri", "has_olemacro_mhtml_uri", "has_olertfobject"]),
    ("Pyzor", &["has_fork", "has_perl"]),
    ("Razor2", &["has_fork"]),
    ("SPF", &["has_check_for_spf_errors", "has_check_spf_skipped_noenvfrom"]),
    (
        "URIDNSBL",
        &[
            "has_tflags_domains_only",
            "has_subtest_for_ranges",
            "has_uridnsbl_for_a",
            "has_uridnsbl_a_ns",
            "has_tflags_notrim",
            "has_uridnsbl_skip_mailto",
        ],
    ),
    ("URIDetail", &["has_host_key"]),
];

/// The plugins and compatibility switches that are on.
#[derive(Debug, Clone)]
pub(crate) struct Plugins {
    /// Those that count as loaded, by their names without prefix, with the names as they were given.
    loaded: BTreeMap<String, String>,
    compat: BTreeSet<String>,
    extensions: Vec<Extension>,
}

impl Default for Plugins {
    fn default() -> Plugins {
        Plugins {
            loaded: DEFAULT.iter().map(|name| ((*name).to_owned(), format!("{PREFIX}{name}"))).collect(),
            compat: BTreeSet::from(["welcomelist_blocklist".to_owned()]),
            extensions: Vec::new(),
        }
    }
}

/// A plugin's name without its prefix, older spellings understood.
fn short(name: &str) -> &str {
    match name.strip_prefix(PREFIX).unwrap_or(name) {
        "Dmarc" => "DMARC",
        "WhiteListSubject" => "WelcomeListSubject",
        short => short,
    }
}

impl Plugins {
    /// Those of a fresh installation, and extensions.
    pub(super) fn new(extensions: &[Extension]) -> Plugins {
        let mut plugins = Plugins { extensions: extensions.to_vec(), ..Plugins::default() };
        extensions.iter().for_each(|extension| plugins.load(extension.name()));
        plugins
    }

    pub(super) fn load(&mut self, name: &str) {
        self.loaded.entry(short(name).to_owned()).or_insert_with(|| name.to_owned());
    }

    /// The names of those that count as loaded, sorted.
    pub(crate) fn names(self) -> Vec<String> {
        let mut names: Vec<String> = self.loaded.into_values().collect();
        names.sort_unstable();
        names
    }

    pub(super) fn set_compat(&mut self, name: &str) {
        self.compat.insert(name.to_owned());
    }

    pub(super) fn is_loaded(&self, name: &str) -> bool {
        let short = short(name);
        short == "RaciallyCharged" || self.loaded.contains_key(short)
    }

    /// What `has(Module::feature)` and `can(Module::feature)` ask for: whether it is there, and on.
    pub(super) fn feature(&self, name: &str) -> Option<bool> {
        let (module, feature) = name.rsplit_once("::")?;
        if module == "Mail::SpamAssassin::Conf" {
            let known = CONF.contains(&feature)
                || feature.strip_prefix("compat_").is_some_and(|compat| self.compat.contains(compat));
            return known.then_some(true);
        }
        let of_extension = self.extensions.iter().rev().filter(|extension| extension.name() == module);
        let plugin = module.strip_prefix(PREFIX).filter(|plugin| self.loaded.contains_key(*plugin));
        of_extension.filter_map(|extension| extension.has(feature)).next().or_else(|| {
            let known = PLUGINS.iter().any(|(name, features)| plugin == Some(*name) && features.contains(&feature));
            known.then_some(true)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plugins_and_features() {
        let mut plugins = Plugins::default();
        assert!(plugins.is_loaded("Mail::SpamAssassin::Plugin::Dmarc"));
        assert!(!plugins.is_loaded("Mail::SpamAssassin::Plugin::TextCat"));
        plugins.load("Mail::SpamAssassin::Plugin::TextCat");
        assert!(plugins.is_loaded("Mail::SpamAssassin::Plugin::TextCat"));
        assert_eq!(plugins.feature("Mail::SpamAssassin::Conf::compat_welcomelist_blocklist"), Some(true));
        assert_eq!(plugins.feature("Mail::SpamAssassin::Conf::feature_of_tomorrow"), None);
        assert_eq!(plugins.feature("Mail::SpamAssassin::Plugin::BodyEval::has_check_body_length"), Some(true));
        assert_eq!(plugins.feature("Mail::SpamAssassin::Plugin::ASN::has_check_asn"), None);
    }
}
