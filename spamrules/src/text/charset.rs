// SPDX-License-Identifier: GPL-3.0-or-later
//! Text of any declared charset to Unicode, with the guesses that SpamAssassin makes when the declaration is wrong.
//!
//! The tables are those of `encoding_rs`; where Perl's Encode has another idea of a charset, it is followed here.

use encoding_rs::{Encoding, WINDOWS_1252};

/// Decodes `octets`. `None`: they are plain ASCII and stay what they are. `insist`: the declaration holds, what it cannot explain becomes
/// U+FFFD (encoded words); otherwise valid UTF-8 goes before the declaration, and Windows-1252 is the last resort.
pub(crate) fn decode(octets: &[u8], declared: &str, insist: bool) -> Option<String> {
    let ascii = octets.is_ascii();
    if ascii && (is_ascii_name(declared) || extends_ascii(declared)) {
        return None;
    }
    let utf8 = if ascii || insist { None } else { std::str::from_utf8(octets).ok() };
    if let Some(text) = utf8 {
        return Some(text.to_owned());
    }
    if let Some(text) = declared_charset(octets, declared, insist) {
        return Some(text);
    }
    if ascii { None } else { Some(windows_1252(octets)) }
}

fn is_ascii_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let plain = matches!(name.as_str(), "ascii" | "us-ascii" | "iso646-us");
    let rest = name.strip_prefix("ansi").map(|rest| rest.trim_start_matches(['_', ' ']));
    plain || matches!(rest, Some("x3.4-1986" | "x3.4-1968"))
}

/// Names of charsets whose lower half is ASCII.
fn extends_ascii(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let digits = |text: &str, most: usize| {
        !text.is_empty() && text.len() <= most && text.bytes().all(|byte| byte.is_ascii_digit())
    };
    if matches!(name.as_str(), "utf-8" | "utf8" | "big5" | "gbk") {
        return true;
    }
    if let Some(rest) = name.strip_prefix("iso") {
        let rest = rest.strip_prefix(['-', ' ']).unwrap_or(rest);
        return rest
            .strip_prefix("8859")
            .is_some_and(|rest| rest.is_empty() || rest.strip_prefix('-').is_some_and(|part| digits(part, 2)));
    }
    if let Some(rest) = name.strip_prefix("windows-") {
        return rest.len() == 4 && digits(rest, 4);
    }
    if let Some(rest) = name.strip_prefix("koi8-").or(name.strip_prefix("euc-")) {
        return matches!(rest.len(), 1 | 2) && rest.bytes().all(|byte| byte.is_ascii_lowercase());
    }
    name.strip_prefix("gb").is_some_and(|rest| rest.trim_start_matches(['-', ' ']).starts_with("18030"))
}

/// Decodes as declared; `None` when the declaration is unknown or wrong.
fn declared_charset(octets: &[u8], declared: &str, insist: bool) -> Option<String> {
    let name = declared.to_ascii_lowercase();
    if matches!(name.as_str(), "ascii" | "us-ascii") {
        let replaced = |&byte: &u8| if byte.is_ascii() { char::from(byte) } else { char::REPLACEMENT_CHARACTER };
        return insist.then(|| octets.iter().map(replaced).collect());
    }
    if name.starts_with("utf-16") || name.starts_with("utf16") || name.starts_with("utf 16") {
        return utf16(octets);
    }
    if matches!(name.as_str(), "iso-8859-1" | "iso8859-1" | "windows-1252" | "cp1252") {
        let known = insist || !octets.iter().any(|&byte| undefined_1252(byte));
        return known.then(|| windows_1252(octets));
    }
    let encoding = encoding(&name)?;
    if insist {
        return Some(encoding.decode_without_bom_handling(octets).0.into_owned());
    }
    let text = encoding.decode_without_bom_handling_and_without_replacement(octets)?;
    // the web fills holes of Windows charsets with control characters; Perl refuses them
    let holes = encoding.is_single_byte() && encoding.name().starts_with("windows-");
    (!holes || !text.chars().any(|letter| matches!(letter, '\u{80}'..='\u{9f}'))).then(|| text.into_owned())
}

