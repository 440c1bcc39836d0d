//! Is a Spec looser than a limit? The one question that a named policy and the site's ceiling put to the flags.
//!
//! Called by `cli` after `Patch::settle`. Finds and says; never changes the Spec (I3), never looks at the disk (I1): paths are
//! compared as text, so the caller has made mount sources absolute and resolved their links before it asks.
#![forbid(unsafe_code)]

use super::*;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

impl Spec {
    /// One sentence for each field in which this Spec is looser than `limit` says. Where the limit says nothing, nothing exceeds
    /// it. `home` and `uid` are the caller's, for `~` and `%U`.
    pub fn exceeds(&self, limit: &Patch, home: &Path, uid: u32) -> Vec<String> {
        // Destructured without `..`, here and below: a new field does not compile until someone has said when it is looser.
        let Patch {
            description: _,
            include: _,
            name: _,
            root: _,
            userns,
            process,
            files,
            network,
            namespaces,
            capabilities,
            seccomp,
            landlock,
            proc,
            limits,
            budget: _, // of all sandboxes together, whoever starts them
            cgroup_parent,
            require,
            best_effort: _, // a permission, not a limit; `require` is its limit
        } = limit;
        let mut over = Over(Vec::new());
        self.ids_exceed(userns.as_ref(), &mut over);
        self.process_exceeds(process, &mut over);
        self.files_exceed(files, home, uid, &mut over);
        self.namespaces_exceed(network, namespaces, &mut over);
        self.capabilities_exceed(capabilities, &mut over);
        self.seccomp_exceeds(seccomp, &mut over);
        self.landlock_exceeds(landlock, &mut over);

        for (key, ours, limit) in self.limits.exceeds(limits) {
            over.say(key, ours, limit);
        }
        if let Some(limit) = cgroup_parent.as_ref().filter(|l| self.cgroup_parent.as_ref() != Some(*l)) {
            over.say("cgroup-parent", self.cgroup_parent.as_deref().unwrap_or("the default"), limit);
        }

        let ProcPatch { masks, mask, read_only } = proc;
        if *masks != Some(false) {
            let masked = |path: &str| self.restrict.mask.iter().any(|m| below(Path::new(path), Path::new(&m.path)));
            over.missing("proc.mask", mask.iter().map(|m| m.path.as_str()).filter(|p| !masked(p)));
            let kept = |path: &str| masked(path) || self.restrict.read_only.iter().any(|m| below(Path::new(path), Path::new(&m.path)));
            over.missing("proc.read-only", read_only.iter().map(|m| m.path.as_str()).filter(|p| !kept(p)));
        }
        over.missing("require", require.iter().filter(|c| !self.require.contains(c) || self.best_effort.contains(c)).map(|c| c.as_str()));
        over.0
    }

    /// What counts is which ids of the host are within reach, not what they are called inside.
    fn ids_exceed(&self, limit: Option<&Userns>, over: &mut Over) {
        let within = |ours: &[IdMapping], theirs: &[IdMapping]| {
            let end = |m: &IdMapping| u64::from(m.host) + u64::from(m.count);
            ours.iter().all(|o| theirs.iter().any(|t| t.host <= o.host && end(o) <= end(t)))
        };
        let looser = match (limit, &self.userns) {
            (None | Some(Userns::Auto | Userns::KeepId { .. } | Userns::Root), _) => false,
            (Some(Userns::Nomap), ours) => *ours != Userns::Nomap,
            (Some(Userns::Single), ours) => *ours != Userns::Single,
            (Some(Userns::Explicit { uids, gids }), Userns::Explicit { uids: our_uids, gids: our_gids }) => {
                !within(our_uids, uids) || !within(our_gids, gids)
            }
            (Some(Userns::Explicit { .. }), _) => true,
        };
        if looser {
            over.say("userns", word(&self.userns), limit.map(word).unwrap_or_default());
        }
    }

