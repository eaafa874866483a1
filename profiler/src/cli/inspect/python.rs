//! `residue inspect python`: shows the Python in a process, where its structures are, and what each
//! thread runs.

use std::io::{self, Write};

use anyhow::Context as _;

use super::write_table;
use crate::{
    process::{Load, Pid, Process},
    python::{EvalPart, FoundBy, Function, Interpreter, Origin, PythonSymbols, ThreadStack},
    session::python::Python,
};

const EXAMPLES: &str = "\
Examples:
  What does each thread of a worker run at this moment?
    sudo residue inspect python -p 4242
  How are Python frames found in it?
    sudo residue inspect python -p 4242 --offsets
  The same for a process of your own, without root:
    residue inspect python -p $$";

/// How many frames of a thread to show, innermost first.
const MAX_FRAMES: usize = 1000;
/// Fields that `_Py_DebugOffsets` does not have.
const UNTOLD: [&str; 2] = ["autoTSSkey", "PyThreadState.context"];

/// Show the Python in a process: its version, how residue finds its frames, and what each thread
/// runs
///
/// Residue reads from outside, without stopping the process. Needs root only for processes of
/// others.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The process to look into
    #[arg(short, long, value_name = "PID")]
    pid: Pid,
    /// Show where each structure's fields are, and how residue knows that
    #[arg(long)]
    offsets: bool,
}

/// Writes what residue knows of the process's Python, unless it has none whose frames residue can
/// walk.
pub(super) fn run(args: &Args, out: &mut impl Write) -> anyhow::Result<io::Result<()>> {
    let process = Process::open(args.pid)?;
    let objects = process.loaded_objects().objects;
    let python = Python::find(&process, &objects)?;
    let python = python.with_context(|| {
        let pid = args.pid;
        format!("process {pid} runs no Python (neither its program nor a libpython holds one)")
    })?;
    let holder = objects.iter().find(|object| object.file == python.file);
    let is_program = holder.is_some_and(|object| object.load == Load::Executable);
    let stacks = python.stacks(MAX_FRAMES)?;
    let written = write_build(out, &python, is_program)
        .and_then(|()| {
            if args.offsets {
                write_offsets(out, &python.interpreter)
            } else {
                Ok(())
            }
        })
        .and_then(|()| stacks.iter().try_for_each(|stack| write_stack(out, stack)));
    Ok(written)
}

fn write_build(out: &mut impl Write, python: &Python, is_program: bool) -> io::Result<()> {
    let interpreter = &python.interpreter;
    let PythonSymbols { stripped, eval, .. } = &python.symbols;
    let linked = if is_program { "static" } else { "shared" };
    let symbols = if *stripped {
        "stripped"
    } else {
        "with symbols"
    };
    let mut rows = vec![
        ["version".to_owned(), interpreter.version.to_string()],
        ["build".to_owned(), format!("{linked}, {symbols}")],
        ["file".to_owned(), python.path.display().to_string()],
        ["layout".to_owned(), origin(interpreter)],
        ["thread state".to_owned(), key(interpreter)],
    ];
    rows.extend(
        eval.iter()
            .map(|part| ["evaluation".to_owned(), evaluation(python, part)]),
    );
    rows.extend(
        interpreter
            .caveat()
            .map(|caveat| ["caveat".to_owned(), caveat]),
    );
    write_table(out, &rows)
}

fn origin(interpreter: &Interpreter) -> String {
    let (major, minor) = interpreter.version.series();
    match interpreter.origin {
        Origin::Table => format!("residue's table for {major}.{minor}"),
        Origin::DebugOffsets => "the interpreter's _Py_DebugOffsets".to_owned(),
        Origin::DebugOffsetsAndTable => format!(
            "the interpreter's _Py_DebugOffsets, and residue's table for {major}.{minor}, which agrees"
        ),
    }
}

