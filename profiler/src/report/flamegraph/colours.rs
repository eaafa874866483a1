//! Colours that say whose code a frame is.

use std::collections::BTreeSet;

use inferno::flamegraph::color::{Color, PaletteMap};

use crate::profile::{Origin, Profile};
use crate::report::folded;
use crate::report::rows::Row;

/// The colour of the page, and of the lines between frames.
pub(super) const BACKGROUND: Color = colour(0xff, 0xff, 0xff);

/// The colour of what is no code: the root, a process, a route.
const NO_CODE: Color = colour(0xd9, 0xd9, 0xd9);

/// The colours of a picture. They are lighter variants of those of M. Okabe and K. Ito, which
/// people with any kind of colour vision can tell apart. Black letters on each have a contrast of 7
/// to 1 or more.
#[derive(Debug, Default)]
pub(super) struct Colours {
    /// The colour of each name in a folded stack.
    pub by_name: PaletteMap,
    /// The origins that occur in the picture.
    pub origins: BTreeSet<Origin>,
}

impl Colours {
    /// Chooses colours for the frames of rows, and for everything else in their folded `lines`.
    pub fn of(profile: &Profile, rows: &[Row<'_>], lines: &[String]) -> Self {
        let mut colours = Self::default();
        let drawn = rows.iter().filter(|row| row.amount.bytes > 0);
        let frames: BTreeSet<_> = drawn.flat_map(|row| row.frames).collect();
        for id in frames {
            let origin = profile.origin(*id);
            let name = folded::escape(&profile.frame(*id).to_string());
            let shade = shaded(look(origin).1, &name);
            colours.origins.insert(origin);
            colours.by_name.insert(name, shade);
        }
        colours.by_name.insert("", NO_CODE);
        let stacks = lines.iter().filter_map(|line| line.rsplit_once(' '));
        for name in stacks.flat_map(|(stack, _)| stack.split(';')) {
            if colours.by_name.get(name).is_none() {
                colours.by_name.insert(name, NO_CODE);
            }
        }
        colours
    }
}

/// Returns what the legend says, the colour, and a longer explanation.
pub(super) const fn look(origin: Origin) -> (&'static str, Color, &'static str) {
    match origin {
        Origin::Application => (
            "application",
            colour(0xff, 0xb3, 0x47),
            "the program's own code",
        ),
        Origin::Framework => (
            "framework",
            colour(0x8c, 0xcd, 0xf0),
            "packages that were installed for the interpreter",
        ),
        Origin::Interpreter => (
            "interpreter",
            colour(0xd3, 0xc7, 0xea),
            "the interpreter and what comes with it",
        ),
        Origin::Native => (
            "native",
            colour(0x8f, 0xd6, 0xb4),
            "compiled libraries: the C library, the allocator, others",
        ),
        Origin::Kernel => (
            "kernel",
            colour(0xf2, 0xb5, 0xd2),
            "what the kernel maps into every process",
        ),
        Origin::Unknown => (
            "unknown",
            NO_CODE,
            "no code: it stands for what is not known of a stack",
        ),
    }
}

/// Chooses one of three shades by the name, so that a reader can tell neighbours apart.
fn shaded(base: Color, name: &str) -> Color {
    let sum = name.bytes().fold(0_u32, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(u32::from(byte))
    });
    let per_cent = [100, 96, 92][(sum % 3) as usize];
    let shade = |part: u8| (u16::from(part) * per_cent / 100) as u8;
    colour(shade(base.r), shade(base.g), shade(base.b))
}

const fn colour(r: u8, g: u8, b: u8) -> Color {
    Color { r, g, b }
}
