//! Compares whole stacks, from the site that allocated to the outermost frame, with the chains of
//! calls that a target says it was in.
//!
//! An entry of a chain, leaf first, is one of these:
//!
//! | entry | frames that it stands for |
//! |---|---|
//! | `function` | one, of this function |
//! | `module:FILE` | one in this file (or in `FILE.1.2`, to which it may be a link), of any name |
//! | `module:FILE*` | one or more of these |
//! | `cut` | the marker that the stack ends too early, and why |
//! | `cut?` | none, or else the marker |
//!
//! Behind `main` the C library's start-up follows, and then `_start`; behind a thread's first
//! function follow the two frames of the C library that begin a thread. A stack that ends anywhere
//! else, or has one frame more or less, is wrong.
//!
//! This file is the one place that knows how reports mark frames that are missing.

use residue_ebpf::abi::MAX_FRAMES;

use crate::{
    report::{Frame, Report, Stack},
    truth::{Chain, Truth},
};

/// How the marker of a stack begins that ends too early. The reason follows.
const CUT: &str = "[stack cut";
/// Around the number of frames that were left out of a stack that is too deep.
const LEFT_OUT: (&str, &str) = ("[... ", " frames left out ...]");

/// Panics unless every stack with a site is a chain of the target's, with as many bytes and blocks.
/// Only of a chain that is longer than a stack may be can frames have been left out.
///
/// # Panics
///
/// When there is a difference, with all of them.
pub fn assert_whole(truth: &Truth, report: &Report) {
    assert!(!truth.chains.is_empty(), "the target told no chains");
    let differences = differences(&truth.chains, &report.stacks);
    assert!(
        differences.is_empty(),
        "residue's stacks are not the target's\n{differences}notes: {:?}",
        report.notes
    );
}

/// Panics unless every stack with a site, of blocks and of mappings, was called through one of these
/// chains, which begin at the site's caller: for a target that tells only its sites.
///
/// # Panics
///
/// When there is another stack, with its frames.
pub fn assert_callers(callers: &[Vec<&str>], report: &Report) {
    let stacks = report.stacks.iter().chain(&report.mappings);
    let other = stacks.filter(|stack| {
        let outside_site = stack.from_site().get(1..);
        outside_site.is_some_and(|frames| !callers.iter().any(|it| is_called_by(it, frames)))
    });
    let other = first_few(
        "stacks have other callers",
        other.map(unknown_stack).collect(),
    );
    assert!(other.is_empty(), "{other}notes: {:?}", report.notes);
}

fn is_called_by(callers: &[&str], frames: &[Frame]) -> bool {
    let callers: Vec<_> = callers.iter().map(|&it| it.to_owned()).collect();
    fits(
        &callers,
        &frames.iter().map(Seen::Frame).collect::<Vec<_>>(),
    )
}

/// How many frames are said to be left out of the report's stacks, one number a stack.
#[must_use]
pub fn left_out(report: &Report) -> Vec<usize> {
    let frames = report.stacks.iter().flat_map(|stack| &stack.frames);
    frames.filter_map(left_out_at).collect()
}

/// How many of the report's blocks are at stacks that end too early, and say so.
#[must_use]
pub fn blocks_at_cut_stacks(report: &Report) -> u64 {
    let is_cut = |stack: &&Stack| stack.frames.iter().any(is_cut);
    let cut = report.stacks.iter().filter(is_cut);
    cut.map(|stack| stack.inuse_objects).sum()
}

/// What is not as it should be, a few of each kind in full.
fn differences(chains: &[Chain], stacks: &[Stack]) -> String {
    let mut seen = vec![(0, 0); chains.len()];
    let mut unknown = Vec::new();
    for stack in stacks.iter().filter(|stack| stack.site().is_some()) {
        let fits = |chain: &Chain| is_chain(chain, stack.from_site());
        match chains.iter().position(fits) {
            Some(index) => {
                seen[index].0 += stack.inuse_bytes;
                seen[index].1 += stack.inuse_objects;
            }
            None => unknown.push(unknown_stack(stack)),
        }
    }
    let unequal = chains.iter().zip(seen).filter_map(unequal_chain).collect();
    first_few("stacks are no chain of the target's", unknown)
        + &first_few("chains have other figures", unequal)
}

/// How many differences of a kind are shown. One mistake of a walk changes hundreds of stacks.
const SHOWN: usize = 12;

fn first_few(what: &str, mut lines: Vec<String>) -> String {
    if lines.is_empty() {
        return String::new();
    }
    // The shortest show best what is wrong.
    lines.sort_by_key(String::len);
    let count = lines.len();
    lines.truncate(SHOWN);
    format!("{count} {what}:\n{}", lines.concat())
}

fn unknown_stack(stack: &Stack) -> String {
    let names: Vec<_> = stack.frames.iter().map(|it| it.name.as_str()).collect();
    let (objects, bytes) = (stack.inuse_objects, stack.inuse_bytes);
    format!(
        "  {} ({objects} blocks, {bytes} bytes)\n",
        names.join(" < ")
    )
}

