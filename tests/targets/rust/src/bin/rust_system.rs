//! On the system allocator.

fn main() {
    residue_rust_targets::live();
}
