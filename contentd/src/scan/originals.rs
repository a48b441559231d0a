// SPDX-License-Identifier: GPL-3.0-or-later
//! What engines get besides what is decoded: the message as it came, and archives as they are. An administrator may leave either out, as
//! amavisd-new does (`@keep_decoded_original_maps`); what cannot be read in one way only is given all the same. Pure but for the counters.

use std::ops::Range;

use bytes::Bytes;
use metrics::counter;
use serde::{Deserialize, Serialize};

use super::sample::{Sample, Seen};
use crate::message::parts::View;

/// Something that engines get although all that is in it is given decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Original {
    /// The message with its texts. Without it: what remains when the bodies of all parts are taken out.
    Mail,
    /// Archives that are opened whole and that every program reads alike.
    Archives,
}

impl Original {
    /// All of them, which is what engines get unless the configuration says otherwise.
    pub const ALL: [Original; 2] = [Original::Mail, Original::Archives];

    /// The word for it in configuration and metrics.
    fn word(self) -> &'static str {
        match self {
            Original::Mail => "mail",
            Original::Archives => "archives",
        }
    }
}

/// Counts an original, or what is left out of it, that no engine gets.
pub(crate) fn count_left_out(original: Original, bytes: u64) {
    counter!("octroi_contentd_originals_left_out_total", "original" => original.word()).increment(1);
    counter!("octroi_contentd_originals_left_out_bytes_total", "original" => original.word()).increment(bytes);
}

/// What an engine gets of the message as it came, and where it finds the texts, which are given besides. `mail`: texts are to stay in it.
///
/// Where it can be read in one way only, the bodies that are given decoded are left out: to decode them again is most of what a scanner does
/// with a message. What remains is header sections, structure, what stands before and behind the parts, and all bodies that are not
/// given by themselves, so that nothing is left unseen. Where programs may differ in how they read it, it is given whole.
pub(crate) fn as_it_came(raw: &Bytes, view: &View, mail: bool) -> (Sample, Seen) {
    if view.findings.iter().any(|finding| finding.kind.is_ambiguity()) {
        return (raw.clone().into(), Seen::InMail);
    }
    let with_texts = without(raw, &view.encoded);
    if mail || !view.plain {
        return (with_texts, Seen::InMail);
    }
    let frame = without(raw, &view.bodies);
    let left_out = with_texts.len().saturating_sub(frame.len());
    if left_out > 0 {
        count_left_out(Original::Mail, left_out);
    }
    (frame, Seen::Nowhere)
}

/// The message without these pieces, which follow each other.
fn without(raw: &Bytes, bodies: &[Range<usize>]) -> Sample {
    let (mut slices, mut at) = (Vec::new(), 0);
    for body in bodies {
        if body.start >= at && body.end <= raw.len() && body.start <= body.end {
            slices.push(raw.slice(at..body.start));
            at = body.end;
        }
    }
    slices.push(raw.slice(at..));
    Sample::new(slices)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::findings::{Finding, FindingKind};

    fn view(plain: bool, found: Option<FindingKind>) -> View {
        // A text of five bytes and four bytes of base64 behind "head " and "next ".
        View {
            encoded: std::iter::once(15..19).collect(),
            bodies: vec![5..10, 15..19],
            plain,
            findings: found.into_iter().map(|kind| Finding::new(kind, "", "")).collect(),
            ..View::default()
        }
    }

    fn given(view: &View, mail: bool) -> (Vec<u8>, Seen) {
        let raw = Bytes::from_static(b"head text1next QUJDend");
        let (sample, seen) = as_it_came(&raw, view, mail);
        (sample.bytes().collect(), seen)
    }

    #[test]
    fn what_is_given_of_the_mail() {
        let cut = (b"head text1next end".to_vec(), Seen::InMail);
        let whole = (b"head text1next QUJDend".to_vec(), Seen::InMail);
        assert_eq!(given(&view(true, None), true), cut);
        assert_eq!(given(&view(true, None), false), (b"head next end".to_vec(), Seen::Nowhere));
        // Not plain, and yet nothing that is an ambiguity: the texts stay in it.
        assert_eq!(given(&view(false, None), false), cut);
        assert_eq!(given(&view(false, Some(FindingKind::EncodingJunk)), false), whole);
        assert_eq!(given(&view(true, Some(FindingKind::NamesDiffer)), false), whole);
        assert_eq!(given(&view(true, Some(FindingKind::HeaderMissing)), false).1, Seen::Nowhere);
    }
}
