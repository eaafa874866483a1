//! Compares every instruction of varied code, in each Python that is installed, with Python's own
//! account.

use std::{
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use proptest::prelude::{Just, Strategy, any, prop_oneof};
use residue_ebpf::abi::{
    frame::NOT_STARTED,
    python::{CODE_POINTERS, CodePart, FreedCode, PART_BYTES},
};

use super::{CodeObject, CodeOffsets, MAX_LINE_TABLE, MAX_NAME, MAX_PATH, lines};
use crate::{
    machine::skipped,
    process::{Avma, Memory, Process, ProcessMemory},
};

/// A script that prints for each code object its version, address, name, first line and the line of
/// each instruction, and then waits to be killed.
const SCRIPT: &str = r#"
import dis, sys, types
SOURCE = '''
class Outer:
    def method(self, a,
               b=1):
        for i in range(a):
            try:
                yield [x
                       for x in range(i)
                       if x]
            except (ValueError,
                    TypeError) as e:
                raise e
            finally:
                b += i
        return (
            a +
            b
        )

    async def task(self):
        async with self as x:
            await x
        return lambda: (
            self)
''' + 'def long(a):\n' + '    a = a + 1; b = (a,\n  2)\n' * 300 + '\n' * 400 + '    return a\n'
def walk(code):
    yield code
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            yield from walk(const)
keep = compile(SOURCE, '/srv/app/views.py', 'exec')
for code in walk(keep):
    count = len(code.co_code) // 2
    if hasattr(code, 'co_lines'):
        lines = [None] * count
        for start, end, line in code.co_lines():
            for index in range(start // 2, end // 2):
                lines[index] = line
    else:
        starts, line, lines = dict(dis.findlinestarts(code)), code.co_firstlineno, []
        for index in range(count):
            line = starts.get(2 * index, line)
            lines.append(line)
    name = getattr(code, 'co_qualname', code.co_name)
    print(sys.version_info[1], id(code), name, code.co_filename, *[line or 0 for line in lines])
print('end', flush=True)
sys.stdin.read()
"#;

/// A process that is killed when this value is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The Pythons on this machine.
fn pythons() -> Vec<PathBuf> {
    let home = std::env::var_os("HOME")
        .map(PathBuf::from)
        .unwrap_or_default();
    let versions = std::fs::read_dir(home.join(".pyenv/versions"));
    let installed = versions.into_iter().flatten().flatten();
    let mut found: Vec<_> = installed
        .map(|entry| entry.path().join("bin/python3"))
        .collect();
    found.push("/usr/bin/python3".into());
    found.retain(|path| path.exists());
    found
}

fn compare(line: &str, memory: &ProcessMemory) -> Option<usize> {
    let mut words = line.split(' ');
    let minor = words.next()?.parse().ok()?;
    let offsets = CodeOffsets::of((3, minor))?;
    let address = Avma(words.next()?.parse().ok()?);
    let code = CodeObject::read(memory, &offsets, address).expect("a code object is there");
    assert_eq!(Some(code.name()), words.next(), "3.{minor}");
    assert_eq!(Some(code.filename()), words.next(), "3.{minor}");
    let mut compared = 0;
    for (instruction, line) in (0..).zip(words) {
        let found = code.line(instruction).unwrap_or(0);
        let name = code.name();
        assert_eq!(found.to_string(), line, "3.{minor} {name} at {instruction}");
        compared += 1;
    }
    Some(compared)
}

#[test]
fn every_instruction_has_the_line_that_python_says() {
    let mut compared = Vec::new();
    for python in pythons() {
        let child = Command::new(&python)
            .args(["-c", SCRIPT])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut child = Running(child.expect("Python can be run"));
        let output = BufReader::new(child.0.stdout.take().expect("it is piped"));
        let pid = i32::try_from(child.0.id()).expect("pids are small");
        let lines: Vec<String> = output
            .lines()
            .map_while(Result::ok)
            .take_while(|line| line != "end")
            .collect();
        let process = Process::open(pid).expect("the child waits");
        let memory = ProcessMemory::of(&process).expect("it is our own child");
        let instructions: usize = lines.iter().filter_map(|line| compare(line, &memory)).sum();
        if instructions > 0 {
            assert!(instructions > 2000, "{}: {instructions}", python.display());
            compared.push(python);
        }
    }
    if compared.is_empty() {
        skipped(
            "every_instruction_has_the_line_that_python_says",
            "Python 3.8 to 3.13",
        );
    }
}

/// Memory that is all garbage except for some holes. Words look like lengths, string states and
/// pointers into the memory itself.
#[derive(Clone, Debug)]
struct Garbage(Vec<u64>);

impl Garbage {
    fn byte(&self, address: u64) -> Option<u8> {
        let index = address / 8 % self.0.len() as u64;
        let word = self.0[index as usize];
        // One word in eight is unreadable.
        (word % 8 != 7).then(|| word.to_le_bytes()[address as usize % 8])
    }
}

impl Memory for Garbage {
    fn read(&self, address: Avma, into: &mut [u8]) -> Option<()> {
        for (offset, byte) in (0..).zip(into) {
            *byte = self.byte(address.0.checked_add(offset)?)?;
        }
        Some(())
    }
}

fn garbage() -> impl Strategy<Value = Garbage> {
    let states = prop_oneof![Just(0x30_u64), Just(0x64), Just(0x70)];
    let word = prop_oneof![any::<u64>(), 0..4096_u64, states, Just(1 << 60)];
    proptest::collection::vec(word, 1..64).prop_map(Garbage)
}

proptest::proptest! {
    #[test]
    fn code_read_from_garbage_is_bounded(memory in garbage(), address: u64, instruction: u32) {
        for minor in 8..=13 {
            let offsets = CodeOffsets::of((3, minor)).expect("it is known");
            if let Some(code) = CodeObject::read(&memory, &offsets, Avma(address)) {
                let text = 4 * (MAX_NAME + MAX_PATH) + 64;
                assert!(code.name().len() + code.filename().len() <= text);
                assert!(code.bytes() as u64 <= 32 * MAX_LINE_TABLE);
                let line = code.line(instruction);
                assert!(line != Some(0) || instruction == NOT_STARTED);
            }
        }
    }

    #[test]
    fn freed_code_that_claims_too_much_is_not_read(address: u64, len: u64, at: u64, wanted in 0..600_usize) {
        let part = CodePart { address, len, bytes: [1; PART_BYTES] };
        let freed = FreedCode { id: 1, process: 0, parts: [part; 1 + CODE_POINTERS] };
        let mut into = vec![0; wanted];
        let read = freed.read(Avma(at), &mut into).is_some();
        let end = at.checked_sub(address).and_then(|start| start.checked_add(wanted as u64));
        assert_eq!(read, len <= PART_BYTES as u64 && end.is_some_and(|end| end <= len));
    }

    #[test]
    fn a_damaged_table_ends(table: Vec<u8>, first: i32, instruction: u32) {
        let first = i64::from(first);
        for decode in [lines::of_lnotab, lines::of_ranges, lines::of_locations] {
            let lines = decode(&table, first);
            lines.of(instruction);
            assert!(lines.bytes() <= 64 + 16 * table.len());
        }
    }
}
