//! What the comparison of a target's stacks came to.

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use super::{
    classes::{class_of, example},
    code::Code,
    compare::{Difference, Verdict},
    sample::Sample,
    walk::Hidden,
};

const EXAMPLES: usize = 3;
/// How many classes are shown, those with the most stacks.
const CLASSES_SHOWN: usize = 20;
/// Of the compared stacks, in thousandths.
const IDENTICAL_AT_LEAST: u64 = 999;
/// Of all stacks: one tenth. A target whose stacks can hardly be seen to their ends says nothing.
const HIDDEN_AT_MOST: u64 = 10;

/// Counts, and examples of what differs.
#[derive(Debug)]
pub struct Summary {
    target: String,
    identical: u64,
    different: u64,
    copy_too_short: u64,
    behind_return_probes: u64,
    left_out: u64,
    distinct: HashSet<u64>,
    classes: BTreeMap<String, Class>,
}

#[derive(Debug, Default)]
struct Class {
    stacks: u64,
    examples: Vec<String>,
}

impl Summary {
    /// Of no stacks yet.
    #[must_use]
    pub fn new(target: &str) -> Self {
        Self {
            target: target.to_owned(),
            identical: 0,
            different: 0,
            copy_too_short: 0,
            behind_return_probes: 0,
            left_out: 0,
            distinct: HashSet::new(),
            classes: BTreeMap::new(),
        }
    }

    /// Counts a sample that lacks frames in the middle, and cannot be compared.
    pub const fn leave_out(&mut self) {
        self.left_out += 1;
    }

    /// Counts a sample that was compared.
    pub fn add(&mut self, sample: &Sample, verdict: &Verdict, code: &Code) {
        match verdict {
            Verdict::Hidden(Hidden::CopyTooShort) => return self.copy_too_short += 1,
            Verdict::Hidden(Hidden::ReturnProbe) => return self.behind_return_probes += 1,
            Verdict::Identical => self.identical += 1,
            Verdict::Different(difference) => {
                self.different += 1;
                self.classify(sample, difference, code);
            }
        }
        let mut hasher = DefaultHasher::new();
        sample.frames.hash(&mut hasher);
        self.distinct.insert(hasher.finish());
    }

    fn classify(&mut self, sample: &Sample, difference: &Difference, code: &Code) {
        let class = self.classes.entry(class_of(sample, difference, code));
        let class = class.or_default();
        class.stacks += 1;
        if class.examples.len() < EXAMPLES {
            class.examples.push(example(sample, difference, code));
        }
    }

    /// Stacks that either agree or differ.
    #[must_use]
    pub const fn compared(&self) -> u64 {
        self.identical + self.different
    }

    /// Panics with the table unless at least `wanted` stacks were compared, nearly all are
    /// identical, and most stacks can be seen to their ends.
    pub fn assert_agrees(&self, wanted: u32) {
        let compared = self.compared();
        assert!(
            compared >= u64::from(wanted),
            "only {compared} of {wanted} stacks were compared\n{self}"
        );
        assert!(
            self.identical * 1000 >= compared * IDENTICAL_AT_LEAST,
            "residue and framehop differ\n{self}"
        );
        let hidden = self.copy_too_short + self.behind_return_probes;
        assert!(
            hidden * HIDDEN_AT_MOST <= compared + hidden,
            "too many stacks cannot be seen to their ends\n{self}"
        );
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            target,
            identical,
            different,
            copy_too_short,
            behind_return_probes,
            left_out,
            distinct,
            classes,
        } = self;
        let compared = self.compared();
        let share = 100.0 * *identical as f64 / compared.max(1) as f64;
        writeln!(
            f,
            "{target}: {compared} stacks compared ({} distinct), {identical} identical \
             ({share:.3} %), {different} different; copy too short {copy_too_short}, \
             behind a return probe {behind_return_probes}, frames left out {left_out}",
            distinct.len()
        )?;
        let mut by_stacks: Vec<_> = classes.iter().collect();
        by_stacks.sort_by_key(|(_, class)| std::cmp::Reverse(class.stacks));
        for (name, Class { stacks, examples }) in by_stacks.iter().take(CLASSES_SHOWN) {
            writeln!(f, "{stacks:>8}  {name}")?;
            for example in examples {
                writeln!(f, "{:>12}{example}", "")?;
            }
        }
        let hidden = by_stacks.len().saturating_sub(CLASSES_SHOWN);
        if hidden > 0 {
            writeln!(f, "{:>8}  and {hidden} classes more", "")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::sample::Registers;

    fn sample(leaf: u64) -> Sample {
        Sample {
            pid: 1,
            tid: 7,
            start: Registers {
                ip: leaf,
                sp: 0x8000,
                bp: 0,
            },
            end: 0,
            left_out: 0,
            frames: vec![leaf, 0x20],
            stack: Vec::new(),
        }
    }

    fn summary(identical: u64, different: u64, copy_too_short: u64) -> Summary {
        let mut summary = Summary::new("target");
        let code = Code::default();
        let caller = Verdict::Different(Difference::Frame {
            index: 1,
            residue: 0x20,
            framehop: 0x21,
        });
        for leaf in 0..identical {
            summary.add(&sample(leaf), &Verdict::Identical, &code);
        }
        for _ in 0..different {
            summary.add(&sample(0), &caller, &code);
        }
        for _ in 0..copy_too_short {
            summary.add(&sample(0), &Verdict::Hidden(Hidden::CopyTooShort), &code);
        }
        summary
    }

    #[test]
    fn one_difference_in_a_thousand_is_allowed() {
        let summary = summary(999, 1, 0);
        summary.assert_agrees(1000);
        assert_eq!(summary.distinct.len(), 999);
    }

    #[test]
    #[should_panic(expected = "the caller differs at code in no file")]
    fn two_differences_in_a_thousand_fail_and_are_named() {
        summary(998, 2, 0).assert_agrees(1000);
    }

    #[test]
    #[should_panic(expected = "only 1000 of 1001")]
    fn too_few_stacks_fail_even_if_all_agree() {
        summary(1000, 0, 50).assert_agrees(1001);
    }

    #[test]
    #[should_panic(expected = "cannot be seen to their ends")]
    fn stacks_that_do_not_fit_are_no_agreement() {
        summary(1000, 0, 200).assert_agrees(1000);
    }

    #[test]
    fn a_class_counts_all_its_stacks_and_shows_three() {
        let text = summary(1, 9, 0).to_string();
        assert!(text.contains("       9  the caller differs"), "{text}");
        assert_eq!(text.matches("frame 1 of 2").count(), EXAMPLES, "{text}");
    }
}
