//! Small C programs, compiled here, looked up in every state that installed files are found in.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use object::{Object, ObjectSegment, ObjectSymbol};
use tempfile::TempDir;

use super::{CodeAddress, ModuleFile, Symbol, SymbolizeError, Symbolizer};

type Outcome<T> = Result<T, Box<dyn Error>>;

const SOURCE: &str = "\
#include <stdlib.h>
static inline __attribute__((always_inline)) void *inner(size_t n) {
  return malloc(n);
}
__attribute__((noinline)) void *outer(size_t n) {
  void *kept = inner(n);
  __asm__ volatile(\"\" : : \"r\"(kept) : \"memory\");
  return kept;
}
int main(int argc, char **argv) { return outer(argc) == argv; }
";

const BUILD_ID: [u8; 8] = [0xc0, 0xff, 0xee, 0, 1, 2, 3, 4];

struct Program {
    directory: TempDir,
    path: PathBuf,
    /// Where `malloc` returns to inside `outer`: file offset.
    returns_to: u64,
}

impl Program {
    fn compile() -> Outcome<Self> {
        let directory = tempfile::tempdir()?;
        let (source, path) = (directory.path().join("app.c"), directory.path().join("app"));
        fs::write(&source, SOURCE)?;
        run(Command::new("gcc")
            .args(["-g", "-O2", "-Wl,--build-id=0xc0ffee0001020304", "-o"])
            .arg(&path)
            .arg(&source))?;
        let returns_to = return_offset(&path)?;
        Ok(Self {
            directory,
            path,
            returns_to,
        })
    }

    /// Moves the debug information to where distributions keep it, below `root`.
    fn split(&self, root: &Path) -> Outcome<()> {
        let debug = root.join("usr/lib/debug/.build-id/c0");
        fs::create_dir_all(&debug)?;
        let debug = debug.join("ffee0001020304.debug");
        run(Command::new("objcopy")
            .arg("--only-keep-debug")
            .arg(&self.path)
            .arg(debug))?;
        run(Command::new("strip").arg("--strip-all").arg(&self.path))
    }

    fn functions(&self, root: Option<&Path>) -> Outcome<Vec<Symbol>> {
        let (path, build_id) = (Path::new("/srv/app"), Some(&BUILD_ID[..]));
        let module = ModuleFile {
            path,
            open: &self.path,
            root,
            build_id,
        };
        let addresses = [CodeAddress::Return(self.returns_to)];
        Ok(Symbolizer::new().symbolize(module, &addresses)?.remove(0))
    }
}

fn run(command: &mut Command) -> Outcome<()> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)).into())
}

/// The first call in `outer` is the one to malloc: opcode e8 and four bytes of distance.
fn return_offset(path: &Path) -> Outcome<u64> {
    let data = fs::read(path)?;
    let elf = object::File::parse(&*data)?;
    let outer = elf
        .symbols()
        .find(|it| it.name() == Ok("outer"))
        .ok_or("no symbol outer")?;
    let segment = elf
        .segments()
        .find(|it| (it.address()..it.address() + it.size()).contains(&outer.address()));
    let segment = segment.ok_or("outer lies in no segment")?;
    let offset = outer.address() - segment.address() + segment.file_range().0;
    let start = usize::try_from(offset)?;
    let code = &data[start..start + usize::try_from(outer.size())?];
    let call = code
        .iter()
        .position(|byte| *byte == 0xe8)
        .ok_or("outer calls nothing")?;
    Ok(offset + call as u64 + 5)
}

fn names(symbols: &[Symbol]) -> Vec<&str> {
    symbols.iter().map(|symbol| symbol.name.as_str()).collect()
}

fn assert_inner_then_outer(symbols: &[Symbol]) {
    assert_eq!(names(symbols), ["inner", "outer"]);
    assert_eq!((symbols[0].line, symbols[1].line), (Some(3), Some(6)));
    assert!(
        symbols[0]
            .file
            .as_deref()
            .is_some_and(|file| file.ends_with("/app.c"))
    );
}

#[test]
fn inlined_functions_come_innermost_first_with_their_lines() -> Outcome<()> {
    assert_inner_then_outer(&Program::compile()?.functions(None)?);
    Ok(())
}

#[test]
fn a_debug_file_is_found_by_build_id_alone_under_the_targets_root() -> Outcome<()> {
    let program = Program::compile()?;
    let root = program.directory.path().join("root");
    program.split(&root)?;
    assert_eq!(program.functions(None)?, []);
    assert_inner_then_outer(&program.functions(Some(&root))?);
    Ok(())
}

#[test]
fn a_debug_file_is_found_by_debug_link() -> Outcome<()> {
    let program = Program::compile()?;
    let debug = program.directory.path().join("app.debug");
    run(Command::new("objcopy")
        .arg("--only-keep-debug")
        .arg(&program.path)
        .arg(&debug))?;
    run(Command::new("objcopy")
        .arg("--strip-all")
        .arg(format!("--add-gnu-debuglink={}", debug.display()))
        .arg(&program.path))?;
    assert_inner_then_outer(&program.functions(None)?);
    Ok(())
}

#[test]
fn a_debug_file_of_another_build_leaves_the_symbol_table() -> Outcome<()> {
    let program = Program::compile()?;
    let debug = program.directory.path().join("app.debug");
    run(Command::new("objcopy")
        .arg("--only-keep-debug")
        .arg(&program.path)
        .arg(&debug))?;
    run(Command::new("objcopy")
        .arg("--strip-debug")
        .arg(format!("--add-gnu-debuglink={}", debug.display()))
        .arg(&program.path))?;
    let mut other = fs::read(&debug)?;
    other.push(0);
    fs::write(&debug, other)?;
    assert_eq!(names(&program.functions(None)?), ["outer"]);
    Ok(())
}

#[test]
fn a_return_address_names_the_call_before_it() {
    assert_eq!(CodeAddress::Return(0x1005).lookup_offset(), 0x1004);
    assert_eq!(CodeAddress::Exact(0x1005).lookup_offset(), 0x1005);
    assert_eq!(CodeAddress::Return(0).lookup_offset(), 0);
}

#[test]
fn an_unreadable_module_is_told_once_and_then_has_no_names() -> Outcome<()> {
    let directory = tempfile::tempdir()?;
    let open = directory.path().join("libhostile.so");
    fs::write(
        &open,
        [b"\x7fELF\x02\x01\x01".as_slice(), &[0xff; 200]].concat(),
    )?;
    let module = ModuleFile {
        path: Path::new("/libhostile.so"),
        open: &open,
        root: None,
        build_id: None,
    };
    let mut symbolizer = Symbolizer::new();
    let error = symbolizer
        .symbolize(module, &[CodeAddress::Exact(64)])
        .unwrap_err();
    assert!(
        matches!(error, SymbolizeError::Unreadable { .. }),
        "{error}"
    );
    assert_eq!(
        symbolizer.symbolize(module, &[CodeAddress::Exact(64)])?,
        [vec![]]
    );
    Ok(())
}

/// Every 61st byte of a real program with debug information, flipped in turn.
#[test]
fn a_damaged_module_never_stops_the_symbolizer() -> Outcome<()> {
    let program = Program::compile()?;
    let whole = fs::read(&program.path)?;
    for at in (0..whole.len()).step_by(61) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0xff;
        fs::write(&program.path, &damaged)?;
        // Any answer will do, as long as one comes back.
        let _ = program.functions(None);
    }
    Ok(())
}