fn unequal_chain((chain, (bytes, objects)): (&Chain, (u64, u64))) -> Option<String> {
    let (true_bytes, true_objects) = (chain.bytes, chain.objects);
    ((true_bytes, true_objects) != (bytes, objects)).then(|| {
        format!(
            "  {} ({true_objects} blocks, {true_bytes} bytes; residue says {objects} and {bytes})\n",
            chain.frames.join(" < ")
        )
    })
}

/// Whether these frames, from the site outwards, are this chain, whole.
fn is_chain(chain: &Chain, frames: &[Frame]) -> bool {
    let may_be_left_out = chain.frames.len() + SURROUNDING > MAX_FRAMES;
    let seen: Vec<Seen<'_>> = frames.iter().flat_map(Seen::of).collect();
    let complete = !seen.iter().any(|it| matches!(it, Seen::LeftOut));
    (complete || may_be_left_out) && fits(&chain.frames, &seen)
}

/// Frames at most between a site and the allocator, and outside of `main`.
const SURROUNDING: usize = 16;

/// A place in a stack.
#[derive(Clone, Copy)]
enum Seen<'a> {
    Frame(&'a Frame),
    LeftOut,
}

impl<'a> Seen<'a> {
    /// The places that a frame of a report stands for.
    fn of(frame: &'a Frame) -> Vec<Self> {
        left_out_at(frame).map_or_else(
            || vec![Self::Frame(frame)],
            // A number that makes no sense fits no chain, whether or not all of it is kept.
            |count| vec![Self::LeftOut; count.min(1 << 16)],
        )
    }

    fn is_in(self, module: &str) -> bool {
        match self {
            Self::Frame(frame) => {
                let version = base_name(frame).strip_prefix(module);
                version.is_some_and(|it| it.is_empty() || it.starts_with('.'))
            }
            Self::LeftOut => true,
        }
    }

    fn is_function(self, function: &str) -> bool {
        match self {
            Self::Frame(frame) => frame.function() == function,
            Self::LeftOut => true,
        }
    }

    fn is_cut(self) -> bool {
        matches!(self, Self::Frame(frame) if is_cut(frame))
    }

    fn is_of_the_c_library(self) -> bool {
        matches!(self, Self::Frame(frame) if base_name(frame).starts_with("libc.so"))
    }
}

fn is_cut(frame: &Frame) -> bool {
    frame.name.starts_with(CUT)
}

fn left_out_at(frame: &Frame) -> Option<usize> {
    let count = frame.name.strip_prefix(LEFT_OUT.0)?;
    count.strip_suffix(LEFT_OUT.1)?.parse().ok()
}

fn base_name(frame: &Frame) -> &str {
    let module = frame.module.as_deref().unwrap_or_default();
    module.rsplit('/').next().unwrap_or(module)
}

