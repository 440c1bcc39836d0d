//! The user's systemd, over D-Bus: a transient scope for each sandbox, and what the slice of all of them may use.
//!
//! Called by `cgroup`, in the parent, after the clone: a connection needs a runtime, though one of this very thread.
//! man: org.freedesktop.systemd1(5), systemd.resource-control(5)
#![forbid(unsafe_code)]

use super::SLICE;
use crate::error::{Error, Kind, Result};
use crate::host::remedy::Missing;
use crate::spec::limits::Limits;
use std::future::poll_fn;
use std::path::Path;
use std::pin::Pin;
use std::time::Duration;
use zbus::export::futures_core::Stream;
use zbus::{Connection, MatchRule, MessageStream, OwnedObjectPath, OwnedVariant, Variant};

const SYSTEMD: &str = "org.freedesktop.systemd1";
const OBJECT: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
/// A machine that is busy may take seconds; one that takes longer is out of order.
const PATIENCE: Duration = Duration::from_secs(20);

type Properties<'a> = Vec<(&'a str, Variant<'a>)>;

/// What of a unit's settings we show: (property, value; u64::MAX is no limit).
pub type Unit = Vec<(&'static str, u64)>;

/// Make the scope, with its limits, and have the process put into it.
pub fn start(bus: &Path, unit: &str, slice: &str, pid: i32, limits: &Limits) -> Result<()> {
    let pid = u32::try_from(pid).map_err(|_| Error::new(Kind::Bug, "no pid"))?;
    let mut properties: Properties = vec![
        ("Description", "a sandbox".into()),
        ("Slice", slice.into()),
        ("PIDs", vec![pid].into()),
        ("Delegate", true.into()),
        // Also a scope that ended by running out of memory is to be forgotten.
        ("CollectMode", "inactive-or-failed".into()),
    ];
    properties.extend(resources(limits)?);
    on(bus, async |systemd| {
        let rule = MatchRule::builder().msg_type(zbus::message::Type::Signal).interface(MANAGER).member("JobRemoved").build()?;
        let mut signals = MessageStream::for_match_rule(rule, systemd, None).await?;
        let none: Vec<(&str, Properties)> = Vec::new();
        let body = (unit, "fail", properties, none);
        let reply = systemd.call_method(Some(SYSTEMD), OBJECT, Some(MANAGER), "StartTransientUnit", &body).await?;
        let job: OwnedObjectPath = reply.body().deserialize()?;
        loop {
            let Some(message) = poll_fn(|cx| Pin::new(&mut signals).poll_next(cx)).await else {
                return Err(zbus::Error::Failure("the bus went away".into()));
            };
            let message = message?;
            let (_, path, _, result): (u32, OwnedObjectPath, String, String) = message.body().deserialize()?;
            if path == job {
                return if result == "done" { Ok(()) } else { Err(zbus::Error::Failure(format!("systemd's job ended as '{result}'"))) };
            }
        }
    })
    .map_err(|why| {
        Error::new(Kind::Denied, format!("cannot make {unit}: {why}")).hint("systemctl --user status; journalctl --user -e; sandbox doctor")
    })
}

/// Have a process put into this cgroup of a unit. man: org.freedesktop.systemd1(5), AttachProcessesToUnit()
pub fn attach(bus: &Path, unit: &str, below: &str, pid: i32) -> Result<()> {
    let pid = u32::try_from(pid).map_err(|_| Error::new(Kind::Bug, "no pid"))?;
    on(bus, async |systemd| {
        let body = (unit, below, vec![pid]);
        systemd.call_method(Some(SYSTEMD), OBJECT, Some(MANAGER), "AttachProcessesToUnit", &body).await.map(drop)
    })
    .map_err(|why| Error::new(Kind::Denied, format!("cannot put a process into {unit}: {why}")).hint("systemctl --user status; sandbox doctor"))
}

/// Set what all sandboxes of the user may use together, until the next boot or for good.
pub fn set_budget(bus: &Path, limits: &Limits, for_good: bool) -> Result<()> {
    let properties = resources(limits)?;
    on(bus, async |systemd| {
        let body = (SLICE, !for_good, properties);
        systemd.call_method(Some(SYSTEMD), OBJECT, Some(MANAGER), "SetUnitProperties", &body).await.map(drop)
    })
    .map_err(|why| Error::new(Kind::Denied, format!("cannot set the budget of {SLICE}: {why}")).hint("systemctl --user status; sandbox doctor"))
}

/// Set what a scope may use, as long as it is there.
pub fn set(bus: &Path, unit: &str, limits: &Limits) -> Result<()> {
    let properties = resources(limits)?;
    on(bus, async |systemd| systemd.call_method(Some(SYSTEMD), OBJECT, Some(MANAGER), "SetUnitProperties", &(unit, true, properties)).await.map(drop))
        .map_err(|why| Error::new(Kind::Denied, format!("cannot set the limits of {unit}: {why}")).hint("systemctl --user status; sandbox doctor"))
}

/// Every limit of the budget is off.
pub fn reset_budget(bus: &Path) -> Result<()> {
    on(bus, async |systemd| systemd.call_method(Some(SYSTEMD), OBJECT, Some(MANAGER), "RevertUnitFiles", &(vec![SLICE],)).await.map(drop))
        .and_then(|()| on(bus, async |systemd| systemd.call_method(Some(SYSTEMD), OBJECT, Some(MANAGER), "Reload", &()).await.map(drop)))
        .map_err(|why| Error::new(Kind::Denied, format!("cannot reset the budget of {SLICE}: {why}")).hint("systemctl --user status; sandbox doctor"))
}

/// What is set for the slice.
pub fn budget(bus: &Path) -> Result<Unit> {
    const SHOWN: [&str; 5] = ["MemoryMax", "MemorySwapMax", "MemoryLow", "CPUQuotaPerSecUSec", "TasksMax"];
    on(bus, async |systemd| {
        let reply = systemd.call_method(Some(SYSTEMD), OBJECT, Some(MANAGER), "LoadUnit", &(SLICE,)).await?;
        let object: OwnedObjectPath = reply.body().deserialize()?;
        let mut unit = Unit::new();
        for name in SHOWN {
            let body = ("org.freedesktop.systemd1.Slice", name);
            let reply = systemd.call_method(Some(SYSTEMD), &object, Some("org.freedesktop.DBus.Properties"), "Get", &body).await?;
            let value: OwnedVariant = reply.body().deserialize()?;
            unit.push((name, u64::try_from(value).unwrap_or(u64::MAX)));
        }
        Ok(unit)
    })
    .map_err(|why| Error::new(Kind::Denied, format!("cannot ask for the budget of {SLICE}: {why}")).hint("systemctl --user status; sandbox doctor"))
}

/// Our limits in systemd's words.
fn resources(limits: &Limits) -> Result<Properties<'static>> {
    let mut all = Properties::new();
    if let Some(memory) = limits.memory {
        all.push(("MemoryMax", memory.bytes().into()));
        all.push(("MemorySwapMax", limits.swap(memory).into()));
    }
    all.extend(limits.memory_reservation.map(|m| ("MemoryLow", m.bytes().into())));
    // In microseconds a second.
    all.extend(limits.cpus.map(|c| ("CPUQuotaPerSecUSec", (u64::from(c.0) * 1000).into())));
    all.extend(limits.cpu_shares.map(|s| ("CPUWeight", s.weight().into())));
    all.extend(limits.cpuset_cpus.as_ref().map(|s| ("AllowedCPUs", s.bits().into())));
    all.extend(limits.cpuset_mems.as_ref().map(|s| ("AllowedMemoryNodes", s.bits().into())));
    all.extend(limits.pids.map(|p| ("TasksMax", p.most().into())));
    all.extend(limits.blkio_weight.map(|w| ("IOWeight", w.weight().into())));
    for (name, rates) in [("IOReadBandwidthMax", &limits.device_read_bps), ("IOWriteBandwidthMax", &limits.device_write_bps)] {
        all.extend(rate(name, rates.iter().map(|(device, rate)| (device, rate.0)))?);
    }
    for (name, rates) in [("IOReadIOPSMax", &limits.device_read_iops), ("IOWriteIOPSMax", &limits.device_write_iops)] {
        all.extend(rate(name, rates.iter().map(|(device, rate)| (device, *rate)))?);
    }
    Ok(all)
}

