//! The fuzz targets, on their corpora.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "tests")]

#[path = "../fuzz/targets.rs"]
mod targets;

use std::fs;
use std::path::Path;

#[test]
fn every_corpus_is_read_without_harm() {
    for (name, target) in targets::TARGETS {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
        let files: Vec<_> = fs::read_dir(&corpus).unwrap().collect();
        assert!(files.len() > 3, "{name}");
        for file in files {
            target(&fs::read(file.unwrap().path()).unwrap());
        }
        // A fuzzer begins with what goes through unaltered.
        target(&[]);
    }
}
