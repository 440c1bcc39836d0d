//! `sandbox inspect`: all that is known of sandboxes and images, in docker's form. Called by `cli::main`.
//!
//! What docker has no word for is under `Sandbox`: the Spec, as `--dry-run --json` prints it. Values of variables are part of it, as they
//! are of docker's.
#![forbid(unsafe_code)]

use super::image::{self, InspectArgs, What};
use super::ps;
use crate::container::store::{Sandbox, Sandboxes};
use crate::container::{Status, health};
use crate::error::{Kind, Result};
use crate::host::Caller;
use crate::image::store::Store;
use crate::moment::{Moment, rfc3339};
use crate::spec::storage;
use serde_json::{Map, Value, json};

/// Docker's word for a moment that has not come.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// Sandboxes first, as docker has it.
pub fn inspect(args: &InspectArgs) -> Result<()> {
    let home = Caller::me()?.home;
    let sandboxes = Sandboxes::open(&home);
    let image = |word: &str| Store::open(&home).and_then(|store| image::inspected(&store, &store.get(word)?));
    let all = args.words.iter().map(|word| match args.kind {
        Some(What::Image) => image(word),
        Some(What::Container | What::Sandbox) => sandboxes.find(word).map(|s| inspected(&s)),
        None => match sandboxes.find(word) {
            Ok(sandbox) => Ok(inspected(&sandbox)),
            Err(e) if e.kind() == Kind::NotFound => image(word).map_err(|other| {
                if other.kind() == Kind::NotFound {
                    crate::error::Error::new(Kind::NotFound, format!("cannot find a sandbox or an image '{word}'"))
                        .hint("sandbox ps -a lists the ones, sandbox images the others")
                } else {
                    other
                }
            }),
            Err(e) => Err(e),
        },
    });
    image::show_all(all.collect::<Result<Vec<_>>>()?, args.format.as_deref())
}

