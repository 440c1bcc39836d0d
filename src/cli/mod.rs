//! The human door: what was typed, told to the line, and told back.
//!
//! *What*: `Command` is pure clap; each command's file turns its arguments into a patch or calls the one function that does it.
//!
//! *Why this way*: `run` and `exec` are the hot paths, so their arguments are parsed by the subcommand's own parser when that is the first word;
//! building the whole tree of commands costs more than the parse. Where no flag is among them there is nothing to parse. (Rejected: a hand-written
//! parser, a second truth about flags.)
//!
//! *Invariants*
//! - I1 errors are printed here, once: `error: ...`, then the hint; with `--json` as one JSON object on stderr.
//! - I2 exit codes: the command's own; 125 ours, 126 not executable, 127 not found, 128+n signal.
#![forbid(unsafe_code)]

pub mod apply;
pub mod cp;
pub mod attach;
pub mod docs;
pub mod doctor;
pub mod events;
pub mod exec;
pub mod image;
pub mod inspect;
pub mod kept;
pub mod layer;
pub mod life;
pub mod limits;
pub mod logs;
pub mod overlay;
pub mod policy;
pub mod ps;
pub mod registry;
pub mod run;
pub mod template;
pub mod top;

use crate::error::{Doing, Error, Result, printable};
use crate::host::Caller;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

/// A rootless sandbox: no daemon, nothing set-uid of its own
///
/// Runs a command so that it changes nothing of the host, reads no keys, and reaches no network, unless it is told to. An ordinary
/// user can use it, on the host's own tree or on a directory as the root.
#[derive(Debug, Parser)]
#[command(name = "sandbox", version, subcommand_required = true, arg_required_else_help = true, disable_help_subcommand = true)]
#[command(max_term_width = 100)]
#[command(after_help = "Examples:\n  sandbox run -- make test               the host's tree, copy-on-write, no network\n  \
    sandbox run --rw target -- cargo test  the same, and target/ is written for real\n  \
    sandbox run --rootfs DIR sh            a directory as the root\n  sandbox doctor                         what this machine can do\n\n\
    Man pages: sandbox(1), sandbox-run(1), sandbox-policy(5).")]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Run(Box<run::RunArgs>),
    Exec(exec::ExecArgs),
    Top(top::TopArgs),
    Cp(cp::CpArgs),
    Stats(limits::StatsArgs),
    Slice(limits::SliceArgs),
    Apply(apply::ApplyArgs),
    Commit(kept::CommitArgs),
    Export(kept::ExportArgs),
    Kept(kept::KeptArgs),
    Create(life::CreateArgs),
    Start(life::StartArgs),
    Stop(life::StopArgs),
    Restart(life::RestartArgs),
    Kill(life::KillArgs),
    Pause(life::PauseArgs),
    Unpause(life::UnpauseArgs),
    Rename(life::RenameArgs),
    Update(life::UpdateArgs),
    Rm(life::RmArgs),
    Ps(ps::PsArgs),
    Logs(logs::LogsArgs),
    Attach(attach::AttachArgs),
    Wait(attach::WaitArgs),
    Events(events::EventsArgs),
    Container(life::ContainerArgs),
    Doctor(DoctorArgs),
    Policy(PolicyArgs),
    Login(registry::LoginArgs),
    Logout(registry::LogoutArgs),
    #[command(flatten)]
    Images(image::ImageCommand),
    Image(image::ImageArgs),
    #[command(hide = true)]
    Layer(layer::LayerArgs),
    #[command(hide = true)]
    Overlay(overlay::OverlayArgs),
    #[command(hide = true)]
    Docs(docs::DocsArgs),
}

/// Say what this machine can do for sandboxes, and what mends the rest
///
/// Tries every feature of the kernel and of the host that sandbox uses. For each that is missing it says what that costs, and the
/// exact command that mends it.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Print one JSON array
    #[arg(long)]
    json: bool,
    /// Print the AppArmor profile that lets this program make user namespaces, and nothing else
    #[arg(long)]
    print_apparmor_profile: bool,
}

/// List, show, check and compare policies
///
/// A policy says what a sandbox may see and do. sandbox-policy(5) describes the language, and what is built in.
#[derive(Debug, Args)]
pub struct PolicyArgs {
    #[command(subcommand)]
    command: PolicyCommand,
}

#[derive(Debug, Subcommand)]
enum PolicyCommand {
    /// List every policy that can be named, and where it comes from
    List {
        /// Print one JSON array
        #[arg(long)]
        json: bool,
    },
    /// Print a policy with everything it includes
    Show {
        /// A name, or a file (with a slash)
        policy: String,
        /// Print JSON, not TOML
        #[arg(long)]
        json: bool,
    },
    /// Say whether a policy file is right
    Check {
        /// The file
        file: String,
    },
    /// Show in what two policies differ
    Diff {
        /// A name, or a file (with a slash)
        a: String,
        /// A name, or a file (with a slash)
        b: String,
    },
}

fn only<A: Args>(args: Vec<OsString>, name: &'static str, act: impl FnOnce(A) -> ExitCode) -> ExitCode {
    let command = clap::Command::new(name).bin_name(format!("sandbox {name}")).display_name(format!("sandbox-{name}"));
    match A::augment_args(command).try_get_matches_from(args.into_iter().skip(1)).and_then(|m| A::from_arg_matches(&m)) {
        Ok(args) => act(args),
        Err(e) => usage(&e),
    }
}

fn run(args: run::RunArgs, guessed: Option<crate::container::run::Guess>) -> ExitCode {
    let json = args.json;
    report(run::run(args, guessed), json)
}

