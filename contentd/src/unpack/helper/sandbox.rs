// SPDX-License-Identifier: GPL-3.0-or-later
//! What a helper gives up before it reads a byte of a stranger: files, network, other processes, all but some twenty system calls, and memory
//! beyond its limit. Limits of the process hold on every kernel; Landlock and seccomp where the kernel has them, and whoever starts the
//! helper is told which. Not here: the limit of processor time, which the daemon sets for each job.

use super::Confinement;
use landlock::{ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetStatus, Scope};
use rustix::process::{Pid, Resource, Rlimit, Signal, setrlimit};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};
use std::collections::BTreeMap;
use std::io;
use std::os::unix::process::CommandExt;

/// Calls that decoding needs: to read the job and write the members, memory, clocks, and an end.
const ALLOWED: &[libc::c_long] = &[
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_recvfrom,
    libc::SYS_sendto,
    libc::SYS_close,
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_futex,
    libc::SYS_getrandom,
    libc::SYS_clock_gettime,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_sched_yield,
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// Gives everything up. Errors: a limit cannot be set, or something is possible that the kernel has promised to refuse.
pub(super) fn confine(memory: u64) -> io::Result<Confinement> {
    let parent = rustix::process::getppid();
    limit(Resource::Core, 0)?;
    limit(Resource::Fsize, 0)?;
    limit(Resource::Nproc, 0)?;
    limit(Resource::As, memory)?;
    let landlock = landlock()?;
    // Not before: Landlock is set up through a descriptor.
    limit(Resource::Nofile, 0)?;
    let seccomp = seccomp()?;
    let confinement = Confinement { seccomp, landlock, possible: possible(parent) };
    match confinement.possible.first() {
        Some(what) if seccomp => Err(io::Error::other(format!("{what} is possible in spite of seccomp"))),
        _ => Ok(confinement),
    }
}

fn limit(resource: Resource, most: u64) -> io::Result<()> {
    // Whoever has set a lower limit is right.
    let most = rustix::process::getrlimit(resource).maximum.map_or(most, |set| set.min(most));
    Ok(setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })?)
}

/// No file, no port, no signal to others and no abstract socket, as far as the kernel knows of them.
fn landlock() -> io::Result<String> {
    let rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ABI::V5))
        .and_then(|rules| rules.handle_access(AccessNet::from_all(ABI::V5)))
        .and_then(|rules| rules.scope(Scope::from_all(ABI::V6)))
        .and_then(Ruleset::create)
        .map_err(io::Error::other)?;
    let status = rules.restrict_self().map_err(io::Error::other)?;
    let word = match status.ruleset {
        RulesetStatus::FullyEnforced => "full",
        RulesetStatus::PartiallyEnforced => "partial",
        RulesetStatus::NotEnforced => "none",
    };
    Ok(word.to_owned())
}

/// Lets the calls of the list through; all others fail with EPERM. False: this kernel or this machine has no seccomp.
fn seccomp() -> io::Result<bool> {
    let Ok(machine) = std::env::consts::ARCH.try_into() else { return Ok(false) };
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = ALLOWED.iter().map(|call| (*call, Vec::new())).collect();
    // Memory, but none that can be executed.
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        let protection = SeccompCmpOp::MaskedEq(libc::PROT_EXEC as u64);
        rules.insert(call, vec![rule(vec![condition(2, protection, 0)?])?]);
    }
    // The standard library looks whether a descriptor is one before it closes it, where it is built with checks.
    let get = SeccompCmpOp::Eq;
    rules.insert(libc::SYS_fcntl, vec![rule(vec![condition(1, get, libc::F_GETFD as u64)?])?]);
    // abort() sends itself a signal.
    let own = u64::from(rustix::process::getpid().as_raw_nonzero().get().unsigned_abs());
    rules.insert(libc::SYS_tgkill, vec![rule(vec![condition(0, SeccompCmpOp::Eq, own)?])?]);
    let refused = SeccompAction::Errno(libc::EPERM as u32);
    let filter = SeccompFilter::new(rules, refused, SeccompAction::Allow, machine).map_err(io::Error::other)?;
    let program: BpfProgram = filter.try_into().map_err(io::Error::other)?;
    match seccompiler::apply_filter(&program) {
        Ok(()) => Ok(true),
        Err(seccompiler::Error::Seccomp(error)) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        Err(error) => Err(io::Error::other(error)),
    }
}

fn condition(argument: u8, operator: SeccompCmpOp, value: u64) -> io::Result<SeccompCondition> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value).map_err(io::Error::other)
}

fn rule(conditions: Vec<SeccompCondition>) -> io::Result<SeccompRule> {
    SeccompRule::new(conditions).map_err(io::Error::other)
}

/// Tries what must fail, and names what does not. Harmless where it succeeds.
fn possible(parent: Option<Pid>) -> Vec<String> {
    let tries: [(&str, bool); 6] = [
        ("open", std::fs::File::open("/").is_ok()),
        ("socket", std::net::UdpSocket::bind("127.0.0.1:0").is_ok()),
        ("socketpair", std::os::unix::net::UnixStream::pair().is_ok()),
        ("fork", std::thread::Builder::new().spawn(|| ()).is_ok()),
        ("kill", parent.is_some_and(|parent| rustix::process::kill_process(parent, Signal::CONT).is_ok())),
        ("execve", executes()),
    ];
    tries.into_iter().filter(|(_, done)| *done).map(|(what, _)| what.to_owned()).collect()
}

/// Whether another program may be started in our place. Asked with one that is not there: what counts is which error comes.
fn executes() -> bool {
    let error = std::process::Command::new("/nonexistent/octroi").exec();
    !matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES | libc::EMFILE))
}
