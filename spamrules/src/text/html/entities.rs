// SPDX-License-Identifier: GPL-3.0-or-later
//! Character entities of HTML 4 (section 24) in text: which names there are, and how broken ones are read.

use super::super::chars::Chars;

/// Names and their characters, sorted. Names of the first list are known without a semicolon, too.
const LATIN: &[(&str, u32)] = &[
    ("AElig", 198),
    ("Aacute", 193),
    ("Acirc", 194),
    ("Agrave", 192),
    ("Aring", 197),
    ("Atilde", 195),
    ("Auml", 196),
    ("Ccedil", 199),
    ("ETH", 208),
    ("Eacute", 201),
    ("Ecirc", 202),
    ("Egrave", 200),
    ("Euml", 203),
    ("Iacute", 205),
    ("Icirc", 206),
    ("Igrave", 204),
    ("Iuml", 207),
    ("Ntilde", 209),
    ("Oacute", 211),
    ("Ocirc", 212),
    ("Ograve", 210),
    ("Oslash", 216),
    ("Otilde", 213),
    ("Ouml", 214),
    ("THORN", 222),
    ("Uacute", 218),
    ("Ucirc", 219),
    ("Ugrave", 217),
    ("Uuml", 220),
    ("Yacute", 221),
    ("aacute", 225),
    ("acirc", 226),
    ("acute", 180),
    ("aelig", 230),
    ("agrave", 224),
    ("amp", 38),
    ("apos", 39),
    ("aring", 229),
    ("atilde", 227),
    ("auml", 228),
    ("brvbar", 166),
    ("ccedil", 231),
    ("cedil", 184),
    ("cent", 162),
    ("copy", 169),
    ("curren", 164),
    ("deg", 176),
    ("divide", 247),
    ("eacute", 233),
    ("ecirc", 234),
    ("egrave", 232),
    ("eth", 240),
    ("euml", 235),
    ("frac12", 189),
    ("frac14", 188),
    ("frac34", 190),
    ("gt", 62),
    ("iacute", 237),
    ("icirc", 238),
    ("iexcl", 161),
    ("igrave", 236),
    ("iquest", 191),
    ("iuml", 239),
    ("laquo", 171),
    ("lt", 60),
    ("macr", 175),
    ("micro", 181),
    ("middot", 183),
    ("nbsp", 160),
    ("not", 172),
    ("ntilde", 241),
    ("oacute", 243),
    ("ocirc", 244),
    ("ograve", 242),
    ("ordf", 170),
    ("ordm", 186),
    ("oslash", 248),
    ("otilde", 245),
    ("ouml", 246),
    ("para", 182),
    ("plusmn", 177),
    ("pound", 163),
    ("quot", 34),
    ("raquo", 187),
    ("reg", 174),
    ("sect", 167),
    ("shy", 173),
    ("sup1", 185),
    ("sup2", 178),
    ("sup3", 179),
    ("szlig", 223),
    ("thorn", 254),
    ("times", 215),
    ("uacute", 250),
    ("ucirc", 251),
    ("ugrave", 249),
    ("uml", 168),
    ("uuml", 252),
    ("yacute", 253),
    ("yen", 165),
    ("yuml", 255),
];

