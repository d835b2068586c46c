//! The umask of tasks. The agent's own files are for its user alone; tasks use the usual umask of their user.
//!
//! A thread that starts processes gets a umask of its own. Where the system refuses that (containers, seccomp), each
//! process gets it between fork and exec, which is slower.

#![allow(unsafe_code)]

use std::{cell::Cell, io, os::unix::process::CommandExt, process::Command};

use rustix::{fs::Mode, process::umask};

thread_local! {
    /// The umask to set in each process, where the thread could not have one of its own.
    static BY_PROCESS: Cell<Option<u32>> = const { Cell::new(None) };
}

/// Gives the calling thread this umask, which its processes inherit; the other threads keep theirs.
pub fn of_this_thread(mask: u32) {
    // SAFETY: the thread gets copies of its root, working folder and umask; no memory is touched.
    if unsafe { libc::unshare(libc::CLONE_FS) } == 0 {
        umask(Mode::from_raw_mode(mask));
        return;
    }
    tracing::debug!(error = %io::Error::last_os_error(), "a thread cannot have a umask of its own; setting it in each task's process");
    BY_PROCESS.set(Some(mask));
}

/// Sets the umask in a process that is about to be started, where the thread could not have one of its own.
pub fn give(command: &mut Command) {
    let Some(mask) = BY_PROCESS.get() else { return };
    let set = move || {
        umask(Mode::from_raw_mode(mask));
        Ok(())
    };
    // SAFETY: between fork and exec, one system call is made and nothing is allocated.
    unsafe { command.pre_exec(set) };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Refuses `unshare` to the calling thread, as the filters of container runtimes do.
    fn refuse_unshare() {
        let number = u32::try_from(libc::SYS_unshare).unwrap();
        let step = |code: u32, jt, jf, k| libc::sock_filter { code: u16::try_from(code).unwrap(), jt, jf, k };
        let mut steps = [
            step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
            step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, number),
            step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned()),
            step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
        ];
        let program = libc::sock_fprog { len: 4, filter: steps.as_mut_ptr() };
        // SAFETY: the program lives until the calls return, and the system copies it.
        unsafe {
            assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
            assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program), 0);
        }
    }

    fn umask_of_a_process() -> String {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "umask"]);
        give(&mut command);
        String::from_utf8(command.output().unwrap().stdout).unwrap().trim().to_owned()
    }

    #[test]
    fn processes_have_the_umask_of_tasks_also_where_threads_cannot_have_one() {
        let before = umask_of_a_process();
        for refuses in [false, true] {
            let started = std::thread::spawn(move || {
                if refuses {
                    refuse_unshare();
                }
                of_this_thread(0o035);
                (umask_of_a_process(), BY_PROCESS.get().is_some())
            });
            assert_eq!(started.join().unwrap(), ("0035".to_owned(), refuses));
        }
        assert_eq!(umask_of_a_process(), before, "other threads keep theirs");
    }
}
