//! Starting a child, and ending it with everything that it started.

use crate::{
    upstream::{Error, ErrorKind},
    view::{Rlimits, StdioTarget},
};
use rustix::{
    io::Errno,
    process::{Pid, Resource, Rlimit, Signal, WaitId, WaitIdOptions},
};
use std::process::{ExitStatus, Stdio};
use tokio::{
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command},
    signal::unix::{self, SignalKind},
};

/// The variables that every child inherits from the daemon, where the daemon has them.
pub const INHERITED: [&str; 4] = ["PATH", "HOME", "LANG", "TMPDIR"];

/// A process group whose leader Tollgate started. Dropped before it was reaped, the whole group is killed.
pub struct Group {
    leader: Child,
    pid: Pid,
    died: unix::Signal,
    reaped: bool,
}

/// The three pipes.
pub struct Pipes {
    /// Requests go in here.
    pub stdin: ChildStdin,
    /// Messages come out here.
    pub stdout: ChildStdout,
    /// What it says for people.
    pub stderr: ChildStderr,
}

/// Starts the command in a process group of its own.
///
/// Its environment is [`INHERITED`] and the target's own variables. It gets three pipes; every other descriptor of the
/// daemon is close-on-exec. Resource limits are set by `prlimit` right after the start, so the program's first
/// instructions run before them: they are there to contain a server that goes astray, not one that races.
///
/// Must be called within a runtime: the pipes live on it.
pub fn start(target: &StdioTarget) -> Result<(Group, Pipes), Error> {
    let Some((program, args)) = target.command.split_first() else {
        return Err(cannot("there is no command"));
    };
    // Before the start, so that no death is missed.
    let died = unix::signal(SignalKind::child()).map_err(|e| cannot(&e.to_string()))?;
    let mut command = Command::new(program);
    command.args(args).env_clear();
    for name in INHERITED {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command.envs(target.env.iter().map(|(name, value)| (name, value)));
    if let Some(dir) = &target.dir {
        command.current_dir(dir);
    }
    if let Some((user, group)) = target.user {
        // The standard library drops the supplementary groups as well when it changes the user as root.
        command.uid(user).gid(group);
    }
    command
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut leader = command
        .spawn()
        .map_err(|error| cannot(&format!("{program}: {error}")))?;
    let pid = leader.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
    let pipes = (
        leader.stdin.take(),
        leader.stdout.take(),
        leader.stderr.take(),
    );
    let (Some(pid), (Some(stdin), Some(stdout), Some(stderr))) = (pid, pipes) else {
        return Err(cannot("it has no pipes"));
    };
    let group = Group {
        leader,
        pid,
        died,
        reaped: false,
    };
    limit(pid, &target.rlimits).map_err(|error| {
        let hint = match (error, target.user) {
            (Errno::PERM, Some(_)) => " (limits on another user's process take CAP_SYS_RESOURCE)",
            _ => "",
        };
        cannot(&format!("resource limits: {error}{hint}"))
    })?;
    let pipes = Pipes {
        stdin,
        stdout,
        stderr,
    };
    Ok((group, pipes))
}

fn cannot(why: &str) -> Error {
    Error {
        kind: ErrorKind::Connect,
        unsent: true,
        detail: format!("cannot start the server: {why}"),
    }
}

fn limit(pid: Pid, limits: &Rlimits) -> Result<(), Errno> {
    for (resource, value) in [
        (Resource::As, limits.memory_bytes),
        (Resource::Cpu, limits.cpu_seconds),
        (Resource::Nofile, limits.files),
    ] {
        let Some(value) = value else { continue };
        // Raising the hard limit takes a privilege; what is asked for beyond it cannot be had.
        let hard = rustix::process::getrlimit(resource).maximum;
        let value = Some(hard.map_or(value, |hard| value.min(hard)));
        let limit = Rlimit {
            current: value,
            maximum: value,
        };
        match rustix::process::prlimit(Some(pid), resource, limit) {
            // It has died already: that will be noticed.
            Ok(_) | Err(Errno::SRCH) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

impl Group {
    /// The leader's process id, which is the group's.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().cast_unsigned()
    }

    /// Waits until the leader has ended. It is not reaped yet: as long as it is a zombie its id, and so the group's,
    /// cannot pass to strangers, and signals to the group hit nobody else.
    pub async fn leader_ended(&mut self) {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        loop {
            match rustix::process::waitid(WaitId::Pid(self.pid), options) {
                Ok(None) | Err(Errno::INTR) => {}
                // No such child: somebody else reaped it.
                Ok(Some(_)) | Err(_) => return,
            }
            if self.died.recv().await.is_none() {
                return;
            }
        }
    }

    /// Sends a signal to the leader and to every process that it started and that stayed in its group.
    pub fn signal(&self, signal: Signal) {
        if !self.reaped {
            // Nobody left to hear it is no failure.
            let _ = rustix::process::kill_process_group(self.pid, signal);
        }
    }

    /// Takes the leader's status: the group's id is free from here on.
    pub async fn reap(mut self) -> Option<ExitStatus> {
        let status = self.leader.wait().await.ok();
        self.reaped = true;
        status
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}
