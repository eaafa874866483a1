//! Is a process's code what its files say? A probe that was left behind is a byte that differs.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
};

use anyhow::{Context as _, Result, ensure};

/// One executable mapping of a file.
struct CodeMapping {
    /// AVMA.
    start: u64,
    end: u64,
    file_offset: u64,
    path: String,
}

/// Compares every byte of code in process `pid` with its file. Returns what differs, one line a
/// mapping, and nothing when all is clean.
///
/// # Errors
///
/// When the process is gone, or has no code to compare.
pub fn changed_code(pid: u32) -> Result<Vec<String>> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))
        .with_context(|| format!("process {pid} is gone"))?;
    let memory = File::open(format!("/proc/{pid}/mem")).context("failed to open its memory")?;
    let mappings: Vec<CodeMapping> = maps.lines().filter_map(parse_code_mapping).collect();
    ensure!(!mappings.is_empty(), "process {pid} has no code mapped");
    let mut changed = Vec::new();
    for mapping in &mappings {
        changed.extend(compare(pid, &memory, mapping)?);
    }
    Ok(changed)
}

/// Panics unless all code of process `pid` is as in its files.
///
/// # Errors
///
/// As [`changed_code`].
pub fn assert_clean(pid: u32) -> Result<()> {
    let changed = changed_code(pid)?;
    assert!(
        changed.is_empty(),
        "code of process {pid} was left changed: {changed:#?}"
    );
    Ok(())
}

/// `start-end perms offset dev inode path`, see proc_pid_maps(5).
fn parse_code_mapping(line: &str) -> Option<CodeMapping> {
    let mut fields = line.split_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let permissions = fields.next()?;
    let file_offset = fields.next()?;
    let path = fields.nth(2)?;
    (permissions.contains('x') && path.starts_with('/')).then_some(())?;
    let hex = |text| u64::from_str_radix(text, 16).ok();
    Some(CodeMapping {
        start: hex(start)?,
        end: hex(end)?,
        file_offset: hex(file_offset)?,
        path: path.to_owned(),
    })
}

fn compare(pid: u32, memory: &File, mapping: &CodeMapping) -> Result<Option<String>> {
    let CodeMapping {
        start,
        end,
        file_offset,
        path,
    } = mapping;
    let file = File::open(format!("/proc/{pid}/map_files/{start:x}-{end:x}"))
        .with_context(|| format!("failed to open {path}"))?;
    // The last page may reach beyond the file's end; there is no byte to compare it with.
    let file_bytes = file.metadata()?.len().saturating_sub(*file_offset);
    let length = usize::try_from((end - start).min(file_bytes))?;
    let (mut in_memory, mut in_file) = (vec![0; length], vec![0; length]);
    memory
        .read_exact_at(&mut in_memory, *start)
        .with_context(|| format!("failed to read the code of {path} in memory"))?;
    file.read_exact_at(&mut in_file, *file_offset)
        .with_context(|| format!("failed to read the code of {path}"))?;
    let different: Vec<String> = (0..length)
        .filter(|&at| in_memory[at] != in_file[at])
        .map(|at| format!("{:#x}", file_offset + at as u64))
        .collect();
    Ok((!different.is_empty()).then(|| format!("{path} at {}", different.join(", "))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_the_code_of_its_files() -> Result<()> {
        assert_clean(std::process::id())
    }

    #[test]
    fn only_executable_mappings_of_files_are_code() {
        let code = "7f00-7f10 r-xp 00001000 08:01 42                     /lib/libc.so.6";
        assert!(parse_code_mapping(code).is_some_and(|mapping| mapping.file_offset == 0x1000));
        assert!(parse_code_mapping(&code.replace("r-x", "r--")).is_none());
        assert!(parse_code_mapping("7f00-7f10 r-xp 00000000 00:00 0     [vdso]").is_none());
        assert!(parse_code_mapping("7f00-7f10 rwxp 00000000 00:00 0").is_none());
    }
}