    fn process_exceeds(&self, limit: &ProcessPatch, over: &mut Over) {
        let ProcessPatch {
            argv: _,
            env: _, // what a variable is set to by hand is the user's own word
            env_pass,
            cwd: _,
            user,
            hostname: _,
            interactive: _,
            tty: _,
            umask,
            init,
            no_new_privileges,
            stop_signal: _, // everything is killed in the end
            timeout,
            oom_score_adj,
            ulimits,
            preserve_fds: _,
        } = limit;
        let ours = &self.process;
        if !env_pass.is_empty() {
            let extra = ours.env_pass.iter().filter(|v| !env_pass.iter().any(|l| l.covers(&v.path)));
            over.extra("process.env-pass", extra.map(|v| v.path.as_str()));
        }
        if let Some(user) = user.as_ref().filter(|u| ours.user.as_ref() != Some(*u)) {
            over.say("process.user", ours.user.as_ref().map_or("the default".into(), User::to_string), user);
        }
        // The caller has parsed the limit before; were it unreadable, nothing would be tight enough.
        if let Some(mask) = umask.as_ref().map(|m| process::umask(m).unwrap_or(0o777)).filter(|m| ours.umask & m != *m) {
            over.say("process.umask", format!("{:03o}", ours.umask), format!("{mask:03o}"));
        }
        if *init == Some(true) && !ours.init {
            over.say("process.init", "false", "true");
        }
        if *no_new_privileges == Some(true) && !self.restrict.no_new_privileges {
            over.say("process.no-new-privileges", "false", "true");
        }
        if let Some(limit) = timeout.filter(|t| *t != 0 && ours.timeout.is_none_or(|o| o > *t)) {
            over.say("process.timeout", ours.timeout.map_or("none".into(), |t| t.to_string()), limit);
        }
        if let Some(limit) = oom_score_adj.filter(|l| ours.oom_score_adj < *l) {
            over.say("process.oom-score-adj", ours.oom_score_adj, limit);
        }
        for (name, limit) in ulimits {
            // The soft limit is the command's own to raise, up to the hard one.
            let set = ours.ulimits.get(name);
            if limit.hard.is_some_and(|l| set.is_none_or(|s| s.hard.is_none_or(|h| h > l))) {
                let set = set.map_or("the caller's own".to_string(), |s| String::from(*s));
                over.say(&format!("process.ulimits.{name}"), set, String::from(*limit));
            }
        }
    }

    fn files_exceed(&self, limit: &FilesPatch, home: &Path, uid: u32, over: &mut Over) {
        let FilesPatch {
            mounts,
            hide,
            read_only,
            fresh,
            guard,
            root_read_only,
            shm_size,
            scratch_size,
            disk,
            inodes,
            overlay_backend: _, // one does what the other does
            devices,
        } = limit;
        let ours = &self.files;

        // What the flags show of the host, beyond what the limit shows itself: (host path, path inside, writable).
        let binds = ours.mounts.iter().filter(|m| !mounts.contains(m)).filter_map(|m| match &m.source {
            Source::Bind(p) => Some((p, &m.target, !m.read_only)),
            Source::Cow(p) => Some((p, &m.target, false)),
            Source::Tmpfs { .. } => None,
        });
        let nodes = ours.devices.iter().filter(|d| !devices.contains(d)).map(|(host, inside)| (host, inside, true));
        let shown: Vec<_> = binds.chain(nodes).map(|(host, inside, rw)| (plain(host, home), inside, rw)).collect();

        over.missing("files.hide", uncovered(hide, &[&ours.hide], home, uid));
        for (host, inside, _) in &shown {
            // The hidden thing itself, or a parent of it shown under another name, where nothing hides it.
            let moved = *host != **inside;
            let again = |path: &Path| below(host, path) || (moved && below(path, host));
            if let Some(h) = hide.iter().find(|h| again(&h.resolve(home, uid))) {
                over.0.push(format!("files.hide: {} shows {} again", inside.display(), h.path));
            }
        }

        over.missing("files.read-only", uncovered(read_only, &[&ours.read_only, &ours.hide], home, uid));
        for (host, inside, _) in shown.iter().filter(|(_, _, rw)| *rw) {
            if let Some(e) = read_only.iter().find(|e| below(host, &e.resolve(home, uid))) {
                over.0.push(format!("files.read-only: {} makes a part of {} writable", inside.display(), e.path));
            }
        }

        over.missing("files.fresh", uncovered(fresh, &[&ours.fresh], home, uid));
        over.missing("files.guard", guard.iter().filter(|e| !ours.guard.iter().any(|o| o.path == e.path)).map(|e| e.path.as_str()));
        if *root_read_only == Some(true) && !ours.root_read_only {
            over.say("files.root-read-only", "false", "true");
        }
        if let Some(limit) = shm_size.filter(|l| ours.shm_size > *l) {
            over.say("files.shm-size", ours.shm_size, limit);
        }
        if let Some(limit) = scratch_size.filter(|l| ours.scratch_size.is_none_or(|s| s > *l)) {
            over.say("files.scratch-size", ours.scratch_size.map_or("half of the memory".into(), |s| s.to_string()), limit);
        }
        if let Some(limit) = disk.filter(|l| ours.disk.is_none_or(|d| d > *l)) {
            over.say("files.disk", ours.disk.map_or("no limit".into(), |d| d.to_string()), limit);
        }
        if let Some(limit) = inodes.filter(|l| ours.inodes.is_none_or(|n| n > *l)) {
            over.say("files.inodes", ours.inodes.map_or("no limit".into(), |n| n.to_string()), limit);
        }
    }

