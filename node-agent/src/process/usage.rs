//! Waits for a child and returns its resource usage.
//!
//! `std` reaps a child without its resource usage, `/proc` loses the peak memory at the exit,
//! and no safe crate offers `wait4`: so one call stands here, with its argument.
#![allow(unsafe_code)]

use std::{io, mem::MaybeUninit};

use contract::outcome::Usage;
use rustix::process::{Pid, WaitId, WaitIdOptions};

/// How a process ended: with a code, or by a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Code(i32),
    Signal(i32),
}

/// Waits until the child has ended and does not reap it, so that its number stays taken; returns whether its exit code
/// was 0.
pub fn wait_until_ended(pid: Pid) -> io::Result<bool> {
    loop {
        match rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT) {
            Ok(status) => return Ok(status.and_then(|status| status.exit_status()) == Some(0)),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Reaps a child that has ended.
pub fn reap(pid: Pid) -> io::Result<(Exit, Usage)> {
    let mut status: libc::c_int = 0;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    loop {
        // SAFETY: both pointers are to live, writable memory of the right types, and the call keeps neither.
        let reaped = unsafe { libc::wait4(pid.as_raw_nonzero().get(), &mut status, 0, usage.as_mut_ptr()) };
        if reaped >= 0 {
            break;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    // SAFETY: the memory was zeroed, which is a valid `rusage`, and `wait4` has filled it in.
    let usage = unsafe { usage.assume_init() };
    let ms = |time: libc::timeval| time.tv_sec.max(0) as u64 * 1000 + time.tv_usec.max(0) as u64 / 1000;
    let exit = if libc::WIFSIGNALED(status) { Exit::Signal(libc::WTERMSIG(status)) } else { Exit::Code(libc::WEXITSTATUS(status)) };
    let used = Usage {
        user_ms: ms(usage.ru_utime),
        kernel_ms: ms(usage.ru_stime),
        memory_peak_bytes: usage.ru_maxrss.max(0) as u64 * 1024,
        ..Usage::default()
    };
    Ok((exit, used))
}
