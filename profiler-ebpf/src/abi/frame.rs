//! A frame: a place in an object, which stays valid when the object is unmapped.

/// The object of frames that lie in none: such a frame's offset is its address, AVMA.
pub const NO_OBJECT: u16 = 0;
/// The object of Python's frames: such a frame's offset is a [`PythonFrame`].
pub const PYTHON: u16 = u16::MAX;
/// Bits of a frame that hold its offset; user space addresses have fewer.
const OFFSET_BITS: u32 = 48;

/// A return address, as an object and a file offset in it. The call lies before it, so whatever
/// looks for the call's function or line looks one byte earlier. Where execution stands at an
/// instruction, and not behind a call (below a signal frame), the offset is one higher, so that
/// the same holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RawFrame {
    /// Which object; [`NO_OBJECT`] for none.
    pub object: u16,
    /// File offset, or AVMA when there is no object.
    pub offset: u64,
}

impl RawFrame {
    /// In one word.
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        ((self.object as u64) << OFFSET_BITS) | (self.offset & ((1 << OFFSET_BITS) - 1))
    }

    /// From one word.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self {
            object: (bits >> OFFSET_BITS) as u16,
            offset: bits & ((1 << OFFSET_BITS) - 1),
        }
    }
}

/// Bits of a Python frame's offset that hold the instruction.
const INSTRUCTION_BITS: u32 = 24;

/// The instruction of a function that has not begun to run.
pub const NOT_STARTED: u32 = (1 << INSTRUCTION_BITS) - 1;

/// A place in Python code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PythonFrame {
    /// The code object's id, which no other gets, even where its memory is used again; zero if
    /// there was no room for one. 24 bits.
    pub code: u32,
    /// The instruction that runs, in code units of two bytes from the beginning of the code;
    /// [`NOT_STARTED`] before the first. 24 bits.
    pub instruction: u32,
}

impl PythonFrame {
    /// As a frame.
    #[must_use]
    pub const fn to_raw(self) -> RawFrame {
        let instruction = self.instruction & NOT_STARTED;
        RawFrame {
            object: PYTHON,
            offset: (self.code as u64) << INSTRUCTION_BITS | instruction as u64,
        }
    }

    /// From a frame, if it is Python's.
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