    fn namespaces_exceed(&self, network: &NetworkPatch, namespaces: &NamespacesPatch, over: &mut Over) {
        let NetworkPatch { mode, add_host: _, dns: _ } = network;
        if let Some(limit) = mode.filter(|l| self.network.mode > *l) {
            over.say("network.mode", word(&self.network.mode), word(&limit));
        }
        let NamespacesPatch { ipc, pid, uts, cgroup, nested } = namespaces;
        let ours = &self.namespaces;
        for (key, ours, limit) in [("ipc", ours.ipc, ipc), ("pid", ours.pid, pid), ("uts", ours.uts, uts), ("cgroup", ours.cgroup, cgroup)] {
            if let Some(limit) = limit.filter(|l| ours > *l) {
                over.say(&format!("namespaces.{key}"), word(&ours), word(&limit));
            }
        }
        if *nested == Some(false) && ours.nested {
            over.say("namespaces.nested", "true", "false");
        }
    }

    fn capabilities_exceed(&self, limit: &CapabilitiesPatch, over: &mut Over) {
        let CapabilitiesPatch { keep, add, drop } = limit;
        let allowed = match keep {
            Some(keep) => restrict::capabilities(keep, add, drop),
            None if drop.is_empty() => return,
            // Everything but what is dropped; with `drop = ["ALL"]`, nothing but what is added.
            None => restrict::capabilities(&[], &[&["ALL".to_string()], add.as_slice()].concat(), drop),
        };
        let allowed = allowed.unwrap_or_default();
        let extra = self.restrict.capabilities.iter().filter(|c| !allowed.contains(c));
        over.extra("capabilities", extra.map(|c| restrict::CAPABILITIES.get(usize::from(*c)).copied().unwrap_or("?")));
    }

    /// By name only: which calls a group holds is known further up, in `confine`.
    fn seccomp_exceeds(&self, limit: &SeccompPatch, over: &mut Over) {
        let SeccompPatch { allow, deny, socket_families, profile } = limit;
        let ours = &self.restrict.seccomp;
        if allow.is_none() && deny.is_empty() && socket_families.is_none() {
            return;
        }
        if ours.profile != SeccompProfile::Groups {
            // A profile of another kind cannot be measured against groups: it needs another policy, not a flag.
            if profile.as_ref() != Some(&ours.profile) {
                over.say("seccomp", word(&ours.profile), "the policy's own groups");
            }
            return;
        }
        if let Some(allow) = allow {
            over.extra("seccomp.allow", ours.allow.iter().filter(|a| !allow.contains(a)).map(String::as_str));
        }
        over.missing("seccomp.deny", deny.iter().filter(|d| !ours.deny.contains(d)).map(String::as_str));
        if let Some(families) = socket_families {
            over.extra("seccomp.socket-families", ours.socket_families.iter().filter(|f| !families.contains(f)).map(String::as_str));
        }
    }

