//! Reads the ring buffers and maps of the kernel side, and turns their records into values.
//!
//! Our own programs write every record, but what a target does decides some of the content (frames,
//! addresses, lengths). So this module drops records of an unknown kind or the wrong size, and never
//! trusts a length.

use std::{
    collections::HashSet,
    io,
    mem::offset_of,
    os::fd::{AsFd as _, OwnedFd},
    sync::atomic::Ordering,
};

use aya::maps::{MapData, MapError, RingBuf};
use residue_ebpf::abi::{
    LEAF_FRAMES, MAX_FRAMES, ROOT_FRAMES,
    counters::Counter,
    event::{Event, EventKind, StackEvent, StackSample, WalkEnd},
    frame::RawFrame,
    heap::{
        BUCKET_SLOTS, BUSY_KEY, LiveAllocation, LiveBucket, StackKind, StackTotals, is_block,
        process_of,
    },
    python::{CODE_IS_READ, CODE_KEYS, FreedCode},
    window::{
        AMBIGUOUS, BACKGROUND, ProcessWindows, TASK, TASKS, WINDOW_IS_OVER, WINDOWS, WindowEvent,
        WindowStage, WindowState, id_and_stage, under_way,
    },
};

use crate::{
    attach::{Channels, forget_entries, slot_of},
    ids::{Slot, StackId, WindowId},
};

/// A stack as the kernel side walked it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawStack {
    /// The id of the stack.
    pub id: StackId,
    /// The slot of the process that the stack was taken in.
    pub slot: Slot,
    /// Why the walk stopped.
    pub end: WalkEnd,
    /// The frames, leaf first.
    pub frames: Vec<RawFrame>,
    /// How many frames are missing before the last [`ROOT_FRAMES`] ones.
    pub left_out: u32,
    /// What the totals of this stack count.
    pub kind: StackKind,
    /// The shallow context that the stack belongs to, if there is one.
    pub context: Option<StackId>,
}

/// Reads what the kernel side has written.
pub struct Drain {
    channels: Channels,
    undelivered: u64,
}

impl Drain {
    /// Reads the channels of a loaded kernel side.
    #[must_use]
    pub const fn new(channels: Channels) -> Self {
        Self {
            channels,
            undelivered: 0,
        }
    }

    /// A descriptor that becomes readable when a process maps code, so that user space looks at the code soon.
    ///
    /// # Errors
    ///
    /// When this process has no file descriptors left.
    pub fn new_code(&self) -> io::Result<OwnedFd> {
        self.channels.events.as_fd().try_clone_to_owned()
    }

    /// The stacks whose frames have arrived since the last call.
    pub fn stacks(&mut self) -> Vec<RawStack> {
        records(&mut self.channels.stacks, parse_stack)
    }

    /// Shows `each` the samples of stacks that have arrived. A sample is not copied: it lies in the ring buffer.
    pub fn samples(&mut self, mut each: impl FnMut(&StackSample)) {
        while let Some(record) = self.channels.samples.next() {
            if record.len() >= size_of::<StackSample>() {
                // SAFETY: the record is large enough, the type is valid for every bit pattern, and the
                // kernel aligns records to 8 bytes.
                each(unsafe { &*record.as_ptr().cast::<StackSample>() });
            }
        }
    }

    /// What has happened to ranges and processes since the last call, in order.
    pub fn events(&mut self) -> Vec<(EventKind, Event)> {
        records(&mut self.channels.events, parse_event)
    }

    /// The totals of every stack in use.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to read a map, which it has no reason to.
    pub fn totals(&mut self) -> Result<Vec<(StackId, StackTotals)>, MapError> {
        let next = self.channels.next_stack.get(&0, 0)?;
        let in_use = u32::try_from(next)
            .unwrap_or(u32::MAX)
            .min(self.channels.totals.capacity());
        let totals: Vec<_> = (0..in_use)
            .filter_map(|id| Some((StackId(id), self.channels.totals.get(id)?)))
            .collect();
        let waiting = |(id, totals): &&(StackId, StackTotals)| {
            *id != StackId::UNKNOWN
                && totals.delivered == 0
                && totals.alloc_objects + totals.lost_objects > 0
        };
        self.undelivered = totals.iter().filter(waiting).count() as u64;
        Ok(totals)
    }

    /// How many stacks were in use at the last call of [`Self::totals`] while the kernel side had not been
    /// able to send their frames.
    #[must_use]
    pub const fn undelivered(&self) -> u64 {
        self.undelivered
    }

