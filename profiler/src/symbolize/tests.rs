//! Small C programs that the tests compile, and look up in every state in which installed files are
//! found.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use object::{Object, ObjectSegment, ObjectSymbol};
use tempfile::TempDir;

use super::debug_file::Search;
use super::look_up::{Answer, Found, Here, LookUp, Question};
use super::{CodeAddress, ModuleFile, Symbol, SymbolizeError, Symbolizer};
use crate::process::{Root, TargetFile};

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
    /// The file offset that `malloc` returns to inside `outer`.
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

    /// The functions that a new symbolizer finds. The program is `/srv/app` in its root.
    fn functions(&self, root: Option<&Path>) -> Outcome<Vec<Symbol>> {
        self.functions_of(Path::new("/srv/app"), root)
    }

    fn functions_of(&self, path: &Path, root: Option<&Path>) -> Outcome<Vec<Symbol>> {
        let root = root.map(Root::at).transpose()?;
        let module = ModuleFile {
            path,
            file: &TargetFile::behind(&self.path)?,
            root: root.as_ref(),
            build_id: Some(&BUILD_ID[..]),
        };
        let addresses = [CodeAddress::Return(self.returns_to)];
        Ok(symbolizer().symbolize(module, &addresses)?.remove(0))
    }

    /// Strips the program, and links it to a debug file of this name beside it.
    fn link(&self, strip: &str, name: &str) -> Outcome<PathBuf> {
        let debug = self.directory.path().join(name);
        run(Command::new("objcopy")
            .arg("--only-keep-debug")
            .arg(&self.path)
            .arg(&debug))?;
        run(Command::new("objcopy")
            .arg(strip)
            .arg(format!("--add-gnu-debuglink={}", debug.display()))
            .arg(&self.path))?;
        Ok(debug)
    }
}

/// A symbolizer in this process: a test cannot start a helper.
fn symbolizer() -> Symbolizer {
    Symbolizer::new(Box::new(Here::new()))
}

fn run(command: &mut Command) -> Outcome<()> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)).into())
}

/// The offset behind the first call in `outer`, which is the one to malloc: opcode e8 and four bytes of
/// distance.
fn return_offset(path: &Path) -> Outcome<u64> {
    let data = fs::read(path)?;
    let elf = object::File::parse(&*data)?;
    let outer = elf
        .symbols()
        .find(|symbol| symbol.name() == Ok("outer"))
        .ok_or("no symbol outer")?;
    let segment = elf.segments().find(|segment| {
        (segment.address()..segment.address() + segment.size()).contains(&outer.address())
    });
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
    program.link("--strip-all", "app.debug")?;
    let root = program.directory.path();
    assert_inner_then_outer(&program.functions_of(Path::new("/app"), Some(root))?);
    // Without a root residue does not know what is beside the program.
    assert_eq!(program.functions(None)?, []);
    Ok(())
}

#[test]
fn a_debug_file_of_another_build_leaves_the_symbol_table() -> Outcome<()> {
    let program = Program::compile()?;
    let debug = program.link("--strip-debug", "app.debug")?;
    let mut other = fs::read(&debug)?;
    other.push(0);
    fs::write(&debug, other)?;
    let root = program.directory.path();
    let found = program.functions_of(Path::new("/app"), Some(root))?;
    assert_eq!(names(&found), ["outer"]);
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
    let path = directory.path().join("libgone.so");
    fs::write(&path, [0; 4096])?;
    let module = ModuleFile {
        path: Path::new("/libgone.so"),
        file: &TargetFile::behind(&path)?,
        root: None,
        build_id: None,
    };
    let mut symbolizer = symbolizer();
    let error = symbolizer
        .symbolize(module, &[CodeAddress::Exact(64)])
        .unwrap_err();
    assert!(error.to_string().contains("/libgone.so"));
    assert!(matches!(error, SymbolizeError::Unreadable { .. }));
    assert_eq!(
        symbolizer.symbolize(module, &[CodeAddress::Exact(64)])?,
        [vec![]]
    );
    assert!(symbolizer.has_given_up(module));
    Ok(())
}