    fn landlock_exceeds(&self, limit: &LandlockPatch, over: &mut Over) {
        let LandlockPatch { scopes, files, tcp_connect, tcp_bind } = limit;
        let ours = &self.restrict.landlock;
        if let Some(scopes) = scopes {
            over.missing("landlock.scopes", scopes.iter().filter(|s| !ours.scopes.contains(s)).map(String::as_str));
        }
        if let Some(limit) = files.filter(|l| ours.files < *l) {
            over.say("landlock.files", word(&ours.files), word(&limit));
        }
        for (key, ours, limit) in [("tcp-connect", &ours.tcp_connect, tcp_connect), ("tcp-bind", &ours.tcp_bind, tcp_bind)] {
            let Some(limit) = limit else { continue };
            if ours.as_ref().is_none_or(|o| o.iter().any(|p| !limit.contains(p))) {
                let text = |l: &[u16]| if l.is_empty() { "none".to_string() } else { l.iter().map(u16::to_string).collect::<Vec<_>>().join(", ") };
                over.say(&format!("landlock.{key}"), ours.as_deref().map_or("any port".into(), text), text(limit));
            }
        }
    }
}

/// The sentences found so far.
struct Over(Vec<String>);

impl Over {
    fn say(&mut self, key: &str, ours: impl std::fmt::Display, limit: impl std::fmt::Display) {
        self.0.push(format!("{key}: {ours}, where the limit is {limit}"));
    }

    /// Something the limit restricts is not restricted.
    fn missing<'a>(&mut self, key: &str, names: impl Iterator<Item = &'a str>) {
        self.name(key, "lacks", names);
    }

    /// Something is granted that the limit does not grant.
    fn extra<'a>(&mut self, key: &str, names: impl Iterator<Item = &'a str>) {
        self.name(key, "has, beyond the limit,", names);
    }

    fn name<'a>(&mut self, key: &str, verb: &str, names: impl Iterator<Item = &'a str>) {
        let names: Vec<_> = names.collect();
        match names.as_slice() {
            [] => {}
            few if few.len() <= 6 => self.0.push(format!("{key}: {verb} {}", few.join(", "))),
            [first, rest @ ..] => self.0.push(format!("{key}: {verb} {first} and {} more", rest.len())),
        }
    }
}

/// A value as a policy file spells it.
fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(s)) => s,
        Ok(other) => other.to_string(),
        Err(_) => "?".to_string(),
    }
}

/// The entries of `limit` that none of `lists` holds, by themselves or by a parent. Nearly all are there by the same name, so
/// names are compared first and paths only where that fails.
fn uncovered<'a>(limit: &'a [Reasoned], lists: &[&[Reasoned]], home: &Path, uid: u32) -> impl Iterator<Item = &'a str> {
    let ours = || lists.iter().flat_map(|l| l.iter());
    let names: BTreeSet<&str> = ours().map(|e| e.path.as_str()).collect();
    let mut left: Vec<&Reasoned> = limit.iter().filter(|e| !names.contains(e.path.as_str())).collect();
    if !left.is_empty() {
        let paths: Vec<PathBuf> = ours().map(|e| e.resolve(home, uid)).collect();
        left.retain(|e| !paths.iter().any(|p| below(&e.resolve(home, uid), p)));
    }
    left.into_iter().map(|e| e.path.as_str())
}

/// `path` is `top` or below it, both without anything to resolve. `Path::starts_with` says the same several times slower, which
/// counts with hundreds of entries.
fn below(path: &Path, top: &Path) -> bool {
    let (path, top) = (path.as_os_str().as_bytes(), top.as_os_str().as_bytes());
    path.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/") || top == b"/")
}