    /// The key of the Python code object with this id. An id that is too old yields the key of another one.
    #[must_use]
    pub fn python_code_key(&self, id: u32) -> Option<u64> {
        let place = id % CODE_KEYS;
        let key = self.channels.python_code_keys.get(&place, 0).ok()? & !CODE_IS_READ;
        (key != 0).then_some(key)
    }

    /// Tells the kernel side that user space has read a code object, so that the kernel side sends nothing
    /// when Python frees that object.
    pub fn set_python_code_read(&mut self, key: u64, id: u32) {
        let keys = &mut self.channels.python_code_keys;
        // If the update fails, the kernel side sends something that nobody needs: no harm.
        let _ = keys.set(id % CODE_KEYS, key | CODE_IS_READ, 0);
    }

    /// Shows `each` the Python code objects that Python freed before user space had read them. They are not
    /// copied: they lie in the ring buffer.
    pub fn freed_python_code(&mut self, mut each: impl FnMut(&FreedCode)) {
        while let Some(record) = self.channels.python_freed.next() {
            if record.len() >= size_of::<FreedCode>() {
                // SAFETY: the record is large enough, the type is valid for every bit pattern, and the
                // kernel aligns records to 8 bytes.
                each(unsafe { &*record.as_ptr().cast::<FreedCode>() });
            }
        }
    }

    /// Whether the code object with this id still has this key.
    #[must_use]
    pub fn is_python_code(&self, key: u64, id: u32) -> bool {
        self.channels.python_codes.get(&key, 0).ok() == Some(id)
    }

    /// Shows `each` what has happened to request windows, in order: the event, and the part of a request's
    /// head that came with it.
    pub fn window_events(&mut self, mut each: impl FnMut(&WindowEvent, &[u8])) {
        while let Some(record) = self.channels.window_events.next() {
            if let Some((event, fragment)) = parse_window_event(&record) {
                each(&event, fragment);
            }
        }
    }

    /// The request window with this number, unless a later window has taken its place.
    #[must_use]
    pub fn window(&self, id: WindowId) -> Option<WindowState> {
        let state = self.channels.windows.get(id.0 % WINDOWS)?;
        (state.id() == id.0).then_some(state)
    }

    /// Closes a window, unless the kernel side has changed the window meanwhile. Returns whether the window was
    /// still as `state` says.
    #[must_use]
    pub fn close_window(&self, state: &WindowState) -> bool {
        let closed = id_and_stage(state.id(), WindowStage::Closed);
        let word = self.channels.windows.word(state.id() % WINDOWS, 0);
        let was_open = word.is_some_and(|word| {
            word.compare_exchange(
                state.id_and_stage,
                closed,
                Ordering::Relaxed,
                Ordering::Relaxed,
            )
            .is_ok()
        });
        if was_open {
            self.end_under_way(state);
            self.end_unbound(state);
        }
        was_open
    }

    /// Takes a window that is over out of those that its process has under way.
    fn end_under_way(&self, state: &WindowState) {
        if state.source != 0 || state.stage() == WindowStage::Finished as u32 {
            return;
        }
        let at = offset_of!(ProcessWindows, under_way) / size_of::<u64>();
        if let Some(sum) = self.channels.process_windows.word(state.process, at) {
            sum.fetch_sub(under_way(state.id()), Ordering::Relaxed);
        }
    }

