//! Which room may look into which: the table of allowed edges, and the check that the imports keep
//! to the table.
//!
//! A room is a module at the top of a crate, with everything below it. The rooms of a table stand
//! from top to bottom. A room looks only into rooms that stand below it, so no table holds a
//! circle.

mod houses;

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Finding,
    imports::{self, Imports},
    source::Source,
};
use houses::{HOUSES, House};

/// A finding, and the path of the file that has it.
pub type Located<'a> = (&'a str, Finding);

/// Edges that files need, each from a room to the room that it looks into. An edge from a room to
/// itself shows that the room exists.
type Edges = BTreeSet<(String, String)>;

/// Checks the invariant "imports run one way".
pub fn imports_keep_to_the_table(sources: &[Source]) -> Vec<Located<'_>> {
    HOUSES
        .iter()
        .flat_map(|house| house.check(sources))
        .collect()
}

/// Checks that ARCHITECTURE.md names every room, and no file or directory of the sources that is not there.
pub fn architecture_names_what_is_there(sources: &[Source]) -> Vec<Finding> {
    let Some(page) = sources
        .iter()
        .find(|source| source.path == "ARCHITECTURE.md")
    else {
        return vec![Finding::new(1, "there is no ARCHITECTURE.md")];
    };
    let mut findings = Vec::new();
    for package in page.text().split("\n### `").skip(1) {
        let package = package.split("\n#").next().unwrap_or_default();
        let (root, section) = package.split_once('`').unwrap_or_default();
        let named: Vec<&str> = section
            .split('`')
            .filter(|name| name.starts_with("src/"))
            .collect();
        findings.extend(rooms_not_named(root, &named, sources));
        findings.extend(named_but_not_there(root, &named, sources));
    }
    findings
}

fn rooms_not_named(root: &str, named: &[&str], sources: &[Source]) -> Vec<Finding> {
    let rooms = sources
        .iter()
        .filter_map(|source| room_of(&source.path, root));
    let is_missing = |room: &&str| {
        let names = [format!("src/{room}.rs"), format!("src/{room}/")];
        !named.iter().any(|name| names.iter().any(|of| of == name))
    };
    let missing: BTreeSet<&str> = rooms.filter(is_missing).collect();
    let text = |room| format!("`{root}` has a room `{room}` that is not on this page");
    missing
        .into_iter()
        .map(|room| Finding::new(1, text(room)))
        .collect()
}

fn named_but_not_there(root: &str, named: &[&str], sources: &[Source]) -> Vec<Finding> {
    let paths = named.iter().map(|name| format!("{root}{name}"));
    let is_missing = |path: &String| {
        let is_there = |source: &Source| {
            source.path == *path || path.ends_with('/') && source.path.starts_with(path)
        };
        !sources.iter().any(is_there)
    };
    let missing = paths.filter(is_missing);
    missing
        .map(|path| Finding::new(1, format!("there is no `{path}`")))
        .collect()
}

/// Returns the room of a file of Rust, if the file is of the package at `root`.
fn room_of<'a>(path: &'a str, root: &str) -> Option<&'a str> {
    let file = path
        .strip_prefix(root)?
        .strip_prefix("src/")?
        .strip_suffix(".rs")?;
    let room = file.split('/').next()?;
    (!["main", "lib", "machine"].contains(&room)).then_some(room)
}

