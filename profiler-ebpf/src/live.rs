//! The live set: which block of which process is allocated, how large it is, and by which stack.
//!
//! An open-addressing hash table in an array map. Against the kernel's own hash map it touches one
//! place in memory instead of three, which is what counts with millions of live allocations, takes
//! no lock, and needs 37 bytes an allocation instead of 99.
//!
//! A key is looked for in its home bucket, and behind it only if the home bucket has spilled. A
//! slot is claimed and released by compare-and-swap of its key. Two calls never race for one key:
//! an allocator hands an address out once until it is freed. A target that breaks this (a double
//! free in two threads) finds the key once.

use residue_ebpf::abi::heap::{BUCKET_SLOTS, LiveAllocation, LiveBucket, PROCESS_OPEN, process_of};

use crate::{
    atomic,
    maps::{LIVE, LIVE_BUCKETS, PROCESSES},
};

/// How many buckets are looked at for one key. At half load the chance that this many neighbours
/// are full is below one in a billion.
const REACH: u32 = 8;
/// Claims a slot while its value is read or written. No key: process slots end far below.
const BUSY: u64 = u64::MAX;

/// No packed allocation: those never have the top bit set.
const NOTHING: u64 = u64::MAX;

/// What [`insert`] did.
pub struct Inserted {
    /// What was there under the same key, and no longer is.
    pub previous: Option<LiveAllocation>,
    /// Whether there was room.
    pub placed: bool,
}

/// Enters an allocation.
#[inline(always)]
pub fn insert(key: u64, allocation: LiveAllocation) -> Inserted {
    let previous = take(key);
    let placed = allocation
        .pack()
        .is_some_and(|value| live_place(key, value) != 0);
    Inserted { previous, placed }
}

/// Takes an allocation out.
#[inline(always)]
pub fn take(key: u64) -> Option<LiveAllocation> {
    match live_take(key) {
        NOTHING => None,
        value => Some(LiveAllocation::unpack(value)),
    }
}

/// Whether an allocation is there. What holds it may let go of it at any moment.
#[inline(always)]
pub fn holds(key: u64) -> bool {
    live_holds(key) != 0
}

/// [`holds`], as a global function.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn live_holds(key: u64) -> u64 {
    let home = home(key);
    for distance in 0..REACH {
        let Some(bucket) = bucket(home, distance) else {
            return 0;
        };
        if bucket.keys.contains(&key) {
            return 1;
        }
        if distance == 0 && bucket.spilled == 0 {
            return 0;
        }
    }
    0
}

/// [`take`], as a global function: the verifier looks at it once instead of at every call. Returns
/// [`NOTHING`] if the key is not there.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn live_take(key: u64) -> u64 {
    let home = home(key);
    let Some(bucket) = bucket(home, 0) else {
        return NOTHING;
    };
    if let Some(value) = take_from(bucket, key) {
        return value;
    }
    if bucket.spilled == 0 {
        return NOTHING;
    }
    for distance in 1..REACH {
        let behind = self::bucket(home, distance);
        if let Some(value) = behind.and_then(|behind| take_from(behind, key)) {
            // SAFETY: a field of a map value.
            unsafe { atomic::add(&raw mut bucket.spilled, u64::MAX) };
            return value;
        }
    }
    NOTHING
}

/// Puts a key that is not there into a free slot; a global function as well. Returns whether there
/// was one.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn live_place(key: u64, value: u64) -> u64 {
    let home = home(key);
    let Some(bucket) = bucket(home, 0) else {
        return 0;
    };
    if place_in(bucket, key, value) {
        return 1;
    }
    // Before it lies anywhere else, so that nobody misses it there.
    // SAFETY: a field of a map value.
    unsafe { atomic::add(&raw mut bucket.spilled, 1) };
    for distance in 1..REACH {
        let behind = self::bucket(home, distance);
        if behind.is_some_and(|behind| place_in(behind, key, value)) {
            return 1;
        }
    }
    // SAFETY: as above.
    unsafe { atomic::add(&raw mut bucket.spilled, u64::MAX) };
    0
}

#[inline(always)]
fn take_from(bucket: &mut LiveBucket, key: u64) -> Option<u64> {
    for slot in 0..BUCKET_SLOTS {
        if bucket.keys[slot] == key && claim(bucket, slot, key) {
            let value = bucket.values[slot];
            bucket.keys[slot] = 0;
            return Some(value);
        }
    }
    None
}

#[inline(always)]
fn place_in(bucket: &mut LiveBucket, key: u64, value: u64) -> bool {
    for slot in 0..BUCKET_SLOTS {
        if bucket.keys[slot] == 0 && claim(bucket, slot, 0) {
            bucket.values[slot] = value;
            bucket.keys[slot] = key;
            return true;
        }
    }
    for slot in 0..BUCKET_SLOTS {
        let old = bucket.keys[slot];
        if is_left_behind(old) && claim(bucket, slot, old) {
            bucket.values[slot] = value;
            bucket.keys[slot] = key;
            return true;
        }
    }
    false
}

/// Whether a key belongs to a process that is no longer recorded.
#[inline(always)]
fn is_left_behind(key: u64) -> bool {
    PROCESSES
        .get(u32::from(process_of(key)))
        .is_some_and(|process| process.flags & PROCESS_OPEN == 0)
}

#[inline(always)]
fn claim(bucket: &mut LiveBucket, slot: usize, key: u64) -> bool {
    // SAFETY: a field of a map value.
    unsafe { atomic::compare_exchange(&raw mut bucket.keys[slot], key, BUSY) == key }
}

/// The bucket where a key belongs. Fibonacci hashing; the upper half of the product depends on
/// every bit of the key, and is scaled to the number of buckets.
#[inline(always)]
fn home(key: u64) -> u32 {
    let product = key.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (product ^ (product >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93) >> 32;
    ((mixed * u64::from(LIVE_BUCKETS.load())) >> 32) as u32
}

/// The bucket `distance` behind `home`, around the end.
#[inline(always)]
fn bucket(home: u32, distance: u32) -> Option<&'static mut LiveBucket> {
    let buckets = LIVE_BUCKETS.load();
    let mut index = home + distance;
    if index >= buckets {
        index -= buckets;
    }
    let bucket = LIVE.get_ptr_mut(index)?;
    // SAFETY: a map value; its fields are only changed as the module documentation says.
    Some(unsafe { &mut *bucket })
}
