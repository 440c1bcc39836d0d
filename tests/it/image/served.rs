//! An image made here, and a registry of a few lines that serves it, or lies about it: what a script says comes before what is right.
//!
//! Loopback only; each connection has a thread and a time limit; ended when the value is dropped.

use sandbox::image::layout;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// Bytes with their digest.
#[derive(Clone)]
pub struct Piece {
    pub bytes: Vec<u8>,
    pub digest: String,
}

impl Piece {
    pub fn new(bytes: impl Into<Vec<u8>>) -> Piece {
        let bytes = bytes.into();
        Piece { digest: layout::digest(&bytes).to_string(), bytes }
    }
}

/// How a layer travels.
#[derive(Clone, Copy)]
pub enum Packed {
    Gzip,
    Zstd,
}

/// A whole image: one layer, with a file of `size` bytes that no compression makes smaller.
#[derive(Clone)]
pub struct Made {
    pub layer: Piece,
    pub config: Piece,
    pub manifest: Piece,
}

pub fn made(size: usize) -> Made {
    packed(size, Packed::Gzip)
}

pub fn packed(size: usize, how: Packed) -> Made {
    let tar = super::layer(&[("noise", 0o644, 0, &super::noise(1, size))]);
    let diff_id = layout::digest(&tar);
    let (layer, kind) = match how {
        Packed::Gzip => {
            let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            out.write_all(&tar).unwrap();
            (out.finish().unwrap(), GZIP)
        }
        Packed::Zstd => (zstd::encode_all(tar.as_slice(), 1).unwrap(), "application/vnd.oci.image.layer.v1.tar+zstd"),
    };
    let layer = Piece::new(layer);
    let config = Piece::new(format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{"Cmd":["/noise"]}},"rootfs":{{"type":"layers","diff_ids":["{diff_id}"]}}}}"#
    ));
    let manifest = Piece::new(manifest(&config, &layer, layer.bytes.len(), kind));
    Made { layer, config, manifest }
}

pub fn manifest(config: &Piece, layer: &Piece, size: usize, kind: &str) -> String {
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","config":{{"mediaType":"{}","digest":"{}","size":{}}},"layers":[{{"mediaType":"{kind}","digest":"{}","size":{size}}}]}}"#,
        layout::OCI_MANIFEST,
        layout::OCI_CONFIG,
        config.digest,
        config.bytes.len(),
        layer.digest,
    )
}

