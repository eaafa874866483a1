//! No text of a profile can drive a terminal, forge a line or hide in a name.

use super::{CounterValue, Frame, Note, Profile, Target};
use crate::printable::clean_in_place as clean;

/// Everything that a report could print, whoever chose it. Routes are clean as they are made.
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
        slot: _,
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