fn inspected(sandbox: &Sandbox) -> Value {
    let (config, state) = (&sandbox.config, &sandbox.state);
    let (spec, limits) = (&config.spec, &config.spec.limits);
    let moment = |at: Option<u64>| at.map_or(NEVER.to_string(), |ns| Moment(ns).to_string());
    let command = config.command();
    let env: Vec<String> = spec.process.env.iter().map(|(k, v)| format!("{k}={v}")).collect();
    let mounts: Vec<Value> = spec.files.mounts.iter().map(mount).collect();
    let asked = config.options.health.as_ref();
    let report = asked.map(|_| health::report(&sandbox.dir).unwrap_or_default());
    let mut about = json!({
        "Status": sandbox.status(), "Running": sandbox.is_running(), "Paused": sandbox.is_paused(),
        "Restarting": state.status == Status::Restarting, "OOMKilled": state.reason.as_deref() == Some("oom"), "Dead": state.status == Status::Dead,
        "Pid": state.init.map_or(0, |p| p.pid), "ExitCode": state.exit.unwrap_or_default(), "Error": state.error.clone().unwrap_or_default(),
        "StartedAt": moment(state.started), "FinishedAt": moment(state.finished),
    });
    if let (Some(report), Some(object)) = (report, about.as_object_mut()) {
        let check = |c: &health::Check| json!({ "Start": moment(Some(c.start)), "End": moment(Some(c.end)), "ExitCode": c.exit.unwrap_or(-1), "Output": c.output });
        let log: Vec<Value> = report.log.iter().map(check).collect();
        object.insert("Health".into(), json!({ "Status": report.status.as_str(), "FailingStreak": report.streak, "Log": log }));
    }
    let (policy, most) = match config.options.restart {
        crate::container::Restart::OnFailure(most) => ("on-failure".to_string(), most.unwrap_or(0)),
        other => (String::from(other), 0),
    };
    let bytes = |memory: Option<crate::spec::limits::Memory>| memory.map_or(0, |m| m.bytes().min(i64::MAX as u64));
    let mut settings = Map::new();
    // Docker has objects here whose keys say all.
    let set = |keys: Vec<String>| keys.into_iter().map(|key| (key, json!({}))).collect::<Map<_, _>>();
    let volumes = match &spec.root {
        storage::Root::Image(image) => image.volumes.iter().map(|v| v.display().to_string()).collect(),
        _ => Vec::new(),
    };
    let exposed = config.image.iter().flat_map(|image| &image.exposed).cloned();
    let user = spec.process.user.as_ref().map(|u| json!(u)).unwrap_or_else(|| json!(""));
    settings.extend([
        ("Hostname".to_string(), json!(spec.process.hostname)),
        ("User".to_string(), user),
        ("Tty".to_string(), json!(spec.process.tty)),
        ("OpenStdin".to_string(), json!(spec.process.interactive)),
        ("Env".to_string(), json!(env)),
        ("Cmd".to_string(), json!(command)),
        ("Image".to_string(), json!(ps::ground(sandbox))),
        ("WorkingDir".to_string(), json!(spec.process.cwd.clone().unwrap_or_default())),
        ("Labels".to_string(), json!(config.labels)),
        ("Volumes".to_string(), set(volumes).into()),
        ("ExposedPorts".to_string(), set(exposed.collect()).into()),
        ("StopSignal".to_string(), json!(crate::spec::process::signal_name(spec.process.stop_signal))),
        ("StopTimeout".to_string(), json!(config.options.stop_timeout)),
    ]);
    if let Some(h) = asked {
        let test: Vec<&str> = std::iter::once("CMD").chain(h.command.iter().map(String::as_str)).collect();
        settings.insert(
            "Healthcheck".into(),
            json!({ "Test": test, "Interval": h.interval, "Timeout": h.timeout, "StartPeriod": h.start_period, "Retries": h.retries }),
        );
    }
    let degraded: Vec<Value> = state.degraded.iter().map(|(control, why)| json!({ "Control": control, "Why": why })).collect();
    json!({
        "Id": config.id, "Created": rfc3339(config.created), "Path": command.first(), "Args": command.get(1..).unwrap_or_default(),
        "State": about, "Image": ps::image_id(sandbox).map(|hex| format!("sha256:{hex}")).unwrap_or_default(), "Name": config.name,
        "RestartCount": state.restarts,
        "HostConfig": {
            "NetworkMode": ps::network(sandbox), "AutoRemove": config.options.auto_remove,
            "RestartPolicy": { "Name": policy, "MaximumRetryCount": most }, "ReadonlyRootfs": spec.files.root_read_only,
            "Memory": bytes(limits.memory), "MemorySwap": bytes(limits.memory_swap), "MemoryReservation": bytes(limits.memory_reservation),
            "NanoCpus": limits.cpus.map_or(0, |c| u64::from(c.0) * 1_000_000), "PidsLimit": limits.pids.map(|p| p.most().min(i64::MAX as u64)),
            "CpusetCpus": limits.cpuset_cpus.as_ref().map(|s| s.to_string()).unwrap_or_default(), "ShmSize": spec.files.shm_size.0,
            "CgroupParent": spec.cgroup_parent.clone().unwrap_or_default(), "Privileged": false, "Init": spec.process.init,
        },
        "Mounts": mounts, "Config": settings,
        "Sandbox": {
            "Spec": spec, "Detached": config.options.detached, "Cgroup": state.cgroup, "Writes": config.writes, "Reason": state.reason,
            "Degraded": degraded,
            "Monitor": state.stays.map(|p| p.pid), "Directory": sandbox.dir, "Cwd": config.cwd, "Manifest": config.image.as_ref().map(|i| &i.manifest),
        },
    })
}

fn mount(mount: &storage::Mount) -> Value {
    let (kind, source) = match &mount.source {
        storage::Source::Bind(path) => ("bind", path.display().to_string()),
        storage::Source::Cow(path) => ("cow", path.display().to_string()),
        storage::Source::Tmpfs { .. } => ("tmpfs", String::new()),
    };
    json!({ "Type": kind, "Source": source, "Destination": mount.target, "Mode": "", "RW": !mount.read_only, "Propagation": "private" })
}