/// A host path without `~`, `.` and `..`, as text.
fn plain(path: &Path, home: &Path) -> PathBuf {
    let path = match path.strip_prefix("~") {
        Ok(rest) => home.join(rest),
        Err(_) => path.to_path_buf(),
    };
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                out.pop();
            }
            part => out.push(part),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: &str = "/home/u";

    fn why(path: &str) -> Reasoned {
        Reasoned { path: path.into(), why: "test".into() }
    }

    fn patch(toml: &str) -> Patch {
        toml::from_str(toml).unwrap()
    }

    fn settle(mut patch: Patch) -> Spec {
        patch.root.get_or_insert(Root::Host);
        patch.userns.get_or_insert(Userns::Auto);
        patch.settle().unwrap()
    }

    fn base() -> Patch {
        policy::base(Path::new("/nonexistent")).unwrap()
    }

    fn over(flags: Patch, limit: &Patch) -> Vec<String> {
        settle(base().then(flags)).exceeds(limit, Path::new(HOME), 1000)
    }

    #[test]
    fn each_field_has_a_looser_side() {
        // (what the limit says, flags within it, flags beyond it)
        for (limit, within, beyond) in [
            ("userns = 'nomap'", "userns = 'nomap'", "userns = 'root'"),
            ("userns = 'single'", "userns = 'single'", "userns = 'nomap'"),
            (
                "[userns.explicit]\nuids = ['0:100000:10']\ngids = ['0:100000:10']",
                "[userns.explicit]\nuids = ['5:100005:5']\ngids = ['0:100000:1']",
                "[userns.explicit]\nuids = ['5:100005:6']\ngids = ['0:100000:1']",
            ),
            ("[process]\nuser = 'nobody'", "[process]\nuser = 'nobody'", "[process]\nuser = '0'"),
            ("[process]\numask = '022'", "[process]\numask = '077'", "[process]\numask = '002'"),
            ("[process]\ninit = true", "", "[process]\ninit = false"),
            ("[process]\nno-new-privileges = true", "", "[process]\nno-new-privileges = false"),
            ("[process]\ntimeout = 10", "[process]\ntimeout = 10", "[process]\ntimeout = 11"),
            ("[process]\ntimeout = 10", "[process]\ntimeout = 1", ""),
            ("[process]\noom-score-adj = 200", "[process]\noom-score-adj = 500", "[process]\noom-score-adj = 199"),
            ("[process.ulimits]\nnofile = '9:9'", "[process.ulimits]\nnofile = '1:9'", "[process.ulimits]\nnofile = '1:10'"),
            ("[process.ulimits]\ncpu = '9:9'", "[process.ulimits]\ncpu = '9:9'", ""),
            ("[process.ulimits]\ncpu = '9:9'", "[process.ulimits]\ncpu = '9:9'", "[process.ulimits]\ncpu = 'unlimited'"),
            ("[files]\nroot-read-only = true", "[files]\nroot-read-only = true", ""),
            ("[files]\nshm-size = '64m'", "[files]\nshm-size = '1m'", "[files]\nshm-size = '65m'"),
            ("[files]\nscratch-size = '64m'", "[files]\nscratch-size = '64m'", ""),
            ("[files]\ndisk = '64m'", "[files]\ndisk = '1m'", "[files]\ndisk = '65m'"),
            ("[files]\ninodes = 100", "[files]\ninodes = 100", ""),
            ("[network]\nmode = 'none'", "", "[network]\nmode = 'host'"),
            ("[namespaces]\nipc = 'private'", "", "[namespaces]\nipc = 'host'"),
            ("[namespaces]\npid = 'private'", "", "[namespaces]\npid = 'host'"),
            ("[namespaces]\nuts = 'private'", "", "[namespaces]\nuts = 'host'"),
            ("[namespaces]\ncgroup = 'private'", "", "[namespaces]\ncgroup = 'host'"),
            ("[namespaces]\nnested = false", "", "[namespaces]\nnested = true"),
            ("[capabilities]\nkeep = []", "[capabilities]\ndrop = ['ALL']", "[capabilities]\ndrop = ['ALL']\nadd = ['KILL']"),
            ("[capabilities]\ndrop = ['KILL']", "[capabilities]\ndrop = ['KILL']", ""),
            ("[capabilities]\nadd = ['KILL']\ndrop = ['ALL']", "[capabilities]\nadd = ['KILL']\ndrop = ['ALL']", ""),
            ("[seccomp]\nallow = ['@base']", "[seccomp]\nallow = ['@base']", "[seccomp]\nallow = ['@base', 'bpf']"),
            ("[seccomp]\ndeny = ['ptrace']", "[seccomp]\ndeny = ['ptrace']", ""),
            ("[seccomp]\nsocket-families = ['unix']", "[seccomp]\nsocket-families = []", ""),
            ("[landlock]\nscopes = ['signal']", "[landlock]\nscopes = ['signal']", "[landlock]\nscopes = []"),
            ("[landlock]\nfiles = 'declared'", "[landlock]\nfiles = 'declared'", ""),
            ("[landlock]\ntcp-connect = [443]", "[landlock]\ntcp-connect = []", "[landlock]\ntcp-connect = [443, 80]"),
            ("[landlock]\ntcp-bind = []", "[landlock]\ntcp-bind = []", ""),
            ("[proc]\nmask = [{ path = '/proc/kcore', why = 'x' }]", "", "[proc]\nmasks = false"),
            ("[proc]\nread-only = [{ path = '/proc/sys', why = 'x' }]", "", "[proc]\nmasks = false"),
            ("[limits]\nmemory = '1g'", "[limits]\nmemory = '64m'", "[limits]\nmemory = '2g'"),
            ("[limits]\npids = 9", "[limits]\npids = 9", ""),
            ("[limits]\ncpus = '1'", "[limits]\ncpus = '0.5'", ""),
            ("cgroup-parent = 'a.slice'", "cgroup-parent = 'a.slice'", ""),
            ("require = ['seccomp']", "require = ['seccomp']", ""),
            ("require = ['seccomp']", "require = ['seccomp']", "require = ['seccomp']\nbest-effort = ['seccomp']"),
            ("[[files.hide]]\npath = '/a/b'\nwhy = 'x'", "[[files.hide]]\npath = '/a'\nwhy = 'x'", ""),
            ("[[files.read-only]]\npath = '/a'\nwhy = 'x'", "[[files.read-only]]\npath = '/a'\nwhy = 'x'", ""),
            ("[[files.fresh]]\npath = '/a'\nwhy = 'x'", "[[files.fresh]]\npath = '/a'\nwhy = 'x'", ""),
            ("[[files.guard]]\npath = 'a'\nwhy = 'x'", "[[files.guard]]\npath = 'a'\nwhy = 'x'", ""),
        ] {
            let limit = patch(limit);
            assert_eq!(over(patch(within), &limit), Vec::<String>::new(), "{limit:?}");
            let found = over(patch(beyond), &limit);
            assert_eq!(found.len(), 1, "{beyond}: {found:?}");
        }
    }

    #[test]
    fn variables_beyond_the_limit() {
        let limit = patch("[process]\nenv-pass = [{ name = 'LC_*', why = 'x' }]");
        let mut spec = settle(base());
        for (names, fine) in [(&["LC_ALL", "LC_*"][..], true), (&["LANG"], false), (&["L*"], false)] {
            spec.process.env_pass = names.iter().map(|n| why(n)).collect();
            assert_eq!(spec.exceeds(&limit, Path::new(HOME), 0).is_empty(), fine, "{names:?}");
        }
    }

    #[test]
    fn another_seccomp_profile_needs_another_policy() {
        for profile in [SeccompProfile::Unconfined, SeccompProfile::Docker("/p.json".into())] {
            let mut flags = Patch::default();
            flags.seccomp.profile = Some(profile);
            assert_eq!(over(flags.clone(), &base()).len(), 1);
            assert!(over(flags.clone(), &patch("")).is_empty());
            assert!(over(flags.clone(), &base().then(flags)).is_empty());
        }
    }

    #[test]
    fn what_is_hidden_is_not_shown_again() {
        let limit = base();
        for (volume, fine) in [
            ("/home/u/.ssh:/home/u/.ssh", false),
            ("/home/u/.ssh:/keys:ro", false),
            ("/home/u/.ssh/id_rsa:/k", false),
            ("~/.ssh:/k:O", false),
            ("/home/u/work/../.ssh:/k", false),
            ("/home/u//./.ssh/:/k", false),
            ("/home/u:/work", false),
            ("/:/host", false),
            ("/run/user/1000/bus:/bus", false),
            ("/home/u:/home/u", true),
            ("/home/u/work:/work", true),
            ("/home/u/.sshx:/k", true),
            ("/boot:/boot", false), // writable, and read-only in the limit
            ("/boot:/boot:ro", true),
        ] {
            let mut flags = Patch::default();
            flags.files.mounts.push(volume.parse().unwrap());
            let found = over(flags.clone(), &limit);
            assert_eq!(found.is_empty(), fine, "{volume}: {found:?}");
            // What the policy shows by itself is within it.
            assert!(over(flags.clone(), &base().then(flags)).is_empty(), "{volume}");
        }
        let mut flags = Patch::default();
        flags.files.devices.push(("/dev/kvm".into(), "/dev/kvm".into()));
        assert!(over(flags.clone(), &limit).is_empty());
        let forbids = base().then(patch("[[files.hide]]\npath = '/dev/kvm'\nwhy = 'x'"));
        flags = forbids.clone().then(flags);
        assert_eq!(over(flags, &forbids).len(), 1);
    }

    #[test]
    fn below_is_by_component() {
        for (path, top, want) in
            [("/a/b", "/a", true), ("/a", "/a", true), ("/ab", "/a", false), ("/a", "/", true), ("/", "/", true), ("/a", "/a/b", false)]
        {
            assert_eq!(below(Path::new(path), Path::new(top)), want, "{path} {top}");
            assert_eq!(Path::new(path).starts_with(top), want);
        }
    }

    /// Knuth's linear congruential generator: the same cases in every run.
    struct Dice(u64);

    impl Dice {
        fn roll(&mut self, sides: usize) -> usize {
            self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (self.0 >> 33) as usize % sides
        }

        fn some<T: Clone>(&mut self, of: &[T]) -> Vec<T> {
            of.iter().filter(|_| self.roll(2) == 0).cloned().collect()
        }

        fn maybe<T: Clone>(&mut self, of: &[T]) -> Option<T> {
            of.get(self.roll(of.len() + 1)).cloned()
        }

        fn reasoned(&mut self, of: &[&str]) -> Vec<Reasoned> {
            self.some(of).iter().map(|p| why(p)).collect()
        }

        fn words(&mut self, of: &[&str]) -> Vec<String> {
            self.some(of).iter().map(|s| s.to_string()).collect()
        }

        fn patch(&mut self) -> Patch {
            let share = [Share::Private, Share::Host];
            let ulimits = [("nofile", "1:2"), ("cpu", "unlimited"), ("core", "0:0")];
            Patch {
                userns: self.maybe(&[Userns::Auto, Userns::Root, Userns::Nomap, Userns::Single, Userns::KeepId { uid: None, gid: Some(1) }]),
                process: ProcessPatch {
                    env_pass: self.reasoned(&["A", "B*", "C"]),
                    user: self.maybe(&["a".parse().unwrap(), "1:2".parse().unwrap()]),
                    umask: self.maybe(&["022".to_string(), "077".to_string()]),
                    init: self.maybe(&[true, false]),
                    no_new_privileges: self.maybe(&[true, false]),
                    timeout: self.maybe(&[0, 1, 60]),
                    oom_score_adj: self.maybe(&[-1, 0, 500]),
                    ulimits: self.some(&ulimits).iter().map(|(k, v)| (k.to_string(), v.parse().unwrap())).collect(),
                    ..Default::default()
                },
                files: FilesPatch {
                    mounts: self.some(&["/a:/b", "/c:/d:O", "/e:/f:ro"]).iter().map(|m| m.parse().unwrap()).collect(),
                    hide: self.reasoned(&["~/.x", "/a/h", "/c", "/y"]),
                    read_only: self.reasoned(&["/a", "/z"]),
                    fresh: self.reasoned(&["/t", "/u"]),
                    guard: self.reasoned(&["g", "h/i"]),
                    root_read_only: self.maybe(&[true, false]),
                    shm_size: self.maybe(&[Bytes(1), Bytes(2)]),
                    scratch_size: self.maybe(&[Bytes(1), Bytes(2)]),
                    disk: self.maybe(&[Bytes(1), Bytes(2)]),
                    inodes: self.maybe(&[1, 2]),
                    overlay_backend: None,
                    devices: self.some(&[("/dev/k".into(), "/dev/k".into())]),
                },
                network: NetworkPatch {
                    mode: self.maybe(&[NetworkMode::None, NetworkMode::Host]),
                    dns: self.words(&["1.1.1.1"]),
                    ..Default::default()
                },
                namespaces: NamespacesPatch {
                    ipc: self.maybe(&share),
                    pid: self.maybe(&share),
                    uts: self.maybe(&share),
                    cgroup: self.maybe(&share),
                    nested: self.maybe(&[true, false]),
                },
                capabilities: CapabilitiesPatch {
                    keep: self.maybe(&[vec![], vec![why("KILL"), why("CHOWN")]]),
                    add: self.words(&["ALL", "BPF", "KILL"]),
                    drop: self.words(&["ALL", "CHOWN", "KILL"]),
                },
                seccomp: SeccompPatch {
                    allow: self.maybe(&[vec![], vec!["@base".to_string(), "bpf".to_string()]]),
                    deny: self.words(&["ptrace", "bpf"]),
                    socket_families: self.maybe(&[vec![], vec!["unix".to_string()]]),
                    profile: self.maybe(&[SeccompProfile::Groups, SeccompProfile::Unconfined]),
                },
                landlock: LandlockPatch {
                    scopes: self.maybe(&[vec![], vec!["signal".to_string()]]),
                    files: self.maybe(&[LandlockFiles::Off, LandlockFiles::Declared]),
                    tcp_connect: self.maybe(&[vec![], vec![1]]),
                    tcp_bind: self.maybe(&[vec![], vec![1]]),
                },
                proc: ProcPatch {
                    masks: self.maybe(&[true, false]),
                    mask: self.reasoned(&["/proc/a", "/proc/b"]),
                    read_only: self.reasoned(&["/proc/b/c", "/sys/d"]),
                },
                limits: LimitsPatch {
                    memory: self.maybe(&["64m".parse().unwrap(), "-1".parse().unwrap()]),
                    cpus: self.maybe(&["0.5".parse().unwrap(), "2".parse().unwrap()]),
                    pids: self.maybe(&[limits::Pids::try_from(8).unwrap(), limits::Pids::try_from(-1).unwrap()]),
                    ..Default::default()
                },
                cgroup_parent: self.maybe(&["a.slice".to_string()]),
                require: self.some(&[Control::Seccomp, Control::Subids]).into_iter().collect(),
                best_effort: self.some(&[Control::Landlock]).into_iter().collect(),
                ..Default::default()
            }
        }
    }

    #[test]
    fn laws_of_patches() {
        let (mut dice, base) = (Dice(1), base());
        for _ in 0..300 {
            let (a, b, c) = (dice.patch(), dice.patch(), dice.patch());
            assert_eq!(a.clone().then(a.clone()), a, "a patch laid over itself is itself");
            assert_eq!(a.clone().then(Patch::default()), a);
            assert_eq!(Patch::default().then(a.clone()), a);
            let (left, right) = (a.clone().then(b.clone()).then(c.clone()), a.clone().then(b.clone().then(c)));
            assert_eq!(left, right, "includes may be grouped in any way");
            let named = base.clone().then(a);
            assert_eq!(settle(named.clone()).exceeds(&named, Path::new(HOME), 1000), Vec::<String>::new(), "a policy is within itself");
        }
    }
}
