//! Runs call frame instructions (DWARF 5, section 6.4.2) on the three columns that a walk needs: the CFA, the
//! frame pointer and the return address. This module ignores all other registers, so the cost of an instruction
//! does not depend on the instructions before.

use gimli::{
    CallFrameInstruction, CallFrameInstructionIter, CfaRule, EndianSlice, LittleEndian, Register,
    RegisterRule, X86_64,
};

/// The most states to remember at a time. Compilers nest one or two. The instruction has one byte, so without a
/// bound a section could take a hundred times its size in memory.
const MAX_REMEMBERED: usize = 64;

/// The rules of one row. `None` stands for a register that the instructions do not mention.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Columns {
    /// How to compute the CFA.
    pub cfa: CfaRule<usize>,
    /// How to find the caller's frame pointer.
    pub bp: Option<RegisterRule<usize>>,
    /// How to find the return address.
    pub ra: Option<RegisterRule<usize>>,
}

/// Nobody can follow the instructions any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Damaged;

/// The units of operands in a CIE and its FDEs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Factors {
    /// The unit of distances in code, bytes.
    pub code: u64,
    /// The unit of distances in data, bytes.
    pub data: i64,
}

/// The state while instructions run.
pub(super) struct Machine<'a> {
    factors: Factors,
    /// The row that the FDE begins with; `None` while the instructions of a CIE run.
    initial: Option<&'a Columns>,
    /// The present row.
    pub columns: Columns,
    /// Where the present row begins, SVMA.
    pub address: u64,
    remembered: Vec<Columns>,
    /// How many instructions have run.
    pub steps: usize,
}

type Instructions<'a> = CallFrameInstructionIter<'a, EndianSlice<'a, LittleEndian>>;

impl<'a> Machine<'a> {
    /// A machine at the start of a CIE.
    pub fn for_cie(factors: Factors) -> Self {
        Self::new(factors, None, Columns::default(), 0)
    }

    /// A machine at the start of an FDE, whose first address is `address`, SVMA.
    pub fn for_fde(factors: Factors, initial: &'a Columns, address: u64) -> Self {
        Self::new(factors, Some(initial), initial.clone(), address)
    }

    fn new(factors: Factors, initial: Option<&'a Columns>, columns: Columns, address: u64) -> Self {
        Self {
            factors,
            initial,
            columns,
            address,
            remembered: Vec::new(),
            steps: 0,
        }
    }

    /// Runs until the next row begins, and returns the SVMA of that row, or `None` at the end. The machine holds the
    /// present row until the caller sets `address`.
    pub fn next_row(
        &mut self,
        instructions: &mut Instructions<'_>,
    ) -> Result<Option<u64>, Damaged> {
        while let Some(instruction) = instructions.next().map_err(|_| Damaged)? {
            self.steps += 1;
            if let Some(next) = self.step(&instruction)? {
                return Ok(Some(next));
            }
        }
        Ok(None)
    }

    fn step(&mut self, instruction: &CallFrameInstruction<usize>) -> Result<Option<u64>, Damaged> {
        use CallFrameInstruction as I;
        match *instruction {
            I::SetLoc { address } if address < self.address => return Err(Damaged),
            I::SetLoc { address } => return Ok(Some(address)),
            I::AdvanceLoc { delta } => {
                let bytes = u64::from(delta).wrapping_mul(self.factors.code);
                return self.address.checked_add(bytes).map(Some).ok_or(Damaged);
            }
            I::RememberState if self.remembered.len() == MAX_REMEMBERED => return Err(Damaged),
            I::RememberState => self.remembered.push(self.columns.clone()),
            I::RestoreState => self.columns = self.remembered.pop().ok_or(Damaged)?,
            I::Nop | I::ArgsSize { .. } | I::NegateRaState => {}
            _ => {
                if !self.step_cfa(instruction)? {
                    self.step_register(instruction)?;
                }
            }
        }
        Ok(None)
    }

    /// Runs an instruction about the CFA. Returns whether the instruction was one.
    fn step_cfa(&mut self, instruction: &CallFrameInstruction<usize>) -> Result<bool, Damaged> {
        use CallFrameInstruction as I;
        let cfa = |register, offset| CfaRule::RegisterAndOffset { register, offset };
        let (register, offset) = match self.columns.cfa {
            CfaRule::RegisterAndOffset { register, offset } => (Ok(register), Ok(offset)),
            CfaRule::Expression(_) => (Err(Damaged), Err(Damaged)),
        };
        self.columns.cfa = match *instruction {
            I::DefCfa { register, offset } => cfa(register, offset.cast_signed()),
            I::DefCfaSf {
                register,
                factored_offset,
            } => cfa(register, self.factored(factored_offset)),
            I::DefCfaRegister { register } => cfa(register, offset?),
            I::DefCfaOffset { offset } => cfa(register?, offset.cast_signed()),
            I::DefCfaOffsetSf { factored_offset } => cfa(register?, self.factored(factored_offset)),
            I::DefCfaExpression { expression } => CfaRule::Expression(expression),
            _ => return Ok(false),
        };
        Ok(true)
    }

    fn step_register(&mut self, instruction: &CallFrameInstruction<usize>) -> Result<(), Damaged> {
        use CallFrameInstruction as I;
        let offset = |factored| RegisterRule::Offset(self.factored(factored));
        let value = |factored| RegisterRule::ValOffset(self.factored(factored));
        let (register, rule) = match *instruction {
            I::Undefined { register } => (register, RegisterRule::Undefined),
            I::SameValue { register } => (register, RegisterRule::SameValue),
            I::Offset {
                register,
                factored_offset,
            } => (register, offset(factored_offset.cast_signed())),
            I::OffsetExtendedSf {
                register,
                factored_offset,
            } => (register, offset(factored_offset)),
            I::ValOffset {
                register,
                factored_offset,
            } => (register, value(factored_offset.cast_signed())),
            I::ValOffsetSf {
                register,
                factored_offset,
            } => (register, value(factored_offset)),
            I::Register {
                dest_register,
                src_register,
            } => (dest_register, RegisterRule::Register(src_register)),
            I::Expression {
                register,
                expression,
            } => (register, RegisterRule::Expression(expression)),
            I::ValExpression {
                register,
                expression,
            } => (register, RegisterRule::ValExpression(expression)),
            I::Restore { register } => return self.restore(register),
            _ => return Err(Damaged),
        };
        if let Some(column) = column(&mut self.columns, register) {
            *column = Some(rule);
        }
        Ok(())
    }

    fn restore(&mut self, register: Register) -> Result<(), Damaged> {
        let initial = self.initial.ok_or(Damaged)?;
        match register {
            X86_64::RBP => self.columns.bp.clone_from(&initial.bp),
            X86_64::RA => self.columns.ra.clone_from(&initial.ra),
            _ => {}
        }
        Ok(())
    }

    fn factored(&self, offset: i64) -> i64 {
        offset.wrapping_mul(self.factors.data)
    }
}

fn column(columns: &mut Columns, register: Register) -> Option<&mut Option<RegisterRule<usize>>> {
    match register {
        X86_64::RBP => Some(&mut columns.bp),
        X86_64::RA => Some(&mut columns.ra),
        _ => None,
    }
}
