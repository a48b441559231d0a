// SPDX-License-Identifier: GPL-3.0-or-later
//! What the rule files set besides rules: one struct per area, each beside the code that it governs.
//!
//! An area has `fn set(&mut self, key: &str, value: &str) -> Option<Result<(), String>>`: `None` is "not my directive", an error says what is
//! wrong with the value. Areas are asked in the order below. To add one, add a line.

macro_rules! areas {
    ($($field:ident: $type:ty,)*) => {
        /// All settings of a rule set.
        #[derive(Debug, Clone, Default)]
        pub(crate) struct Settings {
            $(pub(crate) $field: $type,)*
        }

        impl Settings {
            /// Gives the directive to the first area that knows it.
            pub(crate) fn set(&mut self, key: &str, value: &str) -> Option<Result<(), String>> {
                None
                    $(.or_else(|| self.$field.set(key, value)))*
            }
        }
    };
}

areas! {
    text: crate::text::Settings,
    uri: crate::uri::Settings,
    relays: crate::relays::Settings,
    domains: crate::domains::Settings,
    uri_detail: crate::eval::uri_detail::Settings,
    lists: crate::eval::lists::Settings,
    freemail: crate::eval::freemail::Settings,
    from_name: crate::eval::from_name::Settings,
    zones: crate::eval::zones::Settings,
    queries: crate::queries::Settings,
    hashes: crate::eval::hashbl::Settings,
    auth: crate::eval::auth::Settings,
    received_spf: crate::eval::received_spf::Settings,
    autolearn: crate::autolearn::Settings,
}