/// The program, from arguments to exit code.
pub fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    // The hot paths: only the parser of that command is built.
    match args.get(1).and_then(|word| word.to_str()) {
        Some("run") => {
            let words = args.get(2..).unwrap_or_default();
            let guess = run::guess(words);
            return match run::RunArgs::without_flags(words) {
                Some(args) => run(args, guess),
                None => only(args, "run", |args| run(args, guess)),
            };
        }
        Some("exec") => return only(args, "exec", |args| report(exec::run(args), false)),
        _ => {}
    }
    let cli = match Cli::command().try_get_matches_from(args).and_then(|m| Cli::from_arg_matches(&m)) {
        Ok(cli) => cli,
        Err(e) => return usage(&e),
    };
    match cli.command {
        Command::Run(args) => run(*args, None),
        Command::Exec(args) => report(exec::run(args), false),
        Command::Top(args) => report(top::run(args).map(|()| 0), false),
        Command::Cp(args) => report(cp::run(args).map(|()| 0), false),
        Command::Stats(args) => report(limits::stats(&args), false),
        Command::Slice(args) => report(limits::slice(args), false),
        Command::Apply(args) => report(apply::run(args).map(|()| 0), false),
        Command::Commit(args) => report(kept::commit(args).map(|()| 0), false),
        Command::Export(args) => report(kept::export(args).map(|()| 0), false),
        Command::Kept(args) => report(kept::list(args).map(|()| 0), false),
        Command::Create(args) => report(life::create(args).map(|()| 0), false),
        Command::Start(args) => report(life::start(args), false),
        Command::Stop(args) => report(life::stop(args).map(|()| 0), false),
        Command::Kill(args) => report(life::kill(args).map(|()| 0), false),
        Command::Rm(args) => report(life::rm(args).map(|()| 0), false),
        Command::Logs(args) => report(logs::logs(args).map(|()| 0), false),
        Command::Attach(args) => report(attach::attach_to(args), false),
        Command::Wait(args) => report(attach::wait(args).map(|()| 0), false),
        Command::Ps(args) => report(ps::ps(args).map(|()| 0), false),
        Command::Restart(args) => report(life::restart(args).map(|()| 0), false),
        Command::Pause(args) => report(life::pause(args).map(|()| 0), false),
        Command::Unpause(args) => report(life::unpause(args).map(|()| 0), false),
        Command::Rename(args) => report(life::rename(args).map(|()| 0), false),
        Command::Update(args) => report(life::update(args).map(|()| 0), false),
        Command::Events(args) => report(events::events(&args).map(|()| 0), args.json),
        Command::Container(args) => report(life::container(args).map(|()| 0), false),
        Command::Images(image::ImageCommand::Inspect(args)) => report(inspect::inspect(&args).map(|()| 0), false),
        Command::Doctor(args) => {
            let json = args.json;
            report(doctor(args), json)
        }
        Command::Policy(args) => report(policy(args), false),
        Command::Login(args) => report(registry::login(args), false),
        Command::Logout(args) => report(registry::logout(args), false),
        Command::Images(command) | Command::Image(image::ImageArgs { command }) => report(image::run(command), false),
        Command::Layer(args) => report(
            layer::run(args).map(|text| {
                text.lines().for_each(print);
                0
            }),
            false,
        ),
        Command::Overlay(args) => report(overlay::run(args).map(|()| 0), false),
        Command::Docs(args) => report(docs::write(&args).map(|()| 0), false),
    }
}

fn doctor(args: DoctorArgs) -> Result<u8> {
    if args.print_apparmor_profile {
        print(&crate::host::remedy::apparmor_profile(&crate::host::remedy::own_program()));
        return Ok(0);
    }
    let (text, works) = doctor::report(args.json)?;
    print(&text);
    Ok(if works { 0 } else { 1 })
}

fn policy(args: PolicyArgs) -> Result<u8> {
    let home = Caller::me()?.home;
    let text = match args.command {
        PolicyCommand::List { json } => policy::list(&home, json)?,
        PolicyCommand::Show { policy, json } => policy::show(&policy, &home, json)?,
        PolicyCommand::Check { file } => policy::check(&file, &home)?,
        PolicyCommand::Diff { a, b } => policy::diff(&a, &b, &home)?,
    };
    print(&text);
    Ok(0)
}

/// To stdout; a reader that went away (`| head`) is no error.
fn print(text: &str) {
    let end = if text.ends_with('\n') { "" } else { "\n" };
    let _ = write!(std::io::stdout(), "{text}{end}");
}

/// Ask a person whether to do `what`, which `look` shows beforehand.
fn asked(what: &str, look: &str, question: &str) -> Result<bool> {
    if !std::io::stdin().is_terminal() {
        return Err(Error::usage(format!("cannot ask whether to {what}: this is no terminal")).hint(format!("say --force, or look first: {look}")));
    }
    let _ = write!(std::io::stderr(), "{} [y/N] ", printable(question));
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).doing("read", "the answer")?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// clap's own text; help and version are no errors.
fn usage(e: &clap::Error) -> ExitCode {
    let _ = e.print();
    ExitCode::from(if e.use_stderr() { 125 } else { 0 })
}

fn report(result: Result<u8>, json: bool) -> ExitCode {
    match result {
        Ok(code) => ExitCode::from(code),
        Err(e) => {
            let text = if json { as_json(&e) } else { format!("error: {e}") };
            let _ = writeln!(std::io::stderr(), "{text}");
            ExitCode::from(e.exit_code())
        }
    }
}

fn as_json(e: &Error) -> String {
    serde_json::json!({ "error": e.message(), "hint": e.cure(), "exit": e.exit_code() }).to_string()
}