    /// Takes a window that is over out of those that no thread is bound to, if no thread is bound to the window now:
    /// its thread may have been taken from it since somebody looked at `state`.
    fn end_unbound(&self, state: &WindowState) {
        let at = offset_of!(WindowState, bound_and_flags) / size_of::<u64>();
        if let Some(word) = self.channels.windows.word(state.id() % WINDOWS, at)
            && word.fetch_or(WINDOW_IS_OVER, Ordering::Relaxed) as u32 == 0
            // The first word counts the open windows that no thread is bound to.
            && let Some(unbound) = self.channels.process_windows.word(state.process, 0)
        {
            unbound.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Forgets everything that is kept of the processes in these slots, which are over: others may have the slots from
    /// now on. Blocks that they had stay outstanding in the totals of their stacks.
    pub fn forget(&mut self, slots: &HashSet<Slot>) {
        let of_python = &mut self.channels.python_codes;
        forget_entries(of_python, |key| slots.contains(&slot_of(key)));
        for slot in slots {
            for word in 0..size_of::<ProcessWindows>() / size_of::<u64>() {
                if let Some(word) = self.channels.process_windows.word(slot.index(), word) {
                    word.store(0, Ordering::Relaxed);
                }
            }
        }
        let is_theirs = |key: u64| key != 0 && slots.contains(&Slot(process_of(key)));
        let keys = offset_of!(LiveBucket, keys) / size_of::<u64>();
        for index in 0..self.channels.live.capacity() {
            for word in keys..keys + BUCKET_SLOTS {
                let Some(place) = self.channels.live.word(index, word) else {
                    return;
                };
                let key = place.load(Ordering::Relaxed);
                // The kernel side may have taken the place for another block meanwhile.
                if is_theirs(key) && key != BUSY_KEY {
                    let _ = place.compare_exchange(key, 0, Ordering::Relaxed, Ordering::Relaxed);
                }
            }
        }
    }

    /// The process in a slot has an io_uring.
    pub fn set_has_ring(&self, slot: Slot) {
        let at = offset_of!(ProcessWindows, has_ring) / size_of::<u64>();
        if let Some(word) = self.channels.process_windows.word(slot.index(), at) {
            word.store(1, Ordering::Relaxed);
        }
    }

    /// What the kernel side keeps for all windows of the process in this slot together.
    #[must_use]
    pub fn process_windows(&self, slot: Slot) -> ProcessWindows {
        let process = self.channels.process_windows.get(slot.index());
        process.unwrap_or_default()
    }

    /// The window that an allocation belongs to. For an allocation of a task, that is the window of the task,
    /// or [`AMBIGUOUS`] while nobody knows that window.
    fn settled(&self, window: u32) -> u32 {
        if window & TASK == 0 || window == AMBIGUOUS {
            return window;
        }
        let task = self.channels.tasks.get(window % TASKS);
        match task.filter(|task| task.id == window) {
            Some(task) if task.window != 0 => task.window,
            _ => AMBIGUOUS,
        }
    }

    /// Shows `each` the live blocks that were allocated in some window: the window, the stack, and the size in
    /// bytes.
    pub fn blocks_of_windows(&self, mut each: impl FnMut(WindowId, StackId, u64)) {
        for index in 0..self.channels.live.capacity() {
            let Some(bucket) = self.channels.live.get(index) else {
                return;
            };
            for slot in 0..BUCKET_SLOTS {
                let window = self.settled(bucket.windows[slot]);
                if is_block(bucket.keys[slot]) && window != BACKGROUND && window != AMBIGUOUS {
                    let block = LiveAllocation::unpack(bucket.values[slot], window);
                    each(WindowId(window), StackId(block.stack), block.size);
                }
            }
        }
    }

    /// Every counter that the kernel side keeps, summed over all CPUs.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to read a map, which it has no reason to.
    pub fn counters(&self) -> Result<Vec<(Counter, u64)>, MapError> {
        Counter::ALL
            .iter()
            .map(|&counter| {
                let values = self.channels.counters.get(&(counter as u32), 0)?;
                Ok((counter, values.iter().sum()))
            })
            .collect()
    }
}

fn parse_window_event(record: &[u8]) -> Option<(WindowEvent, &[u8])> {
    let (event, fragment) = record.split_at_checked(size_of::<WindowEvent>())?;
    // SAFETY: the slice has as many bytes as the type, and the type is valid for every bit pattern.
    let event = unsafe { event.as_ptr().cast::<WindowEvent>().read_unaligned() };
    let fragment = fragment.get(..usize::try_from(event.fragment_len).ok()?)?;
    Some((event, fragment))
}

fn records<T>(ring: &mut RingBuf<MapData>, parse: impl Fn(&[u8]) -> Option<T>) -> Vec<T> {
    let mut parsed = Vec::new();
    while let Some(record) = ring.next() {
        parsed.extend(parse(&record));
    }
    parsed
}

fn parse_stack(mut record: &[u8]) -> Option<RawStack> {
    use bytes::Buf as _;
    if record.len() < StackEvent::HEADER_BYTES {
        return None;
    }
    let id = StackId(record.get_u32_le());
    let slot = Slot(u16::try_from(record.get_u32_le()).ok()?);
    let walked = record.get_u32_le() as usize;
    let end = WalkEnd::from_bits(record.get_u32_le())?;
    let kind = StackKind::from_bits(record.get_u32_le())?;
    let context = StackId(record.get_u32_le());
    let len = walked.min(MAX_FRAMES);
    if record.len() < 8 * len {
        return None;
    }
    let frames = (0..len).map(|_| record.get_u64_le()).collect();
    Some(RawStack {
        id,
        slot,
        end,
        frames: in_order(frames, walked),
        left_out: (walked - len) as u32,
        kind,
        context: (context != StackId::UNKNOWN).then_some(context),
    })
}

/// Puts the frames that the kernel side kept of a walk into order, leaf first. The walk saw `walked` frames.
pub(crate) fn in_order(mut kept: Vec<u64>, walked: usize) -> Vec<RawFrame> {
    if walked > MAX_FRAMES {
        // The outermost frames are in a ring. Its oldest frame is where the next one would have gone.
        kept[LEAF_FRAMES..].rotate_left((walked - LEAF_FRAMES) % ROOT_FRAMES);
    }
    kept.into_iter().map(RawFrame::from_bits).collect()
}

fn parse_event(mut record: &[u8]) -> Option<(EventKind, Event)> {
    use bytes::Buf as _;
    if record.len() < size_of::<Event>() {
        return None;
    }
    let event = Event {
        kind: record.get_u32_le(),
        process: record.get_u32_le(),
        tid: record.get_u32_le(),
        stack: record.get_u32_le(),
        address: record.get_u64_le(),
        length: record.get_u64_le(),
        flags: record.get_u32_le(),
        reserved: record.get_u32_le(),
    };
    Some((EventKind::from_bits(event.kind)?, event))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stack_record_is_read_back() {
        let mut record = Vec::new();
        for word in [7_u32, 3, 2, WalkEnd::Unreadable as u32, 1, 9] {
            record.extend(word.to_le_bytes());
        }
        let frames = [(1, 0x1000), (0, 0x2000)].map(|(object, offset)| RawFrame { object, offset });
        for frame in frames {
            record.extend(frame.to_bits().to_le_bytes());
        }
        let stack = parse_stack(&record).expect("the record is whole");
        assert_eq!(stack.frames, frames);
        assert_eq!((stack.id, stack.slot), (StackId(7), Slot(3)));
        assert_eq!(stack.end, WalkEnd::Unreadable);
        assert_eq!(
            (stack.kind, stack.context),
            (StackKind::Context, Some(StackId(9)))
        );
    }

    #[test]
    fn a_stack_record_that_claims_too_much_is_dropped() {
        let claim = |len: u32, end: u32| {
            let mut record = Vec::new();
            for word in [7_u32, 3, len, end, 0, 0] {
                record.extend(word.to_le_bytes());
            }
            record.extend([0; 8]);
            parse_stack(&record)
        };
        assert!(claim(1, 0).is_some());
        assert_eq!(claim(2, 0), None, "more frames than bytes");
        assert_eq!(claim(u32::MAX, 0), None, "more frames than bytes");
        assert_eq!(claim(1, 99), None, "no such end");
        assert_eq!(parse_stack(&[0; 23]), None, "no whole header");
    }

    #[test]
    fn the_outermost_frames_of_a_deep_stack_are_in_order() {
        let walked = MAX_FRAMES + 100;
        let mut kept = [0_u64; MAX_FRAMES];
        for number in 0..walked {
            let index = match number.checked_sub(LEAF_FRAMES) {
                None => number,
                Some(behind) => LEAF_FRAMES + behind % ROOT_FRAMES,
            };
            kept[index] = number as u64;
        }
        let mut record = Vec::new();
        for word in [7, 3, walked as u32, WalkEnd::Bottom as u32, 0, 0] {
            record.extend(word.to_le_bytes());
        }
        record.extend(kept.iter().flat_map(|frame| frame.to_le_bytes()));
        let stack = parse_stack(&record).expect("the record is whole");
        let numbers: Vec<_> = stack
            .frames
            .iter()
            .map(|frame| frame.offset as usize)
            .collect();
        let leaves = 0..LEAF_FRAMES;
        let roots = walked - ROOT_FRAMES..walked;
        assert_eq!(numbers, leaves.chain(roots).collect::<Vec<_>>());
        assert_eq!(stack.left_out, 100);
    }

    #[test]
    fn an_event_of_unknown_kind_is_dropped() {
        let mut record = [0_u8; size_of::<Event>()];
        assert!(parse_event(&record).is_some());
        record[0] = 200;
        assert_eq!(parse_event(&record), None);
        assert_eq!(parse_event(&record[..20]), None);
    }
}
