//! The live set: which blocks of which process are allocated, how large each is, and which stack allocated it.
//!
//! The live set is a hash table with open addressing in an array map. The kernel's own hash map touches three
//! places in memory for an access, takes a lock, and needs 99 bytes an allocation. This table touches one
//! place, which is what counts with millions of live allocations, takes no lock, and needs 43 bytes. User
//! space maps the table, too, to see what windows left behind.
//!
//! A look-up searches the home bucket of its key, and the buckets behind that only if the home bucket has
//! spilled. A program claims a slot by a compare-and-swap of the slot's key, and releases the slot by writing
//! the key. Two calls never race for one key, because an allocator hands an address out once until the
//! address is freed. If a target breaks this rule, by a double free in two threads, only one of the threads
//! finds the key.

use residue_ebpf::abi::heap::{
    BUCKET_SLOTS, BUSY_KEY, LiveAllocation, LiveBucket, PROCESS_OPEN, process_of,
};

use crate::{
    atomic,
    maps::{LIVE, LIVE_BUCKETS, PROCESSES},
};

/// How many buckets a look-up searches for one key. At half load the chance that this many neighbours are
/// full is below one in a billion.
const REACH: u32 = 8;

/// Stands for no place: the indices of buckets end far below.
const NOWHERE: u64 = u64::MAX;
/// How many of the lower bits of a place hold the slot. The bits above hold the bucket's index.
const SLOT_BITS: u32 = 3;

/// What [`insert`] did.
pub struct Inserted {
    /// The allocation that the table held under the same key, and no longer holds.
    pub previous: Option<LiveAllocation>,
    /// Whether there was room.
    pub placed: bool,
}

/// Enters an allocation.
#[inline(always)]
pub fn insert(key: u64, allocation: LiveAllocation) -> Inserted {
    let previous = take(key);
    let placed = put(key, allocation).is_some();
    Inserted { previous, placed }
}

#[inline(always)]
fn put(key: u64, allocation: LiveAllocation) -> Option<()> {
    let value = allocation.pack()?;
    let (bucket, slot) = at(live_claim_free(key))?;
    *bucket.values.get_mut(slot)? = value;
    *bucket.windows.get_mut(slot)? = allocation.window;
    release(bucket, slot, key)
}

/// Takes an allocation out.
#[inline(always)]
pub fn take(key: u64) -> Option<LiveAllocation> {
    let (bucket, slot) = at(live_claim(key))?;
    let allocation = LiveAllocation::unpack(*bucket.values.get(slot)?, *bucket.windows.get(slot)?);
    release(bucket, slot, 0)?;
    Some(allocation)
}

#[inline(always)]
fn at(place: u64) -> Option<(&'static mut LiveBucket, usize)> {
    if place == NOWHERE {
        return None;
    }
    let bucket = LIVE.get_ptr_mut((place >> SLOT_BITS) as u32)?;
    // SAFETY: the pointer leads to a map value, whose fields change only as the module documentation says.
    Some((
        unsafe { &mut *bucket },
        place as usize & ((1 << SLOT_BITS) - 1),
    ))
}

/// Ends the claim of a slot. From here on the slot holds `key`.
#[inline(always)]
fn release(bucket: &mut LiveBucket, slot: usize, key: u64) -> Option<()> {
    let place = bucket.keys.get_mut(slot)?;
    // Other threads must not see the key before the value.
    // SAFETY: the place is a reference's own.
    unsafe { core::ptr::write_volatile(place, key) };
    Some(())
}

/// Whether the table holds an allocation. Another thread may free the allocation at any moment.
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
        let Some((_, bucket)) = bucket(home, distance) else {
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

/// Claims the slot that holds a key, and returns the slot's place. A global function, so that the verifier
/// looks at it once instead of at every call.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn live_claim(key: u64) -> u64 {
    let home = home(key);
    let Some((index, bucket)) = bucket(home, 0) else {
        return NOWHERE;
    };
    if let Some(slot) = claim_key(bucket, key) {
        return place(index, slot);
    }
    if bucket.spilled == 0 {
        return NOWHERE;
    }
    for distance in 1..REACH {
        if let Some((index, behind)) = self::bucket(home, distance)
            && let Some(slot) = claim_key(behind, key)
        {
            // SAFETY: the pointer leads to a field of a map value.
            unsafe { atomic::add(&raw mut bucket.spilled, u64::MAX) };
            return place(index, slot);
        }
    }
    NOWHERE
}

/// Claims a free slot for a key that the table does not hold, and returns the slot's place. A global function, too.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn live_claim_free(key: u64) -> u64 {
    let home = home(key);
    let Some((index, bucket)) = bucket(home, 0) else {
        return NOWHERE;
    };
    if let Some(slot) = claim_free(bucket) {
        return place(index, slot);
    }
    // The home bucket counts as spilled before the key lies anywhere else, so that nobody misses the key there.
    // SAFETY: the pointer leads to a field of a map value.
    unsafe { atomic::add(&raw mut bucket.spilled, 1) };
    for distance in 1..REACH {
        if let Some((index, behind)) = self::bucket(home, distance)
            && let Some(slot) = claim_free(behind)
        {
            return place(index, slot);
        }
    }
    // SAFETY: the pointer leads to a field of a map value.
    unsafe { atomic::add(&raw mut bucket.spilled, u64::MAX) };
    NOWHERE
}

#[inline(always)]
const fn place(index: u32, slot: usize) -> u64 {
    (index as u64) << SLOT_BITS | slot as u64
}

#[inline(always)]
fn claim_key(bucket: &mut LiveBucket, key: u64) -> Option<usize> {
    (0..BUCKET_SLOTS).find(|&slot| bucket.keys[slot] == key && claim(bucket, slot, key))
}

#[inline(always)]
fn claim_free(bucket: &mut LiveBucket) -> Option<usize> {
    for slot in 0..BUCKET_SLOTS {
        if bucket.keys[slot] == 0 && claim(bucket, slot, 0) {
            return Some(slot);
        }
    }
    for slot in 0..BUCKET_SLOTS {
        let old = bucket.keys[slot];
        if is_left_behind(old) && claim(bucket, slot, old) {
            return Some(slot);
        }
    }
    None
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
    // SAFETY: the pointer leads to a field of a map value.
    unsafe { atomic::compare_exchange(&raw mut bucket.keys[slot], key, BUSY_KEY) == key }
}

/// The index of a key's home bucket, by Fibonacci hashing. The upper half of the product depends on every bit
/// of the key, and is scaled to the number of buckets.
#[inline(always)]
fn home(key: u64) -> u32 {
    let product = key.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (product ^ (product >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93) >> 32;
    ((mixed * u64::from(LIVE_BUCKETS.load())) >> 32) as u32
}

/// The bucket `distance` places behind `home`, and its index. The first bucket follows the last.
#[inline(always)]
fn bucket(home: u32, distance: u32) -> Option<(u32, &'static mut LiveBucket)> {
    let buckets = LIVE_BUCKETS.load();
    let mut index = home + distance;
    if index >= buckets {
        index -= buckets;
    }
    let bucket = LIVE.get_ptr_mut(index)?;
    // SAFETY: the pointer leads to a map value, whose fields change only as the module documentation says.
    Some((index, unsafe { &mut *bucket }))
}
