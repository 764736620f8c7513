//! The house's rules that a compiler does not hold: which crate may use which, what the pure crates
//! may depend on, what must not be in the binary, and how old a dependency may be.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Crate and the crates of ours that it may use, lowest layer first.
const EDGES: &[(&str, &[&str])] = &[
    ("fog-keys", &[]),
    ("fog-mail", &[]),
    ("fog-record", &["fog-keys"]),
    ("fog-sphinx", &["fog-keys"]),
    ("fog-smtp", &["fog-mail"]),
    ("fog-directory", &["fog-record", "fog-keys"]),
    ("fog-mix", &["fog-sphinx", "fog-keys"]),
    (
        "fog-remailer",
        &["fog-keys", "fog-mail", "fog-record", "fog-sphinx", "fog-directory", "fog-mix"],
    ),
];

/// What a crate that touches nothing may use: arithmetic, encodings, distributions.
const PURE: &[&str] = &[
    "aes",
    "aes-gcm",
    "bincode",
    "blake3",
    "ctr",
    "curve25519-dalek",
    "data-encoding",
    "ed25519-dalek",
    "graviola",
    "idna",
    "libcrux-ml-kem",
    "encoding_rs",
    "miniz_oxide",
    "rand",
    "rand_chacha",
    "rand_core",
    "rand_distr",
    "reed-solomon-simd",
    "sha2",
    "sha3",
    "subtle",
    "thiserror",
    "time",
    "x25519-dalek",
    "zeroize",
];

/// Versions below these have known faults that advisory databases do not all list.
const FLOORS: &[(&str, &str)] = &[
    ("libp2p-gossipsub", "0.50.1"),
    ("libp2p-yamux", "0.48.0"),
    ("yamux", "0.13.10"),
    ("snow", "0.9.5"),
    ("curve25519-dalek", "4.1.3"),
    ("hickory-proto", "0.26.1"),
    ("hickory-resolver", "0.26.1"),
    ("lettre", "0.11.22"),
    ("time", "0.3.47"),
];

/// Nothing in the binary may be able to dial a clearnet address or announce one.
const ABSENT: &[&str] = &[
    "libp2p-tcp",
    "libp2p-dns",
    "libp2p-quic",
    "libp2p-websocket",
    "libp2p-mdns",
    "libp2p-kad",
    "libp2p-autonat",
    "libp2p-upnp",
    "libp2p-relay",
    "libp2p-identify",
];

/// Fields of a type, at most: one with more does several things.
const MAX_FIELDS: usize = 12;
/// Formats of the wire, of the disk and of the control socket, which have as many as they have.
const FORMATS: &[&str] = &["Body", "Draft", "ParametersBody", "Status"];

/// Names that several public types may have.
const SHARED_NAMES: &[&str] = &[];

#[test]
fn crates_use_only_lower_layers() {
    let dependencies = dependencies();
    for (name, allowed) in EDGES {
        let ours = dependencies[*name].iter().filter(|dependency| dependency.starts_with("fog"));
        for dependency in ours {
            assert!(allowed.contains(&dependency.as_str()), "{name} must not use {dependency}");
        }
    }
    let listed: BTreeSet<_> = EDGES.iter().map(|(name, _)| *name).chain(["fog"]).collect();
    let present: BTreeSet<_> = dependencies.keys().map(String::as_str).collect();
    assert_eq!(listed, present, "every crate has its row");
}

#[test]
fn pure_crates_use_no_runtime() {
    for (name, dependencies) in dependencies() {
        if name == "fog" {
            continue;
        }
        for dependency in dependencies {
            let known = PURE.contains(&dependency.as_str()) || dependency.starts_with("fog-");
            assert!(known, "{name} uses {dependency}, which is not known to be pure");
        }
    }
}

#[test]
fn the_binary_holds_no_clearnet_transport() {
    let tree = cargo(&["tree", "--edges", "normal", "--prefix", "none", "--package", "fog"]);
    assert!(tree.contains("libp2p-gossipsub v"), "the tree was read");
    for name in ABSENT {
        assert!(!tree.contains(&format!("{name} v")), "{name} is compiled in");
    }
}

