//! Recognizes the few DWARF expressions (DWARF 5, section 2.5) that compilers and assemblers write into call
//! frame information.

use gimli::{EndianSlice, Expression, LittleEndian, Operation, Register, X86_64};

type Op<'a> = Operation<EndianSlice<'a, LittleEndian>>;

/// How many operations the longest known expression has: that of a linkage table stub, with 11 bytes.
const PLT_OPERATIONS: usize = 9;
/// The longest expression to read, bytes. Many rows can share an expression, and each row reads it again.
const MAX_BYTES: usize = 32;

/// The value that an expression computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// `register + offset`
    Sum(Base, i64),
    /// `*(register + offset) + addend`
    Deref(Base, i64, i64),
    /// `sp + offset + (if ip % 16 >= threshold { 8 } else { 0 })`
    Plt {
        /// The offset, bytes.
        offset: i64,
        /// The place in a stub from which on the CFA is 8 bytes further, bytes.
        threshold: u8,
    },
}

/// The registers that a walk knows in every frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Base {
    /// The stack pointer.
    Sp,
    /// The frame pointer.
    Bp,
}

impl Base {
    /// The base for a register; `None` for a register that a walk knows only in the first frame.
    pub fn of(register: Register) -> Option<Self> {
        match register {
            X86_64::RSP => Some(Self::Sp),
            X86_64::RBP => Some(Self::Bp),
            _ => None,
        }
    }
}

/// The value that `expression` computes; `None` for an unknown expression.
pub(super) fn meaning(
    expression: Expression<EndianSlice<'_, LittleEndian>>,
    encoding: gimli::Encoding,
) -> Option<Meaning> {
    if expression.0.len() > MAX_BYTES {
        return None;
    }
    let mut iter = expression.operations(encoding);
    let mut operations = Vec::with_capacity(PLT_OPERATIONS);
    while let Some(operation) = iter.next().ok()? {
        operations.push(operation);
    }
    plt(&operations).or_else(|| affine(&operations))
}

/// Recognizes the expression of binutils for a linkage table: `DW_OP_breg7 8; breg16 0; lit15; and; lit11; ge;
/// lit3; shl; plus` (`elf_x86_64_eh_frame_lazy_plt` and the like in bfd/elf64-x86-64.c). From the threshold on,
/// which is 11 here and 10 for stubs that begin with `endbr64`, the stub has pushed an index.
fn plt(operations: &[Op<'_>]) -> Option<Meaning> {
    match *operations {
        [
            Operation::RegisterOffset {
                register: X86_64::RSP,
                offset,
                ..
            },
            Operation::RegisterOffset {
                register: X86_64::RA,
                offset: 0,
                ..
            },
            Operation::UnsignedConstant { value: 15 },
            Operation::And,
            Operation::UnsignedConstant {
                value: threshold @ 0..16,
            },
            Operation::Ge,
            Operation::UnsignedConstant { value: 3 },
            Operation::Shl,
            Operation::Plus,
        ] => Some(Meaning::Plt {
            offset,
            threshold: threshold as u8,
        }),
        _ => None,
    }
}

/// Recognizes `breg; [plus_uconst | const plus | const minus]…; [deref; …]`.
fn affine(operations: &[Op<'_>]) -> Option<Meaning> {
    let (first, mut rest) = operations.split_first()?;
    let Operation::RegisterOffset {
        register, offset, ..
    } = *first
    else {
        return None;
    };
    let mut meaning = Meaning::Sum(Base::of(register)?, offset);
    while !rest.is_empty() {
        (meaning, rest) = step(meaning, rest)?;
    }
    Some(meaning)
}

fn step<'o, 'a>(meaning: Meaning, operations: &'o [Op<'a>]) -> Option<(Meaning, &'o [Op<'a>])> {
    match operations {
        [Operation::PlusConstant { value }, rest @ ..] => {
            Some((meaning.plus(i64::try_from(*value).ok()?)?, rest))
        }
        [constant, Operation::Plus, rest @ ..] => Some((meaning.plus(value(constant)?)?, rest)),
        [constant, Operation::Minus, rest @ ..] => {
            Some((meaning.plus(value(constant)?.checked_neg()?)?, rest))
        }
        [
            Operation::Deref {
                size: 8,
                space: false,
                ..
            },
            rest @ ..,
        ] => match meaning {
            Meaning::Sum(base, offset) => Some((Meaning::Deref(base, offset, 0), rest)),
            Meaning::Deref(..) | Meaning::Plt { .. } => None,
        },
        _ => None,
    }
}

fn value(operation: &Op<'_>) -> Option<i64> {
    match *operation {
        Operation::UnsignedConstant { value } => i64::try_from(value).ok(),
        Operation::SignedConstant { value } => Some(value),
        _ => None,
    }
}

impl Meaning {
    fn plus(self, bytes: i64) -> Option<Self> {
        match self {
            Self::Sum(base, offset) => Some(Self::Sum(base, offset.checked_add(bytes)?)),
            Self::Deref(base, offset, addend) => {
                Some(Self::Deref(base, offset, addend.checked_add(bytes)?))
            }
            Self::Plt { .. } => None,
        }
    }
}
