//! A frame: a place in an object, which stays valid when the object is unmapped.

/// The object of frames that lie in no object. The offset of such a frame is the frame's address, AVMA.
pub const NO_OBJECT: u16 = 0;
/// The object of Python's frames. The offset of such a frame is a [`PythonFrame`].
pub const PYTHON: u16 = u16::MAX;
/// How many bits of a frame hold its offset. Addresses in user space have fewer.
const OFFSET_BITS: u32 = 48;

/// A return address, as an object and a file offset in the object. The call lies before the return address,
/// so a search for the call's function or line looks one byte earlier. Below a signal frame, execution stands
/// at an instruction and not behind a call. The offset is one higher there, so that the same search finds the
/// instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RawFrame {
    /// Which object; [`NO_OBJECT`] for none.
    pub object: u16,
    /// File offset, or AVMA when there is no object.
    pub offset: u64,
}

impl RawFrame {
    /// The frame in one word.
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        ((self.object as u64) << OFFSET_BITS) | (self.offset & ((1 << OFFSET_BITS) - 1))
    }

    /// Reads a frame from one word.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self {
            object: (bits >> OFFSET_BITS) as u16,
            offset: bits & ((1 << OFFSET_BITS) - 1),
        }
    }
}

/// How many bits of a Python frame's offset hold the instruction.
const INSTRUCTION_BITS: u32 = 24;

/// The instruction of a function that has not begun to run.
pub const NOT_STARTED: u32 = (1 << INSTRUCTION_BITS) - 1;

/// A place in Python code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PythonFrame {
    /// The code object's id; zero if there was no room for an id. No other code object gets the same id, even
    /// if it gets the same memory. 24 bits.
    pub code: u32,
    /// The instruction that runs, in code units of two bytes from the beginning of the code;
    /// [`NOT_STARTED`] before the first instruction. 24 bits.
    pub instruction: u32,
}

impl PythonFrame {
    /// The place as a frame.
    #[must_use]
    pub const fn to_raw(self) -> RawFrame {
        let instruction = self.instruction & NOT_STARTED;
        RawFrame {
            object: PYTHON,
            offset: (self.code as u64) << INSTRUCTION_BITS | instruction as u64,
        }
    }

    /// The place of a frame, if the frame is Python's.
    #[must_use]
    pub const fn from_raw(frame: RawFrame) -> Option<Self> {
        if frame.object != PYTHON {
            return None;
        }
        Some(Self {
            code: (frame.offset >> INSTRUCTION_BITS) as u32,
            instruction: frame.offset as u32 & NOT_STARTED,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_python_frame_is_packed_without_loss() {
        for instruction in [0, 7, NOT_STARTED] {
            let code = (1 << 24) - 1;
            let frame = PythonFrame { code, instruction };
            let packed = RawFrame::from_bits(frame.to_raw().to_bits());
            assert_eq!(PythonFrame::from_raw(packed), Some(frame));
        }
    }
}
