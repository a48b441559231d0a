// SPDX-License-Identifier: GPL-3.0-or-later
//! Which attachments of one message are the volumes of one split RAR archive, by their names: `x.part1.rar x.part2.rar`,
//! `x.rar x.r00 x.r01`. Whoever unpacks them saves them in one folder first, and so they are opened together.

use crate::message::parts::Kept;
use std::collections::BTreeMap;

/// More volumes are no mail.
const MOST: usize = 200;

/// Sets of two and more, each as places in the list, the first volume first.
pub(super) fn sets(names: &[&str], kept: &[Kept]) -> Vec<Vec<usize>> {
    let mut by_stem: BTreeMap<String, Vec<(u32, usize)>> = BTreeMap::new();
    for (place, (name, kept)) in names.iter().zip(kept).enumerate() {
        if kept.bytes.starts_with(b"Rar!\x1a\x07")
            && let Some((stem, number)) = volume(name)
        {
            by_stem.entry(stem).or_default().push((number, place));
        }
    }
    let sets = by_stem.into_values().filter(|set| (2..=MOST).contains(&set.len()));
    sets.map(|mut set| {
        set.sort_unstable();
        set.into_iter().map(|(_, place)| place).collect()
    })
    .collect()
}

/// The name that all volumes share, and the number of this one.
fn volume(name: &str) -> Option<(String, u32)> {
    let name = name.to_lowercase();
    let (stem, extension) = name.rsplit_once('.')?;
    if extension != "rar" {
        // `.r00` follows `.rar`.
        let number: u32 = extension.strip_prefix('r')?.parse().ok()?;
        return Some((stem.to_owned(), number + 1));
    }
    let numbered = stem.rsplit_once(".part").and_then(|(stem, number)| Some((stem.to_owned(), number.parse().ok()?)));
    Some(numbered.unwrap_or_else(|| (stem.to_owned(), 0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_volumes() {
        assert_eq!(volume("A.part02.rar"), Some(("a".to_owned(), 2)));
        assert_eq!(volume("a.rar"), Some(("a".to_owned(), 0)));
        assert_eq!(volume("a.r01"), Some(("a".to_owned(), 2)));
        assert_eq!(volume("a.zip"), None);
    }

    #[test]
    fn sets_in_their_order() {
        let rar = |path: &str| Kept { path: path.to_owned(), bytes: b"Rar!\x1a\x07\0"[..].into(), alike: false };
        let kept: Vec<Kept> = ["1", "2", "3", "4"].map(rar).into();
        assert_eq!(sets(&["a.part10.rar", "a.part2.rar", "b.rar", "a.part1.rar"], &kept), [[3, 1, 0]]);
    }
}
