//! Health checks: the role `@health`, a process beside the monitor for a sandbox that has one, which asks it how it is.
//!
//! The command of a check goes through `sandbox exec`, so it is joined and sealed as everything else. Started and ended by the monitor.
//! What came of it is `health.json` in the sandbox's directory, which nobody else writes.
//!
//! *Why this way*: the monitor stays one thread and one loop, and small where nobody asks. (Rejected: checks in its loop, which would have to
//! wait for children, keep their output and time them; a thread, which would be there at the next clone.)
#![forbid(unsafe_code)]

use super::events::Happened;
use super::now;
use super::store::{self, Own};
use crate::error::{Doing, Error, Result};
use crate::image::config::nanoseconds;
use crate::sys;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::ffi::OsStr;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::str::FromStr;
use std::time::{Duration, Instant};

/// How a sandbox is asked. Times in nanoseconds, as in an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    pub command: Vec<String>,
    pub interval: u64,
    pub timeout: u64,
    /// Failures count for nothing until so long after the start, or until the first success.
    pub start_period: u64,
    /// How often it is asked until then.
    pub start_interval: u64,
    pub retries: u32,
    pub on_failure: OnFailure,
}

/// What becomes of one that is unhealthy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFailure {
    #[default]
    None,
    /// Killed; the restart policy sees to the rest.
    Kill,
    /// Killed and run again, whatever the policy.
    Restart,
    /// Stopped.
    Stop,
}

impl FromStr for OnFailure {
    type Err = Error;
    fn from_str(s: &str) -> Result<OnFailure> {
        match s {
            "none" => Ok(OnFailure::None),
            "kill" => Ok(OnFailure::Kill),
            "restart" => Ok(OnFailure::Restart),
            "stop" => Ok(OnFailure::Stop),
            _ => Err(Error::usage(format!("bad --health-on-failure '{s}': none, kill, restart or stop"))),
        }
    }
}

/// What flags say; what they leave out, the image says.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    pub command: Option<String>,
    pub interval: Option<String>,
    pub timeout: Option<String>,
    pub start_period: Option<String>,
    pub start_interval: Option<String>,
    pub retries: Option<u32>,
    pub on_failure: Option<OnFailure>,
    pub none: bool,
}

impl Asked {
    /// docker: `Healthcheck` of an image's configuration, and the defaults of docker-run(1).
    pub fn over(self, image: Option<&Value>) -> Result<Option<Health>> {
        if self.none {
            return Ok(None);
        }
        let word = |w: &Value| w.as_str().map(String::from);
        let words: Vec<String> = image.and_then(|i| i["Test"].as_array()).into_iter().flatten().filter_map(word).collect();
        let command = match (&self.command, words.split_first()) {
            (Some(text), _) if text.starts_with('[') => {
                let words: Vec<String> = serde_json::from_str(text).map_err(|e| Error::usage(format!("bad --health-cmd: {e}")))?;
                words.strip_prefix(&["CMD".to_string()]).map(<[String]>::to_vec).unwrap_or(words)
            }
            (Some(text), _) if text == "none" => return Ok(None),
            (Some(text), _) => shell(text),
            (None, Some((first, rest))) if first == "CMD" => rest.to_vec(),
            (None, Some((first, rest))) if first == "CMD-SHELL" => shell(&rest.join(" ")),
            (None, _) => Vec::new(),
        };
        if command.is_empty() {
            let flags = [&self.interval, &self.timeout, &self.start_period, &self.start_interval];
            return match flags.iter().any(|f| f.is_some()) || self.retries.is_some() || self.on_failure.is_some() {
                true => Err(Error::usage("cannot check the health: nothing says how").hint("--health-cmd COMMAND")),
                false => Ok(None),
            };
        }
        let time = |flag: Option<String>, name: &str, field: &str, usual: u64| match flag {
            Some(text) => nanoseconds(&text).ok_or_else(|| Error::usage(format!("bad --health-{name} '{text}': a time such as 1m30s"))),
            None => Ok(image.and_then(|i| i[field].as_u64()).filter(|n| *n > 0).unwrap_or(usual)),
        };
        const SECOND: u64 = 1_000_000_000;
        Ok(Some(Health {
            interval: time(self.interval, "interval", "Interval", 30 * SECOND)?.max(SECOND / 1000),
            timeout: time(self.timeout, "timeout", "Timeout", 30 * SECOND)?.max(SECOND / 1000),
            start_period: time(self.start_period, "start-period", "StartPeriod", 0)?,
            start_interval: time(self.start_interval, "start-interval", "StartInterval", 5 * SECOND)?.max(SECOND / 1000),
            retries: self.retries.or_else(|| u32::try_from(image?["Retries"].as_u64()?).ok()).filter(|n| *n > 0).unwrap_or(3),
            on_failure: self.on_failure.unwrap_or_default(),
            command,
        }))
    }
}

