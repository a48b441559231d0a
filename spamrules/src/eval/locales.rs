// SPDX-License-Identifier: GPL-3.0-or-later
//! Which charsets belong to which languages: for rules on mail in languages that nobody here reads (`ok_locales`).

/// Languages with charsets of their own.
const OWN: [(&[&str], &str); 6] = [
    (
        &["ja"],
        " EUCJP JISX020119760 JISX020819830 JISX020819900 JISX020819970 JISX021219900 JISX021320001 JISX021320002 SHIFT_JIS SHIFTJIS \
         ISO2022JP SJIS JIS7 JISX0201 JISX0208 JISX0212 ",
    ),
    (&["ko"], " EUCKR KSC56011987 "),
    (&["ru", "ka", "tg", "be", "uk", "bg"], " KOI8R KOI8U KOI8T ISOIR111 CP1251 GEORGIANPS PT154 CP866 "),
    (&["th"], " TIS620 "),
    (&["zh"], " GB1988 GB2312 GB231219800 GB18030 GBK BIG5HKSCS BIG5 EUCTW ISO2022CN "),
    (&["zh.big5"], " BIG5HKSCS BIG5 EUCTW "),
];

/// Whether a charset belongs to none of the languages that are expected; `all` expects every one.
pub(crate) fn is_faraway(charset: &str, expected: &[String]) -> bool {
    if expected.is_empty() || expected.iter().any(|locale| locale == "all") {
        return false;
    }
    let name: String = charset.to_ascii_uppercase().chars().filter(char::is_ascii_alphanumeric).collect();
    // broken by quoted-printable
    let name = name.strip_prefix("3D").unwrap_or(&name);
    !is_common(name) && !expected.iter().any(|locale| is_of(name, locale))
}

/// Charsets that all languages use.
fn is_common(name: &str) -> bool {
    const STARTS: [&str; 6] = ["ISO8859", "ISO10646", "UTF", "UCS", "CP125", "WINDOWS"];
    matches!(name, "USASCII" | "ASCII" | "IBM852" | "XUNKNOWN" | "ISO")
        || STARTS.iter().any(|start| name.starts_with(start))
        || name.starts_with("UNICODE11UTF7")
        || name.starts_with("UNICODE11UTF8")
}

fn is_of(name: &str, locale: &str) -> bool {
    let language = locale.get(..2).unwrap_or(locale);
    let padded = format!(" {name} ");
    OWN.iter().any(|(languages, charsets)| languages.contains(&language) && charsets.contains(&padded))
}

#[cfg(test)]
mod tests {
    use super::is_faraway;

    #[test]
    fn charsets_and_languages() {
        let far = |charset: &str, locales: &str| {
            let locales: Vec<String> = locales.split_whitespace().map(str::to_owned).collect();
            is_faraway(charset, &locales)
        };
        assert!(far("koi8-r", "en") && far("gb2312", "ja") && far("nonsense", "en ja"));
        assert!(
            !far("koi8-r", "en ru_RU") && !far("iso-8859-15", "en") && !far("big5", "all") && !far("gb2312", "zh_CN")
        );
    }
}
