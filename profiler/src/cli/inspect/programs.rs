//! `residue inspect programs`: shows what this kernel's verifier says to the eBPF programs.

use std::io::{self, Write};

use anyhow::ensure;

use super::{write_table, written};
use crate::attach::{
    Accepted, Kernel, Limits, ProgramSet, StackConfig, VERIFIER_LIMIT, Verification,
};
use crate::messages;

/// How many lines of the verifier's log to show. The end of the log says what the verifier refused.
const LOG_LINES: usize = 30;

const HEADER: [&str; 4] = ["PROGRAM", "INSTRUCTIONS", "WALKED", "TIME"];

/// Loads every program into this kernel without attaching any, and shows what the verifier says.
///
/// # Errors
///
/// Fails when the kernel refuses a program. The end of the verifier's log is then on standard
/// error.
pub fn run(out: &mut impl Write) -> anyhow::Result<()> {
    let (mut kernel, _channels) = Kernel::load(
        Limits::DEFAULT,
        ProgramSet::Counting,
        StackConfig::default(),
    )?;
    let verified = kernel.verify_programs();
    written(write(out, &verified))?;
    let refused = verified
        .iter()
        .filter_map(|one| Some((&one.program, one.outcome.as_ref().err()?)));
    let mut count = 0;
    for (program, error) in refused {
        messages::say(format!(
            "residue: refused: {program}: {}",
            end_of(&error.to_string())
        ));
        count += 1;
    }
    ensure!(
        count == 0,
        "this kernel refuses {count} of {} programs: residue needs Linux 6.1 or later",
        verified.len()
    );
    Ok(())
}

fn write(out: &mut impl Write, verified: &[Verification]) -> io::Result<()> {
    let mut rows = vec![HEADER.map(str::to_owned)];
    rows.extend(verified.iter().map(row));
    write_table(out, &rows)?;
    let walked = verified
        .iter()
        .filter_map(|one| one.outcome.as_ref().ok()?.walked);
    let most = walked.max().unwrap_or(0);
    let kernel = rustix::system::uname();
    writeln!(
        out,
        "\n{} programs on Linux {}; the verifier walked at most {most} of {VERIFIER_LIMIT} \
         instructions",
        verified.len(),
        kernel.release().to_string_lossy(),
    )
}

fn row(verified: &Verification) -> [String; 4] {
    let number = |known: Option<u32>| known.map_or_else(|| "?".to_owned(), |n| n.to_string());
    let (instructions, walked) = match verified.outcome {
        Ok(Accepted {
            instructions,
            walked,
        }) => (number(instructions), number(walked)),
        Err(_) => ("refused".to_owned(), "-".to_owned()),
    };
    let took = format!("{} ms", verified.took.as_millis());
    [verified.program.clone(), instructions, walked, took]
}

/// Returns the last lines of a log that may be megabytes long, and the line before them all.
fn end_of(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    match lines.len().checked_sub(LOG_LINES) {
        Some(left_out) if left_out > 0 => format!(
            "{}\n[{left_out} lines left out]\n{}",
            lines[0],
            lines[left_out..].join("\n")
        ),
        _ => log.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_long_log_is_shown_and_the_message_before_it() {
        let log: Vec<String> = (0..100).map(|line| format!("line {line}")).collect();
        let shown = end_of(&log.join("\n"));
        assert!(shown.starts_with("line 0\n[70 lines left out]\nline 70\n"));
        assert!(shown.ends_with("line 99"));
    }

    #[test]
    fn a_short_log_is_shown_whole() {
        assert_eq!(end_of("refused\nwhy"), "refused\nwhy");
    }
}