fn key(interpreter: &Interpreter) -> String {
    let found = match interpreter.structures.offsets.tss_key {
        Some(_) => "read from autoTSSkey",
        None => "found in the threads",
    };
    let place = interpreter.key;
    let (key, value) = (place.key, place.value);
    match place.block {
        0 => format!("at fsbase+{value:#x}: key {key}, {found}"),
        block => format!("at [fsbase+{block:#x}]+{value:#x}: key {key}, {found}"),
    }
}

fn evaluation(python: &Python, part: &EvalPart) -> String {
    let start = python.bias.avma(part.start);
    let found_by = match part.found_by {
        FoundBy::Symbol => "by its symbol",
        FoundBy::Jump => "by the jumps to it",
    };
    format!(
        "{start}, {} bytes, {} in the file, found {found_by}",
        part.bytes, part.start
    )
}

fn write_offsets(out: &mut impl Write, interpreter: &Interpreter) -> io::Result<()> {
    let mut rows = vec![["FIELD", "OFFSET", "FROM"].map(str::to_owned)];
    let named = interpreter.structures.offsets.named();
    rows.extend(named.into_iter().map(|(name, offset)| {
        let is_untold = UNTOLD.iter().any(|field| name.contains(field));
        let from = match interpreter.origin {
            Origin::Table => "table",
            // The interpreter's `_Py_DebugOffsets` does not tell these.
            Origin::DebugOffsetsAndTable if is_untold => "table",
            Origin::DebugOffsetsAndTable | Origin::DebugOffsets => "debug offsets",
        };
        [name.to_owned(), offset.to_string(), from.to_owned()]
    }));
    writeln!(out)?;
    write_table(out, &rows)
}

fn write_stack(out: &mut impl Write, stack: &ThreadStack) -> io::Result<()> {
    writeln!(out, "\n{}", title(stack))?;
    for Function { name, file, line } in &stack.functions {
        match line {
            Some(line) => writeln!(out, "    {name} ({file}:{line})")?,
            None => writeln!(out, "    {name} ({file})")?,
        }
    }
    if stack.cut && stack.steady {
        writeln!(out, "    … more, not shown")?;
    }
    Ok(())
}

fn title(stack: &ThreadStack) -> String {
    let thread = &stack.thread;
    let mut title = format!("thread {}", thread.id);
    if let Some(native) = thread.native_id {
        title += &format!(", native id {native}");
    }
    if thread.interpreter != 0 {
        title += &format!(", in interpreter {}", thread.interpreter);
    }
    if let Some(context) = thread.context {
        title += &format!(", in context {context}");
    }
    if thread.holds_gil {
        title += ", holds the GIL";
    }
    if !stack.steady {
        title += ", was changing while it was read: may mix two moments";
    } else if stack.functions.is_empty() {
        title += ", runs no Python now";
    }
    title
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{process::Avma, python::ThreadState};

    fn text(stack: &ThreadStack) -> String {
        let mut out = Vec::new();
        write_stack(&mut out, stack).expect("memory can be written");
        String::from_utf8(out).expect("it is text")
    }

    #[test]
    fn a_stack_is_written_innermost_first_and_says_what_it_is_worth() {
        let mut stack = ThreadStack {
            thread: ThreadState {
                state: Avma(0x1000),
                interpreter: 0,
                id: Avma(0x7f00),
                native_id: Some(42),
                context: Some(Avma(0x5000)),
                holds_gil: true,
            },
            functions: vec![Function {
                name: "handle".to_owned(),
                file: "/srv/app.py".to_owned(),
                line: Some(7),
            }],
            cut: false,
            steady: true,
        };
        let expected = "\nthread 0x7f00, native id 42, in context 0x5000, holds the GIL\n    handle (/srv/app.py:7)\n";
        assert_eq!(text(&stack), expected);
        stack.steady = false;
        assert!(text(&stack).contains("was changing while it was read"));
        (stack.steady, stack.functions, stack.thread.holds_gil) = (true, Vec::new(), false);
        (stack.thread.native_id, stack.thread.interpreter) = (None, 3);
        stack.thread.context = None;
        let expected = "\nthread 0x7f00, in interpreter 3, runs no Python now\n";
        assert_eq!(text(&stack), expected);
    }
}
