//! Interpreters whose own frames nobody walks. Their stacks show the functions of the interpreter.

use crate::capture::Capture;
use crate::profile::frames::base_name;

/// Languages, and the names of their programs and libraries without a version.
const UNSEEN: [(&str, &[&str]); 5] = [
    ("Ruby", &["ruby", "libruby"]),
    ("PHP", &["php", "php-fpm", "php-cgi", "libphp"]),
    ("Node", &["node", "nodejs", "libnode"]),
    ("Perl", &["perl", "libperl"]),
    ("Java", &["java", "libjvm"]),
];

/// Makes a remark about each such language that was recorded.
pub(super) fn unseen(capture: &Capture) -> Vec<String> {
    let processes = capture.processes.iter();
    let exes = processes.map(|(process, _)| process.exe.as_str());
    let modules = capture.modules.iter().map(|module| module.path.as_str());
    let files: Vec<&str> = exes.chain(modules).map(base_name).collect();
    let is_there = |(_, names): &&(_, &[&str])| files.iter().any(|file| is_any(file, names));
    let found = UNSEEN.iter().filter(is_there);
    found.map(|(language, _)| remark(language)).collect()
}

fn remark(language: &str) -> String {
    format!(
        "{language} has no frames of its own here: its stacks show functions of the interpreter and not the lines \
         of the program, and objects in its own heap are mapped memory or parts of blocks"
    )
}

fn is_any(file: &str, names: &[&str]) -> bool {
    let name = file.split(".so").next().unwrap_or(file);
    let is_version = |rest: &str| {
        let mut rest = rest.chars();
        rest.all(|c| c.is_ascii_digit() || matches!(c, '.' | '-'))
    };
    names
        .iter()
        .any(|start| name.strip_prefix(start).is_some_and(is_version))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::{Module, Process};

    fn named(exe: &str, module: &str) -> Vec<String> {
        let process = Process {
            exe: exe.into(),
            ..Process::default()
        };
        unseen(&Capture {
            processes: vec![(process, None)],
            modules: vec![Module {
                path: module.into(),
                ..Module::default()
            }],
            ..Capture::default()
        })
    }

    #[test]
    fn an_interpreter_without_frames_of_its_own_is_named() {
        for (exe, module, language) in [
            ("/usr/bin/ruby3.1", "", "Ruby"),
            ("/opt/app/puma", "/usr/lib/libruby-3.1.so.3.1.2", "Ruby"),
            ("/usr/sbin/php-fpm8.2", "", "PHP"),
            ("/usr/sbin/apache2", "/usr/lib/apache2/libphp8.2.so", "PHP"),
            ("/usr/bin/node", "", "Node"),
            ("/usr/bin/node", "/usr/lib/libnode.so.108", "Node"),
        ] {
            let said = named(exe, module);
            assert_eq!(said.len(), 1, "{exe} {module}: {said:?}");
            assert!(said[0].starts_with(&format!("{language} has no frames")));
        }
    }

    #[test]
    fn what_only_sounds_like_one_is_not() {
        for exe in [
            "/usr/bin/python3.11",
            "/usr/bin/node_exporter",
            "/srv/nodes",
            "/srv/phpize",
            "",
        ] {
            assert_eq!(named(exe, "/lib/libc.so.6"), Vec::<String>::new(), "{exe}");
        }
    }
}