fn shell(text: &str) -> Vec<String> {
    vec!["/bin/sh".into(), "-c".into(), text.into()]
}

/// `health.json`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    pub status: Status,
    /// Failures one after the other.
    pub streak: u32,
    /// The last few, the newest last.
    pub log: Vec<Check>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    #[default]
    Starting,
    Healthy,
    Unhealthy,
}

impl Status {
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Starting => "starting",
            Status::Healthy => "healthy",
            Status::Unhealthy => "unhealthy",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Nanoseconds since 1970.
    pub start: u64,
    pub end: u64,
    /// None: it took too long.
    pub exit: Option<i32>,
    pub output: String,
}

/// So many checks are kept, and so many bytes of what each said.
const KEPT: usize = 5;
const SAID: u64 = 4096;

/// What was last known of it.
pub fn report(dir: &Path) -> Option<Report> {
    store::record(dir, "health.json").ok().flatten()
}

/// The process that asks; it ends with this.
pub struct Asking(Child);

impl Asking {
    pub fn start(own: &Own) -> Result<Asking> {
        let _ = std::fs::remove_file(own.dir.join("health.json"));
        let mut asks = Command::new("/proc/self/exe");
        asks.arg("@health").arg(&own.dir).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        asks.spawn().map(Asking).doing("start", "the health checks")
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Be the process that asks.
pub fn act(word: &OsStr) -> Option<ExitCode> {
    (word == "@health").then(|| if ask().is_ok() { ExitCode::SUCCESS } else { ExitCode::from(125) })
}

fn ask() -> Result<()> {
    let not_you = || Error::usage("this word is for sandbox itself");
    let dir = PathBuf::from(std::env::args_os().nth(2).ok_or_else(not_you)?);
    let parent = rustix::process::getppid();
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).doing("watch", "the monitor")?;
    let (config, started) = (store::record::<super::Config>(&dir, "config.json")?.ok_or_else(not_you)?, Instant::now());
    let health = config.options.health.clone().ok_or_else(not_you)?;
    let mut report = Report::default();
    while rustix::process::getppid() == parent {
        let begins = report.status == Status::Starting && started.elapsed() < Duration::from_nanos(health.start_period);
        std::thread::sleep(Duration::from_nanos(if begins { health.start_interval.min(health.interval) } else { health.interval }));
        let check = check(config.id.as_str(), &health)?;
        let was = report.status;
        let forgiven = report.status == Status::Starting && started.elapsed() < Duration::from_nanos(health.start_period);
        if check.exit == Some(0) {
            (report.status, report.streak) = (Status::Healthy, 0);
        } else if !forgiven {
            report.streak += 1;
        }
        let fell = report.streak >= health.retries && report.status != Status::Unhealthy;
        if fell {
            report.status = Status::Unhealthy;
        }
        if report.status != was
            && let Some(root) = dir.parent()
        {
            super::events::say(root, &(&config).into(), &[Happened::new(&format!("health_status: {}", report.status.as_str()), Vec::new())]);
        }
        report.log.push(check);
        report.log.drain(..report.log.len().saturating_sub(KEPT));
        let _ = store::put(&dir.join("health.json"), &report, false); // a full disk ends no checks
        if fell {
            fall(&dir, config.id.as_str(), health.on_failure)?;
        }
    }
    Ok(())
}

fn fall(dir: &Path, id: &str, what: OnFailure) -> Result<()> {
    let own = |words: &[&str]| Command::new("/proc/self/exe").args(words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().map(drop);
    let mark = |name: &str| std::fs::File::create(dir.join(name)).map(drop);
    match what {
        OnFailure::None => Ok(()),
        OnFailure::Kill => end(dir),
        OnFailure::Restart => mark("restart").doing("ask for", "a restart").and_then(|()| end(dir)),
        OnFailure::Stop => own(&["stop", id]).doing("start", "sandbox stop"),
    }
}

/// SIGKILL for PID 1, as a failure of its own; `sandbox kill` would mean that nobody wants it any more.
fn end(dir: &Path) -> Result<()> {
    let state: super::State = store::record(dir, "state.json")?.unwrap_or_default();
    state.init.and_then(|p| p.find()).map_or(Ok(()), |init| init.signal(libc::SIGKILL)).doing("kill", "the sandbox")
}

fn check(id: &str, health: &Health) -> Result<Check> {
    let start = now();
    let (hear, say) = sys::socket::pipe().doing("make", "a pipe")?;
    let also = say.try_clone().doing("copy", "a pipe")?;
    let mut command = Command::new("/proc/self/exe");
    command.args(["exec", id]).args(&health.command).stdin(Stdio::null()).stdout(say).stderr(also);
    let mut child = command.spawn().doing("start", "sandbox exec")?;
    drop(command);
    let (mut said, mut exit) = (Vec::new(), None);
    let (hear, until) = (std::fs::File::from(hear), Instant::now() + Duration::from_nanos(health.timeout));
    // It may leave somebody behind who keeps the pipe: so the output is read while it lives, and not longer.
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if exit.is_some() || left.is_zero() {
            break;
        }
        let step = Timespec::try_from(left.min(Duration::from_millis(50))).ok();
        let mut set = [PollFd::from_borrowed_fd(hear.as_fd(), PollFlags::IN)];
        let ready = sys::clone::interrupted(|| poll(&mut set, step.as_ref())).doing("hear from", "the check")?;
        if ready > 0 {
            let mut bytes = [0; 4096];
            let n = (&hear).read(&mut bytes).unwrap_or(0);
            let room = (SAID as usize).saturating_sub(said.len());
            said.extend(bytes.iter().take(n.min(room)));
            if n == 0 {
                exit = wait(&mut child, until)?;
                break;
            }
        } else {
            exit = child.try_wait().doing("wait for", "the check")?.and_then(|s| s.code());
        }
    }
    if exit.is_none() {
        let _ = child.kill();
        let _ = child.wait();
    }
    Ok(Check { start, end: now(), exit, output: String::from_utf8_lossy(&said).into_owned() })
}

fn wait(child: &mut Child, until: Instant) -> Result<Option<i32>> {
    while Instant::now() < until {
        if let Some(status) = child.try_wait().doing("wait for", "the check")? {
            return Ok(status.code());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_flags_leave_out_the_image_says() {
        let image = json!({ "Test": ["CMD-SHELL", "curl -f localhost"], "Interval": 5_000_000_000u64, "Retries": 7 });
        let health = Asked::default().over(Some(&image)).unwrap().unwrap();
        assert_eq!((health.command, health.interval, health.timeout, health.retries), (shell("curl -f localhost"), 5_000_000_000, 30_000_000_000, 7));
        let asked = Asked { command: Some(r#"["CMD", "true", "x y"]"#.into()), timeout: Some("1m30s".into()), ..Asked::default() };
        let health = asked.over(Some(&image)).unwrap().unwrap();
        assert_eq!((health.command, health.timeout), (vec!["true".to_string(), "x y".to_string()], 90_000_000_000));
        assert_eq!(Asked { none: true, ..Asked::default() }.over(Some(&image)).unwrap(), None);
        assert_eq!(Asked::default().over(Some(&json!({ "Test": ["NONE"] }))).unwrap(), None);
        assert_eq!(Asked::default().over(None).unwrap(), None);
        assert!(Asked { retries: Some(1), ..Asked::default() }.over(None).is_err());
        assert!(Asked { command: Some("x".into()), interval: Some("soon".into()), ..Asked::default() }.over(None).is_err());
    }
}