#[test]
fn damaged_line_information_leaves_the_symbol_table() -> Outcome<()> {
    let program = Program::compile()?;
    let junk = program.directory.path().join("junk");
    fs::write(&junk, [0xff; 64])?;
    run(Command::new("objcopy")
        .arg(format!("--update-section=.debug_info={}", junk.display()))
        .arg(&program.path))?;
    assert_eq!(names(&program.functions(None)?), ["outer"]);
    Ok(())
}

/// Flips every 61st byte of a real program with debug information, one at a time.
#[test]
fn a_damaged_module_never_stops_the_symbolizer() -> Outcome<()> {
    let program = Program::compile()?;
    let whole = fs::read(&program.path)?;
    for at in (0..whole.len()).step_by(61) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0xff;
        fs::write(&program.path, &damaged)?;
        // Any answer will do, as long as one comes.
        let _ = program.functions(None);
    }
    Ok(())
}

/// A package upgrade writes over a file that is mapped, or cuts it off.
#[test]
fn a_module_that_was_cut_off_or_written_over_has_no_names() -> Outcome<()> {
    let program = Program::compile()?;
    let whole = fs::read(&program.path)?;
    let file = TargetFile::behind(&program.path)?;
    let module = ModuleFile {
        path: Path::new("/srv/app"),
        file: &file,
        root: None,
        build_id: None,
    };
    let addresses = [CodeAddress::Return(program.returns_to)];
    fs::write(&program.path, &whole[..whole.len() / 2])?;
    let cut_off = symbolizer().symbolize(module, &addresses);
    assert!(matches!(cut_off, Err(SymbolizeError::Unreadable { .. })));
    fs::write(&program.path, &whole)?;
    let written_over = symbolizer().symbolize(module, &addresses);
    assert!(matches!(written_over, Err(SymbolizeError::Changed { .. })));
    let of_the_same_build = ModuleFile {
        build_id: Some(&BUILD_ID),
        ..module
    };
    let found = symbolizer().symbolize(of_the_same_build, &addresses)?;
    assert_inner_then_outer(&found[0]);
    Ok(())
}

/// The symbolizer reads the copy, whatever becomes of the file.
#[test]
fn a_module_that_is_cut_off_later_keeps_its_names() -> Outcome<()> {
    let program = Program::compile()?;
    let module = ModuleFile {
        path: Path::new("/srv/app"),
        file: &TargetFile::behind(&program.path)?,
        root: None,
        build_id: None,
    };
    let mut symbolizer = symbolizer();
    let addresses = [CodeAddress::Return(program.returns_to)];
    let before = symbolizer.symbolize(module, &addresses)?;
    fs::File::options()
        .write(true)
        .open(&program.path)?
        .set_len(0)?;
    assert_eq!(symbolizer.symbolize(module, &addresses)?, before);
    Ok(())
}

/// `../secret/app.debug` beside `/app`, `/app.debug -> /secret/app.debug` in the root: both are outside.
#[test]
fn a_debug_link_does_not_lead_out_of_the_root() -> Outcome<()> {
    let program = Program::compile()?;
    let debug = program.link("--strip-all", "app.debug")?;
    let (secret, root) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let hidden = secret.path().join("app.debug");
    fs::rename(&debug, &hidden)?;
    std::os::unix::fs::symlink(&hidden, root.path().join("app.debug"))?;
    assert_eq!(
        program.functions_of(Path::new("/app"), Some(root.path()))?,
        []
    );
    // A link as objcopy does not write it, of the same length.
    let up = format!(
        "../{}/app.debug",
        secret.path().file_name().ok_or("a name")?.display()
    );
    let mut link = up.into_bytes();
    link.resize(
        link.len()
            .next_multiple_of(4)
            .max(link.len() + 1)
            .next_multiple_of(4),
        0,
    );
    let mut checksum = flate2::Crc::new();
    checksum.update(&fs::read(&hidden)?);
    link.extend_from_slice(&checksum.sum().to_le_bytes());
    let section = program.directory.path().join("link");
    fs::write(&section, link)?;
    run(Command::new("objcopy")
        .arg(format!(
            "--update-section=.gnu_debuglink={}",
            section.display()
        ))
        .arg(&program.path))?;
    assert_eq!(
        program.functions_of(Path::new("/app"), Some(root.path()))?,
        []
    );
    Ok(())
}

