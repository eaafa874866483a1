//! Knows how the kernel executes an instruction that has a probe (arch/x86/kernel/uprobes.c).

/// How the kernel executes an instruction that has a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SiteCost {
    /// The kernel emulates the instruction within the same trap: about half a microsecond a hit.
    Emulated,
    /// A nop of four or five bytes. From Linux 6.18 on such a nop costs less than an emulated instruction;
    /// before that, as much as any single-stepped one.
    OptimizedNop,
    /// The program executes a copy elsewhere, and a debug exception follows: several microseconds a hit,
    /// more than ten in some virtual machines.
    SingleStepped,
}

impl SiteCost {
    /// The cost of the instruction with exactly these bytes.
    pub(super) fn of(instruction: &[u8]) -> Self {
        match instruction {
            // push_setup_xol_ops emulates a push of a 64-bit register, with no prefix but REX.B.
            [0x50..=0x57] | [0x41, 0x50..=0x57] => Self::Emulated,
            // branch_setup_xol_ops emulates nop, jmp, call and jcc, and refuses 16-bit forms (prefix 66)
            // of all but the nop.
            [0x90] | [0x66, 0x90] => Self::Emulated,
            [0xeb, _] | [0xe9 | 0xe8, _, _, _, _] => Self::Emulated,
            [0x70..=0x7f, _] | [0x0f, 0x80..=0x8f, _, _, _, _] => Self::Emulated,
            [0x0f, 0x1f, 0x40, 0] | [0x0f, 0x1f, 0x44, 0, 0] => Self::OptimizedNop,
            _ => Self::SingleStepped,
        }
    }

    /// The name of the cost in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Emulated => "emulated",
            Self::OptimizedNop => "optimized nop",
            Self::SingleStepped => "single-stepped",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::SiteCost::{self, *};

    #[test]
    fn costs_are_those_measured() {
        let cases: &[(&[u8], SiteCost)] = &[
            (&[0x55], Emulated),                         // push rbp
            (&[0x41, 0x54], Emulated),                   // push r12
            (&[0x48, 0x55], SingleStepped),              // rex.w push rbp
            (&[0x66, 0x55], SingleStepped),              // push bp
            (&[0x90], Emulated),                         // nop
            (&[0x74, 0x07], Emulated),                   // je
            (&[0x0f, 0x84, 0xbf, 0, 0, 0], Emulated),    // je, near
            (&[0xe9, 0x32, 0xf6, 0xff, 0xff], Emulated), // jmp
            (&[0x66, 0xe8, 0, 0], SingleStepped),        // callw
            (&[0xe3, 0], SingleStepped),                 // jrcxz
            (&[0x0f, 0x1f, 0x44, 0, 0], OptimizedNop),
            (&[0x66, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0], SingleStepped),
            (&[0xf3, 0x0f, 0x1e, 0xfa], SingleStepped), // endbr64
            (&[0x48, 0x85, 0xff], SingleStepped),       // test rdi, rdi
            (&[0xc3], SingleStepped),                   // ret
            (&[], SingleStepped),
        ];
        for (bytes, cost) in cases {
            assert_eq!(SiteCost::of(bytes), *cost, "{bytes:02x?}");
        }
    }
}
