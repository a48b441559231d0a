// SPDX-License-Identifier: GPL-3.0-or-later
//! One budget per message, shared by everything that decodes: bytes, objects, processor time, wall clock, memory.
//!
//! What a header declares is never believed: bytes are counted as they come out of a decoder. Reaching a limit is an
//! answer ([`Over`]), and the message is "unchecked" then. Lives on the thread that decodes, whose processor time it reads; it can be paused and resumed on another.

use common::units::{Period, Size};
use std::time::{Duration, Instant};

/// How much may be decoded of one message: the limits in section `[unpack]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Archives within archives.
    pub depth: usize,
    /// Parts of the message and members of archives together.
    pub objects: usize,
    /// Unpacked bytes as a multiple of the size of the message, between `min_bytes` and `max_bytes`.
    pub expansion: u64,
    /// Unpacked bytes that even the smallest message may have.
    pub min_bytes: Size,
    /// Unpacked bytes that even the largest message may have.
    pub max_bytes: Size,
    /// Largest single member.
    pub member_bytes: Size,
    /// Memory that one decoder may need for its dictionary or window, and that all unpacked archives waiting to be opened may take.
    pub memory: Size,
    /// Processor time for decoding.
    pub cpu: Period,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            depth: 14,
            objects: 1500,
            expansion: 500,
            min_bytes: Size(40_000_000),
            max_bytes: Size(200_000_000),
            member_bytes: Size(50_000_000),
            memory: Size(70_000_000),
            cpu: Period::seconds(4),
        }
    }
}

/// A limit that is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// Too many bytes in all.
    Bytes,
    /// Too many parts and members.
    Objects,
    /// Too much processor time.
    Cpu,
    /// The deadline of the message.
    Time,
}

impl Over {
    /// The word for it in findings.
    pub fn word(self) -> &'static str {
        match self {
            Over::Bytes => "expansion",
            Over::Objects => "parts",
            Over::Cpu => "cpu",
            Over::Time => "time",
        }
    }
}

/// What is left for one message.
#[derive(Debug)]
pub struct Budget {
    limits: Limits,
    /// Decoded bytes of the readings of the message's own parts.
    readings: u64,
    /// Bytes out of archives.
    unpacked: u64,
    objects: usize,
    watch: Watch,
}

/// The two clocks, for what works on its own for a while. On the thread of its budget only.
#[derive(Debug, Clone, Copy)]
pub struct Watch {
    cpu: Duration,
    until: Instant,
}

impl Watch {
    /// What is left of the processor's time.
    pub(crate) fn cpu_left(&self) -> Duration {
        self.cpu.saturating_sub(thread_time())
    }

    /// When the message has to be done.
    pub(crate) fn until(&self) -> Instant {
        self.until
    }

    /// Which of the clocks has run out.
    pub fn over(&self) -> Option<Over> {
        if Instant::now() >= self.until {
            return Some(Over::Time);
        }
        (thread_time() >= self.cpu).then_some(Over::Cpu)
    }
}

impl Budget {
    /// The whole budget of a message of `size` bytes, to be used up on the calling thread until `until`. Its own parts
    /// may decode to `readings` bytes, all readings of them together.
    pub fn new(limits: &Limits, size: u64, readings: u64, until: Instant) -> Budget {
        let most = limits.max_bytes.0.max(limits.min_bytes.0);
        let unpacked = size.saturating_mul(limits.expansion).clamp(limits.min_bytes.0, most);
        let watch = Watch { cpu: thread_time() + limits.cpu.0, until };
        Budget { limits: *limits, readings, unpacked, objects: limits.objects, watch }
    }

    /// Before it goes to another thread.
    pub fn pause(&mut self) {
        self.watch.cpu = self.watch.cpu.saturating_sub(thread_time());
    }

    /// On the other thread.
    pub fn resume(&mut self) {
        self.watch.cpu += thread_time();
    }

    /// One that no test uses up.
    #[cfg(test)]
    pub(crate) fn ample() -> Budget {
        Budget::new(&Limits::default(), 1 << 20, 1 << 30, Instant::now() + Duration::from_secs(60))
    }

    /// The limits that it was made of.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Takes off one part or member.
    pub fn object(&mut self) -> Result<(), Over> {
        self.objects = self.objects.checked_sub(1).ok_or(Over::Objects)?;
        self.clock()
    }

    /// Takes off decoded bytes of a part of the message itself.
    pub fn reading(&mut self, bytes: usize) -> Result<(), Over> {
        self.readings = self.readings.checked_sub(bytes as u64).ok_or(Over::Bytes)?;
        Ok(())
    }

    /// Allows more decoded bytes, for a message within an archive, whose own bytes have been counted.
    pub fn more_readings(&mut self, bytes: u64) {
        self.readings = self.readings.saturating_add(bytes);
    }

    /// Takes off bytes that came out of an archive.
    pub fn unpacked(&mut self, bytes: usize) -> Result<(), Over> {
        self.unpacked = self.unpacked.checked_sub(bytes as u64).ok_or(Over::Bytes)?;
        self.clock()
    }

    /// Whether there is time left, of the processor and on the wall.
    pub fn clock(&self) -> Result<(), Over> {
        self.watch.over().map_or(Ok(()), Err)
    }

    /// Takes off processor time that another process has used for the message.
    pub(crate) fn spent(&mut self, cpu: Duration) {
        self.watch.cpu = self.watch.cpu.saturating_sub(cpu);
    }

    /// Parts and members that may still come.
    pub(crate) fn objects(&self) -> usize {
        self.objects
    }

    /// The two clocks.
    pub fn watch(&self) -> Watch {
        self.watch
    }

    /// Bytes that may still come out of archives.
    pub fn left(&self) -> u64 {
        self.unpacked
    }
}

/// Processor time that this thread has used.
pub(crate) fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[test]
    fn what_may_come_out_depends_on_the_size_within_bounds() {
        let limits = Limits { expansion: 10, min_bytes: Size(1000), max_bytes: Size(50_000), ..Limits::default() };
        for (size, left) in [(0, 1000), (100, 1000), (1000, 10_000), (1_000_000, 50_000), (u64::MAX, 50_000)] {
            assert_eq!(Budget::new(&limits, size, 0, later()).left(), left, "{size}");
        }
    }

    #[test]
    fn each_limit_has_its_word() {
        let limits = Limits { objects: 1, min_bytes: Size(10), expansion: 1, ..Limits::default() };
        let mut budget = Budget::new(&limits, 1, 5, later());
        assert_eq!((budget.object(), budget.object()), (Ok(()), Err(Over::Objects)));
        assert_eq!((budget.reading(5), budget.reading(1)), (Ok(()), Err(Over::Bytes)));
        assert_eq!((budget.unpacked(10), budget.unpacked(1)), (Ok(()), Err(Over::Bytes)));
        let late = Budget::new(&limits, 1, 5, Instant::now());
        assert_eq!(late.clock(), Err(Over::Time));
        let tired = Budget::new(&Limits { cpu: Period(Duration::ZERO), ..limits }, 1, 5, later());
        assert_eq!(tired.clock(), Err(Over::Cpu));
    }
}