fn rate<'a>(name: &'static str, rates: impl Iterator<Item = (&'a std::path::PathBuf, u64)>) -> Result<Option<(&'static str, Variant<'static>)>> {
    let list = rates
        .map(|(device, rate)| match device.to_str() {
            Some(device) => Ok((device.to_string(), rate)),
            None => Err(Error::usage(format!("bad device '{}': its name is not UTF-8", device.display()))),
        })
        .collect::<Result<Vec<_>>>()?;
    Ok((!list.is_empty()).then(|| (name, list.into())))
}

/// Call with a connection to the user's bus. The error is a reason for a person.
fn on<T>(bus: &Path, call: impl AsyncFnOnce(&Connection) -> zbus::Result<T>) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| crate::error::why(&e))?;
    let address = format!("unix:path={}", bus.display());
    runtime.block_on(async {
        let talk = async {
            let connection = zbus::connection::Builder::address(address.as_str()).build().await?;
            call(&connection).await
        };
        match tokio::time::timeout(PATIENCE, talk).await {
            Ok(done) => done.map_err(|e| match e {
                zbus::Error::MethodError(_, Some(why), _) => why,
                zbus::Error::InputOutput(e) => {
                    format!("{} does not answer: {}; {}", bus.display(), crate::error::why(&e), Missing::NoUserBus.remedy().cure)
                }
                other => other.to_string(),
            }),
            Err(_) => Err(format!("systemd did not answer within {} seconds", PATIENCE.as_secs())),
        }
    })
}
