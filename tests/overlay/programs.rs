//! Programs that expect much of a file system, on ours: git, cargo, pip, npm, dpkg, SQLite, PostgreSQL.

use crate::ground::{self, has, knob};
use crate::sides::{Kind, Layers, Mounted};
use crate::tree::{differences, tree};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Ours over a lower layer that a script makes.
struct Ground {
    mount: Mounted,
    layers: Layers,
    at: PathBuf,
}

fn ground_of(name: &str, script: &str) -> Ground {
    let lower = ground::fresh(&format!("{name}/lower"));
    sh(&lower, script);
    let layers = Layers::new(&[lower], &ground::fresh(&format!("{name}/layers")));
    let at = ground::fresh(&format!("{name}/merged"));
    Ground { mount: Mounted::new(Kind::ours(), &layers, &at), layers, at }
}

/// A script in a directory; it must be successful. What it printed.
#[track_caller]
fn sh(dir: &Path, script: &str) -> String {
    let out = Command::new("sh").args(["-euc", script]).current_dir(dir).stdin(Stdio::null()).output().expect("sh");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(out.status.success(), "{script}\n{}\n{}\n{}", out.status, text(&out.stdout), text(&out.stderr));
    text(&out.stdout)
}

fn lacks(program: &str) -> bool {
    let lacks = !has(program);
    if lacks {
        skip(program);
    }
    lacks
}

fn skip(program: &str) {
    assert!(std::env::var_os("SANDBOX_STRICT").is_none_or(|v| v != "1"), "{program} is not installed (SANDBOX_STRICT=1)");
    println!("  SKIP overlay: needs {program}");
}

const GIT: &str = "git -c user.name=t -c user.email=t@example.com -c init.defaultBranch=main -c advice.detachedHead=false -c safe.directory=*";

pub fn git() {
    if lacks("git") {
        return;
    }
    let script = format!(
        "mkdir origin; cd origin; {GIT} init -q; for d in 1 2 3 4 5 6; do mkdir d$d; for f in $(seq 60); do echo $d $f >d$d/f$f; done; done; \
         ln -s d1 link; {GIT} add .; {GIT} commit -qm one; {GIT} mv d1 moved; {GIT} rm -qr d2; echo changed >d3/f1; {GIT} add .; {GIT} commit -qm two"
    );
    let ground = ground_of("git", &script);
    let told = sh(
        &ground.at,
        &format!(
            "{GIT} clone -q --no-local origin clone; cd clone; {GIT} checkout -q HEAD~1; test -e d2/f7; {GIT} status --porcelain; {GIT} checkout -q main; \
             test ! -e d2; {GIT} status --porcelain; {GIT} gc -q; {GIT} fsck --strict 2>&1; cd ../origin; {GIT} checkout -q HEAD~1; \
             {GIT} status --porcelain; test -e d1/f3; {GIT} checkout -q main; {GIT} status --porcelain; echo x >>moved/f1; {GIT} status --porcelain"
        ),
    );
    assert_eq!(told.trim(), "M moved/f1");
    ground.mount.unmount();
}

pub fn cargo_build() {
    if lacks("cargo") {
        return;
    }
    let script = "mkdir -p crate/src; cd crate; printf '[package]\\nname = \"small\"\\nversion = \"0.1.0\"\\nedition = \"2021\"\\n' >Cargo.toml; \
                  echo 'pub fn two() -> u32 { 2 }' >src/lib.rs; echo 'fn main() { println!(\"{}\", small::two()) }' >src/main.rs";
    let ground = ground_of("cargo", script);
    let build = "cd crate; export CARGO_HOME=$PWD/home; cargo build -q --offline; target/debug/small; \
                 sed -i 's/{ 2 }/{ 3 }/' src/lib.rs; touch -d 'now + 2 seconds' src/lib.rs; cargo build -q --offline; target/debug/small";
    assert_eq!(sh(&ground.at, build), "2\n3\n");
    ground.mount.unmount();
}

pub fn python_package() {
    if lacks("python3") {
        return;
    }
    let wheel = "import zipfile\nz = zipfile.ZipFile('small-1.0-py3-none-any.whl', 'w')\nfor n in range(200): z.writestr(f'small/m{n}.py', f'N = {n}\\n')\n\
                 z.writestr('small/__init__.py', '')\nz.writestr('small-1.0.dist-info/METADATA', 'Metadata-Version: 2.1\\nName: small\\nVersion: 1.0\\n')\n\
                 z.writestr('small-1.0.dist-info/WHEEL', 'Wheel-Version: 1.0\\nGenerator: t\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')\n\
                 z.writestr('small-1.0.dist-info/RECORD', '')\n";
    let ground = ground_of("pip", &format!("cat >make.py <<'END'\n{wheel}END\npython3 make.py"));
    let told = sh(
        &ground.at,
        "python3 -m venv --without-pip venv; wheel=$(ls /usr/share/python-wheels/pip-*.whl); \
         pip() { PYTHONPATH=$wheel venv/bin/python -m pip --disable-pip-version-check -q \"$@\"; }; pip install --no-index ./small-1.0-py3-none-any.whl; \
         venv/bin/python -c 'import small.m7; print(small.m7.N)'; pip uninstall -y small; ! venv/bin/python -c 'import small' 2>/dev/null",
    );
    assert_eq!(told.trim(), "7");
    ground.mount.unmount();
}

