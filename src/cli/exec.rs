//! `sandbox exec`: a further command in a sandbox that runs. Called by `cli::main`.
#![forbid(unsafe_code)]

use super::run::{check_descriptors, set_variables, streams, window};
use crate::container::exec::{self, Wish};
use crate::container::run::Call;
use crate::container::store::Sandboxes;
use crate::error::{Doing, Error, Kind, Result};
use crate::host::Caller;
use crate::launch::enter::Calls;
use crate::launch::plan::{Environment, Io};
use crate::monitor::{Joined, Living, Signals, Streams, stay};
use crate::spec::User;
use clap::Args;
use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

/// Run a further command in a sandbox that runs
///
/// It is bound as the sandbox's own command is: the same tree, ids, network, limits, capabilities and filter, the same user, directory and
/// variables unless other ones are named. Nothing of the sandbox's tree is used to get it there.
///
/// It ends with the sandbox, and with us: a signal is passed on, our death is its own, a closed terminal hangs it up. Only with -d it goes on.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  sandbox exec -it web sh\n  sandbox exec -u www-data -w /srv web ls -l\n\n\
    Exit status: the command's; 125 our own error, 126 not executable, 127 not found, 128+n killed by signal n.")]
pub struct ExecArgs {
    /// Keep stdin open and pass it on
    ///
    /// Without it the command reads /dev/null. A terminal is passed on as a pipe, unless -t gives the command one of its own.
    #[arg(short, long)]
    interactive: bool,
    /// Give the command a terminal of its own
    #[arg(short, long)]
    tty: bool,
    /// Do not wait for it
    ///
    /// What it prints goes nowhere, and how it ends nobody is told. It ends with the sandbox.
    #[arg(short, long, conflicts_with_all = ["interactive", "tty"])]
    detach: bool,
    /// Set a variable; NAME alone copies yours
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Read variables from a file, one NAME[=VALUE] a line
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Run as this user inside: a name from the sandbox's own files, or a number
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<User>,
    /// Working directory inside
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<PathBuf>,
    /// Pass descriptors 3 to 2+N to the command
    #[arg(long, value_name = "N")]
    preserve_fds: Option<u32>,
    /// Always refused: what a sandbox may do is decided when it is made
    #[arg(long, hide = true)]
    privileged: bool,
    /// Always refused: there is nobody to be left with
    #[arg(long, hide = true)]
    detach_keys: Option<String>,
    /// Name or ID
    sandbox: String,
    /// The command and its arguments
    #[arg(trailing_var_arg = true, required = true, value_name = "CMD", allow_hyphen_values = true)]
    command: Vec<OsString>,
}

pub fn run(args: ExecArgs) -> Result<u8> {
    let ExecArgs { interactive, tty, detach, env: variables, env_file, user, workdir, preserve_fds, privileged, detach_keys, sandbox, command } =
        args;
    if privileged {
        return Err(Error::new(Kind::Denied, "cannot use --privileged: a command in a sandbox may do what the sandbox may")
            .hint("run the sandbox with what it needs: --cap-add, -v, --device, or another --policy"));
    }
    if detach_keys.is_some() {
        return Err(Error::new(Kind::Unsupported, "cannot use --detach-keys: a command that was started by exec ends with it")
            .hint("sandbox exec -d leaves it behind; what a sandbox was made for can be left: sandbox attach"));
    }
    let preserve_fds = preserve_fds.unwrap_or(0);
    check_descriptors(preserve_fds, None)?;
    let caller = Caller::me()?;
    let sandboxes = Sandboxes::open(&caller.home);
    let sandbox = sandboxes.find(&sandbox)?;
    let words = command.iter().map(|w| w.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ");
    if tty && interactive && !rustix::termios::isatty(std::io::stdin()) {
        return Err(Error::usage("cannot use -i with -t: stdin is no terminal").hint("leave out -t to pass a pipe or a file"));
    }
    let env: Environment = std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v))).collect();
    let env_set = set_variables(&env_file, &variables, &env)?;
    let wish = Wish { argv: command, env: env_set, cwd: workdir, user, interactive, tty, detached: detach, preserve_fds };

    let signals = Signals::take()?;
    let call = Call { caller, cwd: PathBuf::from("/"), env, mask: signals.old_mask(), window: window(), guessed: None };
    let (io, streams) = match (tty, detach) {
        (true, _) => (None, None),
        (false, true) => (Some(nowhere()?), None),
        (false, false) => streams(interactive).map(|(io, s)| (Some(io), Some(s)))?,
    };
    let init = exec::first(&sandbox, "run a command in")?.find();
    let calls = Calls { fd: signals.as_fd(), next: &mut || signals.next() };
    let entered = exec::run(&sandbox, wish, call, io, calls)?;
    sandboxes.say(&sandbox, "exec_start", &[("execCommand", words.clone())]);
    if detach {
        // It is PID 1's child by now; who brought it there has ended, and is waited for.
        let wait = || rustix::process::waitid(rustix::process::WaitId::PidFd(entered.pidfd.as_fd()), rustix::process::WaitIdOptions::EXITED);
        return crate::sys::clone::interrupted(wait).doing("wait for", "the joining process").map(|_| 0);
    }
    let streams = match (streams, entered.terminal) {
        (Some(streams), _) => streams,
        (None, Some(master)) => Streams::Terminal { master, interactive },
        (None, None) => return Err(Error::new(Kind::Bug, "no terminal came")),
    };
    // They came while there was nobody to be told: they come again, to who stays.
    for call in entered.calls {
        let _ = crate::sys::process::kill(rustix::process::getpid().as_raw_nonzero().get(), call);
    }
    let joined = init.map(|init| Joined { group: entered.pid, sandbox: init.pidfd });
    let stop_signal = sandbox.config.spec.process.stop_signal;
    let living = Living {
        pidfd: entered.pidfd,
        wire: entered.wire,
        streams,
        stop_signal,
        timeout: None,
        lingers: false,
        joined,
        server: None,
        supervisor: entered.supervisor,
    };
    let code = stay(living, signals, &mut |_| {})?.code();
    sandboxes.say(&sandbox, "exec_die", &[("execCommand", words), ("exitCode", code.to_string())]);
    Ok(code)
}

fn nowhere() -> Result<Io> {
    let null = || File::options().read(true).write(true).open("/dev/null").map(OwnedFd::from).doing("open", "/dev/null");
    Ok(Io { stdin: null()?, stdout: null()?, stderr: null()? })
}
