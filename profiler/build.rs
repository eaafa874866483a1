fn main() {
    let out = std::env::var("OUT_DIR").unwrap();
    std::fs::copy("/tmp/ebpf-target/bpfel-unknown-none/release/residue-ebpf", format!("{out}/residue-ebpf")).unwrap();
    println!("cargo:rerun-if-changed=/tmp/ebpf-target/bpfel-unknown-none/release/residue-ebpf");
}
