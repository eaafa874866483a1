//! A frame: a place in an object, which stays valid when the object is unmapped.

/// The object of frames that lie in none: such a frame's offset is its address, AVMA.
pub const NO_OBJECT: u16 = 0;
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