impl House {
    fn check<'a>(&self, sources: &'a [Source]) -> Vec<Located<'a>> {
        let (files, mut findings) = self.read(sources);
        let tests: Vec<_> = files.iter().flat_map(|file| &file.imports.tests).collect();
        let is_test = |file: &&File<'_>| tests.iter().any(|test| file.module.starts_with(test));
        let mut seen = Edges::new();
        for file in files.iter().filter(|file| !is_test(file)) {
            let of_file = self.check_file(file, &mut seen).into_iter();
            findings.extend(of_file.map(|finding| (file.path, finding)));
        }
        let of_table = self.check_table(&seen).into_iter();
        findings.extend(of_table.map(|finding| (TABLE, finding)));
        findings
    }

    /// Checks one file, and adds the edges that the file needs to `seen`.
    fn check_file(&self, file: &File<'_>, seen: &mut Edges) -> Vec<Finding> {
        // The files at the root put the rooms together.
        let Some(room) = file.module.first() else {
            return Vec::new();
        };
        let Some((_, allowed)) = self.rooms.iter().find(|(name, _)| name == room) else {
            return vec![self.unnamed(room)];
        };
        seen.insert((room.clone(), room.clone()));
        let mut findings = Vec::new();
        for named in &file.imports.named {
            let Some(other) = named.path.first().filter(|other| *other != room) else {
                continue;
            };
            seen.insert((room.clone(), other.clone()));
            if !allowed.contains(&other.as_str()) {
                let message = format!(
                    "`{room}` may not look into `{other}`: hand in what it needs, or put it into a room below both \
                     (xtask/src/tidy/rooms.rs has the table)"
                );
                findings.push(Finding::new(named.line, message));
            }
        }
        findings.extend(methods_for_all(room, &file.imports));
        findings
    }

    fn read<'a>(&self, sources: &'a [Source]) -> (Vec<File<'a>>, Vec<Located<'a>>) {
        let (mut files, mut findings) = (Vec::new(), Vec::new());
        for source in sources.iter().filter(|source| source.is_rust()) {
            let Some(file) = source.path.strip_prefix(self.sources) else {
                continue;
            };
            let module = imports::module_of(file);
            match imports::read(source, &module, self.library) {
                Ok(imports) => files.push(File {
                    path: &source.path,
                    module,
                    imports,
                }),
                Err(error) => findings.push((&*source.path, Finding::new(1, error.to_string()))),
            }
        }
        (files, findings)
    }

    fn unnamed(&self, room: &str) -> Finding {
        let message = format!(
            "the table of rooms does not name `{room}`: add the room to the table of {} in \
             xtask/src/tidy/rooms.rs, or move the file into a room that is there",
            self.sources
        );
        Finding::new(1, message)
    }

    /// Checks that every edge of the table leads down to another room, and that some file needs the
    /// edge.
    fn check_table(&self, seen: &Edges) -> Vec<Finding> {
        let places: BTreeMap<&str, usize> =
            self.rooms.iter().map(|(name, _)| *name).zip(0..).collect();
        let is_used = |from: &str, to: &str| seen.contains(&(from.to_owned(), to.to_owned()));
        let mut findings = Vec::new();
        for (at, (room, allowed)) in self.rooms.iter().enumerate() {
            let mut find = |message| findings.push(Finding::new(1, message));
            if !is_used(room, room) {
                find(format!(
                    "{}{room} is in the table of rooms and not in the tree",
                    self.sources
                ));
            }
            for other in *allowed {
                match places.get(other) {
                    Some(place) if *place > at => {}
                    _ => find(format!(
                        "the table lets `{room}` look up into `{other}`: that makes a circle"
                    )),
                }
                if !is_used(room, other) {
                    find(format!(
                        "nothing in `{room}` looks into `{other}`: take the edge out of the table"
                    ));
                }
            }
        }
        findings
    }
}

/// Finds methods that a room gives to a type of a lower room and that every room sees: whoever calls
/// such a method looks into the upper room without a path that would show so.
fn methods_for_all<'a>(room: &'a str, imports: &'a Imports) -> impl Iterator<Item = Finding> + 'a {
    imports.methods.iter().filter_map(move |methods| {
        let is_type = |path: &&Vec<String>| path.last() == Some(&methods.of) && path[0] != *room;
        let path = imports.named.iter().map(|named| &named.path).find(is_type)?;
        let message = format!(
            "`{room}` gives `{}` of `{}` a method that every room sees: restrict the method to this room by \
             `pub(super)`, or make a function of it, which callers have to name",
            methods.of, path[0]
        );
        Some(Finding::new(methods.line, message))
    })
}

const TABLE: &str = "xtask/src/tidy/rooms.rs";

struct File<'a> {
    path: &'a str,
    module: Vec<String>,
    imports: Imports,
}

#[cfg(test)]
mod tests {
    use super::houses::{PROFILER, PROGRAMS};
    use super::*;

    /// Finds what the table of a house says of one file.
    fn found(house: &House, path: &str, text: &str) -> Vec<String> {
        let sources = [Source::new(path, text)];
        let findings = house.check(&sources).into_iter();
        let of_file = findings.filter(|(file, _)| *file != TABLE);
        of_file.map(|(_, finding)| finding.message).collect()
    }

    #[test]
    fn each_import_that_made_a_circle_is_found_when_it_is_put_back() {
        let old = [
            ("process/objects.rs", "use crate::probes::ScopeObject;"),
            ("process/objects.rs", "use crate::requests::record::Amount;"),
            ("requests/table.rs", "use crate::report::routes_table;"),
            ("session/cost.rs", "use crate::{capture, report::heading};"),
        ];
        for (file, import) in old {
            let found = found(&PROFILER, &format!("profiler/src/{file}"), import);
            assert_eq!(found.len(), 1, "{file}: {import}");
        }
    }

