//! Quotes names in commands that a person may copy into a shell.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt as _,
    path::{Component, Path},
};

use crate::printable::is_printable;

/// The path as one word, which a POSIX shell reads as this path, and no command as an option. For a path with
/// unprintable characters that holds in Bash, Zsh and Busybox.
pub fn quoted(path: &Path) -> String {
    let begins_as_option = path.as_os_str().as_bytes().starts_with(b"-");
    let path = match begins_as_option {
        true => Path::new(Component::CurDir.as_os_str()).join(path),
        false => path.to_owned(),
    };
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./+,:@%".contains(c);
    match path.to_str() {
        Some(text) if !text.is_empty() && text.chars().all(is_plain) => text.to_owned(),
        Some(text) if text.chars().all(is_printable) => {
            format!("'{}'", text.replace('\'', r"'\''"))
        }
        _ => by_number(path.as_os_str()),
    }
}

/// The text with every byte that is not printable ASCII as an octal number, which takes exactly three digits.
fn by_number(text: &OsStr) -> String {
    let mut word = "$'".to_owned();
    for byte in text.as_bytes() {
        match byte {
            b'\'' | b'\\' => word.extend(['\\', char::from(*byte)]),
            b' '..=b'~' => word.push(char::from(*byte)),
            byte => word += &format!("\\{byte:03o}"),
        }
    }
    word + "'"
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_name_that_needs_no_quotes_has_none() {
        assert_eq!(
            quoted(Path::new("out/worker-1.residue")),
            "out/worker-1.residue"
        );
        assert_eq!(quoted(Path::new("-rf-12.residue")), "./-rf-12.residue");
        assert_eq!(quoted(Path::new("a b")), "'a b'");
        assert_eq!(quoted(Path::new("it's")), r"'it'\''s'");
        assert_eq!(quoted(Path::new("a\n\u{1b}")), r"$'a\012\033'");
    }

    /// Each hostile name comes back from a shell as the one word that it was.
    #[test]
    fn a_shell_reads_every_name_as_it_is() {
        let names = crate::printable::hostile::NAMES.iter();
        let names = names.filter(|name| !name.contains('\0') && !name.is_empty());
        for name in names {
            let script = format!("printf %s {}", quoted(Path::new(name)));
            let Ok(output) = Command::new("bash").args(["-c", &script]).output() else {
                return crate::machine::skipped("a_shell_reads_every_name_as_it_is", "bash");
            };
            let read = String::from_utf8_lossy(&output.stdout);
            let read = read
                .strip_prefix("./")
                .filter(|_| name.starts_with('-'))
                .unwrap_or(&read);
            assert_eq!(read, *name, "{script}");
            assert!(!script.contains(crate::printable::hostile::is_unclean));
        }
    }
}
