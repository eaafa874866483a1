//! The few DWARF expressions that compilers and assemblers write into call frame information.
//! (DWARF 5, section 2.5.)

use gimli::{EndianSlice, Expression, LittleEndian, Operation, Register, X86_64};

type Op<'a> = Operation<EndianSlice<'a, LittleEndian>>;

/// In the longest that is known, that of a linkage table stub. It takes 11 bytes.
const PLT_OPERATIONS: usize = 9;
/// Rows can share an expression, so that a long one would be read again and again.
const MAX_BYTES: usize = 32;

/// What an expression computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// `register + offset`
    Sum(Base, i64),
    /// `*(register + offset) + addend`
    Deref(Base, i64, i64),
    /// `sp + offset + (if ip % 16 >= threshold { 8 } else { 0 })`
    Plt {
        /// Bytes.
        offset: i64,
        /// Bytes into a stub.
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
    /// `None` for a register that only the first frame has.
    pub fn of(register: Register) -> Option<Self> {
        match register {
            X86_64::RSP => Some(Self::Sp),
            X86_64::RBP => Some(Self::Bp),
            _ => None,
        }
    }
}

/// What `expression` computes; `None` if it is none of the known ones.
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

/// `DW_OP_breg7 8; breg16 0; lit15; and; lit11; ge; lit3; shl; plus`: what binutils says of a linkage
/// table (`elf_x86_64_eh_frame_lazy_plt` and its kin in bfd/elf64-x86-64.c). Behind the threshold, the
/// stub has pushed an index; it is 10 for the stubs that begin with `endbr64`.
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

/// `breg; [plus_uconst | const plus | const minus]…; [deref; …]`
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
