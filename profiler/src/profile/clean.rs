//! Cleans the text of a profile, so that no name can drive a terminal, forge a line or hide.

use super::{CounterValue, Frame, Note, Profile, Target};
use crate::printable::clean_in_place as clean;

/// Cleans everything that a report could print, no matter who chose it. Routes are clean from the
/// moment they are made.
pub(super) fn all_text(mut profile: Profile) -> Profile {
    profile.targets.iter_mut().for_each(target);
    profile.frames.iter_mut().for_each(frame);
    profile.counters.iter_mut().for_each(counter);
    for Note { text, at_ns: _ } in &mut profile.notes {
        clean(text);
    }
    profile
}

fn counter(counter: &mut CounterValue) {
    let CounterValue {
        name,
        meaning,
        kind: _,
        value: _,
    } = counter;
    clean(name);
    clean(meaning);
}

fn target(target: &mut Target) {
    let Target {
        pid: _,
        comm,
        exe,
        cmdline,
        end_reason,
    } = target;
    [comm, exe, cmdline].into_iter().for_each(clean);
    end_reason.iter_mut().for_each(clean);
}

fn frame(frame: &mut Frame) {
    let Frame {
        kind: _,
        name,
        file,
        line: _,
        module,
        inlined: _,
    } = frame;
    clean(name);
    file.iter_mut().chain(module).for_each(clean);
}