/// The copy unpacks compressed debug information, and only if the information is what it claims to be.
#[test]
fn compressed_debug_information_is_read() -> Outcome<()> {
    let program = Program::compile()?;
    run(Command::new("objcopy")
        .arg("--compress-debug-sections=zlib")
        .arg(&program.path))?;
    assert_inner_then_outer(&program.functions(None)?);
    Ok(())
}

/// The search finds what debug files share in the root, and blazesym takes the copy of it.
#[test]
fn a_link_to_a_shared_debug_file_is_followed_in_the_root() -> Outcome<()> {
    let program = Program::compile()?;
    let root = program.directory.path().join("root");
    fs::create_dir(&root)?;
    fs::copy(&program.path, root.join("shared.debug"))?;
    let link = program.directory.path().join("link");
    fs::write(&link, [&b"/shared.debug\0"[..], &BUILD_ID].concat())?;
    run(Command::new("objcopy")
        .arg(format!(
            "--add-section=.gnu_debugaltlink={}",
            link.display()
        ))
        .arg(&program.path))?;
    let module = ModuleFile {
        path: Path::new("/srv/app"),
        file: &TargetFile::behind(&program.path)?,
        root: Some(&Root::at(&root)?),
        build_id: Some(&BUILD_ID),
    };
    assert!(Search::new(module, None).shared(None).is_some());
    assert_inner_then_outer(&program.functions(Some(&root))?);
    Ok(())
}

/// A container may put whatever it likes where its debug files are, even for a file that is everybody's.
#[test]
fn what_one_root_says_of_a_file_is_not_said_in_another() -> Outcome<()> {
    let program = Program::compile()?;
    let [theirs, ours] = ["theirs", "ours"].map(|name| program.directory.path().join(name));
    program.split(&theirs)?;
    fs::create_dir(&ours)?;
    let file = TargetFile::behind(&program.path)?;
    let mut symbolizer = symbolizer();
    let mut names_in = |root: &Path| -> Outcome<usize> {
        let root = Root::at(root)?;
        let module = ModuleFile {
            path: Path::new("/srv/app"),
            file: &file,
            root: Some(&root),
            build_id: Some(&BUILD_ID),
        };
        let addresses = [CodeAddress::Return(program.returns_to)];
        Ok(symbolizer.symbolize(module, &addresses)?.remove(0).len())
    };
    assert_eq!(names_in(&theirs)?, 2);
    assert_eq!(names_in(&ours)?, 0);
    assert_eq!(names_in(&theirs)?, 2);
    Ok(())
}

/// Answers as the worst debug information makes the symbolizer answer.
#[derive(Debug)]
struct Verbose;

impl LookUp for Verbose {
    fn look_up(&mut self, question: &Question) -> Answer {
        let symbol = Symbol {
            name: "n".repeat(4096),
            ..Symbol::default()
        };
        Ok(Found {
            functions: vec![vec![symbol; 8]; question.places.len()],
            shortened: 0,
        })
    }
}

#[test]
fn names_take_no_more_than_there_is_room_for() -> Outcome<()> {
    let program = Program::compile()?;
    let mut symbolizer = Symbolizer::new(Box::new(Verbose));
    let addresses: Vec<_> = (0..20_000).map(CodeAddress::Exact).collect();
    let (mut all, mut shortened) = (0, 0);
    for number in 0..6 {
        let copy = program.directory.path().join(format!("copy-{number}"));
        fs::copy(&program.path, &copy)?;
        let module = ModuleFile {
            path: &copy,
            file: &TargetFile::behind(&copy)?,
            root: None,
            build_id: None,
        };
        let found = symbolizer.symbolize(module, &addresses)?;
        let bytes: usize = found
            .iter()
            .flatten()
            .map(|function| function.name.len())
            .sum();
        assert!(bytes <= 64 << 20, "{bytes} of one module");
        assert!(
            number > 0 || found[0].len() == 8,
            "the first has all of its names"
        );
        all += bytes;
        shortened += found.iter().filter(|functions| functions.len() < 8).count() as u64;
    }
    assert!(all <= 256 << 20, "{all}");
    assert_eq!(symbolizer.shortened(), shortened);
    Ok(())
}
