//! Makes small ELF files with call frame information.

use object::elf;

/// The file offset of the code.
pub const TEXT_OFFSET: u64 = 0x200;
/// The SVMA of the code.
pub const TEXT: u64 = 0x1200;
/// SVMA - file offset of the sections.
const SECTION_BIAS: u64 = 0x8000;
const EHDR_BYTES: usize = 64;
const PHDR_BYTES: u16 = 56;
const SHDR_BYTES: u16 = 64;
const NAMES: &[u8] = b"\0.eh_frame\0.debug_frame\0.shstrtab\0";

/// Sections of call frame information, with absolute addresses.
#[derive(Clone, Debug, Default)]
pub struct Cfi {
    /// The bytes of the section.
    pub bytes: Vec<u8>,
    is_debug_frame: bool,
}

impl Cfi {
    /// `.eh_frame`
    pub fn eh_frame() -> Self {
        Self::default()
    }

    /// `.debug_frame`
    pub fn debug_frame() -> Self {
        Self {
            is_debug_frame: true,
            ..Self::default()
        }
    }

    /// A section with one FDE for `length` bytes of code. The CIE describes the state after a call.
    pub fn function(length: u64, instructions: &[u8]) -> Self {
        let mut cfi = Self::eh_frame();
        let cie = cfi.cie("", CALLED);
        cfi.fde(cie, TEXT, length, instructions);
        cfi
    }

    /// Appends a CIE, and returns its offset.
    pub fn cie(&mut self, augmentation: &str, instructions: &[u8]) -> usize {
        let at = self.bytes.len();
        let id = if self.is_debug_frame { u32::MAX } else { 0 };
        let mut entry = id.to_le_bytes().to_vec();
        entry.push(1);
        entry.extend_from_slice(augmentation.as_bytes());
        // Code and data alignment factors 1 and -8, return address in column 16.
        entry.extend_from_slice(&[0, 1, 0x78, 16]);
        if augmentation.starts_with('z') {
            // One byte of data for `R`: DW_EH_PE_absptr.
            entry.extend_from_slice(&[1, 0]);
        }
        entry.extend_from_slice(instructions);
        self.entry(&entry);
        at
    }

    /// Appends an FDE for `length` bytes at `start`, SVMA.
    pub fn fde(&mut self, cie: usize, start: u64, length: u64, instructions: &[u8]) {
        let here = self.bytes.len() + size_of::<u32>();
        let pointer = if self.is_debug_frame { cie } else { here - cie };
        let mut entry = (pointer as u32).to_le_bytes().to_vec();
        entry.extend_from_slice(&start.to_le_bytes());
        entry.extend_from_slice(&length.to_le_bytes());
        if self.bytes.get(cie + 9) == Some(&b'z') {
            entry.push(0);
        }
        entry.extend_from_slice(instructions);
        self.entry(&entry);
    }

    fn entry(&mut self, entry: &[u8]) {
        let length = entry.len() as u32;
        self.bytes.extend_from_slice(&length.to_le_bytes());
        self.bytes.extend_from_slice(entry);
    }
}

/// `DW_CFA_def_cfa r7 8; DW_CFA_offset r16 -8`: every CIE for x86-64 begins with these instructions.
pub const CALLED: &[u8] = &[0x0c, 7, 8, 0x90, 1];

/// An object with this code and these sections.
pub fn object(code: &[u8], sections: &[&Cfi]) -> Vec<u8> {
    let mut file = vec![0; TEXT_OFFSET as usize];
    file.extend_from_slice(code);
    let mut headers = vec![vec![0; SHDR_BYTES.into()]];
    for cfi in sections {
        let (name, kind) = if cfi.is_debug_frame {
            (11, 0)
        } else {
            (1, SECTION_BIAS)
        };
        headers.push(section(
            name,
            elf::SHT_PROGBITS,
            file.len(),
            kind,
            &cfi.bytes,
        ));
        file.extend_from_slice(&cfi.bytes);
    }
    headers.push(section(24, elf::SHT_STRTAB, file.len(), 0, NAMES));
    file.extend_from_slice(NAMES);
    let table = file.len() as u64;
    let count = headers.len() as u16;
    file.extend(headers.concat());
    let (header, text) = (ehdr(table, count), phdr(code.len() as u64));
    file[..EHDR_BYTES].copy_from_slice(&header);
    file[EHDR_BYTES..][..text.len()].copy_from_slice(&text);
    file
}

fn ehdr(sections: u64, count: u16) -> Vec<u8> {
    let mut header = vec![0; EHDR_BYTES];
    header[..4].copy_from_slice(&elf::ELFMAG);
    header[4..7].copy_from_slice(&[elf::ELFCLASS64, elf::ELFDATA2LSB, elf::EV_CURRENT]);
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(16, &elf::ET_DYN.to_le_bytes());
    put(18, &elf::EM_X86_64.to_le_bytes());
    put(20, &[elf::EV_CURRENT]);
    put(32, &(EHDR_BYTES as u64).to_le_bytes());
    put(40, &sections.to_le_bytes());
    put(52, &(EHDR_BYTES as u16).to_le_bytes());
    put(54, &PHDR_BYTES.to_le_bytes());
    put(56, &1u16.to_le_bytes());
    put(58, &SHDR_BYTES.to_le_bytes());
    put(60, &count.to_le_bytes());
    put(62, &(count - 1).to_le_bytes());
    header
}

fn phdr(bytes: u64) -> Vec<u8> {
    let mut header = elf::PT_LOAD.to_le_bytes().to_vec();
    header.extend((elf::PF_R | elf::PF_X).to_le_bytes());
    for word in [TEXT_OFFSET, TEXT, TEXT, bytes, bytes, 0x1000] {
        header.extend(word.to_le_bytes());
    }
    header
}

fn section(name: u32, kind: u32, at: usize, bias: u64, bytes: &[u8]) -> Vec<u8> {
    let mut header = name.to_le_bytes().to_vec();
    header.extend(kind.to_le_bytes());
    let address = if bias == 0 { 0 } else { at as u64 + bias };
    for word in [0, address, at as u64, bytes.len() as u64, 0, 1, 0] {
        header.extend(word.to_le_bytes());
    }
    header
}
