//! As `oracle_load.c`, in Rust: maps and strings, closures, trait objects, iterators that are inlined
//! into each other, recursion, and panics that unwind and are caught. Runs until it is killed. It is
//! built by rustc alone, without frame pointers.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    fmt::Write as _,
    panic::{AssertUnwindSafe, catch_unwind, panic_any},
    rc::Rc,
    thread,
    time::Duration,
};

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

trait Visit {
    fn visit(&self, random: &mut Random, depth: u32) -> u64;
}

struct Mapped(BTreeMap<u64, String>);
struct Counted(HashMap<String, Vec<u8>>);
struct Sorted;
struct Panicking(Vec<u8>);
struct Catching;
struct Closed(Box<dyn Fn(u64) -> Vec<u64>>);
struct Shared(Rc<Vec<String>>);
struct Iterated;

impl Visit for Mapped {
    fn visit(&self, random: &mut Random, depth: u32) -> u64 {
        let mut map = self.0.clone();
        for _ in 0..random.below(40) {
            let key = random.below(64);
            map.insert(key, format!("{key:040}"));
        }
        map.retain(|key, _| key % 2 == 0);
        descend(random, depth) + map.len() as u64
    }
}

impl Visit for Counted {
    fn visit(&self, random: &mut Random, depth: u32) -> u64 {
        let mut map = self.0.clone();
        for _ in 0..random.below(20) {
            let key = random.below(10).to_string();
            map.entry(key).or_default().extend([1, 2, 3]);
        }
        map.len() as u64 + descend(random, depth)
    }
}

impl Visit for Sorted {
    fn visit(&self, random: &mut Random, depth: u32) -> u64 {
        let mut words: Vec<String> = (0..30).map(|_| random.next().to_string()).collect();
        // The key is made anew, in the comparison.
        words.sort_by_key(|word| word.chars().rev().collect::<String>());
        words.len() as u64 + descend(random, depth)
    }
}

impl Visit for Panicking {
    fn visit(&self, random: &mut Random, depth: u32) -> u64 {
        let kept = self.0.clone();
        if random.below(3) == 0 {
            panic_any(format!("on purpose, {} bytes", kept.len()));
        }
        descend(random, depth) + kept.len() as u64
    }
}

impl Visit for Catching {
    fn visit(&self, random: &mut Random, depth: u32) -> u64 {
        let caught = catch_unwind(AssertUnwindSafe(|| descend(random, depth)));
        match caught {
            Ok(value) => value,
            Err(panic) => panic
                .downcast_ref::<String>()
                .map_or(0, |it| it.repeat(2).len() as u64),
        }
    }
}

impl Visit for Closed {
    fn visit(&self, random: &mut Random, depth: u32) -> u64 {
        let made = (self.0)(random.below(50));
        let more: Vec<Box<dyn Fn() -> String>> = (0..3)
            .map(|index| Box::new(move || format!("{index:080}")) as Box<dyn Fn() -> String>)
            .collect();
        let length: usize = more.iter().map(|make| make().len()).sum();
        descend(random, depth) + (made.len() + length) as u64
    }
}

impl Visit for Shared {
    fn visit(&self, random: &mut Random, depth: u32) -> u64 {
        let mut shared = Rc::clone(&self.0);
        Rc::make_mut(&mut shared).push("one more".repeat(3));
        descend(random, depth) + shared.len() as u64
    }
}

impl Visit for Iterated {
    fn visit(&self, random: &mut Random, depth: u32) -> u64 {
        let queue: VecDeque<u64> = (0..random.below(100)).collect();
        let text = queue
            .iter()
            .filter(|number| *number % 3 != 0)
            .flat_map(|number| [number.to_string(), "and".to_owned()])
            .fold(String::new(), |mut text, word| {
                write!(text, "{word} ").expect("a String takes everything");
                text
            });
        let words: Vec<&str> = text.split_whitespace().collect();
        descend(random, depth) + words.join("-").len() as u64
    }
}

fn make(random: &mut Random) -> Box<dyn Visit> {
    match random.below(8) {
        0 => Box::new(Mapped((0..9).map(|key| (key, "value".repeat(9))).collect())),
        1 => Box::new(Counted(HashMap::from([("key".to_owned(), vec![7; 70])]))),
        2 => Box::new(Sorted),
        3 => Box::new(Panicking(vec![1; 50])),
        4 => Box::new(Catching),
        5 => Box::new(Closed(Box::new(|length| (0..length).collect()))),
        6 => Box::new(Shared(Rc::new(vec!["shared".to_owned(); 5]))),
        _ => Box::new(Iterated),
    }
}

#[inline(never)]
fn descend(random: &mut Random, depth: u32) -> u64 {
    if depth == 0 {
        return vec![0_u8; 1 + random.below(200) as usize].len() as u64;
    }
    make(random).visit(random, depth - 1)
}

fn work(seed: u64) {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    for round in 0_u64.. {
        let depth = random.below(16) as u32;
        // A panic that nobody below has caught is no reason to stop.
        drop(catch_unwind(AssertUnwindSafe(|| {
            descend(&mut random, depth)
        })));
        if round % 16 == 0 {
            thread::sleep(Duration::from_micros(200));
        }
    }
}

fn main() {
    std::panic::set_hook(Box::new(|_| {}));
    for seed in 1..4 {
        thread::spawn(move || work(seed));
    }
    println!("ready");
    work(99);
}
