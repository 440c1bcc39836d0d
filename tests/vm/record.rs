//! What crosses between the two sides: the plan on the way in; on the way out a disk that is a list of lines, one JSON object each, written
//! as soon as it is true. So whatever happens to the machine, what it said until then is whole.

use serde_json::{Value, json};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Everything, up to the first byte that was never written.
pub fn read(disk: &Path) -> std::io::Result<(Vec<Record>, u64)> {
    let file = File::open(disk)?;
    let mut bytes = Vec::new();
    let mut chunk = vec![0; 1 << 16];
    loop {
        let got = file.read_at(&mut chunk, bytes.len() as u64)?;
        let used = chunk[..got].iter().position(|b| *b == 0).unwrap_or(got);
        bytes.extend_from_slice(&chunk[..used]);
        if used < got || got == 0 {
            break;
        }
    }
    // The last line may still be on its way.
    let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
    let lines = String::from_utf8_lossy(&bytes[..whole]).into_owned();
    let records = lines.lines().filter_map(|line| serde_json::from_str(line).ok()).filter_map(Record::from).collect();
    Ok((records, whole as u64))
}

#[derive(Debug, Clone)]
pub enum Record {
    /// The machine is up, for the how-manieth time, with this kernel.
    Boot { number: u64, kernel: String },
    /// One case ended. No code: it took too long and was killed.
    Case { name: String, code: Option<i64>, seconds: f64, said: String },
    /// All that was planned is done.
    End,
}

impl Record {
    pub fn line(&self) -> String {
        let value = match self {
            Record::Boot { number, kernel } => json!({ "boot": number, "kernel": kernel }),
            Record::Case { name, code, seconds, said } => json!({ "case": name, "code": code, "seconds": seconds, "said": said }),
            Record::End => json!({ "end": true }),
        };
        format!("{value}\n")
    }

    fn from(value: Value) -> Option<Record> {
        let text = |key: &str| value[key].as_str().map(String::from);
        if let Some(number) = value["boot"].as_u64() {
            return Some(Record::Boot { number, kernel: text("kernel")? });
        }
        if let Some(name) = text("case") {
            return Some(Record::Case { name, code: value["code"].as_i64(), seconds: value["seconds"].as_f64()?, said: text("said")? });
        }
        value["end"].as_bool().map(|_| Record::End)
    }
}
