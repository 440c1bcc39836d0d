//! Which cases there are, and which of them need the machine: those whose body says `need!(Systemd)` or the like.

use crate::Result;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};

pub struct Cases(BTreeSet<String>);

impl Cases {
    /// As the built tests list them.
    pub fn of(it: &Path) -> Result<Cases> {
        let out = Command::new(it)
            .args(["--list", "--format", "terse"])
            .stdin(Stdio::null())
            .output()
            .map_err(|e| format!("cannot list the cases: {e}"))?;
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let names: BTreeSet<String> = text.lines().filter_map(|l| l.strip_suffix(": test")).map(String::from).collect();
        if names.is_empty() { Err("there are no cases".into()) } else { Ok(Cases(names)) }
    }

    pub fn all(&self) -> BTreeSet<String> {
        self.0.clone()
    }

    /// Those with one of the words in their names. A word that names nothing is a mistake.
    pub fn with(&self, words: &[String]) -> Result<BTreeSet<String>> {
        let mut found = BTreeSet::new();
        for word in words {
            let before = found.len();
            let named = self.0.iter().filter(|n| n.contains(word.as_str()));
            let mut any = false;
            found.extend(named.inspect(|_| any = true).cloned());
            if !any && before == found.len() {
                return Err(format!("no case has '{word}' in its name"));
            }
        }
        Ok(found)
    }

    /// Those that ask for more than a machine where one writes programs has.
    pub fn needed(&self) -> Result<BTreeSet<String>> {
        let mut names = BTreeSet::new();
        scan(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it")), "", &mut names)?;
        match names.iter().find(|n| !self.0.contains(*n)) {
            Some(unknown) => Err(format!("tests/it has a case {unknown}, but what was built has not")),
            None => Ok(names),
        }
    }
}

fn scan(dir: &Path, module: &str, names: &mut BTreeSet<String>) -> Result<()> {
    for entry in std::fs::read_dir(dir).map_err(|e| format!("cannot read {}: {e}", dir.display()))?.flatten() {
        let (path, file) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if path.is_dir() {
            scan(&path, &format!("{module}{file}::"), names)?;
        } else if let Some(stem) = file.strip_suffix(".rs") {
            let module = if stem == "mod" { module.to_string() } else { format!("{module}{stem}::") };
            let text = std::fs::read_to_string(&path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
            // Each piece is one test and what follows it; its body ends at the first line that is a closing brace.
            for piece in text.split("#[test]\n").skip(1) {
                let Some(name) = piece.lines().find_map(|l| l.strip_prefix("fn ")?.split('(').next()) else { continue };
                let body = piece.split("\n}").next().unwrap_or(piece);
                if ["Systemd", "CgroupV2", "Machine"].iter().any(|need| body.contains(&format!("need!({need}"))) {
                    names.insert(format!("{module}{name}"));
                }
            }
        }
    }
    Ok(())
}