pub fn npm() {
    if lacks("npm") {
        return;
    }
    let npm = "npm() { HOME=$PWD/home command npm --offline --no-audit --no-fund --no-update-notifier --loglevel=error \"$@\"; }";
    let script = format!(
        "{npm}; mkdir -p small/lib app; cd small; for n in $(seq 200); do echo \"module.exports = $n\" >lib/m$n.js; done; \
         printf '{{\"name\":\"small\",\"version\":\"1.0.0\",\"bin\":{{\"small\":\"lib/m7.js\"}}}}' >package.json; npm pack >/dev/null; cd ../app; \
         printf '{{\"name\":\"app\",\"version\":\"1.0.0\",\"dependencies\":{{\"small\":\"file:../small/small-1.0.0.tgz\"}}}}' >package.json; \
         npm install >/dev/null"
    );
    let ground = ground_of("npm", &script);
    // It takes away what is there, by renames, and brings it again.
    let ci = format!(
        "{npm}; cd app; npm ci >/dev/null; node -p 'require(\"small/lib/m7.js\")'; ls node_modules/small/lib | wc -l; readlink node_modules/.bin/small"
    );
    for _ in 0..2 {
        assert_eq!(sh(&ground.at, &ci), "7\n200\n../small/lib/m7.js\n");
    }
    ground.mount.unmount();
}

/// Fifty packages, half of them then a newer version, some removed: the tree is that of a plain directory.
pub fn dpkg() {
    if lacks("dpkg-deb") {
        return;
    }
    let debs = ground::fresh("debs");
    sh(
        &debs,
        "umask 022; for v in 1 2; do for n in $(seq 50); do d=p; rm -rf p; mkdir -p p/DEBIAN p/usr/share/pkg$n p/usr/share/common p/etc/pkg; \
         printf \"Package: pkg$n\\nVersion: $v\\nArchitecture: all\\nMaintainer: t <t@example.com>\\nDescription: x\\n\" >p/DEBIAN/control; \
         for f in 1 2 3 4 5; do echo $n $f $v >p/usr/share/pkg$n/f$f; done; ln p/usr/share/pkg$n/f1 p/usr/share/pkg$n/hard; ln -s f2 p/usr/share/pkg$n/soft; \
         echo $n $v >p/usr/share/common/n$n; echo conf >p/etc/pkg/$n.conf; echo /etc/pkg/$n.conf >p/DEBIAN/conffiles; \
         chown 33:33 p/usr/share/pkg$n/f3; chmod 4755 p/usr/share/pkg$n/f4; [ $v = 1 ] || rm p/usr/share/pkg$n/f5; \
         find p -exec touch -h -d @1000000000 {} +; dpkg-deb -Znone --root-owner-group -b p ${n}_$v.deb >/dev/null; done; done; rm -rf p",
    );
    let prepare = "mkdir -p var/lib/dpkg/info var/lib/dpkg/updates usr/share/common; touch var/lib/dpkg/status var/lib/dpkg/available";
    let install = |dir: &Path| {
        let debs = debs.display();
        sh(
            dir,
            &format!(
                "export DPKG_ROOT=; d() {{ dpkg --root=$PWD --force-not-root --force-script-chrootless --log=/dev/null \"$@\" >/dev/null 2>../dpkg.log || \
                 {{ cat ../dpkg.log >&2; exit 1; }}; }}; d -i {debs}/*_1.deb; d -i {debs}/[1-4][05]_2.deb; d -r pkg7 pkg8; d -P pkg9; \
                 test $(dpkg --root=$PWD -l 2>/dev/null | grep -c ^ii) = 47"
            ),
        );
    };
    let ground = ground_of("dpkg", prepare);
    install(&ground.at);
    let plain = ground::fresh("dpkg/plain");
    sh(&plain, prepare);
    install(&plain);
    let (theirs, ours) = (tree(&plain, true), tree(&ground.at, true));
    let differ = differences(("plain", &theirs), ("ours", &ours));
    assert!(differ.is_empty(), "{}", differ.join("\n"));
    ground.mount.unmount();
}

const SQLITE: &str = r"
import sqlite3, sys
db = sqlite3.connect('base.db', isolation_level=None)
db.execute('pragma journal_mode=' + sys.argv[1])
db.execute('pragma synchronous=full')
db.execute('create table if not exists t (n integer primary key, text)')
n = db.execute('select coalesce(max(n), 0) from t').fetchone()[0]
while True:
    n += 1
    db.execute('begin'); db.execute('insert into t values (?, ?)', (n, 'x' * (n * 37 % 3000))); db.execute('commit')
    print(n, flush=True)