const WIDE: &[(&str, u32)] = &[
    ("Alpha", 913),
    ("Beta", 914),
    ("Chi", 935),
    ("Dagger", 8225),
    ("Delta", 916),
    ("Epsilon", 917),
    ("Eta", 919),
    ("Gamma", 915),
    ("Iota", 921),
    ("Kappa", 922),
    ("Lambda", 923),
    ("Mu", 924),
    ("Nu", 925),
    ("OElig", 338),
    ("Omega", 937),
    ("Omicron", 927),
    ("Phi", 934),
    ("Pi", 928),
    ("Prime", 8243),
    ("Psi", 936),
    ("Rho", 929),
    ("Scaron", 352),
    ("Sigma", 931),
    ("Tau", 932),
    ("Theta", 920),
    ("Upsilon", 933),
    ("Xi", 926),
    ("Yuml", 376),
    ("Zeta", 918),
    ("alefsym", 8501),
    ("alpha", 945),
    ("and", 8743),
    ("ang", 8736),
    ("asymp", 8776),
    ("bdquo", 8222),
    ("beta", 946),
    ("bull", 8226),
    ("cap", 8745),
    ("chi", 967),
    ("circ", 710),
    ("clubs", 9827),
    ("cong", 8773),
    ("crarr", 8629),
    ("cup", 8746),
    ("dArr", 8659),
    ("dagger", 8224),
    ("darr", 8595),
    ("delta", 948),
    ("diams", 9830),
    ("empty", 8709),
    ("emsp", 8195),
    ("ensp", 8194),
    ("epsilon", 949),
    ("equiv", 8801),
    ("eta", 951),
    ("euro", 8364),
    ("exist", 8707),
    ("fnof", 402),
    ("forall", 8704),
    ("frasl", 8260),
    ("gamma", 947),
    ("ge", 8805),
    ("hArr", 8660),
    ("harr", 8596),
    ("hearts", 9829),
    ("hellip", 8230),
    ("image", 8465),
    ("infin", 8734),
    ("int", 8747),
    ("iota", 953),
    ("isin", 8712),
    ("kappa", 954),
    ("lArr", 8656),
    ("lambda", 955),
    ("lang", 9001),
    ("larr", 8592),
    ("lceil", 8968),
    ("ldquo", 8220),
    ("le", 8804),
    ("lfloor", 8970),
    ("lowast", 8727),
    ("loz", 9674),
    ("lrm", 8206),
    ("lsaquo", 8249),
    ("lsquo", 8216),
    ("mdash", 8212),
    ("minus", 8722),
    ("mu", 956),
    ("nabla", 8711),
    ("ndash", 8211),
    ("ne", 8800),
    ("ni", 8715),
    ("notin", 8713),
    ("nsub", 8836),
    ("nu", 957),
    ("oelig", 339),
    ("oline", 8254),
    ("omega", 969),
    ("omicron", 959),
    ("oplus", 8853),
    ("or", 8744),
    ("otimes", 8855),
    ("part", 8706),
    ("permil", 8240),
    ("perp", 8869),
    ("phi", 966),
    ("pi", 960),
    ("piv", 982),
    ("prime", 8242),
    ("prod", 8719),
    ("prop", 8733),
    ("psi", 968),
    ("rArr", 8658),
    ("radic", 8730),
    ("rang", 9002),
    ("rarr", 8594),
    ("rceil", 8969),
    ("rdquo", 8221),
    ("real", 8476),
    ("rfloor", 8971),
    ("rho", 961),
    ("rlm", 8207),
    ("rsaquo", 8250),
    ("rsquo", 8217),
    ("sbquo", 8218),
    ("scaron", 353),
    ("sdot", 8901),
    ("sigma", 963),
    ("sigmaf", 962),
    ("sim", 8764),
    ("spades", 9824),
    ("sub", 8834),
    ("sube", 8838),
    ("sum", 8721),
    ("sup", 8835),
    ("supe", 8839),
    ("tau", 964),
    ("there4", 8756),
    ("theta", 952),
    ("thetasym", 977),
    ("thinsp", 8201),
    ("tilde", 732),
    ("trade", 8482),
    ("uArr", 8657),
    ("uarr", 8593),
    ("upsih", 978),
    ("upsilon", 965),
    ("weierp", 8472),
    ("xi", 958),
    ("zeta", 950),
    ("zwj", 8205),
    ("zwnj", 8204),
];

/// The character of a name that stands at the start of `text`, and how long the name is. In text the longest known beginning counts
/// (`prefix`), in attributes only a whole word does.
fn named(text: &[u8], prefix: bool) -> Option<(u32, usize)> {
    let len = text.iter().take_while(|byte| byte.is_ascii_alphanumeric()).count();
    let name = text.get(..len)?;
    if let Some(found) = look_up(LATIN, name) {
        return Some((found, len));
    }
    if text.get(len) == Some(&b';')
        && let Some(found) = look_up(WIDE, name)
    {
        return Some((found, len));
    }
    let longest = LONGEST.min(len.saturating_sub(1));
    if !prefix {
        return None;
    }
    (1..=longest).rev().find_map(|len| Some((look_up(LATIN, name.get(..len)?)?, len)))
}

/// Longest name of the first list.
const LONGEST: usize = 6;

fn look_up(table: &[(&str, u32)], name: &[u8]) -> Option<u32> {
    let at = table.binary_search_by(|(known, _)| known.as_bytes().cmp(name)).ok()?;
    table.get(at).map(|&(_, letter)| letter)
}

