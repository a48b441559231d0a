// SPDX-License-Identifier: GPL-3.0-or-later
//! What a server has spent: CPU time and memory of a process and of all its descendants, from /proc (proc(5)).
//!
//! `stat` counts in ticks of 10 ms and knows threads and children that have ended; `task/*/schedstat` counts in
//! nanoseconds, living threads only. The larger of the two is taken, so short runs have a figure as well. Work that
//! the kernel does on nobody's account (soft interrupts elsewhere, kernel threads) is not in it.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use ::tests::process::Trouble;

/// USER_HZ, the same on all architectures Debian runs on.
const TICK: Duration = Duration::from_millis(10);
/// A server that spends less than this in [`PAUSE`] has come to rest.
const QUIET: Duration = Duration::from_millis(1);
const PAUSE: Duration = Duration::from_millis(50);
const MOST_PAUSES: usize = 20;

/// Resident memory of one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Memory {
    /// Now, in KiB.
    pub(crate) resident: u64,
    /// The most there was, in KiB.
    pub(crate) peak: u64,
}

/// User and system time of `root` and its descendants since they began.
pub(crate) fn spent(root: u32) -> Result<Duration, Trouble> {
    let all = processes();
    if !all.contains_key(&root) {
        return Err(Trouble(format!("process {root} is gone")));
    }
    Ok(descendants(&all, root).into_iter().map(|id| of_process(id, &all[&id])).sum())
}

/// The same, once the server has come to rest: what it does behind the last answer (batches, commits) belongs to the
/// requests as well. Gives up waiting after a second.
pub(crate) async fn spent_at_rest(root: u32) -> Result<Duration, Trouble> {
    let mut before = spent(root)?;
    for _ in 0..MOST_PAUSES {
        tokio::time::sleep(PAUSE).await;
        let now = spent(root)?;
        if now.saturating_sub(before) < QUIET {
            return Ok(now);
        }
        before = now;
    }
    Ok(before)
}

/// Memory of the process itself, without its children.
pub(crate) fn memory(id: u32) -> Result<Memory, Trouble> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status"))
        .map_err(|error| Trouble::new(format!("process {id} is gone"), error))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse().ok()
    };
    match (field("VmRSS:"), field("VmHWM:")) {
        (Some(resident), Some(peak)) => Ok(Memory { resident, peak }),
        _ => Err(Trouble(format!("process {id} has ended"))),
    }
}

/// The process of this name that we have started ourselves.
pub(crate) fn our_child(name: &str) -> Result<u32, Trouble> {
    let us = std::process::id();
    let is_named = |id: &u32| std::fs::read_to_string(format!("/proc/{id}/comm")).is_ok_and(|comm| comm.trim() == name);
    let all = processes();
    let mut ours = all.iter().filter(|(_, stat)| stat.parent == us).map(|(&id, _)| id);
    ours.find(is_named).ok_or_else(|| Trouble(format!("there is no process {name} of ours")))
}

/// One line of `/proc/ID/stat`: what is needed of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    parent: u32,
    /// Ticks of the process, its ended threads included.
    own: u32,
    /// Ticks of children that have ended and been waited for.
    ended_children: u32,
}

fn parse(stat: &str) -> Option<Stat> {
    // The name, in parentheses, may itself hold blanks and parentheses.
    let (_, fields) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u32>().ok();
    Some(Stat { parent: number(1)?, own: number(11)? + number(12)?, ended_children: number(13)? + number(14)? })
}

/// All there are.
pub(crate) fn processes() -> BTreeMap<u32, Stat> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let id = entry.file_name().to_str()?.parse().ok()?;
            Some((id, parse(&std::fs::read_to_string(entry.path().join("stat")).ok()?)?))
        })
        .collect()
}

/// The process and all that come from it.
pub(crate) fn descendants(all: &BTreeMap<u32, Stat>, root: u32) -> Vec<u32> {
    let mut found = vec![root];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        found.extend(all.iter().filter(|(_, stat)| stat.parent == parent).map(|(&id, _)| id));
        next += 1;
    }
    found
}

fn of_process(id: u32, stat: &Stat) -> Duration {
    let threads = std::fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten();
    let living = threads.filter_map(|thread| on_cpu(&thread.path())).sum();
    (TICK * stat.own).max(living) + TICK * stat.ended_children
}

/// Absent where the kernel is built without scheduler statistics: then the ticks alone count.
fn on_cpu(thread: &Path) -> Option<Duration> {
    let text = std::fs::read_to_string(thread.join("schedstat")).ok()?;
    Some(Duration::from_nanos(text.split_whitespace().next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let line = "42 (a) b (c) S 7 42 42 0 -1 4194560 1 2 0 0 11 22 33 44 20 0 1 0 5 0 0";
        assert_eq!(parse(line), Some(Stat { parent: 7, own: 33, ended_children: 77 }));
        assert_eq!(parse("42 (a) S 7"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn work_is_seen_in_the_right_amount() {
        let before = spent(std::process::id()).unwrap();
        let begin = std::time::Instant::now();
        while begin.elapsed() < Duration::from_millis(200) {
            std::hint::black_box(begin);
        }
        let spent = spent(std::process::id()).unwrap() - before;
        // Less on a machine that has other work; other tests of this process add to it.
        assert!(spent > Duration::from_millis(20), "{spent:?}");
    }

    #[test]
    fn children_count() {
        let all = BTreeMap::from([
            (1, Stat { parent: 0, own: 0, ended_children: 0 }),
            (5, Stat { parent: 1, own: 0, ended_children: 0 }),
            (6, Stat { parent: 5, own: 0, ended_children: 0 }),
            (7, Stat { parent: 1, own: 0, ended_children: 0 }),
            (8, Stat { parent: 6, own: 0, ended_children: 0 }),
        ]);
        assert_eq!(descendants(&all, 5), [5, 6, 8]);
    }

    #[test]
    fn memory_of_a_process_that_lives_and_of_one_that_does_not() {
        let memory_here = memory(std::process::id()).unwrap();
        assert!(memory_here.resident > 500 && memory_here.peak >= memory_here.resident, "{memory_here:?}");
        assert!(memory(u32::MAX).is_err());
        assert!(spent(u32::MAX).is_err());
    }
}