";

const CHECK: &str = "import sqlite3; db = sqlite3.connect('base.db'); print(db.execute('pragma integrity_check').fetchone()[0], \
                     db.execute('select count(*), max(n) from t').fetchone())";

/// Killed again and again, the program and the server in turns: the base is whole, and what was committed is in it.
pub fn sqlite() {
    if lacks("python3") {
        return;
    }
    let Ground { mut mount, layers, at } = ground_of("sqlite", "true");
    for (round, mode) in ["delete", "wal"].iter().cycle().take(16).enumerate() {
        let mut child = Command::new("python3")
            .args(["-c", SQLITE, mode])
            .current_dir(&at)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("python3");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines().map_while(Result::ok);
        // It is at work.
        let first = lines.next();
        let reader = std::thread::spawn(move || lines.last().or(first));
        std::thread::sleep(Duration::from_millis(150 + 37 * (round as u64 % 5)));
        if round % 4 < 2 {
            let _ = child.kill();
        } else {
            mount.kill();
        }
        // Without a server it fails by itself.
        std::thread::sleep(Duration::from_millis(50));
        let _ = child.kill();
        let _ = child.wait();
        let last: u64 = reader.join().expect("a reader").and_then(|l| l.parse().ok()).unwrap_or(0);
        if mount.server().is_none() && mount.kind != Kind::Kernel {
            drop(mount);
            mount = Mounted::new(Kind::ours(), &layers, &at);
        }
        let told = sh(&at, &format!("python3 -c \"{CHECK}\""));
        let numbers: Vec<u64> = told.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).collect();
        assert!(told.starts_with("ok ") && numbers.len() == 2 && numbers[0] == numbers[1], "{mode}, round {round}: {told}");
        assert!(numbers[1] >= last, "{mode}, round {round}: {last} was committed, {told}");
    }
    mount.unmount();
}

/// `OVERLAY_SECONDS` (5) of pgbench, then kill -9 of all of PostgreSQL, then of our server: it recovers, and no money is lost.
pub fn postgresql() {
    let found = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().map(|e| e.path().join("bin")).max();
    let Some(bin) = found.filter(|bin| bin.join("pgbench").exists() && bin.join("initdb").exists()) else {
        return skip("PostgreSQL");
    };
    let Ground { mut mount, layers, at } = ground_of("pg", "mkdir data; chmod 777 .; chown 1000:1000 data; chmod 700 data");
    let run = |dir: &Path, script: &str| {
        let script = format!("export PATH={}:$PATH PGHOST=$PWD PGUSER=t PGDATABASE=postgres; {script}", bin.display());
        let user = format!("exec setpriv --reuid 1000 --regid 1000 --clear-groups sh -euc '{script}'");
        sh(dir, &user)
    };
    // Who was killed is a zombie of PID 1, and looks alive. The log says more than pg_ctl.
    let start = "rm -f data/postmaster.pid .s.PGSQL*; pg_ctl -D data -l data/log -w -t 50 -o \"-k $PWD -h \\\"\\\"\" start >/dev/null || { tail -5 data/log >&2; exit 1; }";
    run(&at, "initdb -D data -U t -A trust --no-sync >/dev/null");
    run(&at, &format!("{start}; pgbench -i -s 2 -q 2>/dev/null"));
    let seconds = knob("OVERLAY_SECONDS", 5);
    for round in 0..2 {
        if round > 0 {
            run(&at, start);
        }
        let line = format!("(exec >/dev/null 2>&1; pgbench -n -c 4 -j 2 -T {seconds} || true) & sleep {seconds}.3");
        if round == 0 {
            run(&at, &format!("{line}; kill -9 $(head -1 data/postmaster.pid); pkill -9 -u 1000 -x postgres || true; wait"));
        } else {
            run(&at, &format!("(exec >/dev/null 2>&1; pgbench -n -c 4 -j 2 -T {seconds} || true) & sleep 1"));
            std::thread::sleep(Duration::from_secs(seconds / 2));
            mount.kill();
            sh(Path::new("/"), "pkill -9 -u 1000 -x postgres || true; pkill -9 -u 1000 -x pgbench || true; sleep 0.3");
            drop(mount);
            mount = Mounted::new(Kind::ours(), &layers, &at);
        }
        run(&at, start);
        let sums = "select (select sum(abalance) from pgbench_accounts) = (select sum(bbalance) from pgbench_branches) and \
                    (select sum(tbalance) from pgbench_tellers) = (select coalesce(sum(delta), 0) from pgbench_history) and \
                    (select sum(bbalance) from pgbench_branches) = (select coalesce(sum(delta), 0) from pgbench_history)";
        assert_eq!(run(&at, &format!("psql -Atc \"{sums}\"; pg_ctl -D data -m fast -w stop >/dev/null")).trim(), "t", "round {round}");
    }
    mount.unmount();
}
