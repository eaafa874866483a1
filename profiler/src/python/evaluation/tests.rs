//! Finds the parts of a function that a compiler has moved away, with symbols and without.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use super::*;
use crate::{machine::skipped, python::PythonSymbols};

/// The compiler moves the cold code of this function away, and the function ends with a jump to another function
/// that the object does not export.
const SOURCE: &str = "
__attribute__((noinline)) static int other(int a) { __asm__ volatile(\"\"); return a * 3; }
__attribute__((cold, noinline)) static void rare(int *a, int b) { __asm__ volatile(\"\"); *a += b; }
int _PyRuntime[4], PyCode_Type[4];
int _PyEval_EvalFrameDefault(int a, int (*call)(int)) {
    for (int i = 0; i < a; i++) {
        int b = call(i);
        if (__builtin_expect(b == 7, 0)) { rare(&b, i); rare(&b, 2); a -= b; }
        if (b == 9) return other(b);
    }
    return other(a);
}
";

fn symbols(path: &Path) -> PythonSymbols {
    let bytes = std::fs::read(path).expect("it can be read");
    PythonSymbols::read(&bytes[..]).expect("it has an interpreter's symbols")
}

fn spans(parts: &[EvalPart]) -> BTreeSet<(Svma, u64)> {
    parts.iter().map(|part| (part.start, part.bytes)).collect()
}

fn run(command: &mut Command) {
    assert!(command.status().expect("it runs").success(), "{command:?}");
}

#[test]
fn a_stripped_file_has_the_parts_that_its_symbols_named() {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("a.c"), SOURCE).expect("it can be written");
    let whole = path("whole.so");
    let gcc = ["-O2", "-shared", "-fPIC", "-freorder-blocks-and-partition"];
    run(Command::new("gcc")
        .args(gcc)
        .arg(path("a.c"))
        .arg("-o")
        .arg(&whole));
    run(Command::new("strip")
        .arg(&whole)
        .arg("-o")
        .arg(path("stripped.so")));
    let (named, found) = (symbols(&whole), symbols(&path("stripped.so")));
    assert!(found.stripped && !named.stripped);
    assert_eq!(named.eval.len(), 2, "the compiler moves a part away");
    assert_eq!(spans(&found.eval), spans(&named.eval));
    assert_eq!(found.eval[1].found_by, FoundBy::Jump);
}

#[test]
fn pythons_with_symbols_have_no_part_that_the_symbols_do_not_name() {
    let home = std::env::var_os("HOME")
        .map(PathBuf::from)
        .unwrap_or_default();
    let versions = std::fs::read_dir(home.join(".pyenv/versions"));
    let mut compared = 0;
    for version in versions.into_iter().flatten().flatten() {
        let Ok(entries) = std::fs::read_dir(version.path().join("lib")) else {
            continue;
        };
        let is_library = |name: &str| name.starts_with("libpython3.") && name.ends_with(".so.1.0");
        let mut names = entries.flatten();
        let is_it = |entry: &std::fs::DirEntry| entry.file_name().to_str().is_some_and(is_library);
        let Some(library) = names.find(is_it) else {
            continue;
        };
        let bytes = std::fs::read(library.path()).expect("it can be read");
        let Some(symbols) = PythonSymbols::read(&bytes[..]) else {
            continue;
        };
        let file = object::File::parse(&bytes[..]).expect("it is an ELF file");
        let (found, named) = (spans(&decoded(&bytes[..], &file)), spans(&symbols.eval));
        // A part of a few bytes is what the compiler puts after a place that the program never reaches.
        let reached: BTreeSet<_> = named.into_iter().filter(|part| part.1 > 16).collect();
        assert_eq!(found, reached, "{}", library.path().display());
        compared += 1;
    }
    if compared == 0 {
        skipped(
            "pythons_with_symbols_have_no_part_that_the_symbols_do_not_name",
            "a Python of pyenv's",
        );
    }
}

#[test]
fn a_stripped_interpreter_has_its_moved_part_found() {
    let path = Path::new("/usr/bin/python3.11");
    if !path.exists() {
        return skipped(
            "a_stripped_interpreter_has_its_moved_part_found",
            "Debian's python3.11",
        );
    }
    let symbols = symbols(path);
    assert!(symbols.stripped);
    let bytes: Vec<_> = symbols.eval.iter().map(|part| part.bytes).collect();
    assert_eq!(symbols.eval.len(), 2, "{bytes:?}");
    assert!(bytes[1] > 1 << 10, "{bytes:?}");
}

#[test]
fn parts_that_a_compiler_moved_away_belong_to_the_evaluation_function() {
    assert!(is_eval("_PyEval_EvalFrameDefault"));
    assert!(is_eval("_PyEval_EvalFrameDefault.cold"));
    assert!(!is_eval("_PyEval_EvalFrameDefaultish"));
    assert!(!is_eval("_PyEval_EvalFrame"));
}

#[test]
fn jumps_that_stay_inside_lead_nowhere() {
    // jmp +0; je +0x10; call +0x100; jmp -0x20
    let code = [0xeb, 0, 0x74, 0x10, 0xe8, 0, 1, 0, 0, 0xeb, 0xe0];
    let targets = jumps_out(&code, Svma(0x1000));
    assert_eq!(targets.into_iter().collect::<Vec<_>>(), [0xfeb, 0x1014]);
}