impl Made {
    /// As an OCI layout, for skopeo.
    pub fn layout(&self, dir: &Path) {
        std::fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
        for piece in [&self.layer, &self.config, &self.manifest] {
            std::fs::write(dir.join("blobs/sha256").join(&piece.digest[7..]), &piece.bytes).unwrap();
        }
        std::fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        let entry = format!(r#"{{"mediaType":"{}","digest":"{}","size":{}}}"#, layout::OCI_MANIFEST, self.manifest.digest, self.manifest.bytes.len());
        std::fs::write(dir.join("index.json"), format!(r#"{{"schemaVersion":2,"manifests":[{entry}]}}"#)).unwrap();
    }
}

/// A request as it came.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    pub method: String,
    pub path: String,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
    /// How many with the same method and path came before.
    pub before: usize,
}

impl Asked {
    pub fn is(&self, method: &str, part: &str) -> bool {
        self.method == method && self.path.contains(part)
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// Answers, and returns true; or returns false, and the right answer is given.
pub type Script = Arc<dyn Fn(&Asked, &mut TcpStream) -> bool + Send + Sync>;

pub struct Server {
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    over: Arc<AtomicBool>,
}

impl Server {
    pub fn start(ip: &str, image: Option<Made>, script: Script) -> Server {
        let listener = TcpListener::bind(format!("{ip}:0")).expect("a port on loopback");
        let address = listener.local_addr().unwrap();
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let over = Arc::new(AtomicBool::new(false));
        let (log, end) = (asked.clone(), over.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if end.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let (log, script, image) = (log.clone(), script.clone(), image.clone());
                std::thread::spawn(move || {
                    let _ = serve(stream, &log, image.as_ref(), &script);
                });
            }
        });
        Server { address, asked, over }
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// Not one request had a password or a token.
    #[track_caller]
    pub fn never_saw_a_secret(&self) {
        for asked in self.asked() {
            let text = format!("{asked:?}");
            assert!(!asked.headers.contains_key("authorization") && !text.contains("topsecret"), "{asked:?}");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(mut stream: TcpStream, log: &Mutex<Vec<Asked>>, image: Option<&Made>, script: &Script) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.set_write_timeout(Some(Duration::from_secs(20)))?;
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        // 22: somebody wants to speak TLS.
        if stream.read(&mut byte)? == 0 || (head.is_empty() && byte[0] == 22) || head.len() > 64 << 10 {
            return Ok(());
        }
        head.push(byte[0]);
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    let mut lines = text.lines();
    let mut first = lines.next().unwrap_or_default().split(' ');
    let mut asked = Asked { method: first.next().unwrap_or("").into(), path: first.next().unwrap_or("").into(), ..Asked::default() };
    asked.headers = lines.filter_map(|l| l.split_once(": ")).map(|(k, v)| (k.to_ascii_lowercase(), v.to_string())).collect();
    let length = asked.header("content-length").parse().unwrap_or(0);
    let number = {
        let mut log = log.lock().unwrap();
        asked.before = log.iter().filter(|a| a.method == asked.method && a.path == asked.path).count();
        log.push(asked.clone());
        log.len() - 1
    };
    if script_reads(&asked, script, &mut stream) {
        return Ok(());
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    asked.body = body;
    log.lock().unwrap()[number].body.clone_from(&asked.body);
    if !script(&asked, &mut stream) {
        right(&asked, image, &mut stream);
    }
    Ok(())
}

/// A script may answer before the body of an upload is read.
fn script_reads(asked: &Asked, script: &Script, stream: &mut TcpStream) -> bool {
    asked.method == "PATCH" && script(&Asked { method: "PATCH-BEGINS".into(), ..asked.clone() }, stream)
}

pub fn answer(stream: &mut TcpStream, status: &str, headers: &[(&str, &str)], body: &[u8]) {
    let mut text = format!("HTTP/1.1 {status}\r\nConnection: close\r\n");
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    if !headers.iter().any(|(n, _)| ["Content-Length", "Transfer-Encoding"].contains(n)) {
        text += &format!("Content-Length: {}\r\n", body.len());
    }
    let _ = stream.write_all(format!("{text}\r\n").as_bytes()).and_then(|()| stream.write_all(body));
}

/// What a registry should say.
pub fn right(asked: &Asked, image: Option<&Made>, stream: &mut TcpStream) {
    let path = asked.path.split('?').next().unwrap_or("");
    let Some(image) = image else { return answer(stream, "404 Not Found", &[], b"") };
    let head = asked.method == "HEAD";
    match (asked.method.as_str(), path) {
        ("POST", _) => answer(stream, "202 Accepted", &[("Location", "/v2/x/blobs/uploads/1?state=a")], b""),
        ("PATCH", _) => answer(stream, "202 Accepted", &[("Location", "/v2/x/blobs/uploads/1?state=b")], b""),
        ("PUT", _) => answer(stream, "201 Created", &[("Location", "/v2/x/there")], b""),
        (_, "/v2/") => answer(stream, "200 OK", &[], b""),
        _ if path.contains("/manifests/") => {
            let kind = [("Content-Type", layout::OCI_MANIFEST), ("Docker-Content-Digest", image.manifest.digest.as_str())];
            answer(stream, "200 OK", &kind, if head { b"" } else { &image.manifest.bytes });
        }
        _ if head => answer(stream, "404 Not Found", &[], b""),
        _ => match [&image.layer, &image.config].into_iter().find(|p| path.ends_with(&p.digest)) {
            Some(piece) => part(asked, piece, stream),
            None => answer(stream, "404 Not Found", &[], b""),
        },
    }
}

/// All of it, or what Range asks for.
fn part(asked: &Asked, piece: &Piece, stream: &mut TcpStream) {
    let from: Option<usize> = asked.header("range").strip_prefix("bytes=").and_then(|r| r.strip_suffix('-')).and_then(|n| n.parse().ok());
    match from {
        None => answer(stream, "200 OK", &[], &piece.bytes),
        Some(from) => {
            let range = format!("bytes {from}-{}/{}", piece.bytes.len() - 1, piece.bytes.len());
            answer(stream, "206 Partial Content", &[("Content-Range", &range)], &piece.bytes[from..]);
        }
    }
}

/// The connection ends as if a cable were pulled: what was sent may be lost.
pub fn reset(stream: &TcpStream) {
    let _ = rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO));
}