    #[test]
    fn each_import_that_made_the_circle_of_the_programs_is_found_when_it_is_put_back() {
        let old = [
            ("state/thread.rs", "use crate::heap::restore;"),
            ("state/thread.rs", "use crate::stack::native::Walk;"),
            ("maps.rs", "use crate::{requests::Owner, state};"),
            ("cost.rs", "use crate::{atomic, heap::cookie};"),
            ("stack/sample.rs", "use crate::requests::Entry;"),
            ("python/frames.rs", "use crate::stack::read_kernel;"),
            (
                "requests/call.rs",
                "fn a() { crate::heap::open_process(b) }",
            ),
            ("kernel/task.rs", "use super::super::threads::current;"),
            ("abi/heap.rs", "use crate::maps::LIVE;"),
            ("atomic.rs", "use residue_ebpf::abi::heap::LiveBucket;"),
            ("live.rs", "use crate::count;"),
        ];
        for (file, import) in old {
            let found = found(&PROGRAMS, &format!("profiler-ebpf/src/{file}"), import);
            assert_eq!(found.len(), 1, "{file}: {import}");
        }
        let allowed =
            "use residue_ebpf::abi::heap::A;\nuse crate::{maps::B, python, state::walk::C};";
        let stack = "profiler-ebpf/src/stack/native.rs";
        assert_eq!(found(&PROGRAMS, stack, allowed), [""; 0]);
    }

    #[test]
    fn a_method_for_every_room_on_a_type_of_a_lower_room_is_found() {
        let text = "use crate::state::walk::Walk;\nimpl Walk { pub fn step(&mut self) {} }";
        let open = found(&PROGRAMS, "profiler-ebpf/src/stack/native.rs", text);
        assert!(open[0].contains("`Walk` of `state`"));
        let text = text.replace("pub fn", "pub(super) fn");
        let closed = found(&PROGRAMS, "profiler-ebpf/src/stack/native.rs", &text);
        assert_eq!(closed, [""; 0]);
    }

    #[test]
    fn recording_and_reporting_do_not_know_each_other() {
        for (file, path) in [
            ("report/text.rs", "crate::symbolize::Symbolizer"),
            ("report/text.rs", "crate::capture::Capture"),
            ("report/json.rs", "super::super::drain::Drain"),
            ("profile/mod.rs", "crate::session::Session"),
            ("session.rs", "crate::profile::Profile"),
        ] {
            let file = format!("profiler/src/{file}");
            let call = format!("fn a() {{ b!(x, {path}::new()) }}");
            assert_eq!(found(&PROFILER, &file, &call).len(), 1, "{file}: {path}");
        }
        let allowed = "use crate::{profile::Profile, wording};";
        assert_eq!(
            found(&PROFILER, "profiler/src/report/text.rs", allowed),
            [""; 0]
        );
    }

    #[test]
    fn tests_may_look_anywhere() {
        let text = "#[cfg(test)]\nmod tests { use crate::report::Format; }";
        assert_eq!(found(&PROFILER, "profiler/src/heap/mod.rs", text), [""; 0]);
    }

    #[test]
    fn a_room_that_the_table_does_not_name_is_found() {
        for (house, file) in [
            (&PROFILER, "profiler/src/attic.rs"),
            (&PROFILER, "profiler/src/attic/mod.rs"),
            (&PROGRAMS, "profiler-ebpf/src/attic.rs"),
        ] {
            assert!(found(house, file, "")[0].contains("does not name `attic`"));
        }
    }

    #[test]
    fn a_room_that_the_page_leaves_out_is_found_and_a_file_that_is_not_there() {
        let page = "# A\n### `a/`: one\n- `src/top/`: it. `src/gone.rs`: not there.\n### Around\n`src/b.rs`\n";
        let sources = [
            Source::new("ARCHITECTURE.md", page),
            Source::new("a/src/top/mod.rs", ""),
            Source::new("a/src/attic.rs", ""),
        ];
        let findings = architecture_names_what_is_there(&sources).into_iter();
        let messages: Vec<_> = findings.map(|finding| finding.message).collect();
        assert_eq!(
            messages,
            [
                "`a/` has a room `attic` that is not on this page",
                "there is no `a/src/gone.rs`"
            ]
        );
    }

    #[test]
    fn a_table_with_a_circle_or_an_edge_that_nothing_needs_is_found() {
        let house = House {
            sources: "a/src/",
            library: "",
            rooms: &[("top", &["down"]), ("down", &["top"]), ("gone", &[])],
        };
        let sources = [
            Source::new("a/src/top.rs", "use crate::down::A;"),
            Source::new("a/src/down.rs", ""),
        ];
        let findings = house.check(&sources).into_iter();
        let messages: Vec<_> = findings.map(|(_, finding)| finding.message).collect();
        assert_eq!(
            messages,
            [
                "the table lets `down` look up into `top`: that makes a circle",
                "nothing in `down` looks into `top`: take the edge out of the table",
                "a/src/gone is in the table of rooms and not in the tree",
            ]
        );
    }
}