#[test]
fn locked_versions_are_above_their_floors() {
    let lock = include_str!("../Cargo.lock");
    let lines: Vec<_> = lock.lines().collect();
    let mut seen = BTreeSet::new();
    for pair in lines.windows(2) {
        let [name, version] = pair else { continue };
        let Some(name) = quoted(name, "name = ") else { continue };
        let Some(version) = quoted(version, "version = ") else { continue };
        if let Some((_, floor)) = FLOORS.iter().find(|(floored, _)| *floored == name) {
            assert!(parts(version) >= parts(floor), "{name} {version} is below {floor}");
            seen.insert(name);
        }
    }
    assert!(seen.contains("yamux") && seen.contains("libp2p-gossipsub"), "the lock was read");
}

#[test]
fn one_word_is_one_thing() {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in sources(Path::new(env!("CARGO_MANIFEST_DIR"))) {
        let text = std::fs::read_to_string(&file).unwrap();
        for line in text.lines() {
            let kinds = ["pub struct ", "pub enum ", "pub trait ", "pub type "];
            let Some(rest) = kinds.iter().find_map(|kind| line.strip_prefix(kind)) else {
                continue;
            };
            let name: String = rest.chars().take_while(char::is_ascii_alphanumeric).collect();
            places.entry(name).or_default().push(file.display().to_string());
        }
    }
    assert!(places.len() > 150, "the sources were read: {}", places.len());
    for (name, files) in places {
        let is_known = SHARED_NAMES.contains(&name.as_str());
        assert!(files.len() == 1 || is_known, "{name} is several public types: {files:?}");
    }
}

#[test]
fn what_does_things_has_few_fields() {
    let mut counted = 0;
    for file in sources(Path::new(env!("CARGO_MANIFEST_DIR"))) {
        let text = std::fs::read_to_string(&file).unwrap();
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            let public = line.trim_start_matches("pub ").trim_start_matches("pub(crate) ");
            let Some(rest) = public.trim_start_matches("pub(super) ").strip_prefix("struct ")
            else {
                continue;
            };
            let name: String = rest.chars().take_while(char::is_ascii_alphanumeric).collect();
            if !line.ends_with('{') {
                continue;
            }
            counted += 1;
            let body = lines.by_ref().take_while(|line| *line != "}");
            let is_field = |line: &&str| {
                let field = line.strip_prefix("    ");
                field.is_some_and(|field| {
                    field.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
                })
            };
            let fields = body.filter(is_field).count();
            let is_format = FORMATS.contains(&name.as_str());
            assert!(fields <= MAX_FIELDS || is_format, "{name} has {fields} fields: {file:?}");
        }
    }
    assert!(counted > 150, "the sources were read: {counted}");
}

/// The Rust files of the product: everything under a `src` folder.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut sources = Vec::new();
    let mut left = ["src", "pki", "protocols"].map(|part| folder.join(part)).to_vec();
    while let Some(folder) = left.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let is_product = path.components().any(|part| part.as_os_str() == "src");
            if path.is_dir() {
                left.push(path);
            } else if is_product && path.extension().is_some_and(|extension| extension == "rs") {
                sources.push(path);
            }
        }
    }
    sources
}

fn dependencies() -> BTreeMap<String, Vec<String>> {
    let metadata = cargo(&["metadata", "--format-version", "1", "--no-deps"]);
    let metadata: Value = serde_json::from_str(&metadata).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    packages
        .iter()
        .map(|package| {
            let all = package["dependencies"].as_array().unwrap();
            let normal = all.iter().filter(|dependency| dependency["kind"].is_null());
            let names = normal.map(|dependency| text(&dependency["name"])).collect();
            (text(&package["name"]), names)
        })
        .collect()
}

fn cargo(arguments: &[&str]) -> String {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let mut command = Command::new(cargo);
    let output = command.args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn quoted<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    line.strip_prefix(key)?.strip_prefix('"')?.strip_suffix('"')
}

fn parts(version: &str) -> Vec<u64> {
    version.split(['.', '-', '+']).map_while(|part| part.parse().ok()).collect()
}