/// The number of `#65` or `#x41`, and how long it is; `None` for zero and for what is beyond Unicode.
fn numbered(text: &[u8]) -> Option<(u32, usize)> {
    let rest = text.strip_prefix(b"#")?;
    let (radix, digits, mark) = match rest.first() {
        Some(b'x' | b'X') => (16, rest.get(1..)?, 2),
        _ => (10, rest, 1),
    };
    let mut number = 0u32;
    let mut len = 0;
    while let Some(digit) = digits.get(len).and_then(|&byte| char::from(byte).to_digit(radix)) {
        number = number * radix + digit;
        if number > 0x10_ffff {
            return None;
        }
        len += 1;
    }
    (number > 0).then_some((number, mark + len))
}

/// Decodes the entities of `text` onto `out`. In a narrow text numbers up to 255 are octets; any other character makes all of it wide.
pub(super) fn decode_octets(text: &[u8], wide: bool, prefix: bool, out: &mut Chars) {
    if wide {
        out.widen();
    }
    let mut rest = text;
    let mut high = None;
    while let Some(at) = memchr::memchr(b'&', rest) {
        let (plain, entity) = rest.split_at(at);
        if !plain.is_empty() {
            high = None;
        }
        out.push_octets(plain, wide);
        let body = entity.get(1..).unwrap_or_default();
        let found = if body.starts_with(b"#") { numbered(body) } else { named(body, prefix) };
        let letter = found.and_then(|(number, len)| Some((letter(number, out.is_wide(), &mut high, out)?, len)));
        let Some((letter, len)) = letter else {
            out.push_octets(b"&", wide);
            rest = body;
            continue;
        };
        out.push_char(letter);
        let after = body.get(len..).unwrap_or_default();
        rest = after.strip_prefix(b";").unwrap_or(after);
    }
    out.push_octets(rest, wide);
}

/// The character of a number. Surrogates are joined; what is no character is U+FFFD; the two numbers that no text may have stay unread.
fn letter(number: u32, wide: bool, high: &mut Option<u32>, out: &mut Chars) -> Option<char> {
    if number <= 255 && !wide {
        *high = None;
        return char::from_u32(number);
    }
    if matches!(number, 0xfffe | 0xffff) {
        return None;
    }
    match (number, high.take()) {
        (0xdc00..=0xdfff, Some(first)) => {
            out.pop_char();
            char::from_u32(((first - 0xd800) << 10) + (number - 0xdc00) + 0x1_0000)
        }
        (0xd800..=0xdbff, _) => {
            *high = Some(number);
            Some(char::REPLACEMENT_CHARACTER)
        }
        (0xfdd0..=0xfdef, _) => Some(char::REPLACEMENT_CHARACTER),
        _ if number & 0xfffe == 0xfffe => Some(char::REPLACEMENT_CHARACTER),
        _ => Some(char::from_u32(number).unwrap_or(char::REPLACEMENT_CHARACTER)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(source: &str, prefix: bool) -> (Vec<u8>, bool) {
        let mut out = Chars::default();
        decode_octets(source.as_bytes(), false, prefix, &mut out);
        (out.octets().to_vec(), out.is_wide())
    }

    #[test]
    fn names_and_numbers() {
        assert_eq!(text("&lt;&#65;&#x41g &amp", true), (b"<AAg &".to_vec(), false));
        assert_eq!(text("&eacutex;", true), (b"\xe9x;".to_vec(), false));
        assert_eq!(text("&eacutex; &euro", false), (b"&eacutex; &euro".to_vec(), false));
        assert_eq!(text("&euro;&eacute;", true), ("€é".as_bytes().to_vec(), true));
        assert_eq!(text("&#55357;&#56832;", true), ("😀".as_bytes().to_vec(), true));
        assert_eq!(text("&#0;&#65534;&foo;&", true), (b"&#0;&#65534;&foo;&".to_vec(), false));
    }

    #[test]
    fn the_tables_are_sorted() {
        assert!(LATIN.is_sorted_by_key(|&(name, _)| name) && WIDE.is_sorted_by_key(|&(name, _)| name));
        assert_eq!(LATIN.iter().map(|(name, _)| name.len()).max(), Some(LONGEST));
    }
}