/// The charset of a name, as far as Perl knows one.
fn encoding(name: &str) -> Option<&'static Encoding> {
    let name = match name {
        "cp932" => "shift_jis",
        "cp936" => "gbk",
        "cp949" => "euc-kr",
        "cp950" => "big5",
        "iso-8859-9" | "iso8859-9" | "latin5" => "windows-1254",
        _ => name,
    };
    let known = Encoding::for_label_no_replacement(name.as_bytes())?;
    let unknown_to_perl = matches!(name, "x-user-defined" | "unicode" | "csunicode" | "ucs-2" | "iso-10646-ucs-2");
    (!unknown_to_perl && name == name.trim()).then_some(known)
}

/// Bytes that Windows-1252 does not define.
fn undefined_1252(byte: u8) -> bool {
    matches!(byte, 0x81 | 0x8d | 0x8f | 0x90 | 0x9d)
}

fn windows_1252(octets: &[u8]) -> String {
    let (text, _) = WINDOWS_1252.decode_without_bom_handling(octets);
    if octets.iter().any(|&byte| undefined_1252(byte)) {
        let hole = |letter| if matches!(letter, '\u{80}'..='\u{9f}') { char::REPLACEMENT_CHARACTER } else { letter };
        return text.chars().map(hole).collect();
    }
    text.into_owned()
}

/// UTF-16 without a byte order mark: the order is guessed from where spaces and zeros are. With a mark SpamAssassin leaves it alone.
fn utf16(octets: &[u8]) -> Option<String> {
    if octets.starts_with(b"\xff\xfe") || octets.starts_with(b"\xfe\xff") {
        return None;
    }
    let (mut even, mut odd, mut little, mut big) = (0u64, 0u64, 0u64, 0u64);
    let nibbles = |byte: u8| u64::from(byte >> 4) + u64::from(byte & 15);
    for pair in octets.chunks(2) {
        let (first, second) = (pair.first().copied().unwrap_or(0), pair.get(1).copied().unwrap_or(0));
        even += nibbles(first);
        odd += nibbles(second);
        little += u64::from((first, second) == (b' ', 0));
        big += u64::from((first, second) == (0, b' '));
    }
    little += u64::from(even > odd * 4);
    big += u64::from(odd * 4 > even);
    let encoding = match little.cmp(&big) {
        std::cmp::Ordering::Greater => encoding_rs::UTF_16LE,
        std::cmp::Ordering::Less => encoding_rs::UTF_16BE,
        std::cmp::Ordering::Equal => return None,
    };
    encoding.decode_without_bom_handling_and_without_replacement(octets).map(std::borrow::Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn plain_text_stays() {
        for name in ["us-ascii", "UTF-8", "iso-8859-15", "Windows-1251", "GB18030", "none", "koi8-r"] {
            assert_eq!(decode(b"abc", name, false), None, "{name}");
        }
    }

    #[test]
    fn utf8_goes_before_the_declaration() {
        assert_eq!(decode("é".as_bytes(), "iso-8859-1", false).as_deref(), Some("é"));
        assert_eq!(decode("é".as_bytes(), "iso-8859-1", true).as_deref(), Some("Ã©"));
    }

    #[test]
    fn declared_and_guessed() {
        assert_eq!(decode(b"\xd0\xd2", "koi8-r", false).as_deref(), Some("пр"));
        assert_eq!(decode(b"\xe9\x80", "us-ascii", false).as_deref(), Some("é€"));
        assert_eq!(decode(b"\xe9\x81", "x-unknown", false).as_deref(), Some("é\u{fffd}"));
        assert_eq!(decode(b"\xe9", "us-ascii", true).as_deref(), Some("\u{fffd}"));
        assert_eq!(decode(b"\x1b$B$\"\x1b(B", "iso-2022-jp", false).as_deref(), Some("あ"));
        assert_eq!(decode(b"a\0 \0b\0", "utf-16", false).as_deref(), Some("a b"));
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(octets in proptest::collection::vec(any::<u8>(), 0..100), name in "[a-z0-9-]{0,12}") {
            let _ = decode(&octets, &name, false);
            let _ = decode(&octets, &name, true);
            for name in ["utf-16", "iso-2022-jp", "big5", "windows-1255", "utf-16le"] {
                let _ = decode(&octets, name, false);
            }
        }
    }
}