fn fits(chain: &[String], seen: &[Seen<'_>]) -> bool {
    let (Some((expected, outer)), Some((first, rest))) = (chain.split_first(), seen.split_first())
    else {
        return false;
    };
    let fits_outer = |seen| match outer {
        [] => is_outermost(expected, seen),
        _ => fits(outer, seen),
    };
    let is_cut = rest.is_empty() && first.is_cut();
    match expected.as_str() {
        "cut" => return is_cut,
        "cut?" => return is_cut || fits(outer, seen),
        _ => {}
    }
    let Some(module) = expected.strip_prefix("module:") else {
        return first.is_function(expected) && fits_outer(rest);
    };
    match module.strip_suffix('*') {
        None => first.is_in(module) && fits_outer(rest),
        Some(module) => first.is_in(module) && (fits_outer(rest) || fits(chain, rest)),
    }
}

/// Whether these are the frames outside of a program's or a thread's first function, all of them.
fn is_outermost(first_function: &str, seen: &[Seen<'_>]) -> bool {
    let (outer, last) = match seen {
        [outer @ .., last] if first_function == "main" => (outer, last.is_function("_start")),
        _ => (seen, seen.len() == 2),
    };
    last && !outer.is_empty() && outer.iter().all(|it| it.is_of_the_c_library())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Figures;

    /// `name` in the program, or `name@module`.
    fn frames(names: &[&str]) -> Vec<Frame> {
        let frame = |name: &&str| {
            let (name, module) = name.split_once('@').unwrap_or((*name, "app"));
            Frame {
                name: name.to_owned(),
                module: Some(format!("/lib/{module}")),
                ..Frame::default()
            }
        };
        names.iter().map(frame).collect()
    }

    fn fits_chain(chain: &[&str], names: &[&str]) -> bool {
        let chain = Chain {
            frames: chain.iter().map(|&it| it.to_owned()).collect(),
            bytes: 1,
            objects: 1,
        };
        is_chain(&chain, &frames(names))
    }

    const START: &str = "__libc_start_main@libc.so.6";

    #[test]
    fn a_stack_must_reach_start_and_end_there() {
        let chain = ["site_a", "main"];
        assert!(fits_chain(&chain, &["site_a", "main", START, "_start"]));
        assert!(!fits_chain(&chain, &["site_a", "main", START]));
        assert!(!fits_chain(&chain, &["site_a", "main", "_start"]));
        assert!(!fits_chain(&chain, &["site_a", "main"]));
        let one_more = ["site_a", "main", START, "_start", "[stack cut: no table]"];
        assert!(!fits_chain(&chain, &one_more));
    }

    #[test]
    fn no_frame_may_be_missing_or_added() {
        let chain = ["site_a", "caller", "main"];
        assert!(!fits_chain(&chain, &["site_a", "main", START, "_start"]));
        let twice = ["site_a", "caller", "caller", "main", START, "_start"];
        assert!(!fits_chain(&chain, &twice));
        let cold = ["site_a(long)", "caller.cold", "main", START, "_start"];
        assert!(fits_chain(&chain, &cold));
    }

    #[test]
    fn a_thread_ends_in_two_frames_of_the_c_library() {
        let chain = ["site_a", "first"];
        let (start, clone) = ("start_thread@libc.so.6", "libc.so.6+0x10@libc.so.6");
        assert!(fits_chain(&chain, &["site_a", "first", start, clone]));
        assert!(!fits_chain(&chain, &["site_a", "first", start]));
        assert!(!fits_chain(
            &chain,
            &["site_a", "first", start, clone, clone]
        ));
    }

    #[test]
    fn frames_of_a_file_may_have_any_name() {
        let chain = ["site_a", "module:liba.so*", "module:app", "main"];
        let a = "x@liba.so";
        assert!(fits_chain(
            &chain,
            &["site_a", a, a, "p", "main", START, "_start"]
        ));
        assert!(!fits_chain(
            &chain,
            &["site_a", "p", "main", START, "_start"]
        ));
        assert!(!fits_chain(&chain, &["site_a", a, "main", START, "_start"]));
    }

    #[test]
    fn a_stack_that_is_cut_must_say_so() {
        let chain = ["site_a", "module:liba.so", "cut"];
        assert!(fits_chain(
            &chain,
            &["site_a", "x@liba.so", "[stack cut: no table]"]
        ));
        assert!(!fits_chain(&chain, &["site_a", "x@liba.so"]));
        assert!(!fits_chain(
            &chain,
            &["site_a", "x@liba.so", "main", START, "_start"]
        ));
    }

    #[test]
    fn a_stack_that_may_be_cut_is_whole_or_says_so() {
        let chain = ["site_a", "module:ld.so*", "cut?", "main"];
        let ld = "x@ld.so";
        assert!(fits_chain(&chain, &["site_a", ld, ld, "[stack cut: rbx]"]));
        assert!(fits_chain(&chain, &["site_a", ld, "main", START, "_start"]));
        assert!(!fits_chain(&chain, &["site_a", ld]));
        assert!(!fits_chain(
            &chain,
            &["site_a", ld, "p", "main", START, "_start"]
        ));
    }

    #[test]
    fn frames_that_are_left_out_are_as_many_as_the_marker_says() {
        let mut chain = vec!["site_a"];
        chain.extend(["recurse"; 600]);
        chain.push("main");
        let seen = |marker| {
            let mut names = vec!["site_a", "recurse", marker];
            names.extend(["recurse", "main", START, "_start"]);
            names
        };
        assert!(fits_chain(&chain, &seen("[... 598 frames left out ...]")));
        assert!(!fits_chain(&chain, &seen("[... 597 frames left out ...]")));
        let short = ["site_a", "recurse", "recurse", "main"];
        let one = [
            "site_a",
            "[... 1 frames left out ...]",
            "recurse",
            "main",
            START,
            "_start",
        ];
        assert!(!fits_chain(&short, &one));
    }

    #[test]
    fn callers_are_compared_to_the_outermost() {
        let callers = ["recurse", "recurse", "main"];
        let fits = |names: &[&str]| is_called_by(&callers, &frames(names));
        assert!(fits(&["recurse", "recurse", "main", START, "_start"]));
        assert!(!fits(&["recurse", "main", START, "_start"]));
        assert!(!fits(&["recurse", "recurse", "main"]));
    }

    #[test]
    fn bytes_are_compared_by_chain() {
        let chain = Chain {
            frames: vec!["site_a".to_owned(), "main".to_owned()],
            bytes: 10,
            objects: 1,
        };
        let stack = Stack {
            frames: frames(&["site_a", "main", START, "_start"]),
            inuse_bytes: 9,
            inuse_objects: 1,
            alloc_bytes: 9,
            alloc_objects: 1,
            estimated: Figures::default(),
            shallow: false,
            owner: None,
        };
        let text = differences(&[chain], &[stack]);
        assert!(text.contains("10 bytes; residue says 1 and 9"), "{text}");
    }
}
