//! Tells the linker, which generates the eBPF code, how to copy memory.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "bpf") {
        // By default, it makes a loop over single bytes of every move and of every fill, however short.
        println!("cargo::rustc-link-arg-bins=--disable-expand-memcpy-in-order");
    }
}
